"""``rate_limits``: GCRA against an oracle that says what is allowed from the definition, and against the Lua of it."""

from __future__ import annotations

import re
from importlib.resources import files
from math import ceil
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.config import RateLimit, parse_rate_limit
from flask_aibridge.errors import RateLimited
from flask_aibridge.services.interfaces import Authorization
from flask_aibridge.services.rate_limits import Callers, counted_as, decide, refusal_of

SECOND = 1_000_000
NOW = 1_790_000_000 * SECOND

limits = st.builds(
    RateLimit,
    requests=st.integers(1, 5000),
    per=st.sampled_from([1, 60, 3600, 86400]),
    burst=st.one_of(st.integers(1, 5), st.integers(1, 10_000)),
)
steps = st.lists(
    st.one_of(st.just(0), st.integers(0, SECOND), st.integers(0, 10**11)), min_size=1, max_size=30
)
jumps = st.lists(st.integers(-(10**11), 10**11), min_size=1, max_size=30)


def bucket(limit: RateLimit, times: list[int]) -> list[bool]:
    """The same limit told as a leaky bucket of time: each request pours an interval in, and it must fit."""
    level, before, allowed = 0, times[0], []
    for now in times:
        level, before = max(0, level - (now - before)), now
        fits = level + limit.interval <= limit.burst * limit.interval
        level += limit.interval if fits else 0
        allowed.append(fits)
    return allowed


def times_of(gaps: list[int]) -> list[int]:
    times = [NOW]
    for gap in gaps:
        times.append(times[-1] + gap)
    return times


@given(limit=limits, gaps=steps)
def test_it_allows_what_a_leaky_bucket_allows(limit: RateLimit, gaps: list[int]) -> None:
    times = times_of(gaps)
    arrival, allowed = 0, []
    for now in times:
        decision = decide(limit, arrival, now)
        allowed.append(not decision.refused)
        if decision.refused:
            assert decision.arrival == arrival, "a refused request changed something"
        arrival = decision.arrival
    assert allowed == bucket(limit, times)


@given(limit=limits, gaps=steps)
def test_what_is_said_of_the_wait_is_right_to_the_microsecond(limit: RateLimit, gaps: list[int]) -> None:
    """One who waits for it is let through, and one who comes a microsecond before is not; so many may come as are
    said to remain."""
    arrival = 0
    for now in times_of(gaps):
        decision = decide(limit, arrival, now)
        arrival = decision.arrival
        if decision.refused:
            assert decide(limit, arrival, now + decision.next_in - 1).refused
            assert not decide(limit, arrival, now + decision.next_in).refused
        assert _possible(limit, arrival, now) == decision.remaining
        assert _possible(limit, arrival, now + decision.next_in) >= decision.remaining + 1
        assert _possible(limit, arrival, now + decision.next_in - 1) == decision.remaining
        error = refusal_of(limit, decision.next_in)
        assert ceil(error.retry_after) * SECOND >= decision.next_in


def _possible(limit: RateLimit, arrival: int, now: int) -> int:
    """How many requests are let through at one moment, by halving, for there may be thousands."""
    tolerance = limit.burst * limit.interval
    low, high = 0, limit.burst
    while low < high:
        middle = (low + high + 1) // 2
        if max(arrival, now) + middle * limit.interval - tolerance <= now:
            low = middle
        else:
            high = middle - 1
    return low


@given(limit=limits, gaps=jumps)
def test_a_clock_that_is_turned_back_locks_nobody_out(limit: RateLimit, gaps: list[int]) -> None:
    """The wait is never longer than two bursts and one request more."""
    now, arrival = NOW, 0
    for gap in gaps:
        now = max(1, now + gap)
        decision = decide(limit, arrival, now)
        arrival = decision.arrival
        assert 0 < decision.next_in <= (2 * limit.burst + 1) * limit.interval


def test_one_that_was_counted_is_not_counted_again() -> None:
    limit = parse_rate_limit("1/minute")
    first = decide(limit, 0, NOW)
    again = decide(limit, first.arrival, NOW, again=True)
    assert (again.refused, again.arrival, again.remaining) == (False, first.arrival, 0)
    assert decide(limit, first.arrival, NOW).refused


def test_callers_are_counted_apart_and_the_latest_are_kept() -> None:
    callers, limit = Callers(most=2), parse_rate_limit("1/minute")
    for name in ("a", "b"):
        callers.count(name, limit, NOW)
    with pytest.raises(RateLimited) as refused:
        callers.count("a", limit, NOW + SECOND)
    assert refused.value.retry_after == pytest.approx(59)
    callers.count("c", limit, NOW)
    assert len(callers) == 2
    callers.count("a", limit, NOW)  # forgotten, and so let through


def test_a_key_without_an_id_counts_for_its_user() -> None:
    assert counted_as(Authorization("ada", "k1")) == "k1"
    assert counted_as(Authorization("ada")) == "user:ada"


_LUA = """
local time = { ARGV[1], ARGV[2] }
local function whole(number) return string.format("%.0f", number) end
local real = redis
local redis = { call = function(name, key, value, ...) -- what expires does so by the clock of the server
  if name == "SET" then return real.call(name, key, value) end
  return real.call(name, key)
end }
"""


@given(limit=limits, gaps=st.one_of(steps, jumps), again=st.booleans())
def test_the_server_decides_alike(
    lua_client: redis.Redis, limit: RateLimit, gaps: list[int], again: bool
) -> None:
    """Lua and Python agree on any sequence of times, forwards and back, to the microsecond."""
    text = _LUA + _gcra() + "\nlocal remaining, next_in = count(KEYS[1], ARGV[3], ARGV[4] == '1')"
    text += "\nreturn { remaining or -1, next_in, redis.call('GET', KEYS[1]) or '0' }"
    lua_client.delete("rate")
    arrival, now = 0, NOW
    for number, gap in enumerate([0, *gaps]):
        now = max(SECOND, now + gap)
        repeated = again and number % 3 == 2
        expected = decide(limit, arrival, now, again=repeated)
        found: Any = lua_client.eval(
            text, 1, "rate", str(now // SECOND), str(now % SECOND), str(limit), str(int(repeated))
        )
        remaining = -1 if expected.refused else expected.remaining
        assert found[:2] == [remaining, expected.next_in]
        if not expected.refused and not repeated:
            assert int(found[2]) == expected.arrival
            arrival = expected.arrival


def _gcra() -> str:
    return (files("flask_aibridge.services.redis") / "lua" / "gcra.lua").read_text("utf-8")


def test_the_periods_are_the_same_in_both() -> None:
    """The Lua has a table of its own."""
    found = re.search(r"PERIODS = \{(.*)\}", _gcra())
    assert found is not None
    words = dict(pair.strip().split(" = ") for pair in found[1].split(","))
    assert {word: int(value) // SECOND for word, value in words.items()} == {
        "second": 1,
        "minute": 60,
        "hour": 3600,
        "day": 86400,
    }


@pytest.fixture(scope="module")
def lua_client(server_of_kind: Any) -> Any:
    kind = "valkey"
    try:
        server = server_of_kind(kind)
    except pytest.skip.Exception:
        server = server_of_kind("redis")
    with server.client() as client:
        yield client
