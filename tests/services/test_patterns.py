"""``services.patterns``: which patterns are taken, and that none of them takes for ever."""

from __future__ import annotations

import re
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.services.configuration.patterns import MAX_PATTERN, WrongPattern, compiled

NAMES = ("get_issue", "list_issues", "delete_repository", "a" * 128, "a_" * 64, "")


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "get_issue",
        "^(get|list|search)_",
        "^(get_.*|list_.*|search_.*|read_.*|describe_.*)$",
        r"^(?!delete_)\w+$",
        "(?i)^read",
        "(?i:read)_(?P<what>issue|file)s?",
        r"(_v\d+)?$",
        r"[][(*+?|]\[\(x",
        r"[\](+]+",
        r"^\d{4}-\d{2}-\d{2}$",
        ".*issue.*comment.*",
        "(read|list)?_files?",
        "((get|list)_(issue|file))s",
        "x{",
    ],
)
def test_what_tool_names_need_is_taken(pattern: str) -> None:
    """Alternatives, classes, flags, a few repetitions."""
    assert compiled(pattern) == re.compile(pattern)


@pytest.mark.parametrize(
    "pattern", ["(", "[a", "*", "(?P<a>x)(?P<a>y)", "a{99999999999}", "a**", "(?<=a+)b", "\\"]
)
def test_a_broken_one_says_so(pattern: str) -> None:
    """With what ``re`` says of it."""
    with pytest.raises(WrongPattern, match="is no regular expression: "):
        compiled(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a*)*b",
        "(a|a)*b",
        "((a|b))+x",
        "(?:a?)*b",
        "(a?){40}b",
        "(a{1,9}){1,9}b",
        "(?P<x>(y+))+",
        "(?=(a+))+b",
        r"(\(a+)+",
        r"([)]a+)+b",
        r"([\])]a+)+b",
    ],
)
def test_a_repetition_of_repetitions_is_refused(pattern: str) -> None:
    """Each such may try more ways than there is time for."""
    with pytest.raises(WrongPattern, match="repeats a group"):
        compiled(pattern)


@pytest.mark.parametrize("pattern", [".*.*.*.*x", "a?" * 30 + "a" * 30, "(.*a)(.*b)(.*c)(.*d)"])
def test_too_many_one_behind_the_other_are_refused(pattern: str) -> None:
    """In alternatives there may be any number."""
    with pytest.raises(WrongPattern, match="one behind the other"):
        compiled(pattern)


@pytest.mark.parametrize("pattern", ["(?x)(a+ #)\n)+b", "(?#()a", "(a)?(?(1)b|c)", "(?x:(a+ #)\n))+b"])
def test_what_is_not_read_is_refused(pattern: str) -> None:
    """There could be anything in it."""
    with pytest.raises(WrongPattern):
        compiled(pattern)


def test_a_long_one_is_refused() -> None:
    """However simple it is."""
    assert compiled("x" * MAX_PATTERN).pattern
    with pytest.raises(WrongPattern, match=f"longer than {MAX_PATTERN}"):
        compiled("x" * (MAX_PATTERN + 1))


PIECES = st.lists(
    st.sampled_from(
        [
            "a",
            "a_",
            ".",
            "(",
            "(?:",
            ")",
            "|",
            "*",
            "+",
            "?",
            "{2,9}",
            "[a_]",
            "[",
            "]",
            "\\",
            "\\w",
            "^",
            "$",
            "b",
        ]
    ),
    max_size=14,
).map("".join)


@given(pattern=PIECES)
def test_none_that_is_taken_takes_for_ever(pattern: str) -> None:
    """Whatever it is made of; those that are refused are none of our business."""
    with suppress(WrongPattern):
        found = compiled(pattern)
        begun = time.process_time()
        for name in NAMES:
            found.search(name + "!")
        assert time.process_time() - begun < 10
