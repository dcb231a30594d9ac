"""The vendor's side of a licence: key pairs, and new licences signed with them.

Also what tests and demonstrations need to make a throw-away licence::

    key = SigningKey.generate("2026")
    app.config["AIBRIDGE_LICENSE_PUBLIC_KEYS"] = {key.kid: key.public_pem}
    app.config["AIBRIDGE_LICENSE"] = issue_license(key, sub="customer-1")
"""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from flask_aibridge.errors import ConfigError
from flask_aibridge.license.claims import VERSION, load_claims
from flask_aibridge.license.features import GATEWAY
from flask_aibridge.license.licenses import DAY
from flask_aibridge.license.revocation import DENY_LIST_TYPE, verify_deny_list
from flask_aibridge.license.signature import ALGORITHM, TYPE

__all__ = ["SigningKey", "issue_deny_list", "issue_license", "sign"]

#: The paid term and the grace of a licence that does not say otherwise.
DEFAULT_TERM: Final = 365 * DAY
DEFAULT_GRACE: Final = 14 * DAY


@dataclass(frozen=True)
class SigningKey:
    """An Ed25519 key pair under the name that licences refer to it by."""

    kid: str
    private_key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, kid: str | None = None) -> SigningKey:
        """A new key pair; a random ``kid`` unless one is given."""
        return cls(uuid.uuid4().hex if kid is None else kid, Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, kid: str, pem: str) -> SigningKey:
        """The key pair whose private key is this PEM, as :attr:`private_pem` gives it: not encrypted.

        :raises ConfigError: for anything else; the message never shows the key.
        """
        try:
            key = load_pem_private_key(pem.encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(
                f"The signing key {kid!r} is not an Ed25519 private key in PEM without a password; make one "
                "with `flask aibridge license keygen`."
            ) from None
        return cls(kid, key)

    @property
    def private_pem(self) -> str:
        """The private key in PEM (PKCS #8, not encrypted): a secret that stays with the vendor."""
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    @property
    def public_pem(self) -> str:
        """The public key in PEM."""
        return (
            self.private_key.public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            .decode()
        )

    @property
    def public_base64(self) -> str:
        """The public key as base64 of its 32 bytes."""
        return base64.b64encode(self.private_key.public_key().public_bytes_raw()).decode()


def issue_license(key: SigningKey, **claims: Any) -> str:
    """A licence, as a compact JWT.

    :param claims: laid over a licence for the public door that begins now, lasts a year and has 14 days of
        grace. With another ``nbf``, the term and the grace move with it.
    :raises LicenseError: ``license_claims`` or ``license_wrong_version``, for claims that no installation
        would accept.
    """
    now = int(time.time())
    payload = _defaults(now, **claims)
    load_claims(payload, now)
    return sign(key, payload)


def _defaults(now: int, **claims: Any) -> dict[str, Any]:
    begins = claims.get("nbf", now)
    expires = claims.get("license_expires", begins + DEFAULT_TERM)
    return {
        "iss": "vendor",
        "sub": "customer",
        "jti": str(uuid.uuid4()),
        "iat": min(now, begins),
        "nbf": begins,
        "license_expires": expires,
        "exp": expires + DEFAULT_GRACE,
        "version": VERSION,
        "features": {GATEWAY: 1},
        **claims,
    }


def issue_deny_list(key: SigningKey, ids: Iterable[str], *, iat: int | None = None) -> str:
    """A deny list, as a compact JWT: see ``flask_aibridge.license.revocation``.

    :param ids: the ``jti`` of every licence that is revoked, also those of earlier lists that no release
        brings.
    :param iat: when it is issued; now unless given.
    :raises LicenseError: ``license_deny_list``, for a list that no installation would accept.
    """
    payload = {"iat": int(time.time()) if iat is None else iat, "jti": sorted(set(ids))}
    token = sign(key, payload, typ=DENY_LIST_TYPE)
    verify_deny_list(token, {key.kid: key.private_key.public_key()})
    return token


def sign(key: SigningKey, payload: Mapping[str, Any], *, typ: str = TYPE) -> str:
    """Any payload, signed as a licence is; nothing in it is checked."""
    headers = {"kid": key.kid, "typ": typ}
    return jwt.encode(dict(payload), key.private_key, algorithm=ALGORITHM, headers=headers)
