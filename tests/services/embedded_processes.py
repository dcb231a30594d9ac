"""Processes that use the embedded server, and whether it is alive."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from flask_aibridge.services.embedded_locks import LockFile
from tests.services.programs import environment, python

DEADLINE_SECONDS = 30.0
"""How long a process may take to start, answer or end."""


def is_alive(folder: Path) -> bool:
    """Whether a server lives on this folder: it has its lock then."""
    if not (folder / "valkey.server").exists():
        return False
    lock = LockFile(folder / "valkey.server")
    try:
        return lock.is_locked_by_another()
    finally:
        lock.close()


def server_pid(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.info("server")["process_id"])


class User:
    """A process of ``embedded_user.py``."""

    def __init__(self, instance_path: Path, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [*python("embedded_user.py"), instance_path, *arguments],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()

    def said(self) -> str:
        """The next line it prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def ask(self, command: str) -> str:
        self.tell(command)
        return self.said()

    def close_input(self) -> None:
        """Let it, or the child that it has become, exit as programs do."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def wait(self) -> int:
        """The exit status of the process itself."""
        return self._process.wait(DEADLINE_SECONDS)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(DEADLINE_SECONDS)

    def end(self) -> None:
        """Let it exit, and return when it and its children have."""
        self.close_input()
        self.wait()
        assert self._process.stdout is not None
        self._process.stdout.read()
        self._process.stdout.close()


@contextmanager
def users(instance_path: Path, number: int, *arguments: str) -> Iterator[list[User]]:
    """So many processes, ready to be told; ended one after the other with the context."""
    started = [User(instance_path, *arguments) for _ in range(number)]
    try:
        assert [user.said() for user in started] == ["ready"] * number
        yield started
    finally:
        for user in started:
            user.end()
