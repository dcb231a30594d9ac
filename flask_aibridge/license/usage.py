"""How much of what is licensed by number is used: the active users, counted from the services' records."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Final

from flask_aibridge.errors import AIBridgeError

if TYPE_CHECKING:
    from flask_aibridge.services.storage import InterceptionReader

__all__ = ["ACTIVE_DAYS", "COUNT_SECONDS", "UserCount", "active_users"]

logger = logging.getLogger("flask_aibridge.license")

ACTIVE_DAYS: Final = 30
"""The days within which a user has to have made a request to count as active."""

COUNT_SECONDS: Final = 300.0
"""How long a count is good for: it reads the roll-ups of 720 hours, and changes slowly."""


def active_users(reader: InterceptionReader, now: float, days: int = ACTIVE_DAYS) -> int:
    """How many different users have made a request within so many days, to the hour.

    :param reader: the services' store.
    :param now: seconds since the epoch.
    :raises ServicesUnavailable: where the store is away.
    """
    # The next hour begins in the future, so that the present one counts.
    until = datetime.fromtimestamp(now, UTC) + timedelta(hours=1)
    rows = reader.usage(since=until - timedelta(days=days), until=until, group_by=("user",))
    return len({row.user for row in rows if row.user})


class UserCount:
    """A number that is slow to get, and how it was last found. Safe in any number of threads.

    :param count: counts anew; raises an ``AIBridgeError`` where that cannot be done. ``None`` where nobody counts.
    :param clock: seconds that only go up.
    """

    def __init__(self, count: Callable[[], int] | None, clock: Callable[[], float] = monotonic) -> None:
        self._count = count
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Forget that somebody may be counting: for the child of a fork."""
        self._counting = threading.Lock()
        self._due = float("-inf")
        self.known: int | None = None
        """The last count, without counting; ``None`` before the first."""

    def current(self) -> int | None:
        """The count, no older than :data:`COUNT_SECONDS`; the last one where there is no newer to be had, or while
        another thread counts."""
        if self._count is None or self._clock() < self._due or not self._counting.acquire(blocking=False):
            return self.known
        try:
            self._due = self._clock() + COUNT_SECONDS
            self.known = self._count()
        except AIBridgeError as error:
            logger.info("The active users cannot be counted now: %s", error)
        finally:
            self._counting.release()
        return self.known
