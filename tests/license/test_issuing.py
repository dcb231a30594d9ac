"""``license.issuing``: what is issued is accepted, and what would not be is not issued."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from flask_aibridge.errors import ConfigError, LicenseError
from flask_aibridge.license import Gate
from flask_aibridge.license.issuing import SigningKey, issue_license


@pytest.mark.parametrize("form", ["public_pem", "public_base64"])
def test_a_licence_is_accepted_by_its_public_key(form: str) -> None:
    """In either form."""
    key = SigningKey.generate()
    assert Gate({key.kid: getattr(key, form)}, issue_license(key)).check().open


def test_its_header_is_the_designs() -> None:
    """Compact JWT, EdDSA, kid, typ."""
    header = jwt.get_unverified_header(issue_license(SigningKey.generate("k1")))
    assert header == {"alg": "EdDSA", "kid": "k1", "typ": "aibridge-license+jwt"}


def test_claims_are_laid_over_the_defaults() -> None:
    """A term that begins later also ends later."""
    token = issue_license(SigningKey.generate(), sub="acme", nbf=1_700_000_000, trial=True)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["sub"], claims["trial"], claims["iat"]) == ("acme", True, 1_700_000_000)
    assert claims["nbf"] < claims["license_expires"] < claims["exp"] < 1_750_000_000


def test_each_licence_has_an_id_of_its_own() -> None:
    """To be told apart, and revoked."""
    key = SigningKey.generate()
    ids = {jwt.decode(issue_license(key), options={"verify_signature": False})["jti"] for _ in range(3)}
    assert len(ids) == 3


def test_what_no_installation_would_accept_is_not_issued() -> None:
    """The vendor learns it first."""
    with pytest.raises(LicenseError, match="features"):
        issue_license(SigningKey.generate(), features=["aibridge"])


def test_a_private_key_is_kept_as_pem() -> None:
    """What it signs is accepted by the public key it had before."""
    key = SigningKey.generate("k1")
    again = SigningKey.from_pem("k1", key.private_pem)
    assert again.public_pem == key.public_pem
    assert Gate({"k1": key.public_pem}, issue_license(again)).check().open


def _pem(key: Any, encryption: Any = None) -> str:
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    return pem.decode()


PEMS = {
    "nonsense": "-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----",
    "nothing": "",
    "a public key": SigningKey.generate().public_pem,
    "another kind": _pem(Ed448PrivateKey.generate()),
    "encrypted": _pem(SigningKey.generate().private_key, BestAvailableEncryption(b"s3cret")),
}


@pytest.mark.parametrize("pem", PEMS.values(), ids=PEMS)
def test_what_is_no_signing_key(pem: str) -> None:
    """Is refused by name and never shown."""
    with pytest.raises(ConfigError, match="'k9' is not an Ed25519 private key") as caught:
        SigningKey.from_pem("k9", pem)
    assert not set(pem.splitlines()[1:2]) & set(str(caught.value).split())
    assert caught.value.__cause__ is None


def test_a_private_key_is_not_in_a_repr() -> None:
    """A log may show the object."""
    key = SigningKey.generate("k1")
    assert repr(key) == "SigningKey(kid='k1')"
