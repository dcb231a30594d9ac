"""A breaker: what keeps calls from waiting for a server that is known to be away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Final, Literal, TypeAlias

FAILURES_TO_OPEN: Final = 3
"""Failures in a row after which the server counts as away: one may be a lost connection, three are no accident."""

PROBE_SECONDS: Final = 0.5
"""How long nobody asks a server that is away. Then one caller does, while the others go on being told at once."""

Turn: TypeAlias = Literal["call", "probe", "refused"]
"""What a caller may do: call; call as the only one, to see whether the server is back; or nothing."""


class Breaker:
    """Counts failures and says who may call.

    ``enter`` comes first; who is not refused reports ``succeeded`` or ``failed``. Both tell whether that was news.

    :param clock: seconds that only go up.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._probe_at: float | None = None
        self._healthy_since: float | None = None

    @property
    def healthy_since(self) -> float | None:
        """Since when, by the clock, every call has succeeded; null where the last one failed or there was none."""
        return self._healthy_since

    @property
    def is_open(self) -> bool:
        """Whether the server counts as away and nobody's turn to ask it has come."""
        probe_at = self._probe_at
        return probe_at is not None and self._clock() < probe_at

    def enter(self) -> Turn:
        """What the caller may do now."""
        if self._probe_at is None:
            return "call"
        with self._lock:
            now = self._clock()
            if self._probe_at is None:
                return "call"
            if now < self._probe_at:
                return "refused"
            # Should the prober never report, another gets its turn after the same wait.
            self._probe_at = now + PROBE_SECONDS
            return "probe"

    def succeeded(self) -> bool:
        """Report that the server answered; true where it had counted as away."""
        if self._healthy_since is not None and not self._failures:
            return False
        with self._lock:
            was_away, self._probe_at, self._failures = self._probe_at is not None, None, 0
            if self._healthy_since is None:
                self._healthy_since = self._clock()
        return was_away

    def failed(self, *, at_once: bool = False) -> bool:
        """Report that the server did not answer; true where it counts as away from now on.

        :param at_once: it cannot even be reached, or took as long as a call may; to see that again would cost others
            as much.
        """
        with self._lock:
            was_away, self._healthy_since = self._probe_at is not None, None
            self._failures += 1
            if at_once or was_away or self._failures >= FAILURES_TO_OPEN:
                self._probe_at = self._clock() + PROBE_SECONDS
        return not was_away and self._probe_at is not None
