"""``intercept.documents``: what a document says to everybody, and what only to some readers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.intercept.documents import is_ambiguous, parse_document

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
