"""Running servers for the tests of licences, emptied before each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.deployments import Cluster
from tests.services.servers import Running, Server, redis_binary, started, valkey_binary


def _binary() -> Path:
    found = valkey_binary() or redis_binary()
    if found is None:
        pytest.skip("needs a Redis or Valkey server")
    return found


@pytest.fixture(scope="session")
def _single() -> Iterator[Running]:
    server = Server(_binary())
    with started(server):
        yield server


@pytest.fixture(scope="session")
def _cluster() -> Iterator[Running]:
    server = Cluster(_binary())
    with started(server):
        yield server


@pytest.fixture
def license_server(_single: Running) -> Running:
    """A running, empty server."""
    return emptied(_single)


@pytest.fixture(params=["single", "cluster"])
def any_server(request: pytest.FixtureRequest) -> Running:
    """A running, empty server, and a cluster of them."""
    server: Running = request.getfixturevalue(f"_{request.param}")
    return emptied(server)


def emptied(server: Running) -> Running:
    server.thaw()
    server.start()
    server.flush()
    return server
