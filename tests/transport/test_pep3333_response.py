"""PEP 3333, rule by rule (R21–R26, R31, R32): ``start_response``, the head and its headers."""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from urllib3.exceptions import ProtocolError, ReadTimeoutError

from tests.transport.calls import TEXT, Scripted, answering, call, wait_for

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOGGER = "flask_aibridge.transport"


class Boom(Exception):
    """What the apps here raise."""


def assert_refused(app: WSGIApplication, rule: str, caplog: pytest.LogCaptureFixture, **request: Any) -> None:
    """The caller gets a 500 that gives nothing away; the log names the rule."""
    caplog.clear()
    response = call(app, legal=False, **request)
    assert (response.status, response.data) == (500, b"Internal Server Error\n")
    (record,) = (record for record in caplog.records if record.levelno >= logging.ERROR)
    assert record.name == LOGGER
    assert record.exc_info is not None
    assert rule in str(record.exc_info[1])


def test_r21_start_response_may_be_called_at_the_first_iteration() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("201 Created", [TEXT])
        yield b"late"

    response = call(app)
    assert (response.status, response.reason, response.data) == (201, "Created", b"late")


def test_r21_start_response_returns_write() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [TEXT], None)
        write(b"written")
        return []

    assert call(app).data == b"written"


@pytest.mark.parametrize("body", [[], (), [b"early"], (b"early",), iter([b"early"])])
def test_r21_an_app_that_never_calls_it_is_a_500(
    body: Iterable[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    assert_refused(lambda environ, start_response: body, "start_response()", caplog)


def test_r21_write_without_it_is_impossible_and_a_chunk_before_it_a_500(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        yield b"early"
        start_response("200 OK", [TEXT])

    assert_refused(app, "start_response()", caplog)


def test_r22_head_waits_for_first_nonempty_chunk() -> None:
    blocked, gate = threading.Event(), threading.Event()
    script = Scripted(b"", b"", blocked.set, lambda: wait_for(gate), b"late")
    with pytest.raises(ReadTimeoutError):
        call(script, timeout=0.2)
    assert blocked.is_set()
    gate.set()
    script.assert_closed_once()


def test_r22_until_then_an_error_handler_can_replace_the_head() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [TEXT, ("X-First", "1")])
        yield b""
        try:
            raise Boom
        except Boom:
            start_response("502 Bad Gateway", [TEXT], sys.exc_info())
        yield b"sorry"

    response = call(app)
    assert (response.status, response.data) == (502, b"sorry")
    assert "X-First" not in response.headers


@pytest.mark.parametrize("data", [b"", b"some"])
def test_r22_any_write_commits_the_head(data: bytes) -> None:
    """Also an empty one, as in wsgiref and gunicorn: it is how an app sends its head before it has a body."""
    gate = threading.Event()
    raised: list[BaseException] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [TEXT])(data)
        try:
            start_response("500 Late", [TEXT], (Boom, Boom(), None))  # type: ignore[arg-type]
        except Boom as error:
            raised.append(error)
        wait_for(gate)
        yield b"end"

    response = call(app, preload_content=False, legal=False)
    assert response.status == 200
    gate.set()
    assert response.read() == data + b"end"
    assert len(raised) == 1


def test_r22_the_end_commits_the_head() -> None:
    response = call(Scripted(b"", status="202 Accepted"))
    assert (response.status, response.data) == (202, b"")


def test_r23_a_second_call_without_exc_info_raises_in_the_app() -> None:
    raised: list[str] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])
        try:
            start_response("404 Not Found", [TEXT])
        except AssertionError as error:
            raised.append(str(error))
        return [b"first"]

    response = call(app)
    assert (response.status, response.data) == (200, b"first")
    assert "twice" in raised[0]


def test_r23_exc_info_on_the_first_call_is_fine() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            raise Boom
        except Boom:
            start_response("500 Oh", [TEXT], sys.exc_info())
        return [b"sorry"]

    response = call(app)
    assert (response.status, response.reason, response.data) == (500, "Oh", b"sorry")


def test_r23_after_the_head_exc_info_is_raised_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [TEXT])
        yield b"sent"
        try:
            raise Boom("the reason")
        except Boom:
            start_response("500 Oh", [TEXT], sys.exc_info())

    response = call(app, preload_content=False)
    assert response.status == 200
    assert response.read1() == b"sent"
    with pytest.raises(ProtocolError, match="IncompleteRead"):
        response.read1()
    assert "raise Boom" in caplog.text


def test_r23_exc_info_is_let_go_of() -> None:
    """The traceback, with every local of its frames, does not live as long as the response."""

    class Local:
        pass

    alive: list[bool] = []

    def fail() -> None:
        local = Local()
        alive.append(True)
        references.append(weakref.ref(local))
        raise Boom

    references: list[weakref.ref[Local]] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        try:
            fail()
        except Boom:
            start_response("500 Oh", [TEXT], sys.exc_info())
        yield b"%d" % (references[0]() is None)

    assert call(app, legal=False).data == b"1"


WRONG_STATUSES: list[Any] = [
    200, b"200 OK", None, "OK", "20 OK", "2000 OK", "099 Low", "200OK", "200 OK\r\nX: 1", "200 \n", "200 \0", "200 漢",
]  # fmt: skip


@pytest.mark.parametrize("status", WRONG_STATUSES)
def test_r24_a_wrong_status_is_a_500(status: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert_refused(answering([b"x"], status), "PEP 3333", caplog)


@pytest.mark.parametrize(
    ("status", "reason"), [("200 ", ""), ("299 Ça va", "Ça va"), ("599 Odd but legal", None)]
)
def test_r24_the_reason_is_free(status: str, reason: str | None) -> None:
    response = call(answering([b"x"], status))
    assert response.status == int(status[:3])
    assert response.reason == (status[4:] if reason is None else reason)


WRONG_HEADERS: list[Any] = [
    (TEXT,),
    None,
    {},
    iter([TEXT]),
    [["Content-Type", "text/plain"]],
    ["ab"],
    [("X",)],
    [("X", 1)],
    [(b"X", "1")],
    [("X", b"1")],
]


@pytest.mark.parametrize("headers", WRONG_HEADERS)
def test_r24_headers_that_are_no_list_of_pairs_are_a_500(
    headers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", headers)
        return [b"x"]

    assert_refused(app, "PEP 3333", caplog)


def test_r24_the_headers_are_copied() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        headers = [TEXT, ("X-Kept", "1")]
        start_response("200 OK", headers)
        headers.clear()
        headers.append(("X-Late", "1"))
        yield b"x"

    response = call(app)
    assert response.headers["X-Kept"] == "1"
    assert "X-Late" not in response.headers


EVIL_HEADERS = [
    ("X-Evil", "a\r\nX-Injected: 1"),
    ("X-Evil", "a\n b"),
    ("X-Evil", "a\0"),
    ("X-Evil", "漢"),
    ("X\r\nY", "1"),
    ("X Y", "1"),
    ("X:", "1"),
    ("", "1"),
    ("Ünicode", "1"),
]


@pytest.mark.parametrize("header", EVIL_HEADERS)
def test_r25_a_header_that_would_split_the_response_is_a_500(
    header: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert_refused(answering([b"x"], headers=[TEXT, header]), "RFC 9110", caplog)
    assert_refused(answering(iter([b"x"]), headers=[TEXT, header]), "RFC 9110", caplog)


def test_r25_blanks_are_stripped_and_repeated_headers_kept_in_order() -> None:
    cookies = [("Set-Cookie", "a=1; Path=/"), ("X-Between", "  padded "), ("set-cookie", "b=2")]
    response = call(answering([b"x"], headers=[TEXT, *cookies]))
    assert response.headers.getlist("Set-Cookie") == ["a=1; Path=/", "b=2"]
    assert response.headers["X-Between"] == "padded"


HOP_BY_HOP = [
    *("Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization"),
    *("TE", "Trailer", "Trailers", "Transfer-Encoding", "Upgrade"),
]


@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_r26_hop_by_hop_headers_are_dropped_and_logged(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """As gunicorn does, and not refused as wsgiref does: apps that pass an upstream's headers on send them."""
    caplog.set_level(logging.DEBUG, LOGGER)
    response = call(answering([b"x"], headers=[TEXT, (name, "chunked"), ("X-Kept", "1")]))
    assert (response.status, response.data) == (200, b"x")
    assert name not in response.headers
    assert response.headers["X-Kept"] == "1"
    assert "hop-by-hop" in caplog.text


def test_r31_no_date_and_no_server_are_added() -> None:
    """Nobody on the way needs them; the option to send them is not offered."""
    response = call(answering([b"x"]), legal=False)
    assert {name.lower() for name in response.headers} == {"content-type", "content-length"}


@pytest.mark.parametrize("status", ["100 Continue", "101 Switching Protocols", "103 Early Hints"])
def test_r32_a_provisional_status_is_a_500(status: str, caplog: pytest.LogCaptureFixture) -> None:
    assert_refused(answering([], status), "not a final status", caplog)
