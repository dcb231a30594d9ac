"""``license.refusals``: stable codes, and a sentence for each."""

from __future__ import annotations

import pytest

from flask_aibridge.license.refusals import LEAD, REFUSALS, Refusal, message, refusal, sentence

CODES = [
    "license_required",
    "license_store_away",
    "license_malformed",
    "license_too_large",
    "license_algorithm",
    "license_unknown_key",
    "license_bad_signature",
    "license_wrong_version",
    "license_claims",
    "license_not_yet_valid",
    "license_expired",
    "license_feature_missing",
    "license_wrong_deployment",
    "license_revoked",
    "license_too_many",
    "license_deny_list",
]


def test_the_codes_are_a_contract() -> None:
    """Programs compare them: none is ever renamed or taken away."""
    assert list(REFUSALS) == CODES


def test_each_message_is_the_lead_and_a_sentence() -> None:
    """Its detail is filled in, and it ends as sentences do."""
    for code in REFUSALS:
        text = message(code, "DETAIL")
        assert text.startswith(LEAD)
        assert text.endswith(".")
        assert "{" not in text


def test_a_refusal_carries_its_code() -> None:
    """The exception has what the answer needs."""
    error = refusal("license_claims", "exp: must be a whole number")
    assert error.code == "license_claims"
    assert "(exp: must be a whole number)" in str(error)
    assert Refusal.of(error) == Refusal("license_claims", str(error))


@pytest.mark.parametrize("code", REFUSALS)
def test_each_sentence_says_what_to_do(code: str) -> None:
    """Without the words for those who stand before the door."""
    said = sentence(code, "DETAIL")
    assert not said.startswith(LEAD)
    assert any(verb in said for verb in ("ask the vendor", "copy", "set", "add", "wait", "remove"))
