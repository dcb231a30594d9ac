"""Pure: API keys: how they are spelled, made, hashed and checked.

A key is ``aib_<id>_<secret>``. The id, 12 characters ``[a-z0-9]``, names the key in lists, logs and records; the
secret, 43 alphanumeric characters made of 256 random bits, is shown once and stored as its hash alone.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from flask_aibridge.config import RateLimit
from flask_aibridge.errors import Unauthorized
from flask_aibridge.services.interfaces import APIKey, Authorization, Credential, Scopes
from flask_aibridge.services.storage import APIKeyRow

PREFIX: Final = "aib"
"""What every key begins with, so that people and secret scanners know what they have found."""

ID_LENGTH: Final = 12
"""62 bits: keys that are made without asking the store do not meet."""

SECRET_LENGTH: Final = 43
"""The base-62 digits of 256 bits."""

MAX_SECRET_LENGTH: Final = 128
"""The longest secret that is looked at; there is room for longer ones to come."""

RANDOM_BYTES: Final = 40
"""What ``generate`` takes: 8 bytes for the id, 32 for the secret."""

_ID_BYTES: Final = 8
_ID_DIGITS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_BASE_62: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_KEY: Final = re.compile(
    rf"{PREFIX}_([a-z0-9]{{{ID_LENGTH}}})_([A-Za-z0-9]{{{SECRET_LENGTH},{MAX_SECRET_LENGTH}}})"
)

Refusal: TypeAlias = Literal["expired", "wrong_secret", "revoked"]
"""Why a key that exists is not accepted."""


def generate(randomness: bytes) -> tuple[str, str]:
    """A new key's id and secret.

    :param randomness: ``RANDOM_BYTES`` bytes from a cryptographic source, used for nothing else.
    :raises ValueError: for any other number of bytes.
    """
    if len(randomness) != RANDOM_BYTES:
        raise ValueError(f"An API key is made of {RANDOM_BYTES} random bytes; got {len(randomness)}.")
    key_id = _in_base(randomness[:_ID_BYTES], _ID_DIGITS, ID_LENGTH)
    return key_id, _in_base(randomness[_ID_BYTES:], _BASE_62, SECRET_LENGTH)


def spell(key_id: str, secret: str) -> str:
    """The key as its owner sends it."""
    return f"{PREFIX}_{key_id}_{secret}"


def parse(key: str) -> tuple[str, str]:
    """The id and the secret of a key.

    :raises Unauthorized: with reason ``malformed`` for what is no key.
    """
    found = _KEY.fullmatch(key)
    if found is None:
        raise Unauthorized("malformed")
    return found[1], found[2]


def key_id_of(credential: Credential) -> str | None:
    """The id of the key that a credential names; null for a key of another form than ``aib_<id>_<secret>``."""
    if credential.key is None:
        return credential.key_id
    found = _KEY.fullmatch(credential.key)
    return None if found is None else found[1]


def secret_hash(secret: str) -> str:
    """What is stored of a secret: its SHA-256, in hexadecimal.

    A fast hash is right here. Slow, salted ones make up for secrets that people choose and that can be guessed; a
    secret of 256 random bits cannot be, however fast each guess, and is in no table of hashes. What a slow hash would
    cost, each request would pay.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def check(row: APIKeyRow, secret: str | None, now: datetime) -> Refusal | None:
    """Why a key that exists is not accepted at ``now``, or null where it is; checked in the model's order.

    :param secret: null where the key is named by its id alone, for callers in process.
    """
    if row.key.expires_at is not None and row.key.expires_at <= now:
        return "expired"
    if secret is not None and not _fits(row, secret, now):
        return "wrong_secret"
    if row.key.revoked_at is not None:
        return "revoked"
    return None


def authorization_of(key: APIKey) -> Authorization:
    """Whom a key belongs to."""
    return Authorization(key.owner, key.id, key.display_name or None, key.scopes, key.rate_limit)


def new_row(
    key_id: str,
    secret: str,
    *,
    owner: str,
    now: datetime,
    display_name: str = "",
    expires_at: datetime | None = None,
    scopes: Scopes | None = None,
    rate_limit: RateLimit | None = None,
) -> APIKeyRow:
    """What is stored of a new key."""
    key = APIKey(
        id=key_id,
        owner=owner,
        display_name=display_name,
        scopes=scopes or Scopes(),
        created_at=now,
        expires_at=expires_at,
        rate_limit=rate_limit,
    )
    return APIKeyRow(key=key, secret_hash=secret_hash(secret))


def rotated(row: APIKeyRow, secret: str, old_until: datetime | None) -> APIKeyRow:
    """The row with another secret; the one it had is accepted until ``old_until``, or no more."""
    old_hash = None if old_until is None else row.secret_hash
    return replace(row, secret_hash=secret_hash(secret), old_hash=old_hash, old_until=old_until)


def revoked(row: APIKeyRow, now: datetime) -> APIKeyRow:
    """The row, revoked; one that is revoked already keeps its time."""
    if row.key.revoked_at is not None:
        return row
    return replace(row, key=replace(row.key, revoked_at=now))


def standing(key: APIKey, now: datetime) -> Literal["active", "expired", "revoked"]:
    """How a key stands, for people: a revoked one is revoked, whether it has expired since or not."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "active"


def presented_keys(environ: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys that a request carries, in ``Authorization: Bearer`` and in ``X-Api-Key``: two at the most, each once.

    :param environ: the request's WSGI environ.
    """
    scheme, _, token = str(environ.get("HTTP_AUTHORIZATION", "")).strip().partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    header = str(environ.get("HTTP_X_API_KEY", "")).strip()
    return tuple(dict.fromkeys(key for key in (bearer, header) if key))


def _fits(row: APIKeyRow, secret: str, now: datetime) -> bool:
    """Compare with the present and the former hash, each in constant time, so the wait tells nothing about them."""
    presented = secret_hash(secret)
    present = hmac.compare_digest(presented, row.secret_hash)
    former = hmac.compare_digest(presented, row.old_hash or "")
    return present or (former and row.old_until is not None and now < row.old_until)


def _in_base(randomness: bytes, alphabet: str, length: int) -> str:
    """A number of fixed length in another base; digits beyond the length are dropped."""
    number = int.from_bytes(randomness, "big")
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(alphabet))
        digits.append(alphabet[digit])
    return "".join(digits)
