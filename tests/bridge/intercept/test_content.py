"""What people and models said, within bounds."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.intercept.content import (
    MAX_NAME,
    MAX_TEXT,
    Budget,
    cut,
    dicts,
    json_text,
    name_of,
    texts,
)


@given(st.lists(st.text(max_size=5) | st.none() | st.integers(), max_size=8))
def test_pieces_make_a_text(pieces: list[object]) -> None:
    """Anything but strings says nothing."""
    gathered = Budget().text()
    for piece in pieces:
        gathered.add(piece)
    assert str(gathered) == "".join(piece for piece in pieces if isinstance(piece, str))
    assert bool(gathered) == bool(str(gathered))


@given(st.lists(st.text(min_size=1, max_size=5), max_size=8), st.integers(0, 20))
def test_all_texts_of_an_answer_share_a_budget(pieces: list[str], room: int) -> None:
    """What is cut says so, and nothing is taken after it."""
    budget = Budget(room)
    gathered = [budget.text(), budget.text()]
    for number, piece in enumerate(pieces):
        gathered[number % 2].add(piece)
    total = "".join(map(str, gathered))
    assert len(total) <= room + 2  # an ellipsis for each
    if len("".join(pieces)) <= room:
        assert sorted(total) == sorted("".join(pieces))


def test_a_text_is_cut_at_its_limit() -> None:
    """With an ellipsis in the last place; what follows is not taken."""
    gathered = Budget().text()
    gathered.add("x" * MAX_TEXT)
    assert len(str(gathered)) == MAX_TEXT
    gathered.add("yy")
    gathered.add("z")
    assert str(gathered) == "x" * MAX_TEXT + "…"
    assert cut("abc", 3) == "abc"
    assert cut("abcd", 3) == "ab…"


def test_arguments_as_text() -> None:
    """A value is written shortest; a text stays; what is nested beyond reason is left out."""
    assert json_text({"ü": [1, None]}) == '{"ü":[1,null]}'
    assert json_text("{ }") == "{ }"
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    assert json_text(deep) == ""
    while isinstance(deep, list):
        deep = deep[0]
    assert json.loads(json_text({"a": 1.5})) == {"a": 1.5}


def test_names_objects_and_parts() -> None:
    """Wrong types are nothing."""
    assert name_of("x" * 1000) == "x" * MAX_NAME
    assert name_of("") is name_of(7) is name_of(None) is None
    assert dicts([{}, 1, {"a": 2}]) == [{}, {"a": 2}]
    assert dicts({"a": 1}) == []
    assert texts([{"type": "text", "text": "a"}, {"type": "text"}, {"type": "x", "text": "b"}], "text") == [
        "a"
    ]
