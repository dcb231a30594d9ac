"""One table of the configuration, as it was last read: what is known goes on serving while the store is away."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from flask_aibridge.errors import ConfigError, ServicesUnavailable
from flask_aibridge.services.storage import ConfigStore

logger = logging.getLogger("flask_aibridge.services")

FLIGHT_SECONDS: Final = 5.0
"""How long to wait for a read that another thread has begun: the store's own deadline is a second or less, so this only
ends where that thread has died in between."""

NAME_SHOWN: Final = 80
"""Characters of a stored name that a log line shows: enough to find the row, and still one line."""

T = TypeVar("T")


class Unreadable(ValueError):
    """A row cannot be used. The message says why without showing anything of it."""


class Prepare(Protocol):
    """What is done before a read; ``lost`` tells that the store has lost what it had."""

    def __call__(self, store: ConfigStore, *, lost: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class _Read(Generic[T]):
    version: int
    rows: Mapping[str, str]
    value: T


class CachedRows(Generic[T]):
    """What the rows of a table mean, read anew with each call and made sense of where they have changed.

    Calls that come while a read is under way share the next one, so a hundred requests that notice a change are two
    round trips, and nobody gets an answer older than their question. Any number of threads may use it.

    :param store: opens the store; may raise ``ServicesUnavailable``, or ``ConfigError`` where there is none.
    :param meaning: makes the value of the rows; called where they have changed.
    :param fallback: what serves where no read ever succeeded; null for nothing.
    :param prepare: done with the store before a read.
    """

    def __init__(
        self,
        store: Callable[[], ConfigStore],
        table: str,
        meaning: Callable[[Mapping[str, str]], T],
        fallback: Callable[[], T | None],
        prepare: Prepare | None = None,
    ) -> None:
        self._store = store
        self._table = table
        self._meaning = meaning
        self._fallback = fallback
        self._prepare = prepare
        self._flight = threading.Lock()
        _all_rows.add(self)
        self._flights = 0
        self._last: _Read[T] | None = None
        self._failure: Exception | None = None

    def read(self) -> tuple[int, T]:
        """The version and the value. While the store is away the last ones, or version 0 and the fallback.

        :raises ServicesUnavailable: where there is neither.
        """
        asked = self._flights
        if not self._flight.acquire(timeout=FLIGHT_SECONDS):
            return self._known(ServicesUnavailable("The store does not answer."))
        try:
            # A flight with a higher number began after this call did, and is over: its news is new enough.
            if self._flights == asked:
                self._flights += 1
                self._fly()
            return self._known(self._failure)
        finally:
            self._flight.release()

    def _fly(self) -> None:
        try:
            version, rows = self._fetch()
        except (ServicesUnavailable, ConfigError) as error:
            self._went_away(error)
            return
        if self._failure is not None:
            logger.warning("the store is back: its %s configuration is in force again", self._table)
            self._failure = None
        last = self._last
        value = last.value if last is not None and last.rows == rows else self._meaning(rows)
        self._last = _Read(version, dict(rows), value)

    def _fetch(self) -> tuple[int, Mapping[str, str]]:
        store = self._store()
        self._do_prepare(store, lost=False)
        version, rows = store.config_rows(self._table)
        if self._last is not None and version < self._last.version:
            self._do_prepare(store, lost=True)
            version, rows = store.config_rows(self._table)
        return version, rows

    def _do_prepare(self, store: ConfigStore, *, lost: bool) -> None:
        if self._prepare is not None:
            self._prepare(store, lost=lost)

    def _went_away(self, error: Exception) -> None:
        if self._failure is None:
            what = "what was read last" if self._last is not None else "what the app's config says"
            logger.warning(
                "the %s configuration cannot be read from the store (%s): %s goes on in its place",
                self._table,
                error,
                what,
            )
        self._failure = error

    def _known(self, failure: Exception | None) -> tuple[int, T]:
        if self._last is not None:
            return self._last.version, self._last.value
        fallback = self._fallback()
        if fallback is None:
            retry_after: Any = getattr(failure, "retry_after", 1.0)
            raise ServicesUnavailable(
                f"The {self._table} configuration was never read from the store: {failure}", retry_after
            )
        return 0, fallback


_all_rows: weakref.WeakSet[CachedRows[Any]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for rows in list(_all_rows):
        rows._flight = threading.Lock()  # nobody is left here to release the parent's


os.register_at_fork(after_in_child=_after_fork_in_child)


def shown(name: str) -> str:
    """A name from the store, for a log line."""
    return repr(name if len(name) <= NAME_SHOWN else name[:NAME_SHOWN] + "…")
