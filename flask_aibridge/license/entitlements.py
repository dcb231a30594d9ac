"""Pure: what this installation may do: licences, usage and a time in, :class:`Entitlements` out.

The rules:

* Any number of licences count together. Per feature the best one wins, whole: the term of one and the limit
  of another are never mixed (``grants``).
* A licence that cannot be accepted, or is not in force, is reported and takes nothing from the others.
* Going over a limit is a warning, never a refusal.
* The gate does not evaluate anything: it looks the time up in a :class:`~.schedule.Schedule` made here, which
  stays right as time goes on, through terms, graces, gaps and licences yet to come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from flask_aibridge.license.features import FEATURE_SETS, FEATURES, GATEWAY, Feature
from flask_aibridge.license.grants import FeatureStanding, FeatureState, best_grant, grants_of
from flask_aibridge.license.licenses import DAY, NOT_BEFORE_LEEWAY
from flask_aibridge.license.schedule import OPEN, Decision, Schedule, closed, refused, schedule
from flask_aibridge.license.warnings import EntitlementWarning, warnings_of

if TYPE_CHECKING:
    from flask_aibridge.license.licenses import License

__all__ = [
    "CLOCK_TOLERANCE",
    "FEATURES",
    "FEATURE_SETS",
    "GATEWAY",
    "NOT_BEFORE_LEEWAY",
    "OPEN",
    "Decision",
    "EntitlementWarning",
    "Entitlements",
    "FeatureEntitlement",
    "Rejected",
    "Schedule",
    "evaluate",
    "trusted_time",
]

#: Seconds by which a clock may go back before it is no longer believed: more than any correction by NTP and
#: any mistaken time zone, less than anybody gains by it.
CLOCK_TOLERANCE: Final = DAY


@dataclass(frozen=True)
class FeatureEntitlement:
    """One feature, as it stands at the time of the evaluation.

    :param enabled: whether it may be used.
    :param limit: how much is licensed; ``None`` for a switch, or while it is not entitled.
    :param actual: how much is used; ``None`` where that is not counted or not known.
    """

    state: FeatureState = "not_entitled"
    enabled: bool = False
    limit: int | None = None
    actual: int | None = None


@dataclass(frozen=True)
class Rejected:
    """A licence that does not count, and why: a code of :data:`~.refusals.REFUSALS` and a sentence."""

    license_id: str
    code: str
    message: str


@dataclass(frozen=True)
class Entitlements:
    """What the licences allow together.

    :param features: every known feature by name, also those that are not entitled.
    :param warnings: what an administrator should do something about.
    :param errors: the licences that do not count now: refused, not valid yet, or expired.
    :param has_license: at least one licence is in force, in its term or its grace.
    :param trial: at least one of those in force is a trial.
    :param refreshed_at: the time that this was evaluated for, in seconds since the epoch.
    :param schedules: feature → its decisions at all times; see :meth:`gate`.
    """

    features: Mapping[str, FeatureEntitlement]
    warnings: tuple[EntitlementWarning, ...]
    errors: tuple[Rejected, ...]
    has_license: bool
    trial: bool
    refreshed_at: float
    schedules: Mapping[str, Schedule] = field(repr=False)

    def gate(self, feature: str = GATEWAY) -> Schedule:
        """The decisions about a feature, for every time, however long ago this was evaluated.

        :raises ValueError: for a feature that is not in the table.
        """
        try:
            return self.schedules[feature]
        except KeyError:
            known = ", ".join(sorted(self.schedules))
            raise ValueError(f"There is no feature {feature!r} to license; there is {known}.") from None


def evaluate(
    licenses: Sequence[License],
    *,
    usage: Mapping[str, int],
    now: float,
    clock_behind: bool = False,
    store_away: bool = False,
    features: Mapping[str, Feature] = FEATURES,
) -> Entitlements:
    """What any number of licences allow together at a time, and when that changes.

    :param licenses: in any order, refused ones and duplicates too.
    :param usage: feature → how much of it is used now; one that is not there is not known.
    :param now: a time to believe, see :func:`trusted_time`.
    :param clock_behind: what :func:`trusted_time` said of the clock.
    :param store_away: there may be installed licences that nobody could read yet.
    :param features: the table of features.
    """
    standings = [
        _standing(feature, licenses, usage.get(feature.name), now, store_away)
        for feature in features.values()
    ]
    in_force = [each for each in licenses if each.standing(now) in {"entitled", "grace_period"}]
    return Entitlements(
        features=MappingProxyType({each.feature.name: _entitlement(each) for each in standings}),
        warnings=warnings_of(standings, now, clock_behind),
        errors=_errors(licenses, now),
        has_license=bool(in_force),
        trial=any(each.claims is not None and each.claims.trial for each in in_force),
        refreshed_at=now,
        schedules=MappingProxyType({each.feature.name: each.schedule for each in standings}),
    )


def _standing(
    feature: Feature, licenses: Sequence[License], used: int | None, now: float, store_away: bool
) -> FeatureStanding:
    actual = used if feature.kind == "limit" else None
    grants = tuple(grants_of(feature, licenses, actual))
    decisions = schedule([grant.period for grant in grants], _without(feature, licenses, store_away))
    best = best_grant(grants, now)
    if best is None:
        return FeatureStanding(feature, grants, actual, decisions, "not_entitled", None)
    return FeatureStanding(feature, grants, actual, decisions, best.state(now), best.limit)


def _without(feature: Feature, licenses: Sequence[License], store_away: bool) -> Decision:
    """The decision while no licence has ever granted the feature: what the administrator should mend first."""
    refusals = (each.refused for each in licenses if each.refused is not None)
    reason = next(refusals, None)
    if reason is not None:
        return refused(reason)
    if store_away:
        return closed("license_store_away")
    return closed("license_feature_missing", feature.name) if licenses else closed("license_required")


def _entitlement(standing: FeatureStanding) -> FeatureEntitlement:
    enabled = standing.state != "not_entitled"
    return FeatureEntitlement(standing.state, enabled, standing.limit, standing.actual)


def _errors(licenses: Iterable[License], now: float) -> tuple[Rejected, ...]:
    reasons = ((each.id, each.refusal_at(now)) for each in licenses)
    found = (Rejected(id_, reason.code, reason.message) for id_, reason in reasons if reason is not None)
    return tuple(dict.fromkeys(found))


def trusted_time(now: float, highest_seen: float | None) -> tuple[float, bool]:
    """The time to judge licences by, and whether the clock is behind it.

    A clock that was turned back by more than :data:`CLOCK_TOLERANCE` is not believed, so that it does not
    revive a licence; one that went back by less is, so that a correction does no harm.

    :param now: what the clock of this host says.
    :param highest_seen: the latest time this installation has ever seen; ``None`` for the first.
    """
    if highest_seen is not None and now < highest_seen - CLOCK_TOLERANCE:
        return highest_seen, True
    return now, False
