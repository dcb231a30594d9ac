"""Changing one member of a JSON text: that member changes, and not a byte of the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.intercept.chat_completions import ChatCompletions
from flask_aibridge.bridge.intercept.splice import (
    Span,
    elements,
    is_utf8,
    member,
    with_member,
    with_new_member,
    with_value,
)

SPACES = st.text(" \t\r\n", max_size=3)
NAMES = st.sampled_from(
    ["stream_options", "include_usage", "stream", "a", "b", "\\", '"', "ü", "{", ""]
) | st.text(max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.lists(st.tuples(NAMES, VALUES), max_size=6)
"""Names may come twice, as JSON allows."""


@st.composite
def texts(draw: st.DrawFn, members: list[tuple[str, Any]]) -> bytes:
    """An object as somebody may have written it: any spacing, escapes or not."""

    def write(value: Any) -> str:
        text = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
        return f"{draw(SPACES)}{text}{draw(SPACES)}"

    inside = ",".join(f"{write(name)}:{write(value)}" for name, value in members)
    return f"{draw(SPACES)}{{{inside or draw(SPACES)}}}{draw(SPACES)}".encode("utf-8", "surrogatepass")


OBJECTS = MEMBERS.flatmap(lambda members: st.tuples(st.just(members), texts(members)))


def same(one: object, other: object) -> bool:
    return json.dumps(one) == json.dumps(other)  # NaN is not equal to itself


@given(OBJECTS, NAMES)
def test_a_member_is_found_where_a_parser_finds_it(
    written: tuple[list[tuple[str, Any]], bytes], name: str
) -> None:
    """The last of its name, at the top alone, without the space around it."""
    members, text = written
    span = member(text, name)
    assert (span is not None) == (name in dict(members))
    if span is not None:
        value = text[span.start : span.end]
        assert same(json.loads(value.decode("utf-8", "surrogatepass")), dict(members)[name])
        assert value == value.strip()


@given(OBJECTS)
def test_a_new_member_comes_last(written: tuple[list[tuple[str, Any]], bytes]) -> None:
    """All that was there stays."""
    members, text = written
    edited = with_new_member(text, "new member", b"[1]")
    read = json.loads(edited.decode("utf-8", "surrogatepass"), object_pairs_hook=list)
    assert [name for name, _ in read] == [*(name for name, _ in members), "new member"]
    end = text.rindex(b"}")
    assert edited.startswith(text[:end])
    assert edited.endswith(text[end:])


@pytest.mark.parametrize(
    ("text", "name", "span"),
    [
        (b"{}", "a", None),
        (b'{"a":1}', "a", (5, 6)),
        (b'{"a" : "}" , "b":2}', "a", (7, 10)),
        (b'{"b":{"a":1}}', "a", None),
        (b'{"b":[{"a":1}],"a":[2]}', "a", (19, 22)),
        (b'{"b":"a","c":"\\"a\\":1"}', "a", None),
        (b'{"\\u0061":1}', "a", (10, 11)),
        (b'{"a":1,"a":2}', "a", (11, 12)),
        (b'{"a\\\\":1}', "a\\", (7, 8)),
        (b'{"b":NaN,"a":-1.5e9}', "a", (13, 19)),
    ],
)
def test_spans(text: bytes, name: str, span: tuple[int, int] | None) -> None:
    """Strings that hold JSON, escapes, objects within: none of them misleads."""
    assert member(text, name) == (None if span is None else Span(*span))


def test_a_value_is_replaced_in_its_place() -> None:
    """Nothing moves."""
    assert with_value(b'{"a": 1 }', Span(6, 7), b"null") == b'{"a": null }'


OPTIONS = st.none() | st.dictionaries(NAMES, VALUES, max_size=3) | VALUES


@given(st.data(), MEMBERS, OPTIONS, st.booleans())
def test_a_request_differs_in_that_one_field(
    data: st.DataObject, members: list[tuple[str, Any]], options: Any, has_options: bool
) -> None:
    """Usage is asked for, every other member has its value and its place, and the bytes before and after the change are
    those that came."""
    members = [*members, ("stream", True), *([("stream_options", options)] if has_options else [])]
    body = data.draw(texts(members))
    document = json.loads(body.decode("utf-8", "surrogatepass"))
    wire_format = ChatCompletions(document)
    edited = wire_format.edit_request(body)
    if wire_format.withholder() is None:
        assert edited == body
        return
    read = json.loads(edited.decode("utf-8", "surrogatepass"))
    assert read.pop("stream_options") == {
        **(document.pop("stream_options", None) or {}),
        "include_usage": True,
    }
    assert same(read, document)
    common = len(body) - len(body.rstrip())
    assert edited[len(edited) - common :] == body[len(body) - common :]


@given(st.lists(VALUES, max_size=4), SPACES, SPACES, st.booleans())
def test_elements_are_found_where_a_parser_finds_them(
    values: list[Any], before: str, after: str, ascii_only: bool
) -> None:
    """One span each, without the space around it."""
    inside = ",".join(
        f"{before}{json.dumps(value, ensure_ascii=ascii_only, indent=1)}{after}" for value in values
    )
    text = f"[{inside or before}]".encode("utf-8", "surrogatepass")
    found = [text[span.start : span.end] for span in elements(text)]
    assert same([json.loads(each.decode("utf-8", "surrogatepass")) for each in found], values)
    assert all(each == each.strip() for each in found)


def test_a_member_is_set_whether_it_is_there_or_not() -> None:
    assert with_member(b'{"a" : 1 , "b":2}', "a", b"3") == b'{"a" : 3 , "b":2}'
    assert with_member(b'{"b":2 }', "a", b"3") == b'{"b":2 ,"a":3}'
    assert with_member(b" { } ", "a", b"3") == b' { "a":3} '


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"]
)
def test_only_utf8_can_be_edited_as_bytes(encoding: str) -> None:
    assert is_utf8(' {"a": 1}\n'.encode(encoding)) is (encoding == "utf-8")
