"""API keys are stored as the keys say, listed whatever their number, and never shown with their secrets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from flask_aibridge.services.api_keys import generate, new_row, rotated
from flask_aibridge.services.interfaces import Credential, Scopes
from flask_aibridge.services.records import SHARDS, milliseconds_of, shard_of_key
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.redis.store import RedisStore
from tests.services.contract_records import now
from tests.services.redis_contents import Client, calls_of, contents
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
    assert contents(client, redis_prefix) == {
        f"{{s{shard_of_key(KEY_ID)}}}:{rest}": value
        for rest, value in {
            f"key:{KEY_ID}": client.hgetall(name),
            "k": {KEY_ID: milliseconds_of(moment)},
            "k:bob": {KEY_ID: milliseconds_of(moment)},
        }.items()
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


def test_a_page_reads_what_it_shows(store: RedisStore, client: Client) -> None:
    """However many keys there are beside those, in a few round trips; the next one does not count again."""
    moment = now()
    for number in range(8 * SHARDS):
        owner = "alice" if number % 4 else "bob"
        row = new_row(
            f"{number:012d}", SECRET, owner=owner, now=moment - timedelta(seconds=number), display_name="x"
        )
        store.put_api_key(row)
    cursor = None
    for scripts in (2 * SHARDS, SHARDS):
        before = calls_of(client, "hgetall"), calls_of(client, "evalsha")
        page = store.api_keys("bob", limit=10, cursor=cursor)
        assert [row.key.owner for row in page.rows] == ["bob"] * 10
        assert calls_of(client, "hgetall") - before[0] == 10
        assert calls_of(client, "evalsha") - before[1] <= 2 * scripts + 10
        cursor = page.next


def test_what_is_listed_and_not_there_is_passed_over(
    store: RedisStore, client: Client, redis_prefix: str
) -> None:
    """As an interrupted deletion by hand leaves it."""
    keys = Keys(redis_prefix)
    store.put_api_key(new_row(KEY_ID, SECRET, owner="bob", now=now()))
    client.zadd(keys.api_keys(0), {"no key": 5, "no row": 6})
    client.hset(f"{keys.shard(0)}key:no row", mapping={"used": 1})
    assert [row.key.id for row in store.api_keys().rows] == [KEY_ID]


def test_all_of_one_shard_s_keys_are_listed(store: RedisStore) -> None:
    """Where they are all of its owner's, of one moment, and more than are asked for at first."""
    moment = now()
    ids = [f"{number:012d}" for number in range(5 * SHARDS * SHARDS)]
    ids = [each for each in ids if shard_of_key(each) == 3]
    for key_id in ids:
        store.put_api_key(new_row(key_id, SECRET, owner="bob", now=moment))
    first = store.api_keys("bob", limit=len(ids) // 2)
    second = store.api_keys("bob", limit=len(ids), cursor=first.next)
    assert [row.key.id for row in (*first.rows, *second.rows)] == sorted(ids, reverse=True)
    assert second.next is None
