"""gunicorn as a process of its own, behind a Unix socket, with a provider that says what a test lets it say."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from flask_aibridge.errors import ServicesUnavailable
from flask_aibridge.license.issuing import SigningKey, issue_license
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.store import RedisStore
from flask_aibridge.services.storage import Query
from flask_aibridge.testing import StandInProvider, serve_stand_in
from tests.services.programs import environment
from tests.services.servers import wait_until

SIGNING = SigningKey.generate("k1")
KEY = "aib_static-key-of-alice"
PREFIX = "/api/v2/aibridge"
DEADLINE_SECONDS = 60.0
HOOKS = "from flask_aibridge.gunicorn import *\n"


class Provider:
    """Says a word, and the rest when it is let: all streams at once."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.url = ""

    def answer(self, question: str) -> Iterator[str]:
        yield "first "
        if "quick" not in question:
            assert self.go_on.wait(DEADLINE_SECONDS), "nobody let the stream go on"
        yield "last"

    @contextmanager
    def served(self) -> Iterator[Provider]:
        with serve_stand_in(StandInProvider(answer=self.answer)) as served:
            self.url = served.base_url
            try:
                yield self
            finally:
                self.go_on.set()


class Stream:
    """One answer of the public door, or of a view, that is read in a thread."""

    def __init__(self, connection: HTTPConnection, response: HTTPResponse) -> None:
        self._connection, self._response = connection, response
        self.status = response.status
        self.worker = int(response.headers.get("X-Worker", "0"))
        self.headers = response.headers
        self.data = b""
        self.broken: Exception | None = None
        self.first = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            while chunk := self._response.read1(65536):
                self.data += chunk
                if b"first" in self.data:
                    self.first.set()
        except (OSError, HTTPException) as error:
            self.broken = error
        finally:
            self.first.set()
            self._connection.close()

    def begun(self) -> Stream:
        """Itself, once it has said its first word."""
        assert self.first.wait(DEADLINE_SECONDS)
        assert b"first" in self.data, (self.status, self.data, self.broken)
        return self

    def read(self) -> bytes:
        """All that it said."""
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive(), "the stream does not end"
        return self.data

    @property
    def is_whole(self) -> bool:
        return b"last" in self.read() and b"message_stop" in self.data and self.broken is None


class Gunicorn:
    """A gunicorn that serves ``tests/gunicorn/host.py``, or what else a command serves.

    :param config: of the Flask app, beside what every one here needs.
    :param conf: the text of its ``gunicorn.conf.py``.
    """

    def __init__(
        self,
        provider: Provider,
        *options: str,
        conf: str = HOOKS,
        command: list[str] | None = None,
        env: dict[str, str] | None = None,
        **config: Any,
    ) -> None:
        here = Path(__file__).parent
        self.folder = Path(tempfile.mkdtemp(prefix="aibridge-"))
        (self.folder / "gunicorn.conf.py").write_text(conf)
        self.log = self.folder / "log"
        self.socket = str(self.folder / "s")
        settings = {
            "AIBRIDGE_PROVIDERS": {
                "anthropic": {"type": "anthropic", "base_url": provider.url, "keys": ["sk-upstream"]}
            },
            "AIBRIDGE_API_KEYS": {"alice": KEY},
            "AIBRIDGE_LICENSE": issue_license(SIGNING),
            "AIBRIDGE_LICENSE_PUBLIC_KEYS": {"k1": SIGNING.public_base64},
            **config,
        }
        bind = ("--bind", f"unix:{self.socket}")
        if command is None:
            conf_file = ("--config", str(self.folder / "gunicorn.conf.py"))
            gunicorn = (sys.executable, "-m", "gunicorn", "--no-control-socket", "--chdir", str(here))
            command = [*gunicorn, *options, *conf_file, *bind, "host:app"]
        else:
            command = [*command, *bind]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env=environment(
                    HOST_CONFIG=json.dumps(settings),
                    HOST_INSTANCE=str(self.folder / "instance"),
                    **(env or {}),
                ),
                cwd=here,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Gunicorn:
        try:
            wait_until(self._is_up, "gunicorn's first answer", DEADLINE_SECONDS)
        except BaseException:
            print(self.logged())
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(DEADLINE_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            print(self.logged())
            shutil.rmtree(self.folder, ignore_errors=True)

    def logged(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """TERM, and its exit status."""
        self.signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_SECONDS)

    def connection(self) -> HTTPConnection:
        connection = HTTPConnection("localhost", timeout=DEADLINE_SECONDS)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(DEADLINE_SECONDS)
        try:
            connection.sock.connect(self.socket)
        except OSError:
            connection.close()
            raise
        return connection

    def get(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        with closing(self.connection()) as connection:
            connection.request(method, path, headers={"Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read()

    def worker(self) -> int:
        return int(self.get("/worker")[1])

    def ask(
        self, path: str = f"{PREFIX}/anthropic/v1/messages", *, words: str = "slow", stream: bool = True
    ) -> Stream:
        """Ask the public door, or a view."""
        connection = self.connection()
        asked = {
            "model": "claude-x",
            "max_tokens": 99,
            "stream": stream,
            "messages": [{"role": "user", "content": words}],
        }
        headers = {"Content-Type": "application/json", "X-Api-Key": KEY, "anthropic-version": "2023-06-01"}
        try:
            connection.request("POST", path, json.dumps(asked), headers)
            return Stream(connection, connection.getresponse())
        except BaseException:
            connection.close()
            raise

    def spooled(self) -> list[Path]:
        """What is left in the spool."""
        folder = self.folder / "instance" / "aibridge" / "spool"
        return [each for each in folder.rglob("*") if each.is_file()] if folder.exists() else []

    def _is_up(self) -> bool:
        assert self.process.poll() is None, "gunicorn ended"
        with suppress(OSError, HTTPException):
            return self.get("/worker")[0] == 200
        return False


def statuses(url: str) -> list[str]:
    """How the interceptions recorded at a store ended; asked again where a busy machine lets the store answer late."""
    found: list[str] = []

    def answers() -> bool:
        with suppress(ServicesUnavailable), closing(RedisStore(RedisConnection(url))) as store:
            found[:] = sorted(each.status for each in store.interceptions(Query(), limit=1000).interceptions)
            return True
        return False

    until(answers, "the records")
    return found


def until(is_so: Callable[[], bool], what: str) -> None:
    wait_until(is_so, what, DEADLINE_SECONDS)
