"""Clients who send their requests a byte at a time, under a gunicorn with eight threads: the others are answered."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread
from time import monotonic

import pytest

from flask_aibridge.testing import Served, StandInProvider, serve_stand_in
from tests.services.programs import environment
from tests.services.servers import wait_until

pytestmark = pytest.mark.servers

DEADLINE_SECONDS = 60.0
ANSWERED_SECONDS = 15.0
"""How long a request may take on a busy machine. The slow ones would take an hour."""

SLOW = 20
QUESTION = {"model": "m-1", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}


class Gunicorn:
    """One worker of eight threads, behind a Unix socket."""

    def __init__(self, provider: str, worker_class: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="aibridge-"))
        app = Path(__file__).with_name("upload_host.py")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "--worker-class", worker_class, "--threads", "8"),
                *("--bind", f"unix:{self._folder}/s", "--no-control-socket", "--log-level", "warning"),
                *("--graceful-timeout", "1", "--chdir", str(app.parent), f"{app.stem}:app"),
            ],
            env=environment(UPLOAD_PROVIDER=provider),
            start_new_session=True,
        )

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(DEADLINE_SECONDS)
        try:
            connection.connect(str(self._folder / "s"))
        except OSError:
            connection.close()
            raise
        return connection

    def ask(self, key: str) -> tuple[int, float]:
        """The status of the answer to a request that comes at once, and the seconds it took."""
        begun = monotonic()
        with closing(HTTPConnection("localhost", timeout=DEADLINE_SECONDS)) as connection:
            connection.sock = self.connect()
            headers = {"X-Api-Key": key, "Content-Type": "application/json", "Connection": "close"}
            connection.request("POST", "/anthropic/v1/messages", json.dumps(QUESTION), headers)
            response = connection.getresponse()
            response.read()
            return response.status, monotonic() - begun

    def is_up(self) -> bool:
        assert self._process.poll() is None, "gunicorn ended"
        with suppress(OSError):
            return self.ask("aib_bob_secret")[0] == 200
        return False

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(DEADLINE_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            shutil.rmtree(self._folder, ignore_errors=True)


class Trickle:
    """Requests that send a byte now and then, for as long as somebody takes them; then they come again."""

    def __init__(self, gunicorn: Gunicorn, key: str) -> None:
        self._gunicorn, self._key = gunicorn, key
        self._connections: list[socket.socket | None] = [None] * SLOW
        self._done = Event()
        self.reconnected = 0
        self._thread = Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._done.wait(0.02):
            for index in range(SLOW):
                self._send(index)

    def _send(self, index: int) -> None:
        connection = self._connections[index]
        try:
            if connection is None:
                self._connections[index] = self._begin()
                self.reconnected += 1
            else:
                connection.send(b"x")
        except OSError:
            if connection is not None:
                connection.close()
            self._connections[index] = None

    def _begin(self) -> socket.socket:
        connection = self._gunicorn.connect()
        head = f"POST /anthropic/v1/messages HTTP/1.1\r\nHost: h\r\nX-Api-Key: {self._key}\r\n"
        head += "Content-Length: 100000\r\n\r\n"
        connection.sendall(head.encode())
        return connection

    def end(self) -> None:
        self._done.set()
        self._thread.join()
        for connection in self._connections:
            if connection is not None:
                connection.close()


@pytest.fixture
def provider() -> Iterator[Served[StandInProvider]]:
    with serve_stand_in(StandInProvider(answer=["Hel", "lo"], keys=["sk-host"])) as served:
        yield served


@pytest.mark.parametrize(
    ("worker_class", "key"),
    [("gthread", "aib_nobody_secret"), ("gthread", "aib_alice_secret"), ("gevent", "aib_alice_secret")],
)
def test_slow_uploads_do_not_starve_the_rest(
    provider: Served[StandInProvider], worker_class: str, key: str
) -> None:
    """Neither those of strangers, nor those of one who has a key: twenty of them for eight threads."""
    pytest.importorskip("gunicorn")
    pytest.importorskip("gevent")
    gunicorn = Gunicorn(provider.base_url, worker_class)
    try:
        wait_until(gunicorn.is_up, "gunicorn's first answer", DEADLINE_SECONDS)
        trickle = Trickle(gunicorn, key)
        try:
            wait_until(lambda: trickle.reconnected >= SLOW, "the slow ones", DEADLINE_SECONDS)
            for _ in range(20):
                status, seconds = gunicorn.ask("aib_bob_secret")
                assert status == 200
                assert seconds < ANSWERED_SECONDS
        finally:
            trickle.end()
    finally:
        gunicorn.end()
