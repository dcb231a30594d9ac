"""Rate limits of one process alone: where nothing is recorded, and while the store that counts for all is away."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from time import monotonic
from weakref import WeakSet

from flask_aibridge.config import RateLimit
from flask_aibridge.services.interfaces import Authorization, Credential, RateStanding
from flask_aibridge.services.rate_limits import Callers, counted_as

__all__ = ["LocalRateLimits"]


class LocalRateLimits:
    """Counts what this process lets through. Any number of threads may use it; the child of a fork counts anew.

    :param default: the limit of a key that has none of its own; null for none.
    :param clock: seconds.
    """

    def __init__(self, default: RateLimit | None, clock: Callable[[], float] = monotonic) -> None:
        self._default = default
        self._clock = clock
        self._begin_anew()
        _all.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._default}: {len(self._callers)} callers>"

    def count(
        self, credential: Credential | None, authorization: Authorization | None
    ) -> RateStanding | None:
        """Count a request of a key from outside; null where there is no limit.

        :raises RateLimited: where it comes too early.
        """
        if credential is None or credential.key is None or authorization is None:
            return None
        limit = authorization.rate_limit or self._default
        if limit is None:
            return None
        with self._lock:
            return self._callers.count(counted_as(authorization), limit, int(self._clock() * 1_000_000))

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._callers = Callers()


_all: WeakSet[LocalRateLimits] = WeakSet()


def _after_fork_in_child() -> None:
    for limits in list(_all):
        limits._begin_anew()


os.register_at_fork(after_in_child=_after_fork_in_child)
