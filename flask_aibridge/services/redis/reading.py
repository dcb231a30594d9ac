"""``RedisReading``: reads back what is stored in Redis, with scripts that each look at one shard."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from flask_aibridge.services.redis import pages as redis_pages
from flask_aibridge.services.redis import sessions as redis_sessions
from flask_aibridge.services.redis import usage as redis_usage
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.storage import (
    Grouping,
    InterceptionView,
    Page,
    Query,
    SessionPage,
    SessionView,
    UsageRow,
)

__all__ = ["RedisReading"]


class RedisReading:
    """Satisfies ``storage.InterceptionReader`` by the stored form that ``keys`` describes.

    :param connection: runs the scripts.
    :param keys: spells the keys.
    """

    def __init__(self, connection: RedisConnection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    def interceptions(self, query: Query, *, limit: int = 100, cursor: str | None = None) -> Page:
        return redis_pages.page(self._connection, self._keys, query, limit, cursor)

    def interception(self, interception_id: str) -> InterceptionView | None:
        if not redis_sessions.is_interception_id(interception_id):
            return None
        return redis_pages.interception(self._connection, self._keys, interception_id)

    def sessions(
        self,
        *,
        initiator: str | None = None,
        active_after: datetime | None = None,
        active_before: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> SessionPage:
        return redis_sessions.sessions(
            self._connection,
            self._keys,
            initiator=initiator,
            active_after=active_after,
            active_before=active_before,
            limit=limit,
            cursor=cursor,
        )

    def session(self, session_id: str, *, initiator: str | None = None) -> SessionView | None:
        return redis_sessions.session(self._connection, self._keys, session_id, initiator)

    def usage(
        self,
        *,
        since: datetime,
        until: datetime,
        group_by: Sequence[Grouping] = ("day",),
        user: str | None = None,
        model: str | None = None,
        provider: str | None = None,
    ) -> tuple[UsageRow, ...]:
        wanted = {"user": user, "model": model, "provider": provider}
        return redis_usage.usage(
            self._connection, self._keys, since=since, until=until, group_by=group_by, wanted=wanted
        )

    def names(self, kind: Literal["model", "client"], *, initiator: str | None = None) -> tuple[str, ...]:
        return redis_usage.names(self._connection, self._keys, kind, initiator)
