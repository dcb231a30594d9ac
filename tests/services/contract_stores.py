"""The stores that the contract suites run over."""

from __future__ import annotations

from typing import Any

from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.redis.store import RedisStore
from flask_aibridge.services.storage import Store


def redis_store(url: str, prefix: str, **options: Any) -> Store:
    """A store at a URL, with keys that nobody else has."""
    store: Store = RedisStore(RedisConnection(url), keys=Keys(prefix), **options)
    return store
