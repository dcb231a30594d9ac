"""Whether the services can be reached, and when to try them again."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

_jitter = random.Random()  # noqa: S311 - nothing secret; of its own, since a host may have seeded the shared one  # nosec B311
_log = logging.getLogger("flask_aibridge.services")

FIRST_PAUSE: Final = 0.1
"""Seconds before the first new attempt: an outage may have been one lost packet."""

MAX_PAUSE: Final = 5.0
"""The longest pause between attempts: how late a process notices, at the most, that the services are back."""

_SPREAD: Final = 0.5
"""Pauses are shorter by up to this part, at random, so that the processes of a host do not come back all at once."""


class Availability:
    """What the last calls said. Any thread may report; the writer tries."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """As if nothing had happened: for the child of a fork."""
        self._lock = threading.RLock()
        self._pause = FIRST_PAUSE
        self._said = False
        self.try_at = float("-inf")
        """When the next attempt may be made."""
        self.away_since: datetime | None = None
        """Since when the services have been away; null while they are not."""

    @property
    def is_away(self) -> bool:
        return self.away_since is not None

    def lost(self, reason: Exception) -> None:
        """A call failed: the next attempt is after a pause, each longer than the last."""
        with self._lock:
            now = self._clock()
            if self.away_since is not None and now < self.try_at:
                return
            self.try_at = now + self._pause * (1 - _SPREAD * _jitter.random())
            self._pause = min(2 * self._pause, MAX_PAUSE)
            if self.away_since is None:
                self.away_since = datetime.now(UTC)
                self._say(reason)

    def found(self, *, working: bool = False) -> None:
        """A call succeeded.

        :param working: it was one that stored records. Only then are pauses short again: services that answer some
            calls and not others would be asked all the time.
        """
        if self.away_since is None and not (working and self._pause > FIRST_PAUSE):
            return
        with self._lock:
            self.away_since = None
            if working:
                self._pause = FIRST_PAUSE
                if self._said:
                    self._said = False
                    _log.warning("The services are back: what was kept meanwhile is being recorded.")

    def _say(self, reason: Exception) -> None:
        if not self._said:
            self._said = True
            _log.error(
                "The services are away (%s): records are kept, keys seen lately are accepted.",
                type(reason).__name__,
            )
