"""Where installed licences are kept, for every process of an installation: what a store does, and one in memory.

A store keeps licences as they came and judges none of them: what they mean is worked out in each process, by the
:class:`~flask_aibridge.license.holder.LicenseHolder`.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from flask_aibridge.license.licenses import DAY

__all__ = [
    "MAX_INSTALLED",
    "TIME_TOLERANCE",
    "LicenseStore",
    "MemoryLicenseStore",
    "StoredLicense",
]

MAX_INSTALLED: Final = 2_000
"""Licences that a store takes: many times what an installation has, and at 16 KiB each no more than 32 MiB in every
process."""

TIME_TOLERANCE: Final = DAY
"""Seconds by which the clock of a host may be ahead of the store's and still move the highest time: a host whose clock
is years ahead must not end the licences of all others for good."""


@dataclass(frozen=True)
class StoredLicense:
    """A licence as it was installed.

    :param id: its ``jti``.
    :param token: the compact JWT; no secret, but nobody's to see either.
    :param uploaded_at: when it was installed, in seconds since the epoch.
    """

    id: str
    token: str = field(repr=False)
    uploaded_at: float


class LicenseStore(Protocol):
    """Keeps licences, and what the processes of an installation have to agree on.

    Safe in any number of threads. Every method may raise ``ServicesUnavailable``; what then happened to a change is not
    known, and making it again does no harm.
    """

    def version(self) -> int:
        """Another number after each change; 0 before the first."""

    def installed(self) -> tuple[StoredLicense, ...]:
        """Every licence, the one installed first first. Never older than a version that was read before."""

    def install(self, license_id: str, token: str, uploaded_at: float) -> int | None:
        """Keep a licence, in place of the one with its id; the new version. ``None``, and nothing is changed, where
        there are :data:`MAX_INSTALLED` already."""

    def remove(self, license_id: str) -> int | None:
        """Forget a licence; the new version, or ``None`` where there is none with this id."""

    def bump(self) -> int:
        """A new version, so that everybody reads everything again."""

    def take_turn(self, seconds: float) -> float:
        """Claim the one refresh that there may be in so many seconds: 0 for whoever gets it, and for everybody else the
        seconds until the next."""

    def deployment_id(self) -> str:
        """The id of this installation: a UUID, made once."""

    def highest_time(self, now: float) -> float:
        """The latest time that any process has told, this one included (seconds since the epoch).

        :param now: counts up to :data:`TIME_TOLERANCE` ahead of the store's own clock.
        """


@runtime_checkable
class Announcing(Protocol):
    """A store that announces its changes, so that they need not be looked for to be in force at once."""

    def wait_for_change(self, seconds: float) -> bool:
        """Return true when a change is announced, false after so many seconds at most. Announcements may be lost.

        :raises ServicesUnavailable: at once, where nothing can be listened to now.
        """


class MemoryLicenseStore:
    """Satisfies :class:`LicenseStore` within one process: for ``memory://``, and for tests.

    :param clock: the store's own, in seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._licenses: dict[str, StoredLicense] = {}
        self._version = 0
        self._turn_ends = float("-inf")
        self._highest = float("-inf")
        self._deployment_id = str(uuid.uuid4())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self._licenses)} licences>"

    def version(self) -> int:
        """As ``LicenseStore.version``."""
        return self._version

    def installed(self) -> tuple[StoredLicense, ...]:
        """As ``LicenseStore.installed``."""
        with self._lock:
            return in_order(self._licenses.values())

    def install(self, license_id: str, token: str, uploaded_at: float) -> int | None:
        """As ``LicenseStore.install``."""
        with self._lock:
            if len(self._licenses) >= MAX_INSTALLED and license_id not in self._licenses:
                return None
            self._licenses[license_id] = StoredLicense(license_id, token, uploaded_at)
            return self._changed()

    def remove(self, license_id: str) -> int | None:
        """As ``LicenseStore.remove``."""
        with self._lock:
            return self._changed() if self._licenses.pop(license_id, None) else None

    def bump(self) -> int:
        """As ``LicenseStore.bump``."""
        with self._lock:
            return self._changed()

    def take_turn(self, seconds: float) -> float:
        """As ``LicenseStore.take_turn``."""
        with self._lock:
            now = self._clock()
            # The second bound is for a clock that was turned back.
            if now < self._turn_ends <= now + seconds:
                return self._turn_ends - now
            self._turn_ends = now + seconds
            return 0.0

    def deployment_id(self) -> str:
        """As ``LicenseStore.deployment_id``."""
        return self._deployment_id

    def highest_time(self, now: float) -> float:
        """As ``LicenseStore.highest_time``."""
        with self._lock:
            self._highest = max(self._highest, min(now, self._clock() + TIME_TOLERANCE))
            return self._highest

    def _changed(self) -> int:
        self._version += 1
        return self._version


def in_order(licenses: Iterable[StoredLicense]) -> tuple[StoredLicense, ...]:
    """The licences, the one installed first first."""
    return tuple(sorted(licenses, key=lambda each: (each.uploaded_at, each.id)))
