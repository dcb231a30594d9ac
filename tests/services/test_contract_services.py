"""The services keep one contract over each way to them: called directly, by RPC in process, by RPC over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from threading import Thread
from typing import TypeAlias

import pytest
import urllib3
from werkzeug.serving import WSGIRequestHandler, make_server

from flask_aibridge.services.interfaces import Services
from flask_aibridge.services.memory.store import MemoryStore
from flask_aibridge.services.rpc import protocol
from flask_aibridge.services.rpc.client import Client, Server, create_in_memory_services
from flask_aibridge.services.storage import Store
from tests.services.contract_hosts import Host, make_host
from tests.services.contract_services import ServicesContract
from tests.services.contract_stores import redis_store

KINDS = ("memory", "valkey")
PATIENCE = dict.fromkeys(protocol.CALLS, 30.0)
"""Deadlines are not what the contract is about, and those of production are short where eight threads share a core."""

SHARED_KEY = "a-shared-key-that-is-long-enough"

Way: TypeAlias = Callable[[Host, ExitStack], Services]


def _directly(host: Host, stack: ExitStack) -> Services:
    stack.callback(host.services.close)
    return host.services


def _in_memory(host: Host, stack: ExitStack) -> Services:
    client = create_in_memory_services(host.services)
    client._timeouts.update(PATIENCE)
    stack.callback(client.close)
    return client


def _over_http(host: Host, stack: ExitStack) -> Services:
    app = Server(host.services, shared_key=SHARED_KEY)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    stack.callback(server.server_close)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    stack.callback(thread.join)
    stack.callback(server.shutdown)
    stack.callback(app.close)
    client = Client(
        urllib3.PoolManager(retries=False),
        f"http://127.0.0.1:{server.server_port}",
        shared_key=SHARED_KEY,
        timeouts=PATIENCE,
    )
    stack.callback(client.close)
    return client


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - Werkzeug's name
        """Say nothing."""


WAYS: dict[str, Way] = {"directly": _directly, "in-memory": _in_memory, "http": _over_http}


@pytest.fixture(params=KINDS)
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A host over each kind of store."""
    store = _store(request)
    yield make_host(store)
    store.close()


@pytest.fixture(params=WAYS)
def services(request: pytest.FixtureRequest, host: Host) -> Iterator[Services]:
    """Its services, reached in each way."""
    with ExitStack() as stack:
        yield WAYS[request.param](host, stack)


def _store(request: pytest.FixtureRequest) -> Store:
    if request.param == "memory":
        return MemoryStore()
    return redis_store(request.getfixturevalue("one_redis_url"), request.getfixturevalue("redis_prefix"))


class TestServices(ServicesContract):
    """All of it."""
