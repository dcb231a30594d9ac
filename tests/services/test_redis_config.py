"""Configuration is stored as the keys say, and every shard learns of its changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from flask_aibridge.errors import ServicesUnavailable
from flask_aibridge.services.records import SHARDS
from flask_aibridge.services.redis.config import RedisConfig
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.redis.store import RedisStore
from tests.services.contract_records import a_start
from tests.services.redis_contents import Client, contents
from tests.services.servers import Running, Server


@pytest.fixture
def store(one_redis_url: str, redis_prefix: str) -> Iterator[RedisStore]:
    with closing(RedisStore(RedisConnection(one_redis_url), keys=Keys(redis_prefix))) as store:
        yield store


@pytest.fixture
def client(one_redis_server: Running) -> Iterator[Client]:
    assert isinstance(one_redis_server, Server)
    with one_redis_server.client() as client:
        yield client


def test_rows_are_stored_as_the_keys_say(store: RedisStore, client: Client, redis_prefix: str) -> None:
    """A hash for each table; the version and its copies; tokens are not counted."""
    store.put_config_row("providers", "main", "sealed")
    store.put_config_row("mcp-tokens:bob", "git", "sealed, too")
    assert store.seed_config("mcp", {"git": "row"}, "digest") is None
    assert contents(client, redis_prefix) == {
        "{config}:providers": {"main": "sealed"},
        "{config}:mcp": {"git": "row"},
        "{config}:mcp-tokens:bob": {"git": "sealed, too"},
        "{config}:seeded": {"mcp": "digest"},
        "{config}:version": "2",
        **{f"{{s{number}}}:config": "2" for number in range(SHARDS)},
    }


def test_every_admission_tells_the_version(store: RedisStore) -> None:
    """Whichever shard it is in, as soon as a change has returned."""
    for version in (1, 2):
        assert store.put_config_row("providers", "main", str(version)) == version
        told = {store.admit(a_start(shard=shard), None).config_version for shard in range(SHARDS)}
        assert told == {version}


def test_a_row_that_was_there_is_not_seeded_over(store: RedisStore) -> None:
    """Whoever put it there knew better."""
    store.put_config_row("providers", "main", "by hand")
    assert store.seed_config("providers", {"main": "seed", "other": "seed"}, "1") is None
    assert store.seed_config("providers", {"main": "again"}, "2") == "1"
    assert store.config_rows("providers")[1] == {"main": "by hand", "other": "seed"}


def test_a_change_that_is_stored_is_no_error(
    one_redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the copies of the version could not be written; upkeep brings them into line."""
    with closing(RedisConnection(one_redis_url)) as connection:
        config = RedisConfig(connection, Keys(redis_prefix))

        def run_many(_: object) -> list[object]:
            raise ServicesUnavailable("away")

        with monkeypatch.context() as patched:
            config.config_version()
            original = connection.run_many
            patched.setattr(connection, "run", lambda *call: original([call])[0])
            patched.setattr(connection, "run_many", run_many)
            assert config.put_config_row("providers", "main", "row") == 1
        assert config.config_version() == 1
        copy = Keys(redis_prefix).version_copy(7)
        assert connection.execute("GET", copy) is None
        config.heal_copies()
        assert connection.execute("GET", copy) == "1"
