"""``license.licenses``: one licence and its standing through time."""

from __future__ import annotations

import pytest

from flask_aibridge.license.licenses import NOT_BEFORE_LEEWAY, License
from flask_aibridge.license.refusals import Refusal
from tests.license.builders import claims, refused


def held(**changes: object) -> License:
    return License("1", "s3cret.s3cret.s3cret", "installed", claims=claims(**changes))


@pytest.mark.parametrize(
    ("now", "standing"),
    [
        (0, "not_yet_valid"),
        (1000 - NOT_BEFORE_LEEWAY - 0.001, "not_yet_valid"),
        (1000 - NOT_BEFORE_LEEWAY, "entitled"),
        (1999.999, "entitled"),
        (2000, "grace_period"),
        (2999.999, "grace_period"),
        (3000, "expired"),
        (10**10, "expired"),
    ],
)
def test_a_licence_through_its_life(now: float, standing: str) -> None:
    """Each boundary belongs to what it begins."""
    assert held().standing(now) == standing


def test_the_later_of_iat_and_nbf_begins_it() -> None:
    """A licence from the future is not valid yet, whatever its nbf says."""
    assert held(iat=1500).standing(1100) == "not_yet_valid"
    assert held(nbf=1500).standing(1100) == "not_yet_valid"
    assert held(nbf=1500).standing(1500) == "entitled"


@pytest.mark.parametrize(
    ("now", "code", "says"),
    [
        (0, "license_not_yet_valid", "It begins on 1970-01-01 00:16 UTC."),
        (1000, None, ""),
        (2500, None, ""),
        (3000, "license_expired", "It ended on 1970-01-01 00:50 UTC."),
    ],
)
def test_why_it_does_not_count(now: float, code: str | None, says: str) -> None:
    """With the date that the administrator looks for."""
    reason = held().refusal_at(now)
    assert (reason.code if reason else None) == code
    assert reason is None or reason.message.endswith(says)


def test_a_refused_licence_grants_nothing_at_any_time() -> None:
    """Also one whose claims are known: they are for the list, not for the gate."""
    reason = Refusal("license_revoked", "A sentence.")
    known = License("1", "t", "installed", claims=claims(), refused=reason)
    for each in (known, refused("license_revoked")):
        assert each.standing(1500) == "refused"
        assert each.refusal_at(1500) == reason
        assert each.accepted is None
        assert each.numbers == {}


def test_its_numbers_are_those_of_its_bundle_and_its_own() -> None:
    """Worked out once."""
    one = held(feature_set="aibridge", features={"user_limit": 5, "x": 1})
    assert one.numbers == {"aibridge": 1, "user_limit": 5, "x": 1}
    assert one.numbers is one.numbers


def test_a_licence_without_claims_has_a_reason() -> None:
    """There is no third way."""
    with pytest.raises(ValueError, match="reason"):
        License("1", "t", "config")


def test_the_token_is_not_in_its_repr() -> None:
    """A log may show the object."""
    assert "s3cret" not in repr(held())
