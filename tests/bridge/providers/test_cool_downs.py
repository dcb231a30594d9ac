"""Which keys rest, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.providers.cool_downs import (
    DEFAULT_COOL_DOWN,
    MAX_COOL_DOWN,
    CoolDowns,
    Lane,
    seconds_to_wait,
)

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
CHAT, OTHER_MODEL, OTHER_ROUTE = Lane("/chat", "m"), Lane("/chat", "n"), Lane("/responses", "m")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, DEFAULT_COOL_DOWN),
        ({"Retry-After": "7"}, 7),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "7", "Retry-After-Ms": "250"}, 0.25),
        ({"Retry-After": "7", "retry-after-ms": "soon"}, 7),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:30 GMT"}, 30),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:30 -0000"}, 30),
        ({"Retry-After": "Sunday, 22-Nov-26 12:00:30 GMT"}, 30),
        ({"Retry-After": "Sun, 22 Nov 2026 11:00:00 GMT"}, 0),
        ({"Retry-After": "Sun, 22 Nov 2099 11:00:00 GMT"}, MAX_COOL_DOWN),
        ({"Retry-After": "86400"}, MAX_COOL_DOWN),
        ({"Retry-After": "-1"}, DEFAULT_COOL_DOWN),
        ({"Retry-After": "nan"}, DEFAULT_COOL_DOWN),
        ({"Retry-After": "inf"}, DEFAULT_COOL_DOWN),
        ({"Retry-After": "soon"}, DEFAULT_COOL_DOWN),
        ({"Retry-After": ""}, DEFAULT_COOL_DOWN),
        ({"Retry-After": "Sun, 99 Nov 2026 12:00:30 GMT"}, DEFAULT_COOL_DOWN),
    ],
)
def test_how_long_an_answer_asks_to_wait(headers: dict[str, str], seconds: float) -> None:
    """Milliseconds, seconds, a date, or nothing that can be understood; within bounds."""
    assert seconds_to_wait(headers.items(), NOW) == seconds


@given(st.text(max_size=40), st.text(max_size=10))
def test_whatever_a_provider_says_is_a_time_within_bounds(date: str, milliseconds: str) -> None:
    """Nothing in these headers can raise, or bench a key for ever."""
    headers = [("Retry-After", date), ("Retry-After-Ms", milliseconds)]
    assert 0 <= seconds_to_wait(headers, NOW) <= MAX_COOL_DOWN


def test_dates_of_other_zones_are_read() -> None:
    """They are not HTTP's, and harmless."""
    date = (NOW + timedelta(seconds=5)).strftime("%a, %d %b %Y %H:%M:%S +0000")
    assert seconds_to_wait([("Retry-After", date)], NOW) == 5


def test_a_rate_limit_is_one_of_a_model() -> None:
    """The same key is good for another model, and at another endpoint it is not for this one."""
    rests = CoolDowns()
    rests.rest(0, CHAT, "rate_limited", 100.0, 60)
    assert rests.limited_until(0, CHAT, 130.0) == 160.0
    assert rests.limited_until(0, OTHER_ROUTE, 159.9) == 160.0
    assert rests.limited_until(0, OTHER_MODEL, 100.0) == 100.0
    assert rests.limited_until(1, CHAT, 100.0) == 100.0
    assert rests.limited_until(0, CHAT, 160.0) == 160.0
    assert not rests.was_rejected(0, CHAT, 130.0)


def test_a_rejection_is_one_of_a_route() -> None:
    """A key may lack the rights for one path, which nobody may use to have it left alone on the others."""
    rests = CoolDowns()
    rests.rest(0, CHAT, "rejected", 100.0, 60)
    assert rests.was_rejected(0, OTHER_MODEL, 159.9)
    assert not rests.was_rejected(0, OTHER_MODEL, 160.0)
    assert not rests.was_rejected(0, OTHER_ROUTE, 100.0)
    assert not rests.was_rejected(1, CHAT, 100.0)
    assert rests.limited_until(0, CHAT, 130.0) == 130.0


def test_a_rejection_ends_when_the_key_is_accepted() -> None:
    """On that route; a rate limit does not end by it."""
    rests = CoolDowns()
    for lane in (CHAT, OTHER_ROUTE):
        rests.rest(0, lane, "rejected", 100.0, 60)
    rests.rest(0, CHAT, "rate_limited", 100.0, 60)
    rests.accepted(0, CHAT)
    rests.accepted(1, CHAT)
    assert not rests.was_rejected(0, CHAT, 101.0)
    assert rests.was_rejected(0, OTHER_ROUTE, 101.0)
    assert rests.limited_until(0, CHAT, 101.0) == 160.0


def test_the_longer_rest_counts_and_none_is_longer_than_the_bound() -> None:
    """A later answer with a shorter time does not end the earlier one's."""
    rests = CoolDowns()
    rests.rest(0, CHAT, "rate_limited", 100.0, 60)
    rests.rest(0, CHAT, "rate_limited", 101.0, 1)
    assert rests.limited_until(0, CHAT, 102.0) == 160.0
    rests.rest(0, CHAT, "rate_limited", 101.0, 1e9)
    assert rests.limited_until(0, CHAT, 102.0) == 101.0 + MAX_COOL_DOWN


def test_rests_are_forgotten_when_they_are_over_or_too_many() -> None:
    """The models' names come from callers."""
    rests = CoolDowns(max_resting=3)
    for number in range(10):
        rests.rest(0, Lane("/chat", str(number)), "rate_limited", 100.0, 60)
    assert len(rests) == 3
    assert rests.limited_until(0, Lane("/chat", "0"), 101.0) == 101.0
    assert rests.limited_until(0, Lane("/chat", "9"), 101.0) == 160.0
    rests.rest(0, CHAT, "rejected", 200.0, 60)
    assert len(rests) == 1
