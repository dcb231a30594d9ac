"""Pure: a feature's standing over all time: the moments at which the decision changes, and the decisions between.

Computed whenever the licences change, so that a request only looks up the time in a short sorted tuple of
numbers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress, groupby
from math import inf
from operator import itemgetter
from typing import Final, NamedTuple

from flask_aibridge.license.refusals import LEAD, Refusal, message

__all__ = ["OPEN", "OPEN_IN_GRACE", "Decision", "Period", "Schedule", "Span", "closed", "refused", "schedule"]


@dataclass(frozen=True)
class Decision:
    """The gate's answer.

    :param open: whether the request may pass.
    :param code: the stable reason for a refusal, or ``None``.
    :param message: the sentence for a refusal, or ``""``.
    :param grace: the paid term is over, and the door is open for now.
    """

    open: bool
    code: str | None = None
    message: str = ""
    grace: bool = False


def closed(code: str, detail: str = "") -> Decision:
    """The refusal with this code."""
    return Decision(False, code, message(code, detail))


def refused(reason: Refusal) -> Decision:
    """The refusal that a licence which cannot be accepted leads to."""
    return Decision(False, reason.code, LEAD + reason.message)


OPEN: Final = Decision(True)
OPEN_IN_GRACE: Final = Decision(True, grace=True)
NOT_YET_VALID: Final = closed("license_not_yet_valid")
EXPIRED: Final = closed("license_expired")


class Span(NamedTuple):
    """A decision and the times between which it holds: ``begins <= t < ends`` (seconds since the epoch)."""

    begins: float
    ends: float
    decision: Decision


@dataclass(frozen=True)
class Schedule:
    """The decisions about one feature.

    :param boundaries: when the decision changes, ascending (seconds since the epoch); each moment belongs to
        what it begins.
    :param decisions: one more than there are boundaries; no two neighbours are equal.
    """

    boundaries: tuple[float, ...]
    decisions: tuple[Decision, ...]

    @classmethod
    def always(cls, decision: Decision) -> Schedule:
        """The same at all times."""
        return cls((), (decision,))

    def at(self, now: float) -> Decision:
        """The decision at a time."""
        return self.decisions[bisect_right(self.boundaries, now)]

    def span(self, now: float) -> Span:
        """The decision at a time, with the times between which it is the same."""
        index = bisect_right(self.boundaries, now)
        begins = self.boundaries[index - 1] if index else -inf
        ends = self.boundaries[index] if index < len(self.boundaries) else inf
        return Span(begins, ends, self.decisions[index])


class Period(NamedTuple):
    """When one licence grants one feature: entitled from ``starts``, in grace from ``term_ends``, over at
    ``grace_ends``.

    :param capable: there is no limit, or it is not exceeded.
    """

    starts: float
    term_ends: float
    grace_ends: float
    capable: bool


#: What each rank of a period amounts to, best first: in its term, in its grace (of one that suffices, then of
#: one that does not), yet to come, over. A grace that suffices
#: is better than a term that does not; a licence to come is better news than one that is over.
_RANKED: Final = (OPEN, OPEN_IN_GRACE, OPEN, OPEN_IN_GRACE, NOT_YET_VALID, EXPIRED)
_UPCOMING: Final = 4
_OVER: Final = 5


def schedule(periods: Sequence[Period], otherwise: Decision) -> Schedule:
    """The decisions that any number of licences lead to together: at each time, that of the best of them.

    :param otherwise: the decision where no licence grants the feature at any time.
    """
    if not periods:
        return Schedule.always(otherwise)
    tally = [0] * len(_RANKED)
    tally[_UPCOMING] = len(periods)
    boundaries: list[float] = []
    decisions = [NOT_YET_VALID]
    moves = sorted(move for period in periods for move in _moves(period))
    for moment, together in groupby(moves, key=itemgetter(0)):
        for _, left, entered in together:
            tally[left] -= 1
            tally[entered] += 1
        decision = next(compress(_RANKED, tally))
        if decision is not decisions[-1]:
            boundaries.append(moment)
            decisions.append(decision)
    return Schedule(tuple(boundaries), tuple(decisions))


def _moves(period: Period) -> tuple[tuple[float, int, int], ...]:
    """``(time, rank left, rank entered)`` for every change of a period's rank."""
    starts, term_ends, grace_ends, capable = period
    rank = 0 if capable else 2
    term_ends = max(starts, term_ends)
    grace_ends = max(term_ends, grace_ends)
    return (starts, _UPCOMING, rank), (term_ends, rank, rank + 1), (grace_ends, rank + 1, _OVER)
