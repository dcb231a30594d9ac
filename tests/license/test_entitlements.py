"""``license.entitlements``: what a licence allows, second by second."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.license.claims import Claims
from flask_aibridge.license.entitlements import NOT_BEFORE_LEEWAY, entitlement, features_of


def claims(**changes: Any) -> Claims:
    base: dict[str, Any] = {
        "iss": "v",
        "sub": "c",
        "jti": "1",
        "version": 1,
        "features": {"aibridge": 1},
        "iat": 1000,
        "nbf": 1000,
        "license_expires": 2000,
        "exp": 3000,
    }
    return Claims(**{**base, **changes})


@pytest.mark.parametrize(
    ("now", "code", "grace"),
    [
        (0, "license_not_yet_valid", False),
        (1000 - NOT_BEFORE_LEEWAY - 0.001, "license_not_yet_valid", False),
        (1000 - NOT_BEFORE_LEEWAY, None, False),
        (1000, None, False),
        (1999.999, None, False),
        (2000, None, True),
        (2999.999, None, True),
        (3000, "license_expired", False),
        (10**10, "license_expired", False),
    ],
)
def test_a_licence_through_its_life(now: float, code: str | None, grace: bool) -> None:
    """Each boundary belongs to what it begins."""
    decision = entitlement(claims()).at(now)
    assert (decision.open, decision.code, decision.grace) == (code is None, code, grace)


def test_the_later_of_iat_and_nbf_begins_it() -> None:
    """A licence from the future is not valid yet, whatever its nbf says."""
    assert entitlement(claims(iat=1500)).at(1100).code == "license_not_yet_valid"


def test_no_grace() -> None:
    """``exp`` equal to ``license_expires`` ends it at once."""
    assert entitlement(claims(exp=2000)).at(2000).code == "license_expired"


@pytest.mark.parametrize("features", [{}, {"aibridge": 0}, {"aibridge": -1}, {"other": 5}])
def test_a_licence_for_something_else(features: dict[str, int]) -> None:
    """It is named, at any time."""
    for now in (0, 1500, 5000):
        decision = entitlement(claims(features=features)).at(now)
        assert (decision.open, decision.code) == (False, "license_feature_missing")
        assert "aibridge" in decision.message


def test_a_bundle_brings_its_features() -> None:
    """And the licence's own are laid over them."""
    assert features_of(claims(feature_set="aibridge", features={"x": 3})) == {"aibridge": 1, "x": 3}
    assert features_of(claims(feature_set="aibridge", features={"aibridge": 0})) == {"aibridge": 0}


@pytest.mark.parametrize("feature_set", [None, "", "no-such-bundle"])
def test_an_unknown_bundle_brings_nothing(feature_set: str | None) -> None:
    """What the licence spells out still holds."""
    assert features_of(claims(feature_set=feature_set)) == {"aibridge": 1}


@given(st.floats(allow_nan=False), st.integers(0, 4000), st.integers(0, 4000), st.integers(0, 1000))
def test_a_decision_is_open_or_has_a_code(now: float, begins: int, expires: int, grace: int) -> None:
    """Never both, never neither; grace is a way of being open."""
    decision = entitlement(claims(nbf=begins, license_expires=expires, exp=expires + grace)).at(now)
    assert decision.open == (decision.code is None) == (decision.message == "")
    assert decision.open or not decision.grace
