"""Cursors: opaque, bound to their question, and of one spelling each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.services.cursors import (
    MAX_CURSOR,
    Cursor,
    check_limit,
    decode_cursor,
    encode_cursor,
    first_hour,
    first_id,
    first_score,
)
from flask_aibridge.services.records import make_interception_id
from flask_aibridge.services.storage import MAX_LIMIT, Query

PLACES = st.lists(st.one_of(st.text(max_size=30), st.integers(0, 2**50)), min_size=1, max_size=4).map(tuple)
CURSORS = st.builds(Cursor, PLACES, st.integers(0, 10**9))
FIRST = datetime(1970, 1, 2, tzinfo=UTC)
MOMENTS = st.integers(0, 7000 * 365 * 86_400 * 1000).map(
    lambda n: FIRST + timedelta(milliseconds=n, microseconds=n % 997)
)
QUESTIONS = st.one_of(
    st.builds(
        Query,
        initiator=st.none() | st.text(max_size=5),
        model=st.none() | st.text(max_size=5),
        started_after=st.none() | MOMENTS,
    ),
    st.tuples(st.just("sessions"), st.none() | st.text(max_size=5), st.none() | MOMENTS, st.none() | MOMENTS),
)


def shape_of(cursor: Cursor) -> tuple[type, ...]:
    return tuple(map(type, cursor.place))


@given(CURSORS, QUESTIONS)
def test_a_cursor_says_what_it_was_made_of(cursor: Cursor, question: Any) -> None:
    """With the question it was made for, it comes back; its text needs no escaping in a URL."""
    text = encode_cursor(cursor, question)
    assert decode_cursor(text, question, shape_of(cursor)) == cursor
    assert text.replace("-", "").replace("_", "").isalnum()


@given(CURSORS, QUESTIONS, QUESTIONS)
def test_a_cursor_of_another_question_is_refused(cursor: Cursor, question: Any, other: Any) -> None:
    """It says to begin again, and nothing of itself."""
    text = encode_cursor(cursor, question)
    if question == other:
        assert decode_cursor(text, other, shape_of(cursor)) == cursor
    else:
        with pytest.raises(ValueError, match="begin again without a cursor"):
            decode_cursor(text, other, shape_of(cursor))


@given(CURSORS, QUESTIONS, st.data())
def test_a_changed_cursor_is_refused(cursor: Cursor, question: Any, data: st.DataObject) -> None:
    """One character more, less or another."""
    text = encode_cursor(cursor, question)
    at = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from("ABCXYZabcxyz0189-_=+/ \n"))
    for changed in (
        text[:at] + text[at + 1 :],
        text[:at] + letter + text[at:],
        text[:at] + letter + text[at + 1 :],
    ):
        if changed != text:
            with pytest.raises(ValueError):
                decode_cursor(changed, question, shape_of(cursor))


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_what_is_no_cursor_is_refused(text: str) -> None:
    """Any text at all, with the same sentence."""
    with pytest.raises(ValueError, match="begin again without a cursor"):
        decode_cursor(text, Query(), (str,))


@pytest.mark.parametrize(
    "cursor",
    [
        Cursor((1,), 0),
        Cursor((), 0),
        Cursor(("a", "b"), 0),
        Cursor((None,), 0),
        Cursor((["a"],), 0),
        Cursor((True,), 0),
        Cursor(("a",), -1),
        Cursor(("a",), 2**54),
        Cursor(("a",), "1"),  # type: ignore[arg-type]
        Cursor(("a",), True),
    ],
)
def test_a_forged_cursor_is_refused(cursor: Cursor) -> None:
    """Whoever knows how cursors are made can still not say what none says."""
    text = encode_cursor(cursor, Query())
    with pytest.raises(ValueError, match="begin again without a cursor"):
        decode_cursor(text, Query(), (str,))


def test_a_cursor_has_a_bound() -> None:
    """A longer text is not even looked at."""
    long = encode_cursor(Cursor(("x" * MAX_CURSOR,), 0), Query())
    with pytest.raises(ValueError, match="begin again"):
        decode_cursor(long, Query(), (str,))


def test_a_moment_is_the_same_in_every_zone() -> None:
    """What was asked with one offset goes on with another."""
    moment = datetime(2026, 11, 22, 12, tzinfo=UTC)
    elsewhere = moment.astimezone(timezone(timedelta(hours=5, minutes=30)))
    text = encode_cursor(Cursor(("a",), 1), Query(started_after=moment))
    assert decode_cursor(text, Query(started_after=elsewhere), (str,)).total == 1


@given(MOMENTS, MOMENTS, st.integers(0, 2**80 - 1), st.integers(0, 15))
def test_first_id_divides_earlier_ids_from_later_ones(
    moment: datetime, started: datetime, randomness: int, shard: int
) -> None:
    """As text, to the millisecond."""
    interception_id = make_interception_id(started, shard, randomness)
    assert (interception_id >= first_id(moment)) == (first_score(started) >= first_score(moment))


@given(MOMENTS, MOMENTS)
def test_first_hour_divides_earlier_hours_from_later_ones(moment: datetime, other: datetime) -> None:
    """An hour is in if it does not begin before the moment."""
    hour = other.replace(minute=0, second=0, microsecond=0)
    assert (hour.strftime("%Y%m%d%H") >= first_hour(moment)) == (hour >= moment)


@pytest.mark.parametrize("moment", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_the_first_and_last_moments_can_be_asked_for(moment: datetime) -> None:
    """They stand for the lowest and for more than any id."""
    lowest = moment.year == 1
    assert (first_id(moment) == "0" * 12) == lowest
    assert (first_score(moment) == 0) == lowest
    assert len(first_hour(moment)) == 10


@pytest.mark.parametrize("limit", [0, -1, MAX_LIMIT + 1])
def test_a_page_has_from_one_to_a_thousand_items(limit: int) -> None:
    """Anything else is misuse."""
    with pytest.raises(ValueError, match="from 1 to 1000"):
        check_limit(limit)
