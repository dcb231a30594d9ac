"""``license.reading``: a token → the licence it is, or the first rule that it breaks."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest

from flask_aibridge.errors import LicenseError
from flask_aibridge.license import reading
from flask_aibridge.license.claims import MAX_TERM, Claims
from flask_aibridge.license.issuing import SigningKey, issue_license, sign
from flask_aibridge.license.reading import LicenseReader, read_license, unreadable_id
from flask_aibridge.license.signature import known_keys

KEY = SigningKey.generate("k1")
KEYS = known_keys({"k1": KEY.public_pem})
NOW = int(time.time())
HERE = "5f0d3c1e-0000-4000-8000-00000000abcd"
ELSEWHERE = "5f0d3c1e-0000-4000-8000-00000000ffff"


def read(token: str, **changes: Any) -> Claims:
    return read_license(token, KEYS, **{"now": NOW, "deployment_id": HERE, **changes})


def code_of(token: str, **changes: Any) -> str:
    with pytest.raises(LicenseError) as caught:
        read(token, **changes)
    return caught.value.code


def forged(token: str) -> str:
    return token[: token.rindex(".") + 1] + "A" * 86


TOKEN = issue_license(KEY, jti="l-1")
REFUSED = {
    "malformed": ("license_malformed", "not a licence"),
    "too large": ("license_too_large", TOKEN + " " * 20_000),
    "unknown kid": ("license_unknown_key", issue_license(SigningKey.generate("k2"))),
    "bad signature": ("license_bad_signature", forged(TOKEN)),
    "another key of that name": ("license_bad_signature", issue_license(SigningKey.generate("k1"))),
    "wrong version": ("license_wrong_version", sign(KEY, {"version": 2})),
    "missing claims": ("license_claims", sign(KEY, {"version": 1})),
    "wrong deployment": ("license_wrong_deployment", issue_license(KEY, deployment_ids=[ELSEWHERE])),
    "revoked": ("license_revoked", issue_license(KEY, jti="gone")),
    "a deny list": ("license_malformed", sign(KEY, {"iat": 1, "jti": []}, typ=reading.__name__)),
}


@pytest.mark.parametrize(("code", "token"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(code: str, token: str) -> None:
    """Each by its own code."""
    assert code_of(token, revoked=frozenset({"gone"})) == code


def test_a_genuine_licence_is_read() -> None:
    """To its claims."""
    assert read(TOKEN).jti == "l-1"


@pytest.mark.parametrize("begins", [1_000_000_000, NOW + 200 * 24 * 3600], ids=["long ago", "later"])
def test_the_time_of_a_licence_is_not_judged(begins: int) -> None:
    """One that is over and one that is to come are genuine all the same."""
    assert read(issue_license(KEY, nbf=begins)).nbf == begins


def test_a_term_that_ends_too_far_ahead() -> None:
    """Ahead of now, so that it is accepted one day."""
    token = issue_license(KEY, license_expires=NOW + MAX_TERM)
    assert read(token).license_expires == NOW + MAX_TERM
    assert code_of(token, now=NOW - 10) == "license_claims"


@pytest.mark.parametrize("ids", [[HERE], [HERE.upper()], [ELSEWHERE, HERE], []])
def test_a_licence_for_this_deployment(ids: list[str]) -> None:
    """Among others, in either case, or for any."""
    assert read(issue_license(KEY, deployment_ids=ids)).deployment_ids == tuple(ids)


def test_a_bound_licence_needs_a_deployment_id() -> None:
    """An installation that cannot say who it is cannot use it; an unbound one it can."""
    assert (
        code_of(issue_license(KEY, deployment_ids=[HERE]), deployment_id=None) == "license_wrong_deployment"
    )
    assert read(TOKEN, deployment_id=None).jti == "l-1"


def test_what_cannot_be_read_has_an_id_all_the_same() -> None:
    """The same however it is wrapped, another for another text, and fit for an address."""
    assert unreadable_id("a.b.c") == unreadable_id(" a.b\n.c\n") != unreadable_id("a.b.d")
    assert unreadable_id("\ud800\x00é").removeprefix("unreadable-").isalnum()


class TestReader:
    def test_it_reads_what_read_license_reads(self) -> None:
        """And refuses the same."""
        reader = LicenseReader(KEYS)
        assert reader.read(TOKEN, now=NOW, deployment_id=HERE) == read(TOKEN)
        for code, token in REFUSED.values():
            with pytest.raises(LicenseError) as caught:
                reader.read(token, now=NOW, deployment_id=HERE, revoked=frozenset({"gone"}))
            assert caught.value.code == code

    def test_a_signature_is_verified_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Good or bad."""
        seen = []

        def counting(token: str, keys: Any) -> Claims:
            seen.append(token)
            return original(token, keys)

        original = reading.read_claims
        monkeypatch.setattr(reading, "read_claims", counting)
        reader = LicenseReader(KEYS)
        for _ in range(3):
            for token in (TOKEN, "nonsense"):
                reader.license(token, source="config", now=NOW, deployment_id=HERE)
        assert seen == [TOKEN, "nonsense"]

    def test_what_changes_is_judged_each_time(self) -> None:
        """A revocation holds for a token that was read before."""
        reader = LicenseReader(KEYS)
        given: dict[str, Any] = {"source": "installed", "now": NOW, "deployment_id": HERE}
        assert reader.license(TOKEN, **given).refused is None
        assert reader.license(TOKEN, revoked=frozenset({"l-1"}), **given).refused is not None
        assert reader.license(TOKEN, **given).refused is None

    def test_a_genuine_licence(self) -> None:
        """Under its own id unless it is kept under another."""
        given: dict[str, Any] = {"source": "installed", "now": NOW, "deployment_id": None, "uploaded_at": 5.0}
        one = LicenseReader(KEYS).license(TOKEN, **given)
        assert (one.id, one.source, one.uploaded_at, one.refused) == ("l-1", "installed", 5.0, None)
        assert one.claims == read(TOKEN)
        assert LicenseReader(KEYS).license(TOKEN, license_id="kept", **given).id == "kept"

    def test_a_refused_licence(self) -> None:
        """With its claims where they are genuine, and never with those of a forgery."""
        reader = LicenseReader(KEYS)
        bound = issue_license(KEY, jti="l-2", deployment_ids=[ELSEWHERE])
        known = reader.license(bound, source="config", now=NOW, deployment_id=HERE)
        assert (known.id, known.refused and known.refused.code) == ("l-2", "license_wrong_deployment")
        assert known.claims is not None
        unknown = reader.license(forged(TOKEN), source="config", now=NOW, deployment_id=HERE)
        assert (unknown.claims, unknown.id) == (None, unreadable_id(forged(TOKEN)))
        assert unknown.refused is not None
        assert unknown.refused.code == "license_bad_signature"
        assert not unknown.refused.message.startswith("AI Bridge is")

    def test_its_repr_names_the_keys_it_knows(self) -> None:
        """And nothing else."""
        assert repr(LicenseReader(KEYS)) == "<LicenseReader kids=['k1']>"


def test_what_is_too_large_is_not_remembered() -> None:
    """Else somebody could fill the memory with it."""
    reader = LicenseReader(KEYS)
    text = "x" * 100_000
    before = sys.getrefcount(text)
    license_ = reader.license(text, source="config", now=NOW, deployment_id=HERE)
    assert license_.refused is not None
    assert license_.refused.code == "license_too_large"
    del license_
    assert sys.getrefcount(text) == before
