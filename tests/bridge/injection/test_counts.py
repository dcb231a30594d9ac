"""Token counts of several rounds: the last value of each, and their sum."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.injection.counts import Counts, added, update, written
from flask_aibridge.bridge.intercept.usage import MAX_COUNTS
from flask_aibridge.services.records import MAX_TOKENS

NAMES = st.sampled_from("abc")
USAGES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2) | st.lists(st.integers()),
    lambda inner: st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=9,
)


def counted(*usages: object) -> Counts:
    counts: Counts = {}
    for usage in usages:
        update(counts, usage)
    return counts


def test_the_last_explicit_value_wins() -> None:
    first = {"a": 5, "b": {"c": 1, "d": 2}, "e": 7}
    last = {"a": None, "b": {"c": 0, "x": "y"}, "e": "z", "f": True}
    assert counted(first, last) == {("a",): 5, ("b", "c"): 0, ("b", "d"): 2, ("e",): 7}


def test_rounds_are_added_up() -> None:
    sums = added(counted({"a": 5, "b": {"c": 1}}), counted({"a": 1, "b": {"d": 2}}))
    assert sums == {("a",): 6, ("b", "c"): 1, ("b", "d"): 2}
    last = {"t": "priority", "b": None, "a": 1, "x": [1.5]}
    assert json.loads(written(last, sums)) == {"t": "priority", "b": {"c": 1, "d": 2}, "a": 6, "x": [1.5]}
    assert last["b"] is None


def test_bounds() -> None:
    """What is no count is not recorded either; nor is one counted forever."""
    assert counted({"a": -1, "b": MAX_TOKENS + 1, "c": MAX_TOKENS}) == {("c",): MAX_TOKENS}
    assert len(counted({str(number): 1 for number in range(999)})) == MAX_COUNTS
    assert counted({"a": {"a": {"a": {"a": {"a": 1}, "b": 2}}}}) == {("a", "a", "a", "b"): 2}


@pytest.mark.parametrize("usage", [None, 1, [], {"x": float("inf")}, {"x": float("nan")}])
def test_what_could_not_be_written_is_left_out(usage: object) -> None:
    assert json.loads(written(usage, {("a",): 1})) == {"a": 1}


@given(USAGES, USAGES, USAGES)
def test_any_usage(first: Any, second: Any, last: Any) -> None:
    sums = added(counted(first), counted(second, last))
    read = json.loads(written(last, sums))
    for path, count in sums.items():
        value = read
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        others = [other for other in sums if other != path and other[: len(path)] == path[: len(other)]]
        assert value == count or others, "a name may be a number's in one report and an object's in another"
