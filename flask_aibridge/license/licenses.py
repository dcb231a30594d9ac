"""Pure: one licence as an installation holds it, and its standing at a time.

Needs neither PyJWT nor marshmallow: a host without a licence never imports them. A token becomes a
:class:`License` in ``reading``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from flask_aibridge.license.features import features_of
from flask_aibridge.license.refusals import Refusal, sentence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask_aibridge.license.claims import Claims

__all__ = [
    "DAY",
    "MAX_TIME",
    "NOT_BEFORE_LEEWAY",
    "License",
    "LicenseSource",
    "Standing",
    "day_of",
    "starts_of",
]

DAY: Final = 24 * 60 * 60

#: The last second of the year 9999: what every date library can still show.
MAX_TIME: Final = 253_402_300_799

#: Seconds by which the clock of this host may be behind the vendor's (``nbf``, ``iat``).
NOT_BEFORE_LEEWAY: Final = 5 * 60

LicenseSource: TypeAlias = Literal["config", "installed"]
Standing: TypeAlias = Literal["entitled", "grace_period", "not_yet_valid", "expired", "refused"]


@dataclass(frozen=True)
class License:
    """One licence, whether it counts or not. Times are seconds since the epoch.

    :param id: its ``jti``; for one that cannot be read, made of a digest of its text.
    :param token: the compact JWT.
    :param source: where it came from: the configuration, or the store.
    :param uploaded_at: when it was installed; ``None`` for one of the configuration.
    :param claims: what it says, verified; ``None`` where that cannot be known (a wrong signature, …).
    :param refused: why it cannot count at any time; ``None`` for a genuine one, whatever its dates.
    """

    id: str
    token: str = field(repr=False)
    source: LicenseSource
    uploaded_at: float | None = None
    claims: Claims | None = None
    refused: Refusal | None = None

    def __post_init__(self) -> None:
        if self.claims is None and self.refused is None:
            raise ValueError("A licence has claims, or a reason why it has none.")

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """What it grants: feature → number, unknown ones too; nothing for one that is refused."""
        return {} if self.accepted is None else features_of(self.accepted)

    @property
    def accepted(self) -> Claims | None:
        """The claims of a licence that counts while it lasts; ``None`` for one that is refused."""
        return None if self.refused is not None else self.claims

    def standing(self, now: float) -> Standing:
        """How the licence stands at a time; each boundary belongs to what it begins."""
        claims = self.accepted
        if claims is None:
            return "refused"
        if now < starts_of(claims):
            return "not_yet_valid"
        if now < claims.license_expires:
            return "entitled"
        return "grace_period" if now < claims.exp else "expired"

    def refusal_at(self, now: float) -> Refusal | None:
        """Why it does not count at a time, or ``None`` while it does."""
        standing = self.standing(now)
        if standing == "not_yet_valid" and self.claims is not None:
            return _dated("license_not_yet_valid", "begins", max(self.claims.nbf, self.claims.iat))
        if standing == "expired" and self.claims is not None:
            return _dated("license_expired", "ended", self.claims.exp)
        return self.refused


def starts_of(claims: Claims) -> int:
    """When a licence begins to count: one issued in the future is not valid yet either."""
    return max(claims.nbf, claims.iat) - NOT_BEFORE_LEEWAY


def day_of(moment: float) -> str:
    """A moment as people write it, in UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _dated(code: str, verb: str, moment: float) -> Refusal:
    return Refusal(code, f"{sentence(code)} It {verb} on {day_of(moment)}.")
