"""Pure: what a store has to do for the services. Memory and Redis do it, under one contract suite.

Every method may raise ``ServicesUnavailable``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

from flask_aibridge.config import RateLimit
from flask_aibridge.services.interfaces import Admission, APIKey, Authorization, Credential, Recorder
from flask_aibridge.services.records import (
    InterceptionEnd,
    InterceptionStart,
    ModelThought,
    PromptUsage,
    Status,
    TokenUsage,
    ToolUsage,
)

LEASE_SECONDS = 60.0
"""How long a process that has said it is alive is believed to be: several of its renewals may fail before."""

WATCH_SECONDS = 2.0
"""After how long at most a watch tells of a change."""

MAX_LIMIT = 1000
"""The largest page."""

MAX_TIMELINE = 1_000
"""Interceptions of a session that are shown one by one: an agent's for a day, half a megabyte."""

MAX_COUNTED = 1_000
"""How far matches are counted where an index cannot tell their number: a count must not cost more than the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class APIKeyRow:
    """An API key as it is stored: what is listed of it, and the hash of its secret (SHA-256, hexadecimal). After a
    rotation with an overlap the old secret is accepted until ``old_until``."""

    key: APIKey
    secret_hash: str = field(repr=False)
    old_hash: str | None = field(default=None, repr=False)
    old_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class APIKeyPage:
    """A page of API keys. ``next`` is the cursor of the next page, null on the last; ``count`` is the number of all
    that match, when the first page was made."""

    count: int
    rows: tuple[APIKeyRow, ...]
    next: str | None


class APIKeyStore(Protocol):
    """Keeps API keys."""

    def put_api_key(self, row: APIKeyRow) -> None:
        """Store a key, new or in place of the one with its id.

        ``last_used_at`` is left as it is stored, and so is ``revoked_at`` once it is there: a row that was read before
        the key was revoked, such as that of a rotation, does not bring it back.
        """

    def api_key(self, key_id: str) -> APIKeyRow | None:
        """One key, or null."""

    def api_keys(
        self, owner: str | None = None, *, limit: int = 100, cursor: str | None = None
    ) -> APIKeyPage:
        """A page of keys, newest first: everybody's, or one owner's. Cursors are as those of ``InterceptionReader``."""


class ConfigStore(Protocol):
    """Keeps rows of configuration: text under a name, in named tables, and one version for all that is watched.

    The tables are ``providers``, ``mcp`` and ``mcp-tokens:<user>``.
    """

    def config_version(self) -> int:
        """The version: 0 before the first change."""

    def config_rows(self, table: str) -> tuple[int, Mapping[str, str]]:
        """The rows of a table by name, and a version that they are not older than."""

    def put_config_row(self, table: str, name: str, text: str) -> int:
        """Store a row; the new version."""

    def delete_config_row(self, table: str, name: str) -> int | None:
        """Delete a row; the new version, or null where there was none."""

    def seed_config(self, table: str, rows: Mapping[str, str], digest: str) -> str | None:
        """Store rows if the table was never seeded. Null where it is seeded now, else the digest of what it was seeded
        from. Only one of several processes seeds."""

    def watch_config(self) -> AbstractContextManager[Iterator[int]]:
        """Versions: the present one, then one for each change, at most ``WATCH_SECONDS`` after it, for as long as the
        context is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which interceptions are asked for. Null asks for any; times are half-open: after ≤ started_at < before, to the
    millisecond. Text that is empty in a record counts as null there, so nothing is found by asking for it."""

    initiator: str | None = None
    provider: str | None = None
    model: str | None = None
    client: str | None = None
    source: str | None = None
    session_id: str | None = None
    status: Status | None = None
    started_after: datetime | None = None
    started_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSums:
    """Sums of token counts."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    extra: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterceptionView:
    """An interception as it is read back. Records are filled in for a single one only, in order of time.

    An interception that answers a tool call goes on with its ``thread_parent_id``: the last one before it, of the same
    user, session and shard, that made a call of that id. ``thread_root_id`` is where the thread began. For one that
    begins a thread, as far as is known, both are null.
    """

    start: InterceptionStart
    status: Status
    end: InterceptionEnd | None
    tokens: TokenSums
    thread_parent_id: str | None = None
    thread_root_id: str | None = None
    usages: tuple[TokenUsage, ...] = ()
    prompts: tuple[PromptUsage, ...] = ()
    tool_calls: tuple[ToolUsage, ...] = ()
    thoughts: tuple[ModelThought, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of interceptions, newest first. ``next`` is the cursor of the next page, null on the last and there alone:
    a page may be short, even empty, where little of what had to be looked at matches. ``count`` is the number of all
    that match, when the first page was made; where filters meet (but for times, and one of ``RARE_ENDS`` with one
    other), of those among the newest ``MAX_COUNTED`` that the best index has, and perhaps no more."""

    count: int
    interceptions: tuple[InterceptionView, ...]
    next: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """The interceptions of one user that carry one session id; or those of a thread that carry none, under the id of
    its root. ``threads`` is how many there are. ``timeline`` is filled in for a single session only: its newest
    ``MAX_TIMELINE`` interceptions, in order of time."""

    id: str
    initiator: str
    providers: tuple[str, ...]
    models: tuple[str, ...]
    client: str | None
    started_at: datetime
    ended_at: datetime | None
    last_active_at: datetime
    interceptions: int
    threads: int
    tokens: TokenSums
    timeline: tuple[InterceptionView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPage:
    """A page of sessions, last active first."""

    count: int
    sessions: tuple[SessionView, ...]
    next: str | None


Grouping: TypeAlias = Literal["day", "hour", "user", "model", "provider"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """The usage of one group. What is not grouped by is null. ``period`` is the start of the day or hour, in UTC."""

    period: datetime | None = None
    user: str | None = None
    model: str | None = None
    provider: str | None = None
    requests: int = 0
    tokens: TokenSums = field(default_factory=TokenSums)


class InterceptionReader(Protocol):
    """Reads interceptions back.

    Cursors are opaque text; one that was not made here, or for another query, is a ``ValueError``.
    """

    def interceptions(self, query: Query, *, limit: int = 100, cursor: str | None = None) -> Page:
        """A page of what matches, newest first, without content."""

    def interception(self, interception_id: str) -> InterceptionView | None:
        """One interception with everything recorded of it, or null."""

    def sessions(
        self,
        *,
        initiator: str | None = None,
        active_after: datetime | None = None,
        active_before: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> SessionPage:
        """A page of sessions, last active first."""

    def session(self, session_id: str, *, initiator: str | None = None) -> SessionView | None:
        """One session, by its session id or the id of any of its interceptions that carry none; of any user where
        ``initiator`` is null."""

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
        """The hourly roll-ups of ``since`` ≤ hour < ``until``, summed by group and sorted by it."""

    def names(self, kind: Literal["model", "client"], *, initiator: str | None = None) -> tuple[str, ...]:
        """Every model or client seen, sorted; of one user's interceptions where ``initiator`` is given."""


class Store(Recorder, APIKeyStore, ConfigStore, InterceptionReader, Protocol):
    """All that the services keep."""

    def admit(
        self,
        start: InterceptionStart | None,
        credential: Credential | None,
        *,
        limit: RateLimit | None = None,
        counted_as: str | None = None,
    ) -> Admission:
        """As ``Services.admit``, for the API keys that are stored, in one round trip.

        :param limit: of a key that has none of its own; or, with ``counted_as``, of whatever is counted.
        :param counted_as: the name under which the request counts where ``credential`` is null, because it was settled
            elsewhere; null for requests that are not counted.
        """

    def authorize(self, credential: Credential) -> Authorization:
        """As ``Authorizer.authorize``, for the API keys that are stored."""

    def ping(self) -> None:
        """Return if the store answers."""

    def close(self) -> None:
        """Close connections. The store can be used again."""
