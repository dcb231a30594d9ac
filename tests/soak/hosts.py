"""The hosts: each a gunicorn with an instance folder of its own, deployed, killed and looked at."""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from flask_aibridge.app_state import SPOOL_FOLDER
from tests.services.programs import environment
from tests.services.servers import free_port, make_folder, wait_until

START_SECONDS: Final = 90.0
GRACE_SECONDS: Final = 60
"""Longer than the longest stream."""

THREADS: Final = 8
HERE: Final = Path(__file__).resolve().parent
HOOKS: Final = "from flask_aibridge.gunicorn import *\n"


class Gunicorn:
    """One arbiter with its workers, on a loopback port."""

    def __init__(self, folder: Path, name: str, env: Mapping[str, str], *options: str) -> None:
        self.port = free_port()
        self.log = folder / f"{name}.log"
        configuration = folder / "gunicorn.conf.py"
        configuration.write_text(HOOKS)
        command = [sys.executable, "-m", "gunicorn", "--no-control-socket", "--chdir", str(HERE)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *command,
                    *("--worker-class", "gthread", "--threads", str(THREADS), "--workers", "2"),
                    *("--graceful-timeout", str(GRACE_SECONDS), "--config", str(configuration), *options),
                    *("--bind", f"127.0.0.1:{self.port}", "host:app"),
                ],
                env=environment(**env),
                cwd=HERE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def logged(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until_up(self) -> None:
        wait_until(self._answers, f"the first answer of gunicorn:\n{self.logged()}", START_SECONDS)

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"gunicorn ended:\n{self.logged()}"
        return self._asked("GET", "/worker") is not None

    def tidy(self, worker: int) -> None:
        """Have a worker give back what nobody needs; it is asked until it is the one that takes the request."""
        wait_until(
            lambda: self._asked("POST", "/tidy") == str(worker), f"an answer of {worker}", START_SECONDS
        )

    def _asked(self, method: str, path: str) -> str | None:
        """The answer; null where there is none."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
            try:
                connection.request(method, path)
                response = connection.getresponse()
                said = response.read().decode()
            except (OSError, http.client.HTTPException):
                return None
            return said if response.status == 200 else None

    def workers(self) -> list[int]:
        """Those that there are now, oldest first. After a reload, some of before may still end what they have begun."""
        return sorted(children(self.pid), key=_started_at)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()


class Host:
    """A machine: its folder stays, what serves there may be replaced.

    :param protected: whether one of its workers is never killed by :meth:`kill_a_worker` from now on.
    """

    def __init__(self, name: str, env: Mapping[str, str], config: Mapping[str, Any], *options: str) -> None:
        self.name = name
        self.folder = make_folder()
        self.protected: int | None = None
        self.killed: set[int] = set()
        self._options = options
        self._env = {
            "SOAK_CONFIG": json.dumps(config),
            "SOAK_INSTANCE": str(self.folder / "instance"),
            **env,
        }
        self._all: list[Gunicorn] = []
        self.gunicorn = self._start()

    def _start(self) -> Gunicorn:
        started = Gunicorn(self.folder, f"{self.name}{len(self._all)}", self._env, *self._options)
        self._all.append(started)
        return started

    @property
    def address(self) -> str:
        """Where clients find it now."""
        return f"http://127.0.0.1:{self.gunicorn.port}"

    def kill_a_worker(self, chance: random.Random) -> bool:
        """Whether there was one to kill."""
        candidates = [pid for pid in self.gunicorn.workers() if pid != self.protected]
        if not candidates:
            return False
        pid = chance.choice(candidates)
        self.killed.add(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return True

    def reload(self) -> None:
        """HUP: new workers, while the old ones end what they have begun. Returns when the new ones are there."""
        before = set(self.gunicorn.workers())
        self.gunicorn.process.send_signal(signal.SIGHUP)
        wait_until(
            lambda: len(set(self.gunicorn.workers()) - before) >= 2, "workers of a reload", START_SECONDS
        )
        self.gunicorn.wait_until_up()

    def replace(self) -> None:
        """Start another gunicorn, have clients go there, and TERM the one of before."""
        old, new = self.gunicorn, self._start()
        new.wait_until_up()
        self.gunicorn = new
        old.process.terminate()

    def settle(self) -> None:
        """Wait for those of before to end, by themselves."""
        for each in self._all:
            if each is not self.gunicorn:
                each.process.wait(GRACE_SECONDS)

    def spooled(self) -> list[str]:
        """The files in its spool that hold anything, or that nobody can read."""
        folder = self.folder / "instance" / SPOOL_FOLDER
        return [each.name for each in folder.glob("*") if each.is_file()] if folder.exists() else []

    def logged(self) -> str:
        return "".join(each.logged() for each in self._all)

    def end(self) -> None:
        for each in self._all:
            each.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def running(hosts: list[Host]) -> Iterator[list[Host]]:
    """Wait until they are up; end them with the context."""
    try:
        for host in hosts:
            host.gunicorn.wait_until_up()
        yield hosts
    finally:
        for host in hosts:
            host.end()


def children(pid: int) -> list[int]:
    """The processes that a process has started and that have not ended."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(each) for each in listed.split() if not _is_zombie(int(each))]


def _is_zombie(pid: int) -> bool:
    stat = _stat(pid)
    return not stat or stat[0] == "Z"


def _started_at(pid: int) -> tuple[int, int]:
    """When a process began, in ticks since the machine did, and its number; zero where it is gone."""
    stat = _stat(pid)
    return (int(stat[19]) if stat else 0, pid)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the third on, the state (see proc(5)); none where the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
