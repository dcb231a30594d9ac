"""API keys on Redis: a hash each, in the shard of its id."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from flask_aibridge.config import parse_rate_limit
from flask_aibridge.services.interfaces import APIKey, Scopes
from flask_aibridge.services.records import SHARDS, milliseconds_of, shard_of_key
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.redis.scripts import Script
from flask_aibridge.services.storage import APIKeyRow

PUT: Final = Script("put_api_key")
LIST: Final = Script("api_keys")

KEYS_PER_CALL: Final = 500
"""API keys that one call of the script lists, about: a few milliseconds, in which Redis does nothing else."""


class RedisAPIKeys:
    """Keeps API keys."""

    def __init__(self, connection: RedisConnection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    def put_api_key(self, row: APIKeyRow) -> None:
        """As ``APIKeyStore.put_api_key``."""
        key_id = row.key.id
        keys = (self._keys.shard(shard_of_key(key_id)), self._keys.api_key(key_id))
        fields = [each for pair in _fields(row).items() for each in pair]
        self._connection.run(PUT, keys, (key_id, *fields))

    def api_key(self, key_id: str) -> APIKeyRow | None:
        """As ``APIKeyStore.api_key``."""
        fields = self._connection.execute("HGETALL", self._keys.api_key(key_id))
        return _row(key_id, fields) if "owner" in fields else None

    def api_keys(self) -> tuple[APIKeyRow, ...]:
        """As ``APIKeyStore.api_keys``."""
        rows: dict[str, APIKeyRow] = {}
        cursors = dict.fromkeys(range(SHARDS), "0")
        while cursors:
            calls = [
                (LIST, (self._keys.shard(number), self._keys.api_keys(number)), (cursor, KEYS_PER_CALL))
                for number, cursor in cursors.items()
            ]
            replies = dict(zip(cursors, self._connection.run_many(calls), strict=True))
            rows.update(_rows(found for _, found in replies.values()))
            cursors = {number: cursor for number, (cursor, _) in replies.items() if cursor != "0"}
        return tuple(sorted(rows.values(), key=lambda row: (row.key.created_at, row.key.id), reverse=True))


def _rows(lists: Iterable[list[Any]]) -> dict[str, APIKeyRow]:
    found = {}
    for each in lists:
        for key_id, flat in each:
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            if "owner" in fields:
                found[key_id] = _row(key_id, fields)
    return found


def _fields(row: APIKeyRow) -> dict[str, str]:
    """What is stored of a key but its last use; nulls are left out."""
    key = row.key
    fields = {
        "owner": key.owner,
        "name": key.display_name or None,
        "hash": row.secret_hash,
        "created": _to_milliseconds(key.created_at),
        "expires": _to_milliseconds(key.expires_at),
        "revoked": _to_milliseconds(key.revoked_at),
        "used": _to_milliseconds(key.last_used_at),
        "providers": _to_json(key.scopes.providers),
        "models": _to_json(key.scopes.models),
        "rate_limit": None if key.rate_limit is None else str(key.rate_limit),
        "old_hash": row.old_hash,
        "old_until": _to_milliseconds(row.old_until),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _row(key_id: str, fields: Mapping[str, str]) -> APIKeyRow:
    key = APIKey(
        id=key_id,
        owner=fields["owner"],
        display_name=fields.get("name", ""),
        scopes=Scopes(_from_json(fields.get("providers")), _from_json(fields.get("models"))),
        created_at=_to_moment(fields.get("created")) or datetime.fromtimestamp(0, UTC),
        expires_at=_to_moment(fields.get("expires")),
        revoked_at=_to_moment(fields.get("revoked")),
        last_used_at=_to_moment(fields.get("used")),
        rate_limit=parse_rate_limit(fields["rate_limit"]) if "rate_limit" in fields else None,
    )
    return APIKeyRow(
        key=key,
        secret_hash=fields.get("hash", ""),
        old_hash=fields.get("old_hash"),
        old_until=_to_moment(fields.get("old_until")),
    )


def _to_milliseconds(moment: datetime | None) -> str | None:
    return None if moment is None else str(milliseconds_of(moment))


def _to_moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromtimestamp(int(text) / 1000, UTC)


def _to_json(names: tuple[str, ...] | None) -> str | None:
    return None if names is None else json.dumps(names, ensure_ascii=False)


def _from_json(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(json.loads(text))
