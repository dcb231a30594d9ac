"""A second, naive answer to what licences allow at one time, written from the rules and nothing else.

No intervals, no sorting, no counting: for one second it looks at every licence, and compares the candidates
two at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flask_aibridge.license.licenses import License


@dataclass(frozen=True)
class Candidate:
    state: str
    limit: int | None
    capable: bool


def candidate(license_: License, feature: str, used: int | None, now: float) -> Candidate | None:
    """What one licence offers now."""
    claims = license_.claims
    if license_.refused is not None or claims is None:
        return None
    number = 1 if claims.feature_set == "aibridge" and feature == "aibridge" else None
    if claims.features.get(feature, -1) >= 0:
        number = claims.features[feature]
    if number is None or (feature == "aibridge" and number == 0):
        return None
    limit = number if feature == "user_limit" else None
    capable = limit is None or used is None or not used > limit
    if now < claims.nbf - 300 or now < claims.iat - 300:
        return Candidate("upcoming", limit, capable)
    if now < claims.license_expires:
        return Candidate("entitled", limit, capable)
    if now < claims.exp:
        return Candidate("grace_period", limit, capable)
    return Candidate("expired", limit, capable)


def better(one: Candidate, other: Candidate) -> Candidate:
    """The better of two that are in force."""
    if one.capable != other.capable:
        return one if one.capable else other
    if one.state != other.state:
        return one if one.state == "entitled" else other
    if one.limit is not None and other.limit is not None and other.limit > one.limit:
        return other
    return one


def best(
    licenses: Sequence[License], feature: str, used: int | None, now: float
) -> tuple[str, int | None, str | None]:
    """``(state, limit, code of the closed door)``."""
    found = [each for each in (candidate(x, feature, used, now) for x in licenses) if each is not None]
    winner: Candidate | None = None
    for each in found:
        if each.state in {"entitled", "grace_period"}:
            winner = each if winner is None else better(winner, each)
    if winner is not None:
        return winner.state, winner.limit, None
    return "not_entitled", None, _why_closed(licenses, found)


def _why_closed(licenses: Sequence[License], found: Sequence[Candidate]) -> str:
    states = {each.state for each in found}
    if "upcoming" in states:
        return "license_not_yet_valid"
    if "expired" in states:
        return "license_expired"
    for license_ in licenses:
        if license_.refused is not None:
            return license_.refused.code
    return "license_feature_missing" if licenses else "license_required"


def first_second_without_a_term(licenses: Sequence[License], seconds: range) -> int:
    """The first of these seconds at which no licence is entitled to the gateway."""
    for second in seconds:
        states = [candidate(each, "aibridge", None, second) for each in licenses]
        if not any(state is not None and state.state == "entitled" for state in states):
            return second
    return seconds.stop
