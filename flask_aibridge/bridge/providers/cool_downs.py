"""Pure: which of a provider's keys rest, since when it is known that asking with them is in vain, and until when.

What a key was refused for bounds what it rests for. A rate limit is one of a model, with both OpenAI and Anthropic; a
key that is not accepted may be one that lacks the rights for a single path. And some providers, gateways above all, say
401 for what was asked and not for the key it was asked with: a key that is not accepted is only asked after all others,
until it is accepted again. So a request that only one caller can make never takes a key away from all the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, Literal, NamedTuple, TypeAlias

DEFAULT_COOL_DOWN: Final = 60.0
"""Seconds that a key rests if the provider does not say, and after one that was not accepted, as in the model."""

MAX_COOL_DOWN: Final = 600.0
"""The longest rest in seconds. The limits of a day name hours: to ask once in ten minutes costs little, and finds out
when a limit was raised."""

MAX_RESTING: Final = 1024
"""Rests that are remembered, the latest: one for each key and model, or key and path. The models' names come from
callers, so there could be any number."""

Reason: TypeAlias = Literal["rate_limited", "rejected"]
"""Too much was asked (429), or the key was not accepted (401)."""


class Lane(NamedTuple):
    """What a request asks for, as far as a key may be fit for one thing and not for another."""

    route: str
    model: str | None


class CoolDowns:
    """Until when keys rest. Keys are known by numbers, times are seconds of one monotonic clock.

    Any number of threads may use it, and it has no lock: what is written is never changed again. Of two that write at
    once one may be lost, which costs a request that the provider refuses.
    """

    def __init__(self, max_resting: int = MAX_RESTING) -> None:
        self._max_resting = max_resting
        self._until: dict[tuple[int, Reason, str | None], float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def rest(self, key: int, lane: Lane, reason: Reason, now: float, seconds: float) -> None:
        """Have a key rest for ``seconds``, or for as long as it does already if that is longer."""
        place = _place(key, lane, reason)
        before = self._until
        until = max(now + min(seconds, MAX_COOL_DOWN), before.get(place, now))
        left = [(other, end) for other, end in before.items() if end > now and other != place]
        self._until = dict([*left[max(0, len(left) + 1 - self._max_resting) :], (place, until)])

    def accepted(self, key: int, lane: Lane) -> None:
        """Forget that a key was rejected."""
        before = self._until
        if before and (place := _place(key, lane, "rejected")) in before:
            self._until = {other: end for other, end in before.items() if other != place}

    def was_rejected(self, key: int, lane: Lane, now: float) -> bool:
        """Tell whether a key was not accepted lately, so that any other is to be preferred."""
        until = self._until
        return bool(until) and until.get(_place(key, lane, "rejected"), now) > now

    def limited_until(self, key: int, lane: Lane, now: float) -> float:
        """When the rate limit of a key ends, during which it is not to be used; ``now`` where it has none."""
        until = self._until
        return max(now, until.get(_place(key, lane, "rate_limited"), now)) if until else now


def _place(key: int, lane: Lane, reason: Reason) -> tuple[int, Reason, str | None]:
    return key, reason, lane.model if reason == "rate_limited" else lane.route


def seconds_to_wait(headers: Iterable[tuple[str, str]], now: datetime) -> float:
    """Return how long an answer asks to wait: by ``Retry-After-Ms``, or ``Retry-After`` in seconds or as an HTTP date
    (RFC 9110, section 10.2.3), no longer than ``MAX_COOL_DOWN``; ``DEFAULT_COOL_DOWN`` where it says nothing that can
    be understood."""
    said = {name.lower(): value.strip() for name, value in headers if name.lower().startswith("retry-after")}
    seconds = _number(said.get("retry-after-ms", ""), 1000)
    if seconds is None:
        seconds = _number(said.get("retry-after", ""), 1)
    if seconds is None:
        seconds = _until_date(said.get("retry-after", ""), now)
    return DEFAULT_COOL_DOWN if seconds is None else min(seconds, MAX_COOL_DOWN)


def _number(text: str, parts: int) -> float | None:
    try:
        number = float(text) / parts
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _until_date(text: str, now: datetime) -> float | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())
