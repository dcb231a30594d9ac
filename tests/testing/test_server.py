"""Serving an app on a loopback port for the length of a ``with`` block."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import urllib3

from flask_aibridge.testing import DropAfter, StandInProvider, serve_stand_in
from tests.bridge.wsgi import DEADLINE

pytestmark = pytest.mark.usefixtures("no_leaks")

CHAT = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def pool() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False, timeout=DEADLINE) as pool:
        yield pool


def test_without_an_argument_a_stand_in_is_served(pool: urllib3.PoolManager) -> None:
    """At a port of its own, which is free again afterwards."""
    with serve_stand_in() as served, serve_stand_in() as other:
        assert served.base_url != other.base_url
        assert pool.request("GET", f"{served.base_url}/v1/models").status == 200
        assert (len(served.stand_in.requests), other.stand_in.requests) == (1, [])
    with pytest.raises(urllib3.exceptions.NewConnectionError):
        pool.request("GET", f"{served.base_url}/v1/models")


def test_each_piece_is_sent_at_once(pool: urllib3.PoolManager) -> None:
    """The reader has it before the app goes on."""
    more = threading.Event()

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"first"
        assert more.wait(DEADLINE)
        yield b"second"

    with serve_stand_in(app) as served:
        response = pool.request("GET", served.base_url, preload_content=False)
        assert response.read1() == b"first"
        more.set()
        assert response.read() == b"second"
        response.close()


def test_a_drop_is_seen_as_one(pool: urllib3.PoolManager, capfd: pytest.CaptureFixture[str]) -> None:
    """The body ends without its last chunk, and nothing is printed about it."""
    with serve_stand_in(StandInProvider(failures=[DropAfter(1)])) as served:
        response = pool.request(
            "POST", f"{served.base_url}/v1/chat/completions", json=CHAT, preload_content=False
        )
        with pytest.raises(urllib3.exceptions.ProtocolError):
            response.read()
        response.close()
    assert capfd.readouterr() == ("", "")


def test_the_end_of_the_block_cuts_what_is_still_open(pool: urllib3.PoolManager) -> None:
    """An idle connection, and a request whose body is being written; neither holds the block up."""
    closed = threading.Event()

    class Endless:
        def __iter__(self) -> Iterator[bytes]:
            while True:
                yield b"x" * 4096

        def close(self) -> None:
            closed.set()

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Endless()

    with serve_stand_in(app) as served:
        port = int(served.base_url.rpartition(":")[2])
        idle = socket.create_connection(("127.0.0.1", port))
        response = pool.request("GET", served.base_url, preload_content=False)
        assert response.read1(1) == b"x"
    assert closed.wait(DEADLINE)
    assert idle.recv(1) == b""
    idle.close()
    response.close()


def test_the_block_ends_after_an_exception() -> None:
    """Like any other ``with``."""
    with pytest.raises(KeyError), serve_stand_in():
        raise KeyError
