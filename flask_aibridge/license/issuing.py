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
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flask_aibridge.license.claims import DAY, VERSION, load_claims
from flask_aibridge.license.entitlements import GATEWAY
from flask_aibridge.license.signature import ALGORITHM, TYPE

__all__ = ["SigningKey", "issue_license", "sign"]

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


def sign(key: SigningKey, payload: Mapping[str, Any]) -> str:
    """Any payload, signed as a licence is; nothing in it is checked."""
    headers = {"kid": key.kid, "typ": TYPE}
    return jwt.encode(dict(payload), key.private_key, algorithm=ALGORITHM, headers=headers)
