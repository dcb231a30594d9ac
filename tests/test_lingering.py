"""``lingering``: what becomes of a body that nobody reads; on sockets as gunicorn gives them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flask_aibridge import lingering as module
from flask_aibridge.lingering import Lingering, awaits_body, length_of
from tests.sockets import SocketRequest, of_gunicorn


@pytest.fixture
def request_() -> Iterator[SocketRequest]:
    request = SocketRequest()
    yield request
    request.close()


def test_one_that_has_come_is_thrown_away(request_: SocketRequest) -> None:
    """And the connection can be used again."""
    request_.client.sendall(b"x" * 100)
    Lingering().discard(request_.environ)
    request_.client.sendall(b"next")
    assert request_.server.recv(10) == b"next"
    assert request_.server.gettimeout() is None


def test_one_that_does_not_come_is_cut_off(request_: SocketRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a moment, however it trickles; the answer can still be sent."""
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.05)
    request_.client.sendall(b"x")
    Lingering().discard(request_.environ)
    assert request_.server.recv(10) == b""
    request_.server.sendall(b"answer")
    assert request_.client.recv(10) == b"answer"


BODIES = {100: b"x" * 100, None: b"32\r\n" + b"x" * 50 + b"\r\n32\r\n" + b"x" * 50 + b"\r\n0\r\n\r\n"}
"""By their lengths; without one, in chunks."""


def gunicorns(request: SocketRequest, length: int | None) -> dict[str, Any]:
    """The environ of such a request under gunicorn."""
    environ = {**request.environ, "wsgi.input": of_gunicorn(request.server, length)}
    if length is None:
        environ |= {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}
    return environ


@pytest.mark.parametrize("length", BODIES)
def test_one_that_gunicorn_has_read_to_its_end(request_: SocketRequest, length: int | None) -> None:
    """The next request on its connection is what comes behind it."""
    request_.client.sendall(BODIES[length])
    Lingering().discard(gunicorns(request_, length))
    request_.client.sendall(b"next")
    assert request_.server.recv(10) == b"next"


@pytest.mark.parametrize("cut", [0, 1, 30, 60, 104])
@pytest.mark.parametrize("length", BODIES)
def test_what_comes_later_is_not_taken_for_a_request(
    request_: SocketRequest, length: int | None, cut: int
) -> None:
    """gunicorn's reader does not know where it stands after a wait: the rest is thrown away, and that is all that the
    connection is read for."""
    body, environ = BODIES[length], gunicorns(request_, length)
    cut = min(cut, len(body) - 1)
    rest = [body[cut:]]
    request_.client.sendall(body[:cut])
    read = environ["wsgi.input"].read

    def read_then_come(size: int) -> bytes:
        try:
            piece: bytes = read(size)
        finally:
            if rest:
                request_.client.sendall(rest.pop())
        return piece

    environ["wsgi.input"].read = read_then_come
    Lingering().discard(environ)
    request_.server.settimeout(0)
    assert request_.server.recv(200) == b""
    request_.server.sendall(b"answer")
    assert request_.client.recv(10) == b"answer"


def test_a_trickle_is_cut_off(request_: SocketRequest) -> None:
    """By the clock that it was given: bytes are there whenever it looks."""
    seconds = iter(range(100))
    request_.environ["wsgi.input"].read = lambda size: b"x"
    Lingering(clock=lambda: next(seconds)).discard(request_.environ)
    assert request_.server.recv(10) == b""
    assert next(seconds) < 10


def test_only_a_few_are_waited_for(request_: SocketRequest) -> None:
    """The others are cut off at once; a place that was left is free again."""
    lingering = Lingering(1)
    other = SocketRequest()
    meanwhile: list[bytes] = []

    def read(size: int) -> bytes:
        lingering.discard(other.environ)
        meanwhile.append(other.server.recv(10))
        return b""

    request_.environ["wsgi.input"].read = read
    lingering.discard(request_.environ)
    assert meanwhile == [b""]
    other.close()
    another = SocketRequest()
    another.client.sendall(b"x" * 100)
    lingering.discard(another.environ)
    another.client.sendall(b"next")
    assert another.server.recv(10) == b"next"
    another.close()


def test_a_broken_body_is_cut_off(request_: SocketRequest) -> None:
    """Whatever the server's own reader finds wrong with it."""

    def read(size: int) -> bytes:
        raise ValueError("invalid chunk size")

    request_.environ["wsgi.input"].read = read
    Lingering().discard(request_.environ)
    assert request_.server.recv(10) == b""


@pytest.mark.parametrize(
    "more",
    [
        {"CONTENT_LENGTH": "0"},
        {"SERVER_PROTOCOL": "HTTP/2"},
        {"gunicorn.socket": None},
    ],
)
def test_what_others_use_is_left_alone(request_: SocketRequest, more: dict[str, Any]) -> None:
    """A connection without a body on it, or with other requests; and what is no connection."""
    request_.client.sendall(b"x")
    Lingering().discard(request_.environ | more)
    assert request_.server.recv(10) == b"x"


def test_a_forked_child_has_all_the_places(request_: SocketRequest) -> None:
    """Those that threads of its parent had are nobody's there."""
    lingering = Lingering(1)
    assert lingering._places.acquire(blocking=False)
    module._after_fork_in_child()
    request_.client.sendall(b"x" * 100)
    lingering.discard(request_.environ)
    request_.client.sendall(b"next")
    assert request_.server.recv(10) == b"next"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"CONTENT_LENGTH": ""}, False),
        ({"CONTENT_LENGTH": "0"}, False),
        ({"CONTENT_LENGTH": "1"}, True),
        ({"CONTENT_LENGTH": "nonsense"}, True),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, True),
    ],
)
def test_whether_there_is_a_body(environ: dict[str, str], expected: bool) -> None:
    assert awaits_body(environ) is expected


@pytest.mark.parametrize(
    ("declared", "length"),
    [("5", 5), ("", 0), ("nonsense", 0), ("-1", 0), ("\u0663", 0), ("9" * 12, 0), (None, 0)],
)
def test_its_length_is_what_the_request_says(declared: str | None, length: int) -> None:
    assert length_of({} if declared is None else {"CONTENT_LENGTH": declared}) == length
