"""Pure: the rate limit: GCRA, the generic cell rate algorithm of ATM's traffic control (ITU-T I.371).

All that is kept of a caller is one time, the *theoretical arrival time*: when the next request would come, did all come
evenly. A request may be early by a burst of intervals. Times are whole microseconds of one clock, so that this and
``redis/lua/gcra.lua``, which does the same at the server, agree to the last of them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from flask_aibridge.config import RateLimit
from flask_aibridge.errors import RateLimited
from flask_aibridge.services.interfaces import Authorization, RateStanding

MAX_CALLERS: Final = 10_000
"""Callers that are kept in memory, the latest: some 2 MB. One who is forgotten has a whole burst again."""

MICROSECOND: Final = 1e-6


class Decision(NamedTuple):
    """What is kept of the caller from now on; for how long one more request has to wait, in microseconds, and whether
    this one has to; how many more may come now."""

    arrival: int
    next_in: int
    refused: bool
    remaining: int


def decide(limit: RateLimit, arrival: int, now: int, *, again: bool = False) -> Decision:
    """Whether a request that comes now is within the limit. One that is refused leaves all as it was.

    :param arrival: what was kept of the caller; 0 for nothing.
    :param again: it was counted before, and is not again.
    """
    interval = limit.interval
    tolerance = limit.burst * interval
    # Later than a burst from now on it can only be where the clock was turned back, or the limit was another. Some of
    # that is waited for; who would have to wait for longer than another burst begins anew.
    if arrival < now or arrival > now + 2 * tolerance:
        arrival = now
    if not again:
        wait = arrival + interval - tolerance - now
        if wait > 0:
            return Decision(arrival, wait, True, 0)
        arrival += interval
    remaining = max(0, (now + tolerance - arrival) // interval)
    return Decision(arrival, arrival + (remaining + 1) * interval - tolerance - now, False, remaining)


def refusal_of(limit: RateLimit, wait: int) -> RateLimited:
    """The refusal of a request that came too early by microseconds."""
    return RateLimited(wait * MICROSECOND, str(limit))


def standing_of(limit: RateLimit, remaining: int, next_in: int) -> RateStanding:
    """Where a caller stands after a request that was let through; ``next_in`` in microseconds."""
    return RateStanding(limit, remaining, -(-next_in // 1_000_000))


def counted_as(authorization: Authorization) -> str:
    """The name under which the requests of a key count; those of a key without an id, under its user's."""
    return authorization.key_id or f"user:{authorization.user}"


class Callers:
    """What is kept of callers, in memory and by name. Not for several threads at once."""

    def __init__(self, most: int = MAX_CALLERS) -> None:
        self._most = most
        self._arrivals: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._arrivals)

    def count(self, name: str, limit: RateLimit, now: int, *, again: bool = False) -> RateStanding:
        """Count a request.

        :param now: microseconds.
        :param again: it was counted before.
        :raises RateLimited: where it comes too early.
        """
        arrival, next_in, refused, remaining = decide(limit, self._arrivals.get(name, 0), now, again=again)
        if refused:
            raise refusal_of(limit, next_in)
        self._arrivals[name] = arrival
        self._arrivals.move_to_end(name)
        if len(self._arrivals) > self._most:
            self._arrivals.popitem(last=False)
        return standing_of(limit, remaining, next_in)
