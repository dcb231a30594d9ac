"""Pure: cursors, which say where the next page of a listing begins; and the ids and scores that times stand for.

A cursor is opaque text: a digest of the question it was made for and of itself, then the place of the last item shown
and the number of all of them. The digest is no secret. It tells a cursor of another question, or one that was cut or
mistyped on the way, from a right one; who forges one gets no more than the same question answers anyway.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeAlias

from flask_aibridge.services.records import milliseconds_of
from flask_aibridge.services.storage import MAX_LIMIT

__all__ = [
    "Cursor",
    "Place",
    "check_limit",
    "decode_cursor",
    "encode_cursor",
    "first_hour",
    "first_id",
    "first_score",
]

MAX_CURSOR: Final = 8192
"""Characters of a cursor: it carries one session id and one user's name, which come from outside."""

LAST_ID: Final = "g"
"""Higher than every id, whose digits are hexadecimal."""

MAX_NUMBER: Final = 2**53
"""The largest number of a cursor, a time in milliseconds or a count: what Redis' scores still hold exactly."""

_DIGEST: Final = 9
"""Bytes of the digest: chance does not hit 72 bits, and base64 needs no padding for them."""

Place: TypeAlias = tuple[Any, ...]
"""Where an item stands in the order of its listing: text and numbers, compared as tuples are."""


class Cursor(NamedTuple):
    """What a cursor says: the page holds what is lower than ``place``; of ``total`` items in all its pages."""

    place: Place
    total: int


def encode_cursor(cursor: Cursor, question: object) -> str:
    """A cursor as text.

    :param question: what the listing was asked for: a dataclass, or a tuple of null, text, numbers and times.
    """
    body = json.dumps([cursor.total, *cursor.place], separators=(",", ":")).encode()
    return urlsafe_b64encode(_digest(body, question) + body).rstrip(b"=").decode()


def decode_cursor(text: str, question: object, *shapes: tuple[type, ...]) -> Cursor:
    """What a cursor says.

    :param shapes: the types that places are made of; without any, a place is any text and numbers.
    :raises ValueError: for what is no cursor, or one of another question.
    """
    try:
        if len(text) > MAX_CURSOR:
            raise ValueError
        raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        body = raw[_DIGEST:]
        if raw[:_DIGEST] != _digest(body, question):
            raise ValueError
        total, *place = json.loads(body)
        cursor = Cursor(tuple(place), total)
        if text != encode_cursor(cursor, question):  # base64 has many spellings, a cursor has one
            raise ValueError
        if isinstance(total, str) or not all(map(_is_plain, (total, *place))):
            raise ValueError
        if shapes and tuple(map(type, place)) not in shapes:
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        raise ValueError(
            "The cursor is not one that this listing gave with the same filters: begin again without a cursor."
        ) from None
    return cursor


def _is_plain(value: object) -> bool:
    """Tell whether this can be part of a cursor: text, or a number that a store can count to."""
    return isinstance(value, str) or (type(value) is int and 0 <= value <= MAX_NUMBER)


def check_limit(limit: int) -> None:
    """
    :raises ValueError: unless so many items may be asked for at once.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"limit is {limit}, and has to be from 1 to {MAX_LIMIT}.")


def first_id(moment: datetime) -> str:
    """What no id of an interception that started then or later is lower than, and every earlier one is.

    To the millisecond, as ids are: what is finer is cut off.
    """
    return f"{first_score(moment):012x}"


def first_score(moment: datetime) -> int:
    """A moment in whole milliseconds since the epoch, rounded down, and no less than 0."""
    return max(0, milliseconds_of(moment))


def first_hour(moment: datetime) -> str:
    """The first hour that does not begin before a moment: ``yyyymmddhh`` in UTC."""
    hour = moment.astimezone(UTC)
    if hour.year < 9999 and (hour.minute or hour.second or hour.microsecond):
        hour += timedelta(hours=1)
    return f"{hour.year:04}{hour.month:02}{hour.day:02}{hour.hour:02}"


def _digest(body: bytes, question: object) -> bytes:
    asked = json.dumps(_plain(question), separators=(",", ":")).encode()
    return sha256(len(asked).to_bytes(4) + asked + body).digest()[:_DIGEST]


def _plain(value: object) -> object:
    """A question in JSON, in which equal questions are equal."""
    if is_dataclass(value):
        return [_plain(getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return value
