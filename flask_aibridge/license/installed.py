"""What this process knows of its store of licences, and since when the store has been away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Final

from flask_aibridge.errors import ConfigError, ServicesUnavailable
from flask_aibridge.license.licenses import day_of
from flask_aibridge.license.store import Announcing
from flask_aibridge.license.warnings import EntitlementWarning

if TYPE_CHECKING:
    from flask_aibridge.license.store import LicenseStore, StoredLicense

__all__ = ["Installed", "Kept"]

logger = logging.getLogger("flask_aibridge.license")

TIME_SECONDS: Final = 60.0
"""How often the store is told the time: little against the day by which a clock may be wrong."""

OPEN_AGAIN_SECONDS: Final = 5.0
"""How often a store that could not even be opened is opened again: starting an embedded server is work."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What the store said when it was last read.

    :param version: ``None`` before it has ever said anything.
    """

    version: int | None = None
    licenses: tuple[StoredLicense, ...] = ()
    deployment_id: str | None = None


class Installed:
    """Reads a store, and remembers what it said.

    :param store: opens it; called for each use. :param has_store: whether it is worth opening.
    :param clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: Callable[[], LicenseStore] | None,
        has_store: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._has_store = has_store
        self._clock = clock
        self._is_storeless = store is None
        self._must_read = True
        self._open_at = self._time_at = float("-inf")
        self.kept = Kept()
        self.highest: float | None = None
        """The latest time that this installation has seen, as far as this process knows."""
        self.away_since: float | None = None
        """Since when (seconds since the epoch) the store has been away; ``None`` while it is not."""
        self.has_looked = store is None
        """Whether the store has been asked at all, or there is none."""
        self.reset()

    def reset(self) -> None:
        """For the child of a fork: somebody may have been looking in the parent."""
        self._looking = threading.Lock()

    @property
    def is_unknown(self) -> bool:
        """Whether there is a store that this process has not reached yet, because it is away."""
        return self.away_since is not None and self.kept.version is None

    def open(self) -> LicenseStore:
        """The store, to change something in it.

        :raises ConfigError: where there is none. :raises ServicesUnavailable: where it does not start.
        """
        if self._store is None:
            raise ConfigError("There is no store to keep licences in: give this one in the configuration.")
        store = self._store()
        self._is_storeless = False
        self._open_at = float("-inf")
        return store

    def forget_version(self) -> None:
        """Have :meth:`look` read everything."""
        self._must_read = True

    def warnings(self) -> Iterator[EntitlementWarning]:
        """What an administrator should do something about."""
        since = self.away_since
        if since is not None:
            yield EntitlementWarning(
                "license_store_away",
                f"The store of the installed licences has been away since {day_of(since)}; what it had before is "
                "still in force, and changes have to wait. Have Redis started again.",
            )

    def look(self) -> bool:
        """Read the store if it has changed; true where what it says is news, or that it is away.

        Never raises: that the store is away, and that it is back, is logged once each.
        """
        with self._looking:
            try:
                return self._look()
            except Exception as error:
                return self._lost(error)
            finally:
                self.has_looked = True

    def listener(self) -> Callable[[float], bool] | None:
        """What waits for the store to announce a change, as ``Announcing.wait_for_change``; ``None`` for a store that
        does not, or is away. It does not keep this object alive."""
        if self._store is None or self.away_since is not None or self.kept.version is None:
            return None
        try:
            store = self._store()
        except (ConfigError, ServicesUnavailable):
            return None
        return store.wait_for_change if isinstance(store, Announcing) else None

    def _look(self) -> bool:
        store = self._store_if_any()
        if store is None:
            self._note_time()
            return False
        version = store.version()
        is_news = self._must_read or version != self.kept.version
        if is_news:
            self._must_read = False  # first: whoever wants it read again meanwhile is not overlooked
            self.kept = self._read(store, version)
        if is_news or monotonic() >= self._time_at:
            now = self._clock()
            # What was seen while the store was away counts. The store has the last word.
            self.highest = store.highest_time(now if self.highest is None else max(now, self.highest))
            self._time_at = monotonic() + TIME_SECONDS
        self._found()
        return is_news

    def _read(self, store: LicenseStore, version: int) -> Kept:
        try:
            return Kept(version, store.installed(), store.deployment_id())
        except BaseException:
            self._must_read = True
            raise

    def _store_if_any(self) -> LicenseStore | None:
        if self._store is None or self._is_storeless or not self._has_store() or monotonic() < self._open_at:
            return None
        self._open_at = monotonic() + OPEN_AGAIN_SECONDS
        try:
            store = self._store()
        except ConfigError:  # there is none, which is nothing to complain of
            self._is_storeless = True
            return None
        self._open_at = float("-inf")
        return store

    def _lost(self, error: Exception) -> bool:
        now = self._note_time()
        self._must_read = True  # it may come back with other data and the same version
        is_news = self.away_since is None
        if is_news:
            self.away_since = now
            self._say_lost(error)
        return is_news

    def _note_time(self) -> float:
        """Remember the time in this process, where no store does; the time."""
        now = self._clock()
        self.highest = now if self.highest is None else max(now, self.highest)
        return now

    def _say_lost(self, error: Exception) -> None:
        never = self.kept.version is None
        is_away = isinstance(error, ServicesUnavailable)
        logger.warning(
            "The store of the installed licences has been away since %s; until it is back, %s. (%s)",
            day_of(self.away_since or 0.0),
            "only those of the configuration are in force" if never else "those it had are in force",
            error if is_away else type(error).__name__,
            exc_info=None if is_away else error,
        )

    def _found(self) -> None:
        if self.away_since is not None:
            self.away_since = None
            logger.warning("The store of the installed licences is back.")
