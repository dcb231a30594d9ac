"""``license.revocation``: only a signed list revokes, and what it names is revoked."""

from __future__ import annotations

from typing import Any

import jwt
import pytest

from flask_aibridge.errors import LicenseError
from flask_aibridge.license import revocation
from flask_aibridge.license.issuing import SigningKey, issue_deny_list, issue_license, sign
from flask_aibridge.license.revocation import (
    DENY_LIST_TYPE,
    MAX_DENY_LIST_BYTES,
    revoked_ids,
    verify_deny_list,
)
from flask_aibridge.license.signature import known_keys

KEY = SigningKey.generate("k1")
KEYS = known_keys({"k1": KEY.public_pem})


def reason(token: str) -> str:
    with pytest.raises(LicenseError) as caught:
        verify_deny_list(token, KEYS)
    assert caught.value.code == "license_deny_list"
    return str(caught.value)


def test_a_list_names_what_is_revoked() -> None:
    """Each once, wrapped or not."""
    token = issue_deny_list(KEY, ["a", "b", "a"])
    assert verify_deny_list(f" {token[:20]}\n{token[20:]} ", KEYS) == {"a", "b"}
    assert verify_deny_list(issue_deny_list(KEY, []), KEYS) == frozenset()


def test_its_form() -> None:
    """A JWT of its own type."""
    token = issue_deny_list(KEY, ["b", "a"], iat=5)
    assert jwt.get_unverified_header(token) == {"alg": "EdDSA", "kid": "k1", "typ": DENY_LIST_TYPE}
    assert jwt.decode(token, options={"verify_signature": False, "verify_jti": False}) == {
        "iat": 5,
        "jti": ["a", "b"],
    }


def listed(**changes: Any) -> str:
    return sign(KEY, {"iat": 1, "jti": ["a"], **changes}, typ=DENY_LIST_TYPE)


REFUSED = {
    "a licence": (issue_license(KEY), "typ"),
    "another key": (issue_deny_list(SigningKey.generate("k2"), []), "does not know"),
    "another key of that name": (issue_deny_list(SigningKey.generate("k1"), []), "signature is wrong"),
    "hmac": (
        jwt.encode(
            {"iat": 1, "jti": []}, "x" * 32, algorithm="HS256", headers={"kid": "k1", "typ": DENY_LIST_TYPE}
        ),
        "EdDSA",
    ),
    "nonsense": ("nonsense", "compact JWT"),
    "too large": ("x" * (MAX_DENY_LIST_BYTES + 1), "longer than"),
    "no ids": (sign(KEY, {"iat": 1}, typ=DENY_LIST_TYPE), "jti"),
    "one id": (listed(jti="a"), "jti"),
    "an id that is none": (listed(jti=["a", 1]), "jti"),
    "no date": (sign(KEY, {"jti": ["a"]}, typ=DENY_LIST_TYPE), "iat"),
    "a date that is none": (listed(iat=True), "iat"),
}


@pytest.mark.parametrize(("token", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_list(token: str, says: str) -> None:
    """Is refused, with the reason."""
    assert says in reason(token)


def test_thousands_fit() -> None:
    """Ids in the form of UUIDs."""
    ids = {f"00000000-0000-4000-8000-{number:012}" for number in range(15_000)}
    assert verify_deny_list(issue_deny_list(KEY, ids), KEYS) == ids


def test_a_list_that_nobody_would_accept_is_not_issued() -> None:
    """The vendor learns it first."""
    with pytest.raises(LicenseError, match="longer than"):
        issue_deny_list(KEY, ["x" * MAX_DENY_LIST_BYTES])


def test_lists_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the release and those given; a newer one takes nothing back."""
    monkeypatch.setattr(revocation, "BUILT_IN_DENY_LISTS", (issue_deny_list(KEY, ["a"]),))
    assert revoked_ids([issue_deny_list(KEY, ["b"]), issue_deny_list(KEY, [])], KEYS) == {"a", "b"}
    assert revoked_ids([], KEYS) == {"a"}


def test_the_lists_of_this_release_are_genuine() -> None:
    """Signed with its built-in keys."""
    assert revoked_ids([], known_keys({})) == frozenset()
