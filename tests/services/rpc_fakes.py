"""Services that answer from a script, an observer that counts, and the ways to reach a server."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import urllib3

from flask_aibridge.config import ProviderSettings
from flask_aibridge.services.interfaces import (
    AccessTokens,
    Admission,
    Authorization,
    CallObserver,
    Credential,
    MCPServerConfig,
    ProviderConfig,
    ProviderSet,
    Scopes,
    Services,
)
from flask_aibridge.services.records import InterceptionStart, Record
from flask_aibridge.services.rpc.client import Client, Server
from flask_aibridge.testing import serve_stand_in
from flask_aibridge.transport import WSGIPoolManager

SHARED_KEY = "shared-key-of-the-tests"

KEEP_ALIVE = 0.05
"""Seconds between two lines of a watch over HTTP: how soon the server notices that a client is gone."""

AUTHORIZATION = Authorization("ada", "k1", "Ada's", Scopes(providers=("anthropic",), models=("claude-*",)))
ADMISSION = Admission(AUTHORIZATION, 7)
SERVERS = (
    MCPServerConfig("git", "https://git.test/mcp", "^get_", None),
    MCPServerConfig("wiki", "https://w.test"),
)
TOKENS = AccessTokens({"git": "token-of-git"}, {"wiki": "No token."})
PROVIDERS = ProviderSet(
    (ProviderConfig(ProviderSettings("anthropic", "anthropic", "https://a.test", ("sk-1",))),), 7
)


class FakeServices:
    """Answers every call with the constants above, or raises ``error``; keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.error: BaseException | None = None
        self.answers: dict[str, Any] = {
            "admit": ADMISSION,
            "authorize": AUTHORIZATION,
            "mcp_servers": SERVERS,
            "mcp_access_tokens": TOKENS,
            "providers": PROVIDERS,
        }
        self.hold = threading.Event()
        self.hold.set()
        self.entered = threading.Event()
        self.versions = Versions()

    @property
    def recorder(self) -> FakeServices:
        return self

    authorizer = mcp_configurator = provider_configurator = recorder

    def _call(self, *call: Any) -> Any:
        self.calls.append(call)
        self.entered.set()
        assert self.hold.wait(20)
        if self.error is not None:
            raise self.error
        return self.answers.get(call[0])

    def admit(self, start: InterceptionStart | None, credential: Credential | None) -> Admission:
        admission: Admission = self._call("admit", start, credential)
        return admission

    def record(self, records: Sequence[Record]) -> None:
        self._call("record", list(records))

    def renew(self, worker: str) -> None:
        self._call("renew", worker)

    def maintain(self) -> None:
        self._call("maintain")

    def authorize(self, credential: Credential) -> Authorization:
        authorization: Authorization = self._call("authorize", credential)
        return authorization

    def mcp_servers(self, user: str) -> tuple[MCPServerConfig, ...]:
        servers: tuple[MCPServerConfig, ...] = self._call("mcp_servers", user)
        return servers

    def mcp_access_tokens(self, user: str, server_ids: Sequence[str]) -> AccessTokens:
        tokens: AccessTokens = self._call("mcp_access_tokens", user, list(server_ids))
        return tokens

    def providers(self) -> ProviderSet:
        providers: ProviderSet = self._call("providers")
        return providers

    def watch_providers(self) -> AbstractContextManager[Iterator[int]]:
        self._call("watch_providers")
        return self.versions.watch()

    def close(self) -> None:
        self.calls.append(("close",))


class Versions:
    """A version that tests count up, and those who watch it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.version = 1
        self.watching = 0
        self.error: Exception | None = None

    def bump(self, error: Exception | None = None) -> None:
        with self.changed:
            self.version += 1
            self.error = error
            self.changed.notify_all()

    def wait_for_watching(self, number: int, deadline: float) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.watching == number, deadline)

    @contextlib.contextmanager
    def watch(self) -> Iterator[Iterator[int]]:
        left = threading.Event()
        with self.changed:
            self.watching += 1
            self.changed.notify_all()
        try:
            yield self._follow(left)
        finally:
            with self.changed:
                left.set()
                self.watching -= 1
                self.changed.notify_all()

    def _follow(self, left: threading.Event) -> Iterator[int]:
        seen = 0
        while True:
            with self.changed:
                self.changed.wait_for(lambda: left.is_set() or self.version != seen)  # noqa: B023
                if left.is_set():
                    return
                if self.error is not None:
                    raise self.error
                seen = self.version
            yield seen


class CountingObserver:
    """Keeps every call it saw: service, method, and how it ended."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, type[BaseException] | None]] = []
        self.left = threading.Event()

    @contextlib.contextmanager
    def call(self, service: str, method: str) -> Iterator[None]:
        ended: type[BaseException] | None = None
        try:
            yield
        except BaseException as error:
            ended = type(error)
            raise
        finally:
            self.calls.append((service, method, ended))
            self.left.set()


class Way:
    """Services, and how tests reach them."""

    def __init__(self, fake: FakeServices, services: Services, server: Server | None) -> None:
        self.fake = fake
        self.services = services
        self.server = server


@contextlib.contextmanager
def direct() -> Iterator[Way]:
    fake = FakeServices()
    yield Way(fake, fake, None)


@contextlib.contextmanager
def in_memory(observer: CallObserver | None = None, **server_options: Any) -> Iterator[Way]:
    fake = FakeServices()
    server = Server(fake, **server_options)
    client = Client(WSGIPoolManager(server), observer=observer)
    try:
        yield Way(fake, client, server)
    finally:
        client.close()
        server.close()


@contextlib.contextmanager
def over_http(observer: CallObserver | None = None, **server_options: Any) -> Iterator[Way]:
    fake = FakeServices()
    server = Server(fake, shared_key=SHARED_KEY, **{"keep_alive": KEEP_ALIVE, **server_options})
    with serve_stand_in(server) as served:
        client = Client(
            urllib3.PoolManager(), served.base_url, shared_key=SHARED_KEY, observer=observer, timeouts=PATIENT
        )
        try:
            yield Way(fake, client, server)
        finally:
            client.close()
            server.close()


PATIENT = {"services.admit": 10.0, "authorizer.authorize": 10.0, "provider_configurator.providers": 10.0}
"""Deadlines for a machine that does other things too."""

WAYS: dict[str, Callable[..., AbstractContextManager[Way]]] = {
    "direct": direct,
    "in-memory": in_memory,
    "http": over_http,
}
