"""Pure: what a bridge needs of its host: four services, behind one client.

The same protocols are satisfied by the host's own implementations (memory, Redis) and by ``rpc.Client``, which reaches
them in this process or on another machine. Every call raises ``ServicesUnavailable`` where the service cannot be
reached or its store is away, within its own deadline (a second or less), and changes nothing when called twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Protocol

from flask_aibridge.config import ProviderSettings, RateLimit
from flask_aibridge.services.records import InterceptionStart, Record


@dataclass(frozen=True, slots=True)
class Credential:
    """By what a caller is known: an API key as it was sent, or, for in-process callers only, a key's id.

    :raises ValueError: unless it is exactly one of them.
    """

    key: str | None = field(default=None, repr=False)
    key_id: str | None = None

    def __post_init__(self) -> None:
        if (self.key is None) == (self.key_id is None):
            raise ValueError("A credential is either a key or a key_id: give exactly one of them.")


@dataclass(frozen=True, slots=True)
class Scopes:
    """To what a key is limited. Null means to nothing; a pattern that ends in ``*`` stands for every name that begins
    so."""

    providers: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None

    def allow(self, provider: str, model: str | None) -> bool:
        """Tell whether a request for ``model`` (null where it names none) of ``provider`` is within the limits."""
        return _matches(self.providers, provider) and (model is None or _matches(self.models, model))


def _matches(patterns: tuple[str, ...] | None, name: str) -> bool:
    if patterns is None:
        return True
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns
    )


@dataclass(frozen=True, slots=True)
class Authorization:
    """Whom a credential belongs to. ``display_name`` is the key's own, for people; ``rate_limit`` too, null for the
    gateway's."""

    user: str
    key_id: str | None = None
    display_name: str | None = None
    scopes: Scopes = field(default_factory=Scopes)
    rate_limit: RateLimit | None = None


@dataclass(frozen=True, slots=True)
class RateStanding:
    """Where a caller stands under a rate limit: ``remaining`` requests may come now, and one more after ``reset_after``
    seconds, rounded up."""

    limit: RateLimit
    remaining: int
    reset_after: int


@dataclass(frozen=True, slots=True)
class Admission:
    """A request may go ahead: on whose behalf (null where no credential was given), under which version of the
    configuration (see ``ProviderSet.version``), and how many more may (null where there is no limit)."""

    authorization: Authorization | None
    config_version: int = 0
    rate: RateStanding | None = None


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """A provider instance as the host keeps it."""

    settings: ProviderSettings
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class ProviderSet:
    """Every provider of the host, and the version of the configuration that they were read at or after."""

    providers: tuple[ProviderConfig, ...]
    version: int = 0


@dataclass(frozen=True, slots=True)
class MCPServerConfig:
    """An MCP server whose tools may be injected. The patterns are searched for in the bare tool name; deny wins;
    null allows, or denies, nothing in particular."""

    id: str
    url: str
    tool_allow_regex: str | None = None
    tool_deny_regex: str | None = None


@dataclass(frozen=True, slots=True)
class AccessTokens:
    """Answers of a batch, by server id: each id that was asked for is in exactly one of the two."""

    tokens: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    errors: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class Recorder(Protocol):
    """Keeps the account of every interception."""

    def record(self, records: Sequence[Record]) -> None:
        """Store records, in one round trip, in any order and of any number of interceptions; one that is stored
        already is not stored again.

        A record whose interception has no start yet is kept and joins it when the start comes.

        :raises InvalidRecord: for a record that cannot be stored; none of the batch is then.
        """

    def renew(self, worker: str) -> None:
        """Say that a process is alive: its running interceptions are not interrupted for another ``LEASE_SECONDS``."""

    def maintain(self) -> None:
        """Do what upkeep is due: end what dead workers left running, delete what is past its retention.

        Short, and harmless from any number of processes at once. Every process calls it every few seconds.
        """


class Authorizer(Protocol):
    """Says who a caller is."""

    def authorize(self, credential: Credential) -> Authorization:
        """Whom the credential belongs to.

        For a key, in the order of the model: it parses, it exists, it has not expired, its secret fits, it is not
        revoked. For a ``key_id`` all but the secret.

        :raises Unauthorized: with the ``reason`` for the log.
        """


class MCPConfigurator(Protocol):
    """Says which MCP servers a user's requests may reach, and with which tokens."""

    def mcp_servers(self, user: str) -> tuple[MCPServerConfig, ...]:
        """The servers, without those whose patterns are broken."""

    def mcp_access_tokens(self, user: str, server_ids: Sequence[str]) -> AccessTokens:
        """The user's token of each server, in one call; an id given twice is answered once."""


class ProviderConfigurator(Protocol):
    """Says which providers there are."""

    def providers(self) -> ProviderSet:
        """Every provider, disabled ones without their keys. The answer holds secrets: never log it."""

    def watch_providers(self) -> AbstractContextManager[Iterator[int]]:
        """A stream of versions: one on subscribing, then one for each change, for as long as the context is open.
        Leaving the context ends the iterator, also one that another thread is waiting in.

        Signals of changes that follow one another closely may be one.
        """


class Services(Protocol):
    """The client: the four services of one host."""

    @property
    def recorder(self) -> Recorder: ...
    @property
    def authorizer(self) -> Authorizer: ...
    @property
    def mcp_configurator(self) -> MCPConfigurator: ...
    @property
    def provider_configurator(self) -> ProviderConfigurator: ...

    def admit(self, start: InterceptionStart | None, credential: Credential | None) -> Admission:
        """Authorise a caller, record the start of an interception and read the configuration's version, all in one
        round trip.

        With a credential, ``start.initiator`` and ``start.key_id`` are filled in from what it belongs to. ``start``
        is null for requests that are not recorded, ``credential`` for callers that need none. Called again with the
        same start, it records and counts nothing again.

        A credential that is a key, and not the id of one, came from outside, and its requests are counted where there
        is a rate limit.

        :raises Unauthorized: nothing is recorded then.
        :raises RateLimited: nothing is recorded then, and nothing counted.
        """

    def close(self) -> None:
        """End watches and close connections. The client can be used again."""


class CallObserver(Protocol):
    """Sees every call of a service; for tracing."""

    def call(self, service: str, method: str) -> AbstractContextManager[Any]:
        """A context that is entered before the call and left, with its exception if it has one, after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class APIKey:
    """An API key as it is listed: everything but its secret."""

    id: str
    owner: str
    display_name: str = ""
    scopes: Scopes = field(default_factory=Scopes)
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    rate_limit: RateLimit | None = None
