"""API keys on Redis: a hash each, in the shard of its id."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from flask_aibridge.config import parse_rate_limit
from flask_aibridge.services.cursors import Cursor, Place, check_limit, decode_cursor, encode_cursor
from flask_aibridge.services.interfaces import APIKey, Scopes
from flask_aibridge.services.records import SHARDS, milliseconds_of, shard_of_key
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.redis.scripts import Call, Script
from flask_aibridge.services.redis.walks import NewestFirst, Step
from flask_aibridge.services.storage import APIKeyPage, APIKeyRow

PUT: Final = Script("put_api_key")
_BY_TIME: Final = Script("by_time")
_COUNT: Final = Script("count_by_time")
_ROWS: Final = Script("api_keys")

_EVER: Final = ("+inf", "-inf")


@dataclass(frozen=True)
class _Listing:
    """One question after API keys: whose (null: everybody's), and below which place."""

    connection: RedisConnection
    keys: Keys
    owner: str | None
    begin: Place | None = None

    def count(self) -> int:
        calls = [Call(_COUNT, [self.keys.api_keys(shard, self.owner)], _EVER) for shard in range(SHARDS)]
        return sum(self.connection.run_many(calls))

    def fetch(self, reached: Mapping[int, Place | None], wanted: int) -> dict[int, Step]:
        """Have shards walk on, for ``NewestFirst``."""
        calls = [
            Call(_BY_TIME, [self.keys.api_keys(shard, self.owner)], (*self._range(place), wanted))
            for shard, place in reached.items()
        ]
        replies = self.connection.run_many(calls)
        return {shard: self._step(reply, wanted) for shard, reply in zip(reached, replies, strict=True)}

    def _range(self, below: Place | None) -> tuple[str, str]:
        """The highest and the lowest time. Of what was made in the millisecond of ``begin`` some may be lower."""
        if below is not None:
            return f"({below[0]}", _EVER[1]
        return _EVER[0] if self.begin is None else str(self.begin[0]), _EVER[1]

    def _step(self, reply: Sequence[str], wanted: int) -> Step:
        times = [int(float(each)) for each in reply[1::2]]
        places = list(zip(times, reply[::2], strict=True))
        shown = [place for place in places if self.begin is None or place < self.begin]
        return Step(sorted(shown, reverse=True), (times[-1],) if len(places) >= wanted else None)

    def rows(self, ids: Sequence[str]) -> Iterator[APIKeyRow]:
        """The keys of these ids in their order, but for those that are gone."""
        by_shard = dict[int, list[str]]()
        for each in ids:
            by_shard.setdefault(shard_of_key(each), []).append(each)
        calls = [Call(_ROWS, [self.keys.api_key(each) for each in group]) for group in by_shard.values()]
        found: dict[str, Mapping[str, str]] = {}
        for group, reply in zip(by_shard.values(), self.connection.run_many(calls), strict=True):
            found.update(zip(group, map(_pairs, reply), strict=True))
        return (_row(each, found[each]) for each in ids if "owner" in found[each])


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
        listed = (key_id, row.key.owner, milliseconds_of(row.key.created_at))
        self._connection.run(PUT, keys, (*listed, *fields))

    def api_key(self, key_id: str) -> APIKeyRow | None:
        """As ``APIKeyStore.api_key``."""
        fields = self._connection.execute("HGETALL", self._keys.api_key(key_id))
        return _row(key_id, fields) if "owner" in fields else None

    def api_keys(
        self, owner: str | None = None, *, limit: int = 100, cursor: str | None = None
    ) -> APIKeyPage:
        """As ``APIKeyStore.api_keys``, in a few round trips, however many keys there are."""
        check_limit(limit)
        question = ("keys", owner)
        begin = None if cursor is None else decode_cursor(cursor, question, (int,), (int, str))
        listing = _Listing(self._connection, self._keys, owner, begin.place if begin else None)
        walk = NewestFirst(listing.fetch)
        found = walk.take(limit + 1)
        count = begin.total if begin else listing.count()
        following = found[limit - 1] if len(found) > limit else None if walk.ended else walk.reached
        return APIKeyPage(
            count=count,
            rows=tuple(listing.rows([place[1] for place in found[:limit]])),
            next=encode_cursor(Cursor(following, count), question) if following else None,
        )


def _pairs(flat: Sequence[str]) -> Mapping[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


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
