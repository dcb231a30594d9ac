"""Metadata is never the reason that a record is refused."""

from __future__ import annotations

import enum
import json
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given

from flask_aibridge.services.schemas.metadata import MAX_DEPTH, MAX_METADATA, compact, plain_metadata
from tests.services.messages import metadata


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Secretive:
    def __repr__(self) -> str:
        raise AssertionError("Nothing asks for it.")


@given(metadata)
def test_anything_becomes_json_within_the_limit(drawn: Any) -> None:
    """Valid JSON, in any encoding, and the same when it is done again."""
    plain = plain_metadata(drawn)
    text = compact(plain)
    assert len(text.encode("utf-8").decode()) <= MAX_METADATA + 2
    assert json.loads(text) == plain
    assert plain_metadata(plain) == plain


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (object(), "<object>"),
        (Secretive(), "<Secretive>"),
        (b"key", "<bytes>"),
        ({1, 2}, "<set>"),
        (float("nan"), "<float nan>"),
        (float("-inf"), "<float -inf>"),
        (2**63, "<int of more than 64 bits>"),
        (10**5000, "<int of more than 64 bits>"),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        ("a\ud800", "a\ufffd"),
        ((1, [2.5, None, True]), [1, [2.5, None, True]]),
        (MappingProxyType({"a": Colour.RED}), {"a": "red"}),
        (Level.HIGH, 3),
        ({1: 2, None: 3, Level.HIGH: 4}, {"1": 2, "<NoneType>": 3, "3": 4}),
    ],
    ids=lambda _: "",  # one of them has too many digits to be shown
)
def test_each_value_is_replaced_by_itself(value: Any, plain: Any) -> None:
    """The others stay as they are."""
    assert plain_metadata({"before": 1, "value": value, "after": [1]}) == {
        "before": 1,
        "value": plain,
        "after": [1],
    }


def test_what_is_nested_too_deep_is_described() -> None:
    """Also what contains itself."""
    endless: list[Any] = []
    endless.append(endless)
    text = compact(plain_metadata({"endless": endless}))
    assert text.count("[") == MAX_DEPTH - 1
    assert "<list, nested too deep>" in text


def test_what_is_too_large_is_described() -> None:
    """What comes after it still fits."""
    plain = plain_metadata({"large": "x" * MAX_METADATA, "small": 1})
    assert plain == {"large": "<str, too large>", "small": 1}


def test_there_is_an_end_to_descriptions_too() -> None:
    """Past the limit the rest is left out."""
    plain = plain_metadata({f"key {number}": "x" * 100 for number in range(10_000)})
    assert 0 < len(plain) < 1000
    assert len(compact(plain)) <= MAX_METADATA
    assert plain_metadata({"k" * MAX_METADATA: 1}) == {}
