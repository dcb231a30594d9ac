"""Services on a Redis for the tests of faults: as a host has them, with what nobody asks for here left out."""

from __future__ import annotations

from typing import Any, cast

from flask_aibridge.services.hosting import HostServices
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.redis.store import RedisStore
from flask_aibridge.services.storage import Store


def redis_store(url: str, prefix: str, **options: Any) -> RedisStore:
    """A store under a prefix of its own."""
    return RedisStore(RedisConnection(url), keys=Keys(prefix), **options)


def services_on(store: Store) -> HostServices:
    """Services that record and authorise; there are no providers and no MCP servers."""
    nobody = cast(Any, None)
    return HostServices(lambda: store, store, nobody, nobody)
