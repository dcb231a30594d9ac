"""Pure: what an administrator should do something about: terms and graces that end, limits, a wrong clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from flask_aibridge.license.licenses import DAY, day_of

if TYPE_CHECKING:
    from flask_aibridge.license.features import Feature
    from flask_aibridge.license.grants import FeatureStanding, Grant

__all__ = ["EXPIRY_WARNING", "TRIAL_EXPIRY_WARNING", "EntitlementWarning", "warnings_of"]

#: Seconds before the end of a paid term at which the warning begins: time enough for a purchase.
EXPIRY_WARNING: Final = 30 * DAY
#: The same for a trial, which is short itself.
TRIAL_EXPIRY_WARNING: Final = 7 * DAY
#: The share of a limit at which the warning begins, in percent.
LIMIT_WARNING: Final = 90


@dataclass(frozen=True)
class EntitlementWarning:
    """Something that an administrator should do something about.

    :param code: the stable machine word: ``license_expires_soon``, ``license_in_grace``,
        ``license_limit_near``, ``license_limit_exceeded`` or ``license_clock_behind``.
    :param message: the sentence for people; printable ASCII on one line, so that it fits a header.
    """

    code: str
    message: str


def warnings_of(
    standings: Sequence[FeatureStanding], now: float, clock_behind: bool
) -> tuple[EntitlementWarning, ...]:
    """Every warning there is, the most urgent first.

    :param standings: every feature at this time.
    :param clock_behind: the clock is not believed, see
        :func:`~flask_aibridge.license.entitlements.trusted_time`.
    """
    return (
        *(_clock() if clock_behind else ()),
        *_in_grace(standings, now),
        *_expiring(standings, now),
        *chain.from_iterable(map(_limit, standings)),
    )


def _clock() -> Iterator[EntitlementWarning]:
    yield EntitlementWarning(
        "license_clock_behind",
        "The clock of this host is more than a day behind a time that this installation has already seen; "
        "licences are judged by the later time. Set the clock right (NTP).",
    )


def _in_grace(standings: Iterable[FeatureStanding], now: float) -> Iterator[EntitlementWarning]:
    """One warning for all features whose grace ends at the same time in the same way."""
    ending = defaultdict(list)
    for each in standings:
        if each.state == "grace_period":
            ends = each.schedule.span(now).ends
            ending[ends, each.schedule.at(ends).open].append(each.feature)
    for (ends, goes_on), features in sorted(ending.items(), key=itemgetter(0)):
        then = f"another licence takes over on {day_of(ends)}." if goes_on else _renew(ends)
        yield EntitlementWarning(
            "license_in_grace",
            f"The licence for {_named(features)} has expired and is in its grace period: {then}",
        )


def _renew(ends: float) -> str:
    return f"the grace ends on {day_of(ends)}; ask the vendor for a new licence and install it before then."


def _expiring(standings: Iterable[FeatureStanding], now: float) -> Iterator[EntitlementWarning]:
    """One warning for all features whose term ends at the same time, no later licence going on from there."""
    ending = defaultdict(list)
    for each in standings:
        if each.state == "entitled":
            ends = each.schedule.span(now).ends
            if ends - now <= _notice(each.grants, ends):
                ending[ends].append(each.feature)
    for ends, features in sorted(ending.items()):
        days = ceil((ends - now) / DAY)
        yield EntitlementWarning(
            "license_expires_soon",
            f"The licence for {_named(features)} expires in {days} {'day' if days == 1 else 'days'}, on "
            f"{day_of(ends)}; ask the vendor for the next one, which can be installed at once.",
        )


def _notice(grants: Iterable[Grant], ends: float) -> int:
    """How long before this end the warning begins: that of a trial if only trials end there."""
    trials = all(grant.trial for grant in grants if grant.period.term_ends == ends)
    return TRIAL_EXPIRY_WARNING if trials else EXPIRY_WARNING


def _limit(standing: FeatureStanding) -> Iterator[EntitlementWarning]:
    limit, actual = standing.limit, standing.actual
    if limit is None or not actual or actual * 100 < limit * LIMIT_WARNING:
        return
    what = f"{actual} {standing.feature.counts} of {limit} licensed"
    if actual > limit:
        yield EntitlementWarning(
            "license_limit_exceeded",
            f"There have been {what}; nothing is blocked. Ask the vendor for a larger licence.",
        )
    else:
        yield EntitlementWarning(
            "license_limit_near",
            f"There have been {what} ({actual * 100 // limit} %); ask the vendor for a larger licence before "
            "the limit is exceeded.",
        )


def _named(features: Iterable[Feature]) -> str:
    return " and ".join(feature.title for feature in features)
