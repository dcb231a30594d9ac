"""The Redis store: recording, API keys, configuration, reading and upkeep on one connection."""

from __future__ import annotations

from flask_aibridge.services.redis.api_keys import RedisAPIKeys
from flask_aibridge.services.redis.config import RedisConfig
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.redis.reading import RedisReading
from flask_aibridge.services.redis.recording import RedisRecording
from flask_aibridge.services.redis.upkeep import RedisUpkeep

__all__ = ["LEASE_SECONDS", "RedisStore"]

LEASE_SECONDS = 60.0
"""For how long a worker counts as alive after its last sign of life: a few times as long as a pause that a busy or
suspended host may make, and no longer, since what it left running shows as running meanwhile."""


class RedisStore(RedisRecording, RedisAPIKeys, RedisConfig, RedisReading):
    """Keeps everything in Redis or Valkey, under the names that ``keys`` spells.

    :param connection: the way there; the store closes it.
    :param retention_days: for how long interceptions are kept, 0 for ever.
    :param content_retention_days: the same of prompts, tool usages and thoughts; null for as long as the interceptions.
    :param record_content: whether prompts, tool usages and thoughts are stored at all.
    :param lease_seconds: for how long a worker counts as alive after ``renew``.
    :param sweep_grace: for how long Redis has to have been there before a worker is believed dead, so that every live
        one has renewed its lease; null for as long as a lease.
    """

    def __init__(
        self,
        connection: RedisConnection,
        *,
        keys: Keys | None = None,
        retention_days: float = 60.0,
        content_retention_days: float | None = None,
        record_content: bool = True,
        lease_seconds: float = LEASE_SECONDS,
        sweep_grace: float | None = None,
    ) -> None:
        keys = keys or Keys()
        self.connection = connection
        RedisRecording.__init__(
            self, connection, keys, record_content=record_content, lease_seconds=lease_seconds
        )
        RedisAPIKeys.__init__(self, connection, keys)
        RedisConfig.__init__(self, connection, keys)
        RedisReading.__init__(self, connection, keys)
        self._upkeep = RedisUpkeep(
            connection,
            keys,
            record_swept=self.record_swept,
            heal=self.heal_copies,
            retention_days=retention_days,
            content_retention_days=content_retention_days,
            lease_seconds=lease_seconds,
            sweep_grace=lease_seconds if sweep_grace is None else sweep_grace,
        )

    def __repr__(self) -> str:
        return f"<RedisStore {self.connection.address}>"

    def maintain(self) -> None:
        """As ``Recorder.maintain``."""
        self._upkeep.maintain()

    def ping(self) -> None:
        """As ``Store.ping``."""
        self.connection.execute("PING")

    def close(self) -> None:
        """As ``Store.close``; watches end."""
        self.end_watches()
        self.connection.close()
