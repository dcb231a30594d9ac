"""Licences in several processes: a change reaches all of them, an outage none; and what needs no licence never asks."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask

from flask_aibridge import AIBridge
from flask_aibridge.errors import ServicesUnavailable
from flask_aibridge.license.holder import LicenseHolder
from flask_aibridge.license.issuing import SigningKey, issue_license
from flask_aibridge.license.redis_license_store import RedisLicenseStore
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.storage import Query
from tests.services.programs import environment
from tests.services.servers import Server, redis_binary, started, valkey_binary, wait_until

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

KEY = SigningKey.generate("k1")
WORKERS = 3
IN_FORCE_SECONDS = 2.0
"""Within which a change is in force in every worker of every host."""

BUSY_SECONDS = 2.0
"""How much later it may be on a machine whose processors others use as well."""

DEADLINE_SECONDS = 60.0

EVER = float("-inf")
"""When something was decided that no request may find otherwise."""


class Host:
    """A gunicorn of its own, with three workers, behind a Unix socket."""

    def __init__(self, redis_url: str, *options: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="aibridge-"))
        app = Path(__file__).with_name("license_host.py")
        command = [sys.executable, "-m", "gunicorn", "--workers", str(WORKERS), *options]
        self._process = subprocess.Popen(
            [
                *command,
                *("--bind", f"unix:{self._folder}/s", "--no-control-socket", "--log-level", "warning"),
                *("--chdir", str(app.parent), f"{app.stem}:app"),
            ],
            env=environment(LICENSE_REDIS_URL=redis_url, LICENSE_PUBLIC_KEY=KEY.public_base64),
            start_new_session=True,
        )

    def ask(self, path: str) -> tuple[str, int]:
        """Which worker answered, and its status."""
        with closing(HTTPConnection("localhost", timeout=DEADLINE_SECONDS)) as connection:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(DEADLINE_SECONDS)
            connection.sock.connect(str(self._folder / "s"))
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            response.read()
            return response.headers["X-Worker"], response.status

    def is_up(self) -> bool:
        assert self._process.poll() is None, "gunicorn ended"
        with suppress(OSError):
            return bool(self.ask("/own"))
        return False

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(DEADLINE_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture
def redis_server() -> Iterator[Server]:
    binary = valkey_binary() or redis_binary()
    if binary is None:
        pytest.skip("needs a Redis or Valkey server")
    server = Server(binary)
    with started(server):
        yield server


@pytest.fixture
def hosts(redis_server: Server) -> Iterator[list[Host]]:
    """Two of them; one loads the application before it forks."""
    pytest.importorskip("gunicorn")
    running: list[Host] = []
    try:
        running.extend(Host(redis_server.url, *options) for options in ((), ("--preload",)))
        for host in running:
            wait_until(host.is_up, "gunicorn's first answer", DEADLINE_SECONDS)
        yield running
    finally:
        for host in running:
            host.end()


def all_answer(hosts: list[Host], path: str, status: int, since: float | None = None) -> None:
    """Ask until each worker of each host has answered with this status.

    :param since: when that was decided: no request that begins later than it may take is answered otherwise.
    """
    for host in hosts:
        seen = set[str]()

        def each_has_answered(host: Host = host, seen: set[str] = seen) -> bool:
            begun = monotonic()
            worker, answered = host.ask(path)
            if answered == status:
                seen.add(worker)
            elif since is not None:
                late = begun - since
                assert late < IN_FORCE_SECONDS + BUSY_SECONDS, f"{answered} {late:.1f} s after the change"
            return len(seen) == WORKERS

        wait_until(each_has_answered, f"{status} from every worker", DEADLINE_SECONDS)


def test_a_change_reaches_every_worker_of_every_host(hosts: list[Host], redis_server: Server) -> None:
    """Install and remove, with Redis killed and restarted in between; the hosts' own pages never notice."""
    with closing(RedisConnection(redis_server.url)) as connection:
        vendor = LicenseHolder({"k1": KEY.public_pem}, store=lambda: RedisLicenseStore(connection, "test"))
        all_answer(hosts, "/licensed", 403)

        vendor.install(issue_license(KEY, jti="spread"))
        all_answer(hosts, "/licensed", 200, since=monotonic())

        redis_server.kill()
        all_answer(hosts, "/licensed", 200, since=EVER)
        all_answer(hosts, "/own", 200, since=EVER)
        redis_server.start()

        _when_it_is_back(lambda: vendor.remove("spread"))
        all_answer(hosts, "/licensed", 403, since=monotonic())
        all_answer(hosts, "/own", 200, since=EVER)

        vendor.install(issue_license(KEY, jti="again"))
        all_answer(hosts, "/licensed", 200, since=monotonic())


def _when_it_is_back(change: Callable[[], object]) -> None:
    def done() -> bool:
        with suppress(ServicesUnavailable):
            change()
            return True
        return False

    wait_until(done, "Redis taking changes again", DEADLINE_SECONDS)


def bridge(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the bridge"]


EXPIRED = issue_license(KEY, nbf=1_000_000_000)


@pytest.mark.parametrize(
    ("token", "code"),
    [(None, "license_required"), ("x.y.z", "license_malformed"), (EXPIRED, "license_expired")],
    ids=["none", "broken", "expired"],
)
def test_without_a_licence_only_the_public_door_is_closed(token: str | None, code: str) -> None:
    """The host's own views, the in-process door and the records work as ever."""
    app = Flask("host")
    app.config |= {
        "AIBRIDGE_LICENSE": token,
        "AIBRIDGE_LICENSE_PUBLIC_KEYS": {"k1": KEY.public_pem},
        "AIBRIDGE_REDIS_URL": "memory://",
        "AIBRIDGE_ADMIN_TOKEN": "t" * 32,
    }
    app.add_url_rule("/own", view_func=lambda: "the host's own")
    aibridge = AIBridge(app, bridge)
    state: Any = app.extensions["aibridge"]
    try:
        client = app.test_client()
        refused = client.post("/api/v2/aibridge/anthropic/v1/messages")
        assert refused.status_code == 403
        assert code in refused.text

        assert client.get("/own").text == "the host's own"
        inside = aibridge.transport_for("anthropic", "agents")
        assert inside.request("POST", "https://api.anthropic.com/v1/messages").data == b"the bridge"
        inside.clear()
        now = datetime.now(UTC)
        assert state.store().interceptions(Query(started_before=now)).count == 0
        records: Any = client.get(
            "/api/v2/aibridge/interceptions", headers={"Authorization": f"Bearer {'t' * 32}"}
        )
        assert (records.status_code, records.json["count"]) == (200, 0)
    finally:
        state.close()
