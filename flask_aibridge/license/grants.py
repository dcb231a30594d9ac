"""Pure: what each licence grants of one feature, which of several grants is the best at a time, and how the
feature stands for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from flask_aibridge.license.features import granted
from flask_aibridge.license.licenses import starts_of
from flask_aibridge.license.schedule import Period

if TYPE_CHECKING:
    from flask_aibridge.license.features import Feature
    from flask_aibridge.license.licenses import License
    from flask_aibridge.license.schedule import Schedule

__all__ = ["FeatureStanding", "FeatureState", "Grant", "best_grant", "grants_of"]

FeatureState: TypeAlias = Literal["entitled", "grace_period", "not_entitled"]

_WEIGHTS: Final = {"entitled": 1, "grace_period": 0}


class Grant(NamedTuple):
    """One feature of one licence.

    :param period: when it is granted, and whether it suffices.
    :param limit: how much is licensed; ``None`` for a switch.
    :param trial: the licence is a trial.
    """

    period: Period
    limit: int | None
    trial: bool

    def state(self, now: float) -> FeatureState:
        """What it amounts to at a time."""
        if now < self.period.starts:
            return "not_entitled"
        if now < self.period.term_ends:
            return "entitled"
        return "grace_period" if now < self.period.grace_ends else "not_entitled"


def grants_of(feature: Feature, licenses: Iterable[License], actual: int | None) -> Iterator[Grant]:
    """What each licence grants of a feature, whatever the time; those that do not have it are left out.

    :param actual: how much of the feature is used; ``None`` where that is not known or not counted, and then
        every limit suffices.
    """
    for each in licenses:
        claims = each.accepted
        if claims is None or not granted(feature, each.numbers):
            continue
        limit = each.numbers[feature.name] if feature.kind == "limit" else None
        capable = limit is None or actual is None or limit >= actual
        period = Period(starts_of(claims), claims.license_expires, claims.exp, capable)
        yield Grant(period, limit, claims.trial)


def best_grant(grants: Sequence[Grant], now: float) -> Grant | None:
    """The best at a time, whole: one that suffices before one that does not, then a term before a grace, then
    the greater limit. ``None`` where none is in force."""
    in_force = [grant for grant in grants if grant.state(now) != "not_entitled"]
    return max(in_force, key=lambda grant: _rank(grant, now), default=None)


def _rank(grant: Grant, now: float) -> tuple[bool, int, float]:
    limit = inf if grant.limit is None else grant.limit
    return grant.period.capable, _WEIGHTS[grant.state(now)], limit


@dataclass(frozen=True)
class FeatureStanding:
    """One feature at the time it is judged for, and what it is judged by.

    :param grants: what each licence grants of it.
    :param actual: how much of it is used; ``None`` where that is not known or not counted.
    :param schedule: its decisions at all times.
    :param state: that of the best grant; :param limit: that of the same grant.
    """

    feature: Feature
    grants: Sequence[Grant]
    actual: int | None
    schedule: Schedule
    state: FeatureState
    limit: int | None
