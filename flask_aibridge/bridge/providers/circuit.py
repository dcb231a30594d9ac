"""Pure: a circuit breaker: who keeps failing is left alone for a while, and then asked carefully.

It is closed until so many requests in a row have failed within an interval, then open for a time, then half open for a
few requests, which all have to succeed. An answer to a request that was let through before the state changed changes
nothing.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from flask_aibridge.config import CircuitBreaker

Verdict: TypeAlias = Literal["success", "failure", "unknown"]
"""How a request went. ``unknown`` is for those that say nothing of the provider, as when the caller gave up."""

State: TypeAlias = Literal["closed", "open", "half_open"]

RETRY_HALF_OPEN: Final = 1.0
"""Seconds to wait while a half-open circuit is being tried: about as long as the head of an answer takes."""


class Circuit:
    """One circuit. Not for several threads at once; times are seconds of one monotonic clock."""

    def __init__(self, settings: CircuitBreaker) -> None:
        self._settings = settings
        self._state: State = "closed"
        self._ends: float | None = None  # of the interval that failures are counted in, or of being open
        self._generation = 0
        self._running = self._failures = self._successes = 0

    def state(self, now: float) -> State:
        """How it stands, after what time alone has changed."""
        if self._ends is not None and now >= self._ends:
            if self._state == "open":
                self._become("half_open", None)
            else:
                self._failures, self._ends = 0, None
        return self._state

    def enter(self, now: float) -> int | None:
        """Let a request pass and return its ticket, which it has to ``leave`` with; null if it must not pass."""
        state = self.state(now)
        if state == "open" or (state == "half_open" and not self._has_room()):
            return None
        self._running += 1
        return self._generation

    def leave(self, ticket: int, verdict: Verdict, now: float) -> None:
        """Take how a request went."""
        state = self.state(now)
        if ticket != self._generation:
            return
        self._running -= 1
        if verdict == "unknown":
            return
        if state == "closed":
            self._count(verdict, now)
        elif verdict == "failure":
            self._open(now)
        else:
            self._successes += 1
            if self._successes >= self._settings.max_requests:
                self._become("closed", None)

    def wait(self, now: float) -> float:
        """Seconds after which to come again, for a request that must not pass."""
        return self._ends - now if self.state(now) == "open" and self._ends is not None else RETRY_HALF_OPEN

    def _count(self, verdict: Verdict, now: float) -> None:
        if verdict == "success":
            self._failures, self._ends = 0, None
            return
        if self._failures == 0 and self._settings.interval > 0:
            self._ends = now + self._settings.interval
        self._failures += 1
        if self._failures >= self._settings.failure_threshold:
            self._open(now)

    def _has_room(self) -> bool:
        # Not how many were let in so far: one that ended without a verdict makes room for another.
        return self._running + self._successes < self._settings.max_requests

    def _open(self, now: float) -> None:
        self._become("open", now + self._settings.timeout)

    def _become(self, state: State, ends: float | None) -> None:
        self._state, self._ends = state, ends
        self._generation += 1
        self._running = self._failures = self._successes = 0
