"""API keys are stored as the keys say, listed whatever their number, and never shown with their secrets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from flask_aibridge.services.api_keys import generate, new_row, rotated
from flask_aibridge.services.interfaces import Credential, Scopes
from flask_aibridge.services.records import SHARDS, milliseconds_of
from flask_aibridge.services.redis.api_keys import KEYS_PER_CALL
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.redis.store import RedisStore
from tests.services.contract_records import now
from tests.services.redis_contents import Client, contents
from tests.services.servers import Running, Server

KEY_ID, SECRET = generate(bytes(40))


@pytest.fixture
def store(one_redis_url: str, redis_prefix: str) -> Iterator[RedisStore]:
    with closing(RedisStore(RedisConnection(one_redis_url), keys=Keys(redis_prefix))) as store:
        yield store


@pytest.fixture
def client(one_redis_server: Running) -> Iterator[Client]:
    assert isinstance(one_redis_server, Server)
    with one_redis_server.client() as client:
        yield client


def test_a_key_is_stored_as_the_keys_say(store: RedisStore, client: Client, redis_prefix: str) -> None:
    """Nulls are left out, times are milliseconds, and of secrets there are hashes alone."""
    moment = now()
    row = new_row(KEY_ID, SECRET, owner="bob", now=moment)
    store.put_api_key(row)
    name = Keys(redis_prefix).api_key(KEY_ID)
    assert client.hgetall(name) == {
        "owner": "bob",
        "hash": row.secret_hash,
        "created": str(milliseconds_of(moment)),
    }
    until = moment + timedelta(hours=1)
    other = rotated(row, SECRET[::-1], until)
    store.put_api_key(replace(other, key=replace(row.key, scopes=Scopes(("main",), ()))))
    found = client.hgetall(name)
    assert (found["old_hash"], found["old_until"]) == (row.secret_hash, str(milliseconds_of(until)))
    assert (found["providers"], found["models"]) == ('["main"]', "[]")
    assert SECRET not in str(contents(client, redis_prefix))


def test_storing_a_key_leaves_its_last_use(store: RedisStore) -> None:
    """An administrator who changes a key does not know of the use a moment ago; and what is null goes."""
    row = new_row(KEY_ID, SECRET, owner="bob", now=now(), display_name="old")
    store.put_api_key(row)
    store.authorize(Credential(key_id=KEY_ID))
    used = store.api_key(KEY_ID)
    assert used is not None
    assert used.key.last_used_at is not None
    store.put_api_key(replace(row, key=replace(row.key, display_name="")))
    assert store.api_key(KEY_ID) == replace(used, key=replace(used.key, display_name=""))


def test_every_key_is_listed_once(store: RedisStore) -> None:
    """From every shard; newest first."""
    moment = now()
    rows = [
        new_row(f"{number:012d}", SECRET, owner="bob", now=moment - timedelta(seconds=number))
        for number in range(5 * SHARDS)
    ]
    for row in reversed(rows):
        store.put_api_key(row)
    assert store.api_keys() == tuple(rows)


def test_a_large_shard_is_listed_in_parts(store: RedisStore, client: Client, redis_prefix: str) -> None:
    """With a row that is no key among them, as an interrupted deletion by hand leaves it."""
    keys, number = Keys(redis_prefix), 3 * KEYS_PER_CALL
    ids = {f"key-{each}" for each in range(number)}
    pipeline = client.pipeline(transaction=False)
    for each in ids:
        pipeline.hset(f"{keys.shard(0)}key:{each}", mapping={"owner": "bob", "hash": "", "created": 1})
    pipeline.sadd(keys.api_keys(0), "no key", *ids)
    pipeline.execute()
    assert {row.key.id for row in store.api_keys()} == ids
