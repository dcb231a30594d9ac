"""Running servers for the tests of the services: one of each kind for all of them, emptied before each test.

``redis_url`` runs a test on every kind. A test for which one is enough takes ``one_redis_url``; one for some kinds
says ``@pytest.mark.parametrize("redis_kind", ["valkey", "cluster"])``. ``redis_server`` is the server itself, to be
killed and frozen: the next test that asks for it has it running. A server for worse is made with ``servers.started``.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from flask_aibridge.services.embedded import EmbeddedServer
from tests.conftest import EVERYTHING
from tests.services.deployments import Cluster, Sentinel
from tests.services.embedded_processes import is_alive
from tests.services.servers import (
    DEBIAN_REDIS,
    Running,
    Server,
    redis_binary,
    started,
    valkey_binary,
)

REDIS_KINDS: Final = ("valkey", "redis", "cluster", "sentinel")

ServerOfKind: TypeAlias = Callable[[str], Running]


def _binary(kind: str) -> Path:
    valkey, debian = valkey_binary(), redis_binary()
    if not EVERYTHING and kind != ("redis" if valkey is None else "valkey"):
        pytest.skip("one kind of server is enough here: the environment `servers` has them all")
    found = {"valkey": valkey, "redis": debian}.get(kind, valkey or debian)
    if found is None:
        missing = {
            "valkey": "the wheel of the [embedded] extra",
            "redis": f"{DEBIAN_REDIS} (apt-get install redis-server)",
        }
        pytest.skip(f"needs {missing.get(kind, ' or '.join(missing.values()))}")
    return found


def _make(kind: str) -> Running:
    makers: dict[str, Callable[[Path], Running]] = {"cluster": Cluster, "sentinel": Sentinel}
    return makers.get(kind, Server)(_binary(kind))


@pytest.fixture(scope="session")
def server_of_kind() -> Iterator[ServerOfKind]:
    """The running server of a kind, started when it is first asked for."""
    servers: dict[str, Running] = {}
    with ExitStack() as stack:

        def server_of_kind(kind: str) -> Running:
            if kind not in servers:
                server = _make(kind)
                stack.enter_context(started(server))
                servers[kind] = server
            return servers[kind]

        yield server_of_kind


@pytest.fixture(params=REDIS_KINDS)
def redis_kind(request: pytest.FixtureRequest) -> str:
    """On what kind of server the test runs: each in turn."""
    return str(request.param)


@pytest.fixture
def redis_server(redis_kind: str, server_of_kind: ServerOfKind) -> Running:
    """A running, empty server of each kind."""
    return _emptied(server_of_kind(redis_kind))


@pytest.fixture
def redis_url(redis_server: Running) -> str:
    """The address of a running, empty server of each kind."""
    return redis_server.url


@pytest.fixture
def one_redis_server(server_of_kind: ServerOfKind) -> Running:
    """A running, empty single server: the Valkey of the extra, or else Debian's Redis."""
    kind = "redis" if valkey_binary() is None else "valkey"
    return _emptied(server_of_kind(kind))


@pytest.fixture
def one_redis_url(one_redis_server: Running) -> str:
    """The address of a running, empty single server."""
    return one_redis_server.url


@pytest.fixture
def redis_prefix() -> str:
    """A prefix for keys that no other test has."""
    return f"test-{secrets.token_hex(4)}"


def _emptied(server: Running) -> Running:
    server.thaw()
    server.start()
    server.flush()
    return server


@pytest.fixture
def embedded_folder(tmp_path: Path) -> Iterator[Path]:
    """The folder of an embedded server; afterwards none is left on it."""
    folder = tmp_path / "aibridge"
    yield folder
    assert not is_alive(folder), "the server was not stopped"


@pytest.fixture
def embedded_server(embedded_folder: Path) -> Iterator[EmbeddedServer]:
    """This process's hold on an embedded server that is not started yet."""
    server = EmbeddedServer(embedded_folder)
    yield server
    server.release()


@pytest.fixture
def short_temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files with a short path."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    shutil.rmtree(folder)
