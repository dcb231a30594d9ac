"""``intercept.documents``: what a document says to everybody, and what only to some readers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.intercept import documents
from flask_aibridge.bridge.intercept.documents import (
    MAX_PARTS,
    has_too_many_parts,
    is_ambiguous,
    parse_document,
)

NAMES = frozenset({"model", "requests", "params"})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["model", "requests", "x", "X"]), inner)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "text",
    [
        '{"model": "a", "model": "b"}',
        '{"model": "a", "model": "a"}',
        '{"model": "a", "MODEL": "b"}',
        '{"Model": "a"}',
        '{"requests": [], "requests": []}',
        '{"requests": [{"params": {"model": "a"}}, {"params": {"model": "a", "model": "b"}}]}',
        '{"requests": [{"params": {"model": "a"}, "Params": {"model": "b"}}]}',
        '["model"]',
        "null",
        "",
        "{",
        '{"model": "a"} {"model": "b"}',
        '{"x": %s}' % ("[" * 100_000),
    ],
)
def test_what_some_read_otherwise(text: str) -> None:
    """Twice, in upper case, or not at all."""
    assert is_ambiguous(text.encode(), NAMES)


@pytest.mark.parametrize(
    "text",
    [
        '{"model": "a", "x": 1, "x": 2}',
        '{"model": "a", "messages": [{"model": 1, "Model": 2, "model": 3}]}',
        '{"requests": [{"params": {"model": "a"}}, {"params": {"model": "b"}}]}',
        "{}",
    ],
)
def test_what_all_read_alike(text: str) -> None:
    """Members of other names, and objects that are none of those asked for, may say what they like."""
    assert not is_ambiguous(text.encode(), NAMES)


@given(JSON)
def test_what_python_writes_is_not_ambiguous(value: object) -> None:
    """An object, that is: each name is there once, and as it is."""
    data = json.dumps(value).encode()
    assert is_ambiguous(data, NAMES) is (parse_document(data) is None)


MEBIBYTE = 1024 * 1024


def document_of(unit: str, parts: int) -> bytes:
    return f'{{"model": "m", "x": [{unit * parts}0]}}'.encode()


@pytest.mark.parametrize(("unit", "parts"), [("[],", 2), ('{"":0},', 3), ('"",', 2), ("0 ,", 1)])
def test_a_document_of_too_many_parts_is_not_read(
    unit: str, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few megabytes would take a hundred times as many of memory."""
    monkeypatch.setattr(documents, "MAX_PARTS", 20_000)
    monkeypatch.setattr(documents, "_FEW", 10_000)
    few, many = (document_of(unit, number // parts) for number in (19_990, 20_010))
    assert not has_too_many_parts(few)
    assert has_too_many_parts(many)
    assert parse_document(many) is None
    assert is_ambiguous(many, NAMES)


def test_32_mebibytes_of_nothing_are_not_read() -> None:
    """They would be nearly a gigabyte."""
    assert parse_document(document_of("[],", 32 * MEBIBYTE // 3)) is None
    assert MAX_PARTS < 32 * MEBIBYTE // 3


@pytest.mark.parametrize("unit", ["1,2,3,", '\\"', "[{", "QUJD"])
def test_a_long_text_is_one_part(unit: str) -> None:
    """Whatever it is of: tables, code, images."""
    data = b'{"model": "m", "x": "%s"}' % (unit.encode() * (12 * MEBIBYTE // len(unit)))
    assert not has_too_many_parts(data)


@pytest.mark.parametrize("text", ['"' * 4 * MEBIBYTE, '["' + '\\"' * 3 * MEBIBYTE, '"\\' * 3 * MEBIBYTE])
def test_what_is_no_document_is_looked_through_once(text: str) -> None:
    """Strings that do not end, and such."""
    has_too_many_parts(text.encode())
    assert parse_document(text.encode()) is None
