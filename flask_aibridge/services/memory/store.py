"""A store in this process's memory: for tests, yours and ours. ``memory://`` means this one.

It does what Redis does, under the same contract suite, and shares nothing with other processes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from threading import Condition
from typing import Final, Literal, TypeVar

from flask_aibridge.config import RateLimit
from flask_aibridge.errors import Unauthorized
from flask_aibridge.services import api_keys
from flask_aibridge.services.interfaces import Admission, Authorization, Credential, RateStanding
from flask_aibridge.services.memory import reading as memory_reading
from flask_aibridge.services.memory.config import ConfigTables
from flask_aibridge.services.memory.ledger import Ledger, days_before
from flask_aibridge.services.rate_limits import Callers
from flask_aibridge.services.rate_limits import counted_as as name_of
from flask_aibridge.services.records import InterceptionStart, Record
from flask_aibridge.services.schemas import messages as schemas
from flask_aibridge.services.storage import (
    LEASE_SECONDS,
    APIKeyPage,
    APIKeyRow,
    Grouping,
    InterceptionView,
    Page,
    Query,
    SessionPage,
    SessionView,
    UsageRow,
)

RETENTION_DAYS: Final = 60.0

_log = logging.getLogger("flask_aibridge.services")


class MemoryStore:
    """Satisfies ``storage.Store``. Any number of threads may use it.

    It is bounded by retention, as long as somebody calls :meth:`maintain`, and by
    ``memory_ledger.MAX_INTERCEPTIONS``, the oldest going first.

    :param record_content: whether prompts, tool inputs and thoughts are kept.
    :param retention_days: how long interceptions and roll-ups are kept; 0 for ever.
    :param content_retention_days: how long content is kept; null as long as its interception, 0 likewise.
    :param lease_seconds: how long a worker that renewed is believed to be alive.
    :param clock: the time, in seconds since the epoch.
    """

    def __init__(
        self,
        *,
        record_content: bool = True,
        retention_days: float = RETENTION_DAYS,
        content_retention_days: float | None = None,
        lease_seconds: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._retention_days = retention_days
        self._content_retention_days = content_retention_days
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._lock = Condition()
        self._used = False
        self._ledger = Ledger(record_content=record_content)
        self._config = ConfigTables(self._lock)
        self._keys: dict[str, APIKeyRow] = {}
        self._leases: dict[str, float] = {}
        self._callers = Callers()

    def _use(self) -> Condition:
        """The lock, to be held in a ``with``."""
        with self._lock:
            first, self._used = not self._used, True
        if first:
            _log.warning(
                "memory:// keeps records in this process only and loses them with it: it is for tests."
            )
        return self._lock

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    # Admission and the record

    def admit(
        self,
        start: InterceptionStart | None,
        credential: Credential | None,
        *,
        limit: RateLimit | None = None,
        counted_as: str | None = None,
    ) -> Admission:
        """Authorise a caller, count the request, keep the start, tell the version."""
        kept = None if start is None else _kept_form(start)
        with self._use():
            authorization = None if credential is None else self._authorize(credential)
            if credential is not None and authorization is not None and credential.key is not None:
                limit, counted_as = authorization.rate_limit or limit, name_of(authorization)
            standing = self._count(kept, limit, counted_as)
            if kept is not None:
                self._ledger.put(_on_behalf_of(kept, authorization), self._clock())
            return Admission(authorization, self._config.version, standing)

    def _count(
        self, start: InterceptionStart | None, limit: RateLimit | None, counted_as: str | None
    ) -> RateStanding | None:
        if limit is None or counted_as is None:
            return None
        known = None if start is None else self._ledger.get(start.id)
        again = known is not None and known.start is not None
        return self._callers.count(counted_as, limit, int(self._clock() * 1_000_000), again=again)

    def authorize(self, credential: Credential) -> Authorization:
        """Whom the credential belongs to."""
        with self._use():
            return self._authorize(credential)

    def _authorize(self, credential: Credential) -> Authorization:
        key_id, secret = _parts(credential)
        row = self._keys.get(key_id)
        if row is None:
            raise Unauthorized("unknown")
        now = self._now()
        reason = api_keys.check(row, secret, now)
        if reason is not None:
            raise Unauthorized(reason)
        self._keys[key_id] = replace(row, key=replace(row.key, last_used_at=now))
        return api_keys.authorization_of(row.key)

    def record(self, records: Sequence[Record]) -> None:
        """Keep records."""
        kept = [_kept_form(record) for record in records]
        with self._use():
            for record in kept:
                self._ledger.put(record, self._clock())

    def renew(self, worker: str) -> None:
        """Take a process for alive."""
        with self._use():
            self._leases[worker] = self._clock() + self._lease_seconds

    def maintain(self) -> None:
        """End what dead workers left, and delete a batch of what is past its retention."""
        with self._use():
            now, at = self._clock(), self._now()
            self._leases = {worker: until for worker, until in self._leases.items() if until > now}
            self._ledger.sweep(now, self._lease_seconds, self._leases.__contains__, at)
            if self._retention_days:
                self._ledger.delete_before(days_before(at, self._retention_days))
            if self._content_retention_days:
                self._ledger.clear_content_before(days_before(at, self._content_retention_days))

    # API keys

    def put_api_key(self, row: APIKeyRow) -> None:
        """Keep a key."""
        with self._use():
            stored = self._keys.get(row.key.id)
            last_used_at = None if stored is None else stored.key.last_used_at
            revoked_at = (stored and stored.key.revoked_at) or row.key.revoked_at
            key = replace(row.key, last_used_at=last_used_at, revoked_at=revoked_at)
            self._keys[row.key.id] = replace(row, key=key)

    def api_key(self, key_id: str) -> APIKeyRow | None:
        """One key, or null."""
        with self._use():
            return self._keys.get(key_id)

    def api_keys(
        self, owner: str | None = None, *, limit: int = 100, cursor: str | None = None
    ) -> APIKeyPage:
        """A page of keys."""
        with self._use():
            rows = list(self._keys.values())
        return memory_reading.api_keys(rows, owner, limit, cursor)

    # Configuration

    def config_version(self) -> int:
        """The version."""
        with self._use():
            return self._config.version

    def config_rows(self, table: str) -> tuple[int, Mapping[str, str]]:
        """The rows of a table, and the version."""
        with self._use():
            return self._config.version, self._config.rows(table)

    def put_config_row(self, table: str, name: str, text: str) -> int:
        """Keep a row."""
        with self._use():
            return self._config.put(table, name, text)

    def delete_config_row(self, table: str, name: str) -> int | None:
        """Delete a row."""
        with self._use():
            return self._config.delete(table, name)

    def seed_config(self, table: str, rows: Mapping[str, str], digest: str) -> str | None:
        """Keep rows, once; those that are there already stay as they are."""
        with self._use():
            return self._config.seed(table, rows, digest)

    def watch_config(self) -> AbstractContextManager[Iterator[int]]:
        """Versions, as they come."""
        return self._config.watch()

    # Reading back

    def interceptions(self, query: Query, *, limit: int = 100, cursor: str | None = None) -> Page:
        """A page of what matches."""
        with self._use():
            return memory_reading.page(self._ledger, query, limit, cursor)

    def interception(self, interception_id: str) -> InterceptionView | None:
        """One interception."""
        with self._use():
            return memory_reading.view(self._ledger, interception_id)

    def sessions(
        self,
        *,
        initiator: str | None = None,
        active_after: datetime | None = None,
        active_before: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> SessionPage:
        """A page of sessions."""
        with self._use():
            return memory_reading.sessions(
                self._ledger,
                initiator=initiator,
                active_after=active_after,
                active_before=active_before,
                limit=limit,
                cursor=cursor,
            )

    def session(self, session_id: str, *, initiator: str | None = None) -> SessionView | None:
        """One session."""
        with self._use():
            return memory_reading.session(self._ledger, session_id, initiator)

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
        """Roll-ups, summed."""
        with self._use():
            return memory_reading.usage(
                self._ledger,
                since=since,
                until=until,
                group_by=group_by,
                user=user,
                model=model,
                provider=provider,
            )

    def names(self, kind: Literal["model", "client"], *, initiator: str | None = None) -> tuple[str, ...]:
        """Models or clients."""
        with self._use():
            return memory_reading.names(self._ledger, kind, initiator)

    def ping(self) -> None:
        """It answers."""
        with self._use():
            pass

    def close(self) -> None:
        """End watches; the records stay."""
        with self._lock:
            self._config.end_watches()


_AnyRecord = TypeVar("_AnyRecord", bound=Record)


def _kept_form(record: _AnyRecord) -> _AnyRecord:
    """What a store gives back of a record: within the limits of its form, and nobody else's to change."""
    kept: _AnyRecord = schemas.decode(schemas.kind_of(record), schemas.encode(record))
    return kept


def _parts(credential: Credential) -> tuple[str, str | None]:
    """The id of a credential's key, and its secret where it was sent."""
    if credential.key is not None:
        return api_keys.parse(credential.key)
    assert credential.key_id is not None, "a credential has one of the two"
    return credential.key_id, None


def _on_behalf_of(start: InterceptionStart, authorization: Authorization | None) -> InterceptionStart:
    if authorization is None:
        return start
    return replace(start, initiator=authorization.user, key_id=authorization.key_id)
