"""``bridge.uploads``: how many bodies at once, of whom, and for how long; on sockets as gunicorn gives them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from threading import Event
from typing import Any

import pytest

from flask_aibridge.bridge import uploads as module
from flask_aibridge.bridge.request import Refused, read_body
from flask_aibridge.bridge.uploads import NoPlace, TooSlow, Uploads
from flask_aibridge.services.interfaces import Credential
from tests.bridge.wsgi import DEADLINE, FakeCancellation
from tests.sockets import SocketRequest, of_gunicorn

ALICE, BOB = Credential(key="aib_alice_1"), Credential(key="aib_bob_1")


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Upload(SocketRequest):
    """One whose body is read."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.begun = Event()

    def read(self) -> bytes:
        self.begun.set()
        return read_body(self.environ)


Begin = Callable[..., tuple[Upload, "Future[bytes]"]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def uploads(clock: Clock) -> Uploads:
    return Uploads(4, clock)


@pytest.fixture
def begin(uploads: Uploads) -> Iterator[Begin]:
    """Begin an upload in a thread of its own; at the end, all are hung up on."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(16))
        begun: list[Upload] = []

        def begin(caller: Credential = ALICE, **options: Any) -> tuple[Upload, Future[bytes]]:
            upload = Upload(**options)
            begun.append(upload)
            stack.callback(upload.close)
            future = pool.submit(uploads.read, upload.environ, caller, upload.read)
            assert upload.begun.wait(DEADLINE)
            return upload, future

        yield begin
        for upload in begun:
            with suppress(OSError):
                upload.client.shutdown(socket.SHUT_RDWR)


def test_a_body_that_comes_is_read(begin: Begin) -> None:
    upload, future = begin()
    upload.client.sendall(b"x" * 100)
    assert future.result(DEADLINE) == b"x" * 100
    assert upload.server.gettimeout() is None


def test_no_more_than_so_many_at_once(uploads: Uploads, begin: Begin) -> None:
    """And of one caller no more than half of them; a place that was left is free again."""
    first, done = begin(ALICE)
    begin(ALICE)
    with pytest.raises(NoPlace):
        uploads.read(first.environ, ALICE, lambda: b"")
    begin(BOB)
    begin(BOB)
    with pytest.raises(NoPlace) as refused:
        uploads.read(first.environ, Credential(key="another"), lambda: b"")
    assert refused.value.status == 503
    assert ("Retry-After", "1") in refused.value.headers
    assert repr(uploads) == "<Uploads: 4 of 4>"
    first.client.sendall(b"x" * 100)
    done.result(DEADLINE)
    assert uploads.read(first.environ, ALICE, lambda: b"y") == b"y"


@pytest.mark.parametrize(
    "more", [{"CONTENT_LENGTH": "0"}, {"CONTENT_LENGTH": ""}, {"flask_aibridge.cancellation": 1}]
)
def test_requests_without_a_body_and_those_in_process_need_no_place(
    uploads: Uploads, begin: Begin, more: dict[str, Any]
) -> None:
    """They hold up nobody."""
    upload, _ = begin(ALICE)
    begin(ALICE)
    if "flask_aibridge.cancellation" in more:
        more = {"flask_aibridge.cancellation": FakeCancellation()}
    assert uploads.read(upload.environ | more, ALICE, lambda: b"") == b""


def test_who_takes_too_long_makes_room(uploads: Uploads, begin: Begin, clock: Clock) -> None:
    """But only when somebody else needs it; the larger a body, the longer it may take."""
    slow, slows_end = begin(ALICE, length=64 * 1024)
    slow.client.sendall(b"x")
    _, larges_end = begin(ALICE, length=64 * 1024 * 1024 // 8)
    clock.now += 10.9
    with pytest.raises(NoPlace):
        uploads.read(slow.environ, ALICE, lambda: b"")
    assert not slows_end.done()
    clock.now += 0.2
    third, thirds_end = begin(ALICE)
    with pytest.raises(TooSlow) as refused:
        slows_end.result(DEADLINE)
    assert refused.value.status == 408
    assert not larges_end.done()
    third.client.sendall(b"x" * 100)
    thirds_end.result(DEADLINE)
    slow.server.sendall(b"the answer can still be sent")
    assert slow.client.recv(100).startswith(b"the answer")


def test_without_its_socket_one_that_takes_too_long_stays(
    uploads: Uploads, begin: Begin, clock: Clock
) -> None:
    """Nothing can be done about it, so its place is not given away."""
    begin(ALICE, gives_socket=False)
    upload, _ = begin(ALICE, gives_socket=False)
    clock.now += 1000
    with pytest.raises(NoPlace):
        uploads.read(upload.environ, ALICE, lambda: b"")


def test_a_standstill_is_given_up(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nobody else wants the place. The connection takes no other request."""
    monkeypatch.setattr(module, "STALLED_SECONDS", 0.05)
    upload, end = begin()
    upload.client.sendall(b"x")
    with pytest.raises(TooSlow):
        end.result(DEADLINE)
    assert upload.server.recv(1) == b""
    assert upload.server.gettimeout() is None


def test_one_that_breaks_off_is_no_slow_one(begin: Begin) -> None:
    upload, end = begin()
    upload.client.sendall(b"x")
    upload.client.close()
    with pytest.raises(Refused) as refused:
        end.result(DEADLINE)
    assert refused.value.status == 400


def test_bodies_of_refused_requests_are_dealt_with(uploads: Uploads) -> None:
    """But those in process are their caller's, whose connection this is not."""
    upload = Upload()
    upload.client.sendall(b"x" * 100)
    uploads.discard(upload.environ | {"flask_aibridge.cancellation": FakeCancellation()})
    assert upload.server.recv(1) == b"x"
    upload.client.sendall(b"x")
    uploads.discard(upload.environ)
    upload.client.sendall(b"next")
    assert upload.server.recv(10) == b"next"
    upload.close()


def test_a_body_that_cannot_be_read_is_the_last_thing_on_its_connection(uploads: Uploads) -> None:
    """The server's reader of chunks says after an error that the body is over: what follows may still be the body's."""
    with closing(SocketRequest()) as request:
        request.server.settimeout(DEADLINE)
        request.environ |= {
            "CONTENT_LENGTH": "",
            "HTTP_TRANSFER_ENCODING": "chunked",
            "wsgi.input_terminated": 1,
        }
        request.environ["wsgi.input"] = of_gunicorn(request.server, None)
        request.client.sendall(b"5\r\n12345\r\n0x5\r\n")
        with pytest.raises(Refused) as refused:
            uploads.read(request.environ, ALICE, lambda: read_body(request.environ))
        assert refused.value.status == 400
        uploads.discard(request.environ)
        assert request.server.recv(100) == b""
