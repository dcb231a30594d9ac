"""Pure: what a licence allows, and when: :class:`Claims` → :class:`Entitlement` → a :class:`Decision` for a
time.

Nothing is computed per request: the decisions are made beforehand, and a request compares the time with three
numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from flask_aibridge.license.refusals import message

if TYPE_CHECKING:
    from flask_aibridge.license.claims import Claims

__all__ = [
    "FEATURE_SETS",
    "GATEWAY",
    "NOT_BEFORE_LEEWAY",
    "Decision",
    "Entitlement",
    "closed",
    "entitlement",
    "features_of",
]

#: The feature that opens the public door.
GATEWAY: Final = "aibridge"

#: Named bundles: ``feature_set`` → features. A licence's own ``features`` are laid over its set; a name that
#: is not here adds nothing, so that a newer licence still works for the features it spells out.
FEATURE_SETS: Final[Mapping[str, Mapping[str, int]]] = {"aibridge": {GATEWAY: 1}}

#: Seconds by which the clock of this host may be behind the vendor's (``nbf``, ``iat``).
NOT_BEFORE_LEEWAY: Final = 5 * 60


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


OPEN: Final = Decision(True)
OPEN_IN_GRACE: Final = Decision(True, grace=True)


def closed(code: str, detail: str = "") -> Decision:
    """The refusal with this code."""
    return Decision(False, code, message(code, detail))


NOT_YET_VALID: Final = closed("license_not_yet_valid")
EXPIRED: Final = closed("license_expired")


@dataclass(frozen=True)
class Entitlement:
    """One feature's standing over all time. Times are seconds since the epoch; each begins the next standing.

    :param refused: the decision at every time, for a licence that opens nothing.
    """

    starts: float = 0
    term_ends: float = 0
    grace_ends: float = 0
    refused: Decision | None = None

    def at(self, now: float) -> Decision:
        """The decision at a time."""
        if self.starts <= now < self.term_ends:
            return OPEN
        if self.refused is not None:
            return self.refused
        if now < self.starts:
            return NOT_YET_VALID
        return OPEN_IN_GRACE if now < self.grace_ends else EXPIRED


def features_of(claims: Claims) -> dict[str, int]:
    """Every feature of a licence with its limit: those of its bundle, then its own."""
    bundle = FEATURE_SETS.get(claims.feature_set or "", {})
    return {**bundle, **claims.features}


def entitlement(claims: Claims, feature: str = GATEWAY) -> Entitlement:
    """What a licence says about one feature."""
    if features_of(claims).get(feature, 0) <= 0:
        return Entitlement(refused=closed("license_feature_missing", feature))
    starts = max(claims.nbf, claims.iat) - NOT_BEFORE_LEEWAY
    return Entitlement(starts, claims.license_expires, claims.exp)
