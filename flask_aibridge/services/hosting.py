"""The four services of this host, put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from flask_aibridge.config import RateLimit
from flask_aibridge.errors import KeyNotChecked, ServicesUnavailable
from flask_aibridge.services.authorizer import HostAuthorizer
from flask_aibridge.services.interfaces import (
    AccessTokens,
    Admission,
    Authorization,
    Authorizer,
    CallObserver,
    Credential,
    MCPConfigurator,
    MCPServerConfig,
    ProviderConfigurator,
    ProviderSet,
    Recorder,
    Services,
)
from flask_aibridge.services.rate_limits import counted_as
from flask_aibridge.services.records import InterceptionStart, Record
from flask_aibridge.services.storage import Store

__all__ = ["HostServices"]

_Observe: TypeAlias = Callable[[str, str], AbstractContextManager[Any]]
"""Service and method → the context of the call."""

_NOT_OBSERVED: Final = nullcontext()


class HostServices:
    """Satisfies ``interfaces.Services`` with this process's own implementations: no RPC, no copies.

    :param store: gives the store, at the first call that needs it.
    :param authorizer: a :class:`HostAuthorizer`, or a whole Authorizer of the host's, which is then asked alone.
    :param rate_limit: of each key that comes from outside and has none of its own; null for none.
    :param observer: sees every call, for tracing; a watch is one call, for as long as it lasts.
    """

    def __init__(
        self,
        store: Callable[[], Store],
        authorizer: Authorizer,
        mcp_configurator: MCPConfigurator,
        provider_configurator: ProviderConfigurator,
        *,
        rate_limit: RateLimit | None = None,
        observer: CallObserver | None = None,
    ) -> None:
        self._rate_limit = rate_limit
        self._find_store = store
        self._opened: Store | None = None
        self._asked = authorizer
        self._observer = observer
        self.recorder: Recorder = _Recorder(self._store, self._call)
        self.authorizer: Authorizer = _Authorizer(authorizer, self._call)
        self.mcp_configurator: MCPConfigurator = _MCPConfigurator(mcp_configurator, self._call)
        self.provider_configurator: ProviderConfigurator = _ProviderConfigurator(
            provider_configurator, self._call
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._asked!r}, store {'open' if self._opened else 'not used yet'}>"

    def admit(self, start: InterceptionStart | None, credential: Credential | None) -> Admission:
        """As ``interfaces.Services.admit``.

        A credential that needs no store is settled first, so that a round trip at the most is left; a stored key is
        checked and the start recorded in one. The start's id has to be of the shard of such a key then.
        """
        with self._call("services", "admit"):
            try:
                known = None if credential is None else self._known(credential)
                store = self._store()
            except ServicesUnavailable as error:
                error.not_asked = True
                raise
            if known is None or credential is None:
                return store.admit(start, credential, limit=self._rate_limit)
            start, limit = _on_behalf_of(start, known), known.rate_limit or self._rate_limit
            name = None if credential.key is None else counted_as(known)
            return replace(store.admit(start, None, limit=limit, counted_as=name), authorization=known)

    def close(self) -> None:
        """End watches and close the store's connections. Both can be used again."""
        if self._opened is not None:
            self._opened.close()

    def _known(self, credential: Credential) -> Authorization | None:
        try:
            if isinstance(self._asked, HostAuthorizer):
                return self._asked.authorize_locally(credential)
            return self._asked.authorize(credential)
        except ServicesUnavailable as error:
            raise KeyNotChecked(str(error), error.retry_after) from None

    def _store(self) -> Store:
        self._opened = store = self._find_store()
        return store

    def _call(self, service: str, method: str) -> AbstractContextManager[Any]:
        return _NOT_OBSERVED if self._observer is None else self._observer.call(service, method)


class _Recorder:
    def __init__(self, store: Callable[[], Store], observe: _Observe) -> None:
        self._store = store
        self._observe = observe

    def record(self, records: Sequence[Record]) -> None:
        with self._observe("recorder", "record"):
            self._store().record(records)

    def renew(self, worker: str) -> None:
        with self._observe("recorder", "renew"):
            self._store().renew(worker)

    def maintain(self) -> None:
        with self._observe("recorder", "maintain"):
            self._store().maintain()


class _Authorizer:
    def __init__(self, asked: Authorizer, observe: _Observe) -> None:
        self._asked = asked
        self._observe = observe

    def authorize(self, credential: Credential) -> Authorization:
        with self._observe("authorizer", "authorize"):
            return self._asked.authorize(credential)


class _MCPConfigurator:
    def __init__(self, asked: MCPConfigurator, observe: _Observe) -> None:
        self._asked = asked
        self._observe = observe

    def mcp_servers(self, user: str) -> tuple[MCPServerConfig, ...]:
        with self._observe("mcp_configurator", "mcp_servers"):
            return self._asked.mcp_servers(user)

    def mcp_access_tokens(self, user: str, server_ids: Sequence[str]) -> AccessTokens:
        with self._observe("mcp_configurator", "mcp_access_tokens"):
            return self._asked.mcp_access_tokens(user, server_ids)


class _ProviderConfigurator:
    def __init__(self, asked: ProviderConfigurator, observe: _Observe) -> None:
        self._asked = asked
        self._observe = observe

    def providers(self) -> ProviderSet:
        with self._observe("provider_configurator", "providers"):
            return self._asked.providers()

    @contextmanager
    def watch_providers(self) -> Iterator[Iterator[int]]:
        with (
            self._observe("provider_configurator", "watch_providers"),
            self._asked.watch_providers() as versions,
        ):
            yield versions


def _on_behalf_of(start: InterceptionStart | None, known: Authorization) -> InterceptionStart | None:
    return None if start is None else replace(start, initiator=known.user, key_id=known.key_id)


if TYPE_CHECKING:
    _: Services = HostServices.__new__(HostServices)
