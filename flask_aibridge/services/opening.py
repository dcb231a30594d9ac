"""From settings to a store: which one it is, and that it is there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from flask_aibridge.config import Settings
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.storage import Store

__all__ = ["open_store"]

MEMORY: Final = "memory://"


def open_store(settings: Settings, instance_path: str | Path) -> Store:
    """The store that the settings name. It connects at its first use; only the embedded server is started here.

    :param instance_path: the app's own folder, for the embedded server.
    :raises ConfigError: for a URL that cannot be used, and without one where the ``[embedded]`` extra is missing.
    :raises ServicesUnavailable: where the embedded server does not start.
    """
    if settings.redis_url is not None and settings.redis_url.startswith(MEMORY):
        from flask_aibridge.services.memory.store import MemoryStore

        return MemoryStore(
            record_content=settings.record_content,
            retention_days=settings.retention_days,
            content_retention_days=settings.content_retention_days,
        )
    # Here, so that a host with a bridge of its own never loads redis-py.
    from flask_aibridge.services.redis.connection import RedisConnection
    from flask_aibridge.services.redis.store import RedisStore

    if settings.redis_url is not None:
        connection = RedisConnection(settings.redis_url)
    else:
        from flask_aibridge.services.embedded import acquire

        connection = RedisConnection(acquire(instance_path), restart=lambda: acquire(instance_path))
    return RedisStore(
        connection,
        keys=Keys(settings.redis_prefix),
        retention_days=settings.retention_days,
        content_retention_days=settings.content_retention_days,
        record_content=settings.record_content,
    )
