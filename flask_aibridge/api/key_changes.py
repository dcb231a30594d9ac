"""Making, rotating and revoking API keys: what the routes and the commands have in common.

Each change is logged and announced (``signals``), with who made it and the key's id, never with the secret.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from flask_aibridge.api.problems import Problem
from flask_aibridge.api.signals import announce
from flask_aibridge.config import RateLimit
from flask_aibridge.services import api_keys
from flask_aibridge.services.interfaces import APIKey, Scopes
from flask_aibridge.services.storage import APIKeyRow, Store

__all__ = [
    "MAX_LIFETIME",
    "MAX_OVERLAP",
    "IssuedKey",
    "create_key",
    "find_key",
    "now",
    "revoke_key",
    "rotate_key",
]

MAX_LIFETIME: Final = timedelta(days=3650)
"""The longest time to an expiry; a key that is to live longer has none."""

MAX_OVERLAP: Final = timedelta(days=7)
"""The longest time that a rotated key's old secret goes on being accepted: long enough to change it everywhere."""


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A key that has just got its secret. ``text`` is what its owner sends; it can be had here and never again."""

    key: APIKey
    text: str = field(repr=False)


def now() -> datetime:
    """The time, to the millisecond, which is as exact as keys are stored."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def create_key(
    store: Store,
    *,
    owner: str,
    by: str,
    display_name: str = "",
    expires_at: datetime | None = None,
    scopes: Scopes | None = None,
    rate_limit: RateLimit | None = None,
) -> IssuedKey:
    """Store a new key of ``owner``'s."""
    key_id, secret = api_keys.generate(secrets.token_bytes(api_keys.RANDOM_BYTES))
    row = api_keys.new_row(
        key_id,
        secret,
        owner=owner,
        now=now(),
        display_name=display_name,
        expires_at=expires_at,
        scopes=scopes,
        rate_limit=rate_limit,
    )
    store.put_api_key(row)
    announce("created", "api_key", key_id, by=by)
    return IssuedKey(row.key, api_keys.spell(key_id, secret))


def find_key(store: Store, key_id: str) -> APIKeyRow:
    """One key.

    :raises Problem: 404 ``unknown_key``.
    """
    row = store.api_key(key_id)
    if row is None:
        raise Problem(404, "unknown_key", "There is no API key with this id.")
    return row


def rotate_key(store: Store, key_id: str, *, by: str, overlap: timedelta = timedelta()) -> IssuedKey:
    """Give a key another secret; the old one is accepted for ``overlap`` more, ``MAX_OVERLAP`` at the most.

    :raises Problem: 404 ``unknown_key``; 409 ``key_revoked`` or ``key_expired`` for one that no secret helps, and
        ``key_changed`` for one that somebody else rotated meanwhile.
    :raises ValueError: for an overlap that is negative or too long.
    """
    if not timedelta() <= overlap <= MAX_OVERLAP:
        raise ValueError(f"The overlap must be between 0 and {MAX_OVERLAP.days} days.")
    row, moment = find_key(store, key_id), now()
    _check_standing(row, moment)
    _, secret = api_keys.generate(secrets.token_bytes(api_keys.RANDOM_BYTES))
    row = api_keys.rotated(row, secret, moment + overlap if overlap else None)
    store.put_api_key(row)
    _check_kept(find_key(store, key_id), row, moment)
    announce("rotated", "api_key", key_id, by=by)
    return IssuedKey(row.key, api_keys.spell(key_id, secret))


def revoke_key(store: Store, key_id: str, *, by: str) -> APIKey:
    """Revoke a key for good; it stays in the lists. One that is revoked already stays as it is.

    :raises Problem: 404 ``unknown_key``.
    """
    row = find_key(store, key_id)
    if row.key.revoked_at is not None:
        return row.key
    row = api_keys.revoked(row, now())
    store.put_api_key(row)
    announce("revoked", "api_key", key_id, by=by)
    return row.key


def _check_standing(row: APIKeyRow, moment: datetime) -> None:
    state = api_keys.standing(row.key, moment)
    if state != "active":
        raise Problem(409, f"key_{state}", f"The API key is {state}; create another one.")


def _check_kept(stored: APIKeyRow, row: APIKeyRow, moment: datetime) -> None:
    """Refuse to hand out a secret that does not work: a revocation meanwhile stays, and of two rotations the last."""
    _check_standing(stored, moment)
    if not hmac.compare_digest(stored.secret_hash, row.secret_hash):
        raise Problem(
            409,
            "key_changed",
            "Somebody else has rotated the API key at the same time; ask them, or rotate it again.",
        )
