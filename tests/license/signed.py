"""Signed licences for the tests, a clock to set, and a store that can be away."""

from __future__ import annotations

import itertools
from typing import Any

from flask_aibridge.errors import ConfigError, ServicesUnavailable
from flask_aibridge.license.holder import LicenseHolder
from flask_aibridge.license.issuing import SigningKey, issue_license
from flask_aibridge.license.store import LicenseStore, MemoryLicenseStore, StoredLicense

KEY = SigningKey.generate("k1")
KEYS = {"k1": KEY.public_pem}
DAY = 24 * 60 * 60
NOW = 1_800_000_000

_numbers = itertools.count()


class Clock:
    """Stands still until it is set."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def licence(**claims: Any) -> str:
    """A genuine one for the gateway, in force at ``NOW`` for a year, with 14 days of grace."""
    begins = {"nbf": NOW - DAY, "iat": NOW - DAY, "jti": f"licence-{next(_numbers)}"}
    return issue_license(KEY, **{**begins, **claims})


class SwitchableStore:
    """Opens as itself, and keeps its licences in memory. While ``away``, nothing can be done with it; while
    ``missing``, there is none."""

    def __init__(self, clock: Clock) -> None:
        self.store: LicenseStore = MemoryLicenseStore(clock)
        self.away = False
        self.missing = False
        self.failure: Exception | None = None
        self.opened = 0
        self.asked = 0

    def __call__(self) -> SwitchableStore:
        self.opened += 1
        if self.missing:
            raise ConfigError("There is no store: set AIBRIDGE_REDIS_URL.")
        return self

    def _here(self) -> LicenseStore:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        if self.away:
            raise ServicesUnavailable("Redis at nowhere is away.")
        return self.store

    def version(self) -> int:
        return self._here().version()

    def installed(self) -> tuple[StoredLicense, ...]:
        return self._here().installed()

    def install(self, license_id: str, token: str, uploaded_at: float) -> int | None:
        return self._here().install(license_id, token, uploaded_at)

    def remove(self, license_id: str) -> int | None:
        return self._here().remove(license_id)

    def bump(self) -> int:
        return self._here().bump()

    def take_turn(self, seconds: float) -> float:
        return self._here().take_turn(seconds)

    def deployment_id(self) -> str:
        return self._here().deployment_id()

    def highest_time(self, now: float) -> float:
        return self._here().highest_time(now)


class Installation:
    """A store, a clock for all, and any number of processes' holders of it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = SwitchableStore(self.clock)

    def holder(self, *tokens: str, **options: Any) -> LicenseHolder:
        return LicenseHolder(KEYS, tokens, store=self.store, clock=self.clock, **options)


def code_of(holder: LicenseHolder, feature: str = "aibridge") -> str | None:
    """The standing of a feature as a request finds it, without the thread that a request starts; ``None`` for open."""
    in_force = holder.in_force
    return in_force.schedules[feature].at(in_force.time(holder.clock())).code
