"""Pure: what a caller is told of its rate limit.

The headers are those of draft-ietf-httpapi-ratelimit-headers-10: the policy is ``q`` requests in ``w`` seconds, of
which ``r`` may come in the next ``t`` seconds. A provider's answer may have policies of its own beside it; both are
lists, and this one is called ``aibridge``.
"""

from __future__ import annotations

from math import ceil

from flask_aibridge.bridge.request import Refused
from flask_aibridge.config import RateLimit, parse_rate_limit
from flask_aibridge.errors import RateLimited
from flask_aibridge.services.interfaces import RateStanding


def rate_limit_headers(standing: RateStanding) -> list[tuple[str, str]]:
    """What an answer says of the limit that its request was counted under."""
    return _headers(standing.limit, standing.remaining, standing.reset_after)


def too_many_requests(error: RateLimited) -> Refused:
    """The refusal of a request that came too early. ``Retry-After`` is rounded up: who waits for it is let through."""
    seconds = max(1, ceil(error.retry_after))
    requests, _, period = error.limit.partition(" ")[0].partition("/")
    return Refused(
        429,
        f"This API key is limited to {requests} requests per {period}. Try again in {seconds} s.",
        ("Retry-After", str(seconds)),
        *_headers(parse_rate_limit(error.limit), 0, seconds),
        error=f"rate limit of {error.limit}",
    )


def _headers(limit: RateLimit, remaining: int, seconds: int) -> list[tuple[str, str]]:
    return [
        ("RateLimit-Policy", f'"aibridge";q={limit.requests};w={limit.per}'),
        ("RateLimit", f'"aibridge";r={remaining};t={seconds}'),
    ]
