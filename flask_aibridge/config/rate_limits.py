"""Pure: how a rate limit is written, and what it means.

``60/minute``: sixty requests at once, then one more each second. ``60/minute burst=20``: twenty at once, then one more
each second. The burst is what a caller who has paused may send without waiting; what comes back is spread evenly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

PERIODS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
"""The words for a period, in seconds."""

MAX_REQUESTS_A_SECOND: Final = 10_000
"""The fastest limit. Beyond it the rounding of the time between two requests, to microseconds, is more than a percent,
and one Redis does not do more anyway."""

MAX_BURST: Final = 10_000
"""The largest burst: what has no bound is no limit."""

FORM: Final = (
    f"a text such as '60/minute' or '60/minute burst=20': requests, one of {', '.join(PERIODS)}, and how many may come "
    f"at once; at most {MAX_REQUESTS_A_SECOND} a second, and bursts of {MAX_BURST}"
)
"""What is allowed, in words."""

_SPELLED: Final = re.compile(r"([0-9]{1,9})/([a-z]+)(?: +burst=([0-9]{1,9}))?")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """``requests`` in each ``per`` seconds, and at most ``burst`` of them at once. As text it is what
    :func:`parse_rate_limit` reads.

    :raises ValueError: for one that cannot be kept.
    """

    requests: int
    per: int
    burst: int

    def __post_init__(self) -> None:
        if self.per not in PERIODS.values() or not 1 <= self.requests <= MAX_REQUESTS_A_SECOND * self.per:
            raise ValueError(f"A rate limit is {FORM}.")
        if not 1 <= self.burst <= MAX_BURST:
            raise ValueError(f"A rate limit is {FORM}.")

    def __str__(self) -> str:
        period = next(word for word, seconds in PERIODS.items() if seconds == self.per)
        return f"{self.requests}/{period} burst={self.burst}"

    @property
    def interval(self) -> int:
        """Microseconds from one request to the next, where they come evenly; rounded up, so that the limit holds."""
        return -(-self.per * 1_000_000 // self.requests)


@lru_cache(maxsize=1000)
def parse_rate_limit(text: str) -> RateLimit:
    """The limit that a text says. Without a burst, all requests of a period may come at once, up to ``MAX_BURST``.

    :raises ValueError: for any other text; the message says what is allowed.
    """
    found = _SPELLED.fullmatch(text.strip())
    if found is None or found[2] not in PERIODS:
        raise ValueError(f"A rate limit is {FORM}.")
    requests = int(found[1])
    return RateLimit(requests, PERIODS[found[2]], int(found[3]) if found[3] else min(requests, MAX_BURST))
