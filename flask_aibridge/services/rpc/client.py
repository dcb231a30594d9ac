"""The client of the services' RPC, and the pair of client and server within one process.

``Client`` satisfies ``Services`` over any ``urllib3.PoolManager``: an ordinary one reaches a ``Server`` on another
host, the in-process transport's one in this process. ``hosting.HostServices`` is the same without any RPC.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from time import monotonic
from types import MappingProxyType
from typing import Any, Final, cast
from weakref import WeakSet

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from flask_aibridge.errors import InvalidRecord, ProtocolMismatch
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
from flask_aibridge.services.records import InterceptionStart, Record
from flask_aibridge.services.rpc import protocol
from flask_aibridge.services.rpc.answer import ClientWatch, read_answer, unavailable
from flask_aibridge.services.rpc.protocol import Call
from flask_aibridge.services.rpc.request import checked_key
from flask_aibridge.services.rpc.server import Server, observed
from flask_aibridge.services.schemas.messages import encode, kind_of, load
from flask_aibridge.services.schemas.metadata import compact
from flask_aibridge.transport import WSGIPoolManager

__all__ = ["DEFAULT_BASE_URL", "Client", "Server", "create_in_memory_services"]

DEFAULT_BASE_URL: Final = "http://aibridge-services"
"""Of a server in this process, which is reached under any name."""

MAX_IN_MEMORY_CALLS: Final = 1000
"""Calls at once within one process. A bound of their own: a bridge that is called in process holds one of the process's
slots while it calls its services, so it must never wait for another of them."""

_CONNECT_SHARE: Final = 0.5
"""Of a deadline, what one attempt to connect may take: two fit in."""

_ONCE_MORE: Final = urllib3.Retry(
    1, connect=1, read=0, redirect=0, status=0, other=0, respect_retry_after_header=False
)
_NEVER_AGAIN: Final = urllib3.Retry(0, connect=0, read=0, redirect=0, status=0, other=0)


class Client:
    """The services of a host, by RPC. Safe to use from any thread.

    :param pool: how the server is reached: an ordinary ``urllib3.PoolManager``, whose ``maxsize`` is best the number
        of threads that make calls, or a ``WSGIPoolManager`` of a ``Server``. It is the client's own from here on:
        ``close`` empties it.
    :param base_url: where the server is mounted.
    :param shared_key: the server's; not needed within one process.
    :param timeouts: deadlines in seconds by the name of the call, such as ``{"services.admit": 0.3}``; those of
        ``rpc_protocol.CALLS`` where it says nothing.
    :param observer: sees every call; a watch is one, for as long as it lasts.
    :raises ValueError: for a key that no header can hold, an unknown call or a timeout that is not above 0.
    """

    def __init__(
        self,
        pool: urllib3.PoolManager,
        base_url: str = DEFAULT_BASE_URL,
        *,
        shared_key: str | None = None,
        timeouts: Mapping[str, float] = MappingProxyType({}),
        observer: CallObserver | None = None,
    ) -> None:
        self._pool = pool
        self._base_url = base_url.rstrip("/")
        self._timeouts = _checked_timeouts(timeouts)
        self._observer = observer
        self._headers = _headers(shared_key)
        self._watches: WeakSet[ClientWatch] = WeakSet()
        self._lock = threading.Lock()
        self._process = os.getpid()
        self.recorder: Recorder = _Recorder(self)
        self.authorizer: Authorizer = _Authorizer(self)
        self.mcp_configurator: MCPConfigurator = _MCPConfigurator(self)
        self.provider_configurator: ProviderConfigurator = _ProviderConfigurator(self)

    def __repr__(self) -> str:
        return f"<Client of {self._base_url}>"

    def admit(self, start: InterceptionStart | None, credential: Credential | None) -> Admission:
        """As ``Services.admit``."""
        body = f'{{"start":{_text(start)},"credential":{_text(credential)}}}'
        return cast("Admission", _result("Admission", self.call(protocol.ADMIT, body)))

    def close(self) -> None:
        """End watches and close connections. The client can be used again."""
        with self._lock:
            watches = list(self._watches)
        for watch in watches:
            watch.close()
        self._pool.clear()

    def call(self, call: Call, body: str = "{}") -> Any:
        """Make a call; its result as parsed JSON.

        :param body: the arguments, a JSON object.
        :raises ServiceError: of the class that was raised at the server; ``ServicesUnavailable`` where there was no
            answer in time, ``ProtocolMismatch`` where something else answered.
        """
        with observed(self._observer, call):
            timeout = self._timeouts.get(call.name, call.timeout)
            deadline = monotonic() + timeout
            patience = urllib3.Timeout(connect=timeout * _CONNECT_SHARE, total=timeout)
            response = self._send(call, body, timeout, patience)
            try:
                return read_answer(call, response, deadline)
            except BaseException:
                response.close()
                raise

    def watch(self, call: Call) -> AbstractContextManager[ClientWatch]:
        """A watch, which is subscribed when its context is entered."""
        return ClientWatch(call, self._subscribe, lambda: observed(self._observer, call))

    def _subscribe(self, watch: ClientWatch) -> BaseHTTPResponse:
        timeout = self._timeouts.get(watch.call.name, watch.call.timeout)
        with self._lock:
            self._watches.add(watch)
        patience = urllib3.Timeout(connect=timeout * _CONNECT_SHARE, read=protocol.SILENCE_SECONDS)
        return self._send(watch.call, "{}", timeout, patience)

    def _send(self, call: Call, body: str, timeout: float, patience: urllib3.Timeout) -> BaseHTTPResponse:
        self._leave_to_parent()
        try:
            return self._pool.request(
                "POST",
                self._base_url + call.path,
                body=body.encode("utf-8", "replace"),
                headers={**self._headers, protocol.TIMEOUT_HEADER: protocol.timeout_text(timeout)},
                timeout=patience,
                retries=_ONCE_MORE if call.idempotent else _NEVER_AGAIN,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except (HTTPError, OSError, ValueError) as error:
            raise unavailable(call, error) from None

    def _leave_to_parent(self) -> None:
        """In a forked child, forget the connections: two processes must not write to one."""
        process = os.getpid()
        if process != self._process:
            self._pool.clear()
            self._process = process  # last: another thread that sees it takes a connection


def _checked_timeouts(timeouts: Mapping[str, float]) -> dict[str, float]:
    for name, seconds in timeouts.items():
        if name not in protocol.CALLS:
            raise ValueError(f"timeouts: there is no call {name!r}; there are {', '.join(protocol.CALLS)}.")
        if not seconds > 0:
            raise ValueError(f"timeouts: the seconds of {name} must be above 0.")
    return dict(timeouts)


def _headers(shared_key: str | None) -> dict[str, str]:
    headers = {
        "Content-Type": protocol.JSON,
        "Accept": protocol.JSON,
        "Accept-Encoding": "identity",
        protocol.VERSION_HEADER: protocol.version_text(),
    }
    if shared_key is not None:
        headers["Authorization"] = f"Bearer {checked_key(shared_key)}"
    return headers


def _text(message: InterceptionStart | Credential | None) -> str:
    return "null" if message is None else encode(message)


def _result(kind: str, answer: Any) -> Any:
    """The message that a server has answered with; what it got wrong is not the caller's record."""
    try:
        return load(kind, answer)
    except InvalidRecord as invalid:
        raise ProtocolMismatch(f"The server's answer cannot be read: {invalid}") from None


class _Recorder:
    def __init__(self, client: Client) -> None:
        self._client = client

    def record(self, records: Sequence[Record]) -> None:
        texts = [f'{{"kind":"{kind_of(record)}","record":{encode(record)}}}' for record in records]
        for batch in protocol.batches(texts):
            self._client.call(protocol.RECORD, f'{{"records":{batch}}}')

    def renew(self, worker: str) -> None:
        self._client.call(protocol.RENEW, compact({"worker": worker}))

    def maintain(self) -> None:
        self._client.call(protocol.MAINTAIN)


class _Authorizer:
    def __init__(self, client: Client) -> None:
        self._client = client

    def authorize(self, credential: Credential) -> Authorization:
        answer = self._client.call(protocol.AUTHORIZE, f'{{"credential":{encode(credential)}}}')
        return cast("Authorization", _result("Authorization", answer))


class _MCPConfigurator:
    def __init__(self, client: Client) -> None:
        self._client = client

    def mcp_servers(self, user: str) -> tuple[MCPServerConfig, ...]:
        answer = self._client.call(protocol.MCP_SERVERS, compact({"user": user}))
        if not isinstance(answer, list):
            raise ProtocolMismatch("The server's answer is no list of MCP servers.")
        return tuple([_result("MCPServerConfig", server) for server in answer])

    def mcp_access_tokens(self, user: str, server_ids: Sequence[str]) -> AccessTokens:
        unique = list(dict.fromkeys(server_ids))
        if not unique:
            return AccessTokens()
        body = compact({"user": user, "server_ids": unique})
        return cast(
            "AccessTokens", _result("AccessTokens", self._client.call(protocol.MCP_ACCESS_TOKENS, body))
        )


class _ProviderConfigurator:
    def __init__(self, client: Client) -> None:
        self._client = client

    def providers(self) -> ProviderSet:
        return cast("ProviderSet", _result("ProviderSet", self._client.call(protocol.PROVIDERS)))

    def watch_providers(self) -> AbstractContextManager[ClientWatch]:
        return self._client.watch(protocol.WATCH_PROVIDERS)


def create_in_memory_services(app: Any, *, observer: CallObserver | None = None) -> Client:
    """The services of a host in this process, by RPC through the in-process transport: what a remote bridge gets,
    without the network.

    :param app: a Flask app that the extension was initialised with, or anything that satisfies ``Services``.
    :param observer: sees every call twice, at the client and at the server.
    :raises RuntimeError: where the app has no extension, or the extension no services.
    """
    server = Server(_services_of(app), observer=observer)
    return Client(WSGIPoolManager(server, max_concurrency=MAX_IN_MEMORY_CALLS), observer=observer)


def _services_of(app: Any) -> Services | Callable[[], Services]:
    if callable(getattr(app, "admit", None)):
        return cast("Services", app)
    state = getattr(app, "extensions", {}).get("aibridge")
    if state is None:
        raise RuntimeError(
            "The app has no Flask-AIBridge: call AIBridge(app), or init_app(app) of the one you have, before "
            "create_in_memory_services(app)."
        )
    if getattr(state, "services", None) is None:
        raise RuntimeError(
            "The app's Flask-AIBridge has no services; mount the built-in bridge, or pass services."
        )
    return lambda: _current(state.services)


def _current(services: Any) -> Services:
    resolved = services if hasattr(services, "admit") else services()
    return cast("Services", resolved)
