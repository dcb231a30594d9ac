"""``license.claims``: every claim, missing, mistyped and out of range."""

from __future__ import annotations

import contextlib
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.errors import LicenseError
from flask_aibridge.license.claims import MAX_GRACE, MAX_TERM, Claims, load_claims

NOW = 1_800_000_000
GOOD: dict[str, Any] = {
    "iss": "vendor",
    "sub": "customer",
    "jti": "7f5c9a5e-7a43-4a58-9ad0-64a4b2ab7e3d",
    "iat": NOW,
    "nbf": NOW,
    "license_expires": NOW + 100,
    "exp": NOW + 200,
    "version": 1,
    "features": {"aibridge": 1},
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def refused(payload: dict[str, Any], now: float = NOW) -> LicenseError:
    with pytest.raises(LicenseError) as caught:
        load_claims(payload, now)
    return caught.value


def test_the_claims_of_the_design_are_enough() -> None:
    """The optional ones have defaults."""
    assert load_claims(GOOD, NOW) == Claims(**GOOD)
    assert load_claims(GOOD, NOW).deployment_ids == ()


def test_the_optional_claims_are_read() -> None:
    """And frozen with the others."""
    claims = load_claims({**GOOD, "feature_set": "all", "trial": True, "deployment_ids": ["a", "b"]}, NOW)
    assert (claims.feature_set, claims.trial, claims.deployment_ids) == ("all", True, ("a", "b"))


@pytest.mark.parametrize("jti", ["1", "L-2026.07:4_b", "7F5C9A5E-7A43-4A58-9AD0-64A4B2AB7E3D", "x" * 128])
def test_an_id_is_fit_for_an_address(jti: str) -> None:
    """A UUID is meant; whatever needs no quoting is taken."""
    assert load_claims({**GOOD, "jti": jti}, NOW).jti == jti


def test_unknown_features_are_kept() -> None:
    """With whatever number: a newer release may know them."""
    features = {"aibridge": 0, "tomorrow": 7, "negative": -1, "": 1}
    assert load_claims({**GOOD, "features": features}, NOW).features == features


def test_five_years_are_five_years() -> None:
    """Wherever they begin: with one leap day in them or two, and not three."""
    days = {(date(year + 5, 1, 1) - date(year, 1, 1)).days for year in range(2020, 2090)}
    assert max(days) * 24 * 60 * 60 == MAX_TERM


def test_unknown_claims_are_allowed() -> None:
    """A newer vendor may say more."""
    assert load_claims({**GOOD, "seats": 5, "aud": ["x"]}, NOW) == Claims(**GOOD)


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_claim_is_named(name: str) -> None:
    """Every claim but the optional three is required."""
    error = refused({key: value for key, value in GOOD.items() if key != name})
    assert error.code == "license_claims"
    assert f"({name}: " in str(error)


WRONG = [
    *((name, value) for name in ("iss", "sub", "jti") for value in (None, "", 1, ["x"])),
    *(("jti", value) for value in (".", "..", "a/b", "a b", "é", "a\n", "-a", "x" * 129)),
    *(
        (name, value)
        for name in ("iat", "nbf", "license_expires", "exp")
        for value in (None, "1800000000", 1.8e9, True, -1, 10**15, float("inf"))
    ),
    *(("version", value) for value in (None, "1", 1.0, True)),
    *(
        ("features", value)
        for value in (None, [], ["aibridge"], {"aibridge": True}, {"aibridge": "1"}, {"x": 1.5})
    ),
    *(("feature_set", value) for value in (None, 1)),
    *(("trial", value) for value in (None, 1, "true")),
    *(("deployment_ids", value) for value in (None, "a", [1])),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_mistyped_claim_is_named(name: str, value: Any) -> None:
    """Types are JSON's own: no digits in strings, no ``true`` for 1."""
    error = refused({**GOOD, name: value})
    assert error.code == "license_claims"
    assert f"({name}: " in str(error)


@pytest.mark.parametrize("version", [0, 2, -1, 100])
def test_another_version_has_a_code_of_its_own(version: int) -> None:
    """Whatever else such a licence says: its claims may mean something else."""
    assert refused({"version": version}).code == "license_wrong_version"


def test_grace_does_not_end_before_the_term() -> None:
    """No grace is ``exp`` equal to ``license_expires``."""
    assert load_claims({**GOOD, "exp": NOW + 100}, NOW).exp == NOW + 100
    assert "(exp: must not be before license_expires)" in str(refused({**GOOD, "exp": NOW + 99}))


def test_a_term_ends_at_most_five_years_ahead() -> None:
    """A slip of the vendor's hand does not make a licence for ever."""
    latest = {**GOOD, "license_expires": NOW + MAX_TERM, "exp": NOW + MAX_TERM + MAX_GRACE}
    assert load_claims(latest, NOW).exp == NOW + MAX_TERM + MAX_GRACE
    assert "license_expires is more than five" in str(
        refused({**latest, "license_expires": NOW + MAX_TERM + 1})
    )
    assert "exp is more than six" in str(refused({**latest, "exp": NOW + MAX_TERM + MAX_GRACE + 1}))


def test_values_are_never_shown() -> None:
    """A licence is nobody else's to read."""
    assert "s3cret" not in str(refused({**GOOD, "iat": "s3cret"}))
    assert "s3cret" not in str(refused({**GOOD, "features": {"s3cret": "x"}}))


@given(st.dictionaries(st.sampled_from([*GOOD, "feature_set", "trial", "deployment_ids"]), json_values))
def test_any_payload_is_claims_or_a_refusal(changes: dict[str, Any]) -> None:
    """Nothing else ever comes out."""
    with contextlib.suppress(LicenseError):
        claims = load_claims({**GOOD, **changes}, NOW)
        assert claims.license_expires <= claims.exp
