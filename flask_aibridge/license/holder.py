"""What is in force in this process: the licences of the configuration and those of the store, evaluated together.

A :class:`LicenseHolder` replaces what is in force by one assignment, so that whoever asks sees the old or the new, and
never waits. It looks at the store's version in a thread of its own, which the first request starts. While the store is
away, what was in force goes on.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final

from flask_aibridge.errors import LicenseError
from flask_aibridge.license.entitlements import (
    CLOCK_TOLERANCE,
    Entitlements,
    evaluate,
    trusted_time,
)
from flask_aibridge.license.features import FEATURES, GATEWAY, USER_LIMIT, Feature
from flask_aibridge.license.installed import Installed
from flask_aibridge.license.licenses import License
from flask_aibridge.license.refresher import Refresher
from flask_aibridge.license.refusals import refusal
from flask_aibridge.license.sources import LicenseTexts
from flask_aibridge.license.usage import UserCount

if TYPE_CHECKING:
    from flask_aibridge.license.schedule import Decision, Schedule
    from flask_aibridge.license.store import LicenseStore

__all__ = ["REFRESH_SECONDS", "InForce", "LicenseHolder"]

logger = logging.getLogger("flask_aibridge.license")

REFRESH_SECONDS: Final = 60.0
"""How often everybody may be asked to read everything again: it costs each process as much as a change."""

EVALUATE_SECONDS: Final = 60.0
"""How often the licences are evaluated although none has changed: so late, at most, it is known that a clock is behind,
and that a term is over is logged."""


@dataclass(frozen=True, slots=True)
class InForce:
    """All that a request needs to know, and where it comes from.

    :param schedules: feature → its decisions at all times.
    :param believed_from: a time before this one is not believed; ``highest`` stands in for it.
    :param entitlements: as of their ``refreshed_at``.
    :param licenses: those of the configuration, then the installed ones.
    """

    schedules: Mapping[str, Schedule]
    believed_from: float
    highest: float
    entitlements: Entitlements
    licenses: tuple[License, ...]

    def time(self, now: float) -> float:
        """The time to judge by, where a clock says ``now``."""
        return now if now >= self.believed_from else self.highest


def _always() -> bool:
    return True


class LicenseHolder:
    """Holds the licences of one app in this process. Nothing connects and no thread starts before it is asked.

    Any number of threads may use it, also after a fork.

    :param public_keys: ``{kid: Ed25519 public key}`` in PEM or base64, beside the built-in ones.
    :param tokens: the licences of the configuration. One that cannot be accepted counts for nothing.
    :param store: opens the store of the installed ones, at the first need; called for each use. Where it raises
        ``ConfigError`` those of the configuration are all there are. ``None`` for no store.
    :param has_store: whether there can be anything in the store; quick. While it is false the store is opened only to
        install something.
    :param deny_lists: signed lists of revoked licences, beside the built-in ones.
    :param count_users: the active users of 30 days, see :func:`~flask_aibridge.license.usage.active_users`.
    :param clock: seconds since the epoch.
    :raises ConfigError: for a public key or a deny list that cannot be used.
    """

    def __init__(
        self,
        public_keys: Mapping[str, str] | None = None,
        tokens: Iterable[str] = (),
        *,
        store: Callable[[], LicenseStore] | None = None,
        has_store: Callable[[], bool] = _always,
        deny_lists: Sequence[str] = (),
        count_users: Callable[[], int] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self._texts = LicenseTexts(public_keys or {}, deny_lists)
        self._tokens = tuple(token for token in tokens if token.strip())
        self._installed = Installed(store, has_store, clock)
        self._users = UserCount(count_users)
        self._features = dict(FEATURES)
        self._said: str | None = "license_required"  # a development machine has none, and needs no warning
        # Between those who change what is in force; a request takes it as it is.
        self._changing = threading.Lock()
        self.refresher = Refresher(self.look, listener=self._installed.listener, needed=store is not None)
        self._put_in_force()
        _holders.add(self)

    def __repr__(self) -> str:
        away = "" if self.away_since is None else ", the store is away"
        return f"<{type(self).__name__}: {len(self.in_force.licenses)} licences{away}>"

    @property
    def away_since(self) -> float | None:
        """Since when (seconds since the epoch) the store has been away; ``None`` while it is not."""
        return self._installed.away_since

    # For each request

    def decide(self, feature: str, now: float) -> tuple[InForce, Decision]:
        """The decision about a feature, and by what: a comparison of numbers, but for the first requests of a process
        (see :meth:`Refresher.settle`) and the first of a feature that is not in the table, which is declared.

        :param now: seconds since the epoch.
        """
        if not self.refresher.is_settled:
            self._settle(feature, now)
        in_force = self.in_force
        schedule = in_force.schedules.get(feature)
        if schedule is None:
            self.declare(feature)
            return self.decide(feature, now)
        return in_force, schedule.at(in_force.time(now))

    def _settle(self, feature: str, now: float) -> None:
        def is_open() -> bool:
            schedule = self.in_force.schedules.get(feature)
            return schedule is not None and schedule.at(self.in_force.time(now)).open

        self.refresher.settle(is_open)

    def declare(self, *features: str) -> None:
        """Add features of the host's own to the table, each one that is on or off."""
        with self._changing:
            new = [name for name in features if name not in self._features]
            if new:
                own = {name: Feature(name, f"the feature {name}", "switch") for name in new}
                self._features = {**self._features, **own}
                self._put_in_force()

    # For the management routes and commands

    def entitlements(self) -> Entitlements:
        """What the licences allow, evaluated now, with the active users (counted every five minutes at most). While the
        store is away: as it was read last, and a warning."""
        self.look()
        self._users.current()
        with self._changing:
            self._put_in_force()
            entitlements = self.in_force.entitlements
        return replace(entitlements, warnings=(*entitlements.warnings, *self._installed.warnings()))

    def licenses(self) -> tuple[License, ...]:
        """Every licence, whether it counts or not: those of the configuration, then the installed ones."""
        self.look()
        return self.in_force.licenses

    def inspect(self, token: str) -> License:
        """The licence that a text is, refused or not, as it would be here; it is not installed."""
        self.look()
        return self._license(token)

    def install(self, token: str) -> License:
        """Verify a licence and install it for everybody; here it is in force at once.

        One that begins later can be installed today. One with the id of another replaces it.

        :raises LicenseError: for one that cannot be accepted, or is over; nothing is changed.
        :raises ConfigError: where there is no store; the message names the remedies.
        :raises ServicesUnavailable: where the store is away.
        """
        store = self._installed.open()
        self.look()  # for the latest time that was seen: a clock that was turned back does not make an old one new
        license_ = self._acceptable(token, store.deployment_id())
        if store.install(license_.id, "".join(token.split()), license_.uploaded_at or 0.0) is None:
            raise refusal("license_too_many")
        self._look_again()
        return license_

    def remove(self, license_id: str) -> bool:
        """Remove an installed licence for everybody; false where there is none with this id.

        :raises ConfigError: where there is no store.
        :raises ServicesUnavailable: where it is away.
        """
        is_removed = self._installed.open().remove(license_id) is not None
        self._look_again()
        return is_removed

    def refresh(self) -> float:
        """Have everybody read everything again.

        :returns: 0; or, where that was done less than :data:`REFRESH_SECONDS` ago, the seconds until it may be.
        :raises ConfigError: where there is no store.
        :raises ServicesUnavailable: where it is away.
        """
        store = self._installed.open()
        wait = store.take_turn(REFRESH_SECONDS)
        if not wait:
            store.bump()
            self._look_again()
        return wait

    def deployment_id(self) -> str:
        """The id of this installation.

        :raises ConfigError: where there is no store.
        :raises ServicesUnavailable: where it is away.
        """
        return self._installed.open().deployment_id()

    def hold(self, token: str) -> License:
        """Verify a licence and hold it in place of those of the configuration: in this process, and not stored.

        :raises LicenseError: for one that cannot be accepted; nothing is changed.
        """
        license_ = self._license(token)
        if license_.refused is not None:
            raise LicenseError(license_.refused.code, license_.refused.message)
        with self._changing:
            self._tokens = (token,)
            self._put_in_force()
        return license_

    def close(self) -> None:
        """End the thread; what is in force stays. The next request starts it again."""
        self.refresher.close()

    # What the thread does

    def look(self) -> None:
        """Read the store if it has changed, and put in force what follows. Never raises."""
        is_news = self._installed.look()
        if is_news or monotonic() >= self._evaluate_at:
            with self._changing:
                self._put_in_force()

    def _look_again(self) -> None:
        """After a change made here. Should the store have gone meanwhile, the thread makes up for it."""
        self._installed.forget_version()
        self.look()

    def _put_in_force(self) -> None:
        self._evaluate_at = monotonic() + EVALUATE_SECONDS
        self.in_force = self._evaluated()
        self._say_decision()

    def _evaluated(self) -> InForce:
        now, is_behind = trusted_time(self.clock(), self._installed.highest)
        licenses = tuple(self._read())
        users = self._users.known
        entitlements = evaluate(
            licenses,
            usage={} if users is None else {USER_LIMIT: users},
            now=now,
            clock_behind=is_behind,
            store_away=self._installed.is_unknown,
            features=self._features,
        )
        highest = -inf if self._installed.highest is None else self._installed.highest
        # Not in a proxy: this is what each request looks into.
        schedules = dict(entitlements.schedules)
        return InForce(schedules, highest - CLOCK_TOLERANCE, highest, entitlements, licenses)

    def _read(self) -> Iterator[License]:
        yield from (self._license(token) for token in self._tokens)
        for each in self._installed.kept.licenses:
            yield self._license(each.token, uploaded_at=each.uploaded_at, license_id=each.id)

    def _license(
        self, token: str, *, uploaded_at: float | None = None, license_id: str | None = None
    ) -> License:
        license_ = self._judged(token, self._installed.kept.deployment_id, uploaded_at, license_id)
        if self._installed.is_unknown and license_.refused is not None and license_.claims is not None:
            # Whose it is cannot be known before the store has been reached. Its customer gets the benefit of that.
            theirs = next(iter(license_.claims.deployment_ids), None)
            return self._judged(token, theirs, uploaded_at, license_id)
        return license_

    def _judged(
        self,
        token: str,
        deployment_id: str | None,
        uploaded_at: float | None = None,
        license_id: str | None = None,
    ) -> License:
        now, _ = trusted_time(self.clock(), self._installed.highest)
        return self._texts.license(
            token, now=now, deployment_id=deployment_id, uploaded_at=uploaded_at, license_id=license_id
        )

    def _acceptable(self, token: str, deployment_id: str) -> License:
        license_ = self._judged(token, deployment_id, uploaded_at=self.clock())
        now, _ = trusted_time(self.clock(), self._installed.highest)
        reason = license_.refusal_at(now)
        if reason is not None and license_.standing(now) != "not_yet_valid":
            raise LicenseError(reason.code, reason.message)
        return license_

    def _say_decision(self) -> None:
        """Log that the public door is closed or open, where that is news."""
        now = self.in_force.time(self.clock())
        decision = self.in_force.schedules[GATEWAY].at(now)
        if decision.code == "license_wrong_deployment" and not self._installed.has_looked:
            return  # which deployment this is, is not known yet
        said, self._said = self._said, decision.code
        if decision.code == said:
            return
        if decision.open:
            logger.info("The public door is open.")
        else:
            logger.warning("The public door is closed (%s). %s", decision.code, decision.message)

    def _after_fork(self) -> None:
        self._changing = threading.Lock()
        self._installed.reset()
        self._users.reset()
        self.refresher.reset()


_holders: weakref.WeakSet[LicenseHolder] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for holder in list(_holders):
        holder._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
