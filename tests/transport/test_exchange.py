"""How an exchange ends when the app raises: at every phase, with every kind of exception."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from urllib3.exceptions import IncompleteRead, ProtocolError

from flask_aibridge.transport.pipe import Channel
from tests.transport.calls import TEXT, URL, Scripted, answering, call, pool_for, raising, read_until_error

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

pytestmark = pytest.mark.usefixtures("no_stray_exceptions")

BIG = b"x" * 50_000


class Killed(BaseException):
    """As a greenlet's GreenletExit: no Exception."""


ERRORS = [
    ValueError("no"),
    StopIteration("no"),
    BrokenPipeError("not the caller's"),
    TimeoutError("the upstream's"),
    SystemExit(3),
    KeyboardInterrupt("no"),
    asyncio.CancelledError("no"),
    Killed("no"),
    MemoryError("no"),
]

Phase: TypeAlias = "Callable[[BaseException], WSGIApplication]"


@pytest.fixture
def no_stray_exceptions(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No exception of an app ends a worker thread, or the process."""
    strays: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", strays.append)
    yield
    assert not strays


def in_the_call(error: BaseException) -> WSGIApplication:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        raise error

    return app


def after_start_response(error: BaseException) -> WSGIApplication:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT, ("Content-Length", "3")])
        raise error

    return app


def in_iter(error: BaseException) -> WSGIApplication:
    class Body:
        def __iter__(self) -> Iterator[bytes]:
            raise error

    return answering(Body())


def before_the_first_chunk(error: BaseException) -> WSGIApplication:
    return Scripted(raising(error))


def after_an_empty_chunk(error: BaseException) -> WSGIApplication:
    return Scripted(b"", raising(error))


def after_the_first_chunk(error: BaseException) -> WSGIApplication:
    return Scripted(b"one", raising(error))


def within_a_content_length(error: BaseException) -> WSGIApplication:
    return Scripted(b"one", raising(error), headers=[TEXT, ("Content-Length", "6")])


def after_a_long_body(error: BaseException) -> WSGIApplication:
    return Scripted(*[BIG] * 8, raising(error))


def after_a_write(error: BaseException) -> WSGIApplication:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])(b"one")
        raise error

    return app


def after_an_empty_write(error: BaseException) -> WSGIApplication:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])(b"")
        raise error

    return app


def via_exc_info_after_the_head(error: BaseException) -> WSGIApplication:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [TEXT])
        write(b"one")
        try:
            raise error
        except BaseException:
            start_response("500 Oh", [TEXT], sys.exc_info())
        return []

    return app


BEFORE_THE_HEAD = [
    pytest.param(phase, error, id=f"{phase.__name__}-{type(error).__name__}")
    for phase in (in_the_call, after_start_response, in_iter, before_the_first_chunk, after_an_empty_chunk)
    for error in ERRORS
    # In an iterator StopIteration is its end, and no error.
    if not isinstance(error, StopIteration) or phase in (in_the_call, after_start_response)
]


@pytest.mark.parametrize(("phase", "error"), BEFORE_THE_HEAD)
def test_an_exception_before_the_head_is_a_500(
    phase: Phase, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    with pool_for(phase(error), legal=False) as pool:
        for _ in range(2):
            response = pool.request("GET", URL)
            assert (response.status, response.data) == (500, b"Internal Server Error\n")
            assert response.headers["Content-Length"] == str(len(response.data))
    records = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(records) == 2
    for record in records:
        assert record.exc_info is not None
        assert record.exc_info[1] is error
        assert "before its response began" in record.message


@pytest.mark.parametrize(
    "error",
    [error for error in ERRORS if not isinstance(error, StopIteration)],
    ids=lambda e: type(e).__name__,
)
@pytest.mark.parametrize(
    ("phase", "sent"),
    [
        (after_the_first_chunk, b"one"),
        (within_a_content_length, b"one"),
        (after_a_long_body, BIG * 8),
        (after_a_write, b"one"),
        (after_an_empty_write, b""),
        (via_exc_info_after_the_head, b"one"),
    ],
)
def test_an_exception_after_the_head_is_an_incomplete_read(
    phase: Phase, sent: bytes, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    response = call(phase(error), preload_content=False, legal=False)
    assert response.status == 200
    got, broken = read_until_error(response)
    assert got == sent
    assert isinstance(broken, (ProtocolError, IncompleteRead))
    assert response.closed
    (record,) = (record for record in caplog.records if record.levelno >= logging.ERROR)
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert "in the middle" in record.message


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("sent", [b"one", b""])
def test_an_exception_in_close_changes_nothing(
    sent: bytes, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    script = Scripted(sent, on_close=raising(error))
    response = call(script, legal=False)
    assert (response.status, response.data) == (200, sent)
    script.assert_closed_once()
    (record,) = (record for record in caplog.records if record.levelno >= logging.ERROR)
    assert "close()" in record.message


@pytest.mark.parametrize("way", ["read", "data", "stream", "read1", "readinto", "iter", "drain"])
def test_every_way_to_read_tells_of_the_missing_rest(way: str) -> None:
    response = call(after_the_first_chunk(ValueError("no")), preload_content=False)
    ways: dict[str, Callable[[], object]] = {
        "read": response.read,
        "data": lambda: response.data,
        "stream": lambda: list(response.stream()),
        "read1": lambda: [response.read1(), response.read1()],
        "readinto": lambda: [response.readinto(bytearray(2)) for _ in range(3)],
        "iter": lambda: list(response),
        "drain": lambda: [response.drain_conn(), response.read()],  # type: ignore[func-returns-value]
    }
    if way == "drain":  # it swallows errors, as over a socket
        ways[way]()
    else:
        with pytest.raises(ProtocolError):
            ways[way]()
    assert response.closed


def test_a_preloaded_response_that_breaks_off_is_an_error_of_the_request() -> None:
    with pytest.raises(ProtocolError):
        call(after_the_first_chunk(ValueError("no")))


def test_a_short_body_without_enforcement_is_the_callers_own_risk() -> None:
    app = Scripted(b"one", headers=[TEXT, ("Content-Length", "6")])
    assert call(app, enforce_content_length=False).data == b"one"


def test_a_body_that_breaks_off_is_an_error_even_without_enforcement_of_a_length() -> None:
    with pytest.raises(ProtocolError):
        call(after_the_first_chunk(ValueError("no")), enforce_content_length=False)


def test_an_exception_of_one_call_does_not_touch_another() -> None:
    gate = threading.Event()
    healthy = Scripted(b"one", lambda: gate.wait(20), b"two")
    paths: dict[str, WSGIApplication] = {"/ok": healthy, "/exit": in_the_call(SystemExit(1))}

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return paths[environ["PATH_INFO"]](environ, start_response)

    with pool_for(app) as pool:
        response = pool.request("GET", URL + "/ok", preload_content=False)
        assert pool.request("GET", URL + "/exit").status == 500
        gate.set()
        assert response.read() == b"onetwo"


def test_an_app_that_catches_its_own_exception_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])
        try:
            raise ValueError
        except ValueError:
            start_response("503 Later", [TEXT], sys.exc_info())
        return [b"sorry"]

    response = call(app)
    assert (response.status, response.data) == (503, b"sorry")
    assert not caplog.records or all(record.levelno < logging.WARNING for record in caplog.records)


def test_the_log_holds_no_header_of_the_request(caplog: pytest.LogCaptureFixture) -> None:
    """Keys are in there."""
    call(in_the_call(ValueError("no")), headers={"Authorization": "Bearer sk-secret"}, legal=False)
    assert "no" in caplog.text
    assert "sk-secret" not in caplog.text


def test_an_app_that_ends_while_its_head_is_looked_for_has_one(
    monkeypatch: pytest.MonkeyPatch, deadline: float
) -> None:
    """Between the look for the head and the one for the end, which comes after the head."""
    looked, told = threading.Event(), vars(Channel)["ended"].fget

    def ended(channel: Channel) -> bool:
        if threading.current_thread() is caller and not looked.is_set():
            looked.set()
            assert not channel.want_news(over.set) or over.wait(deadline)
        return bool(told(channel))

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        assert looked.wait(deadline)
        start_response("200 OK", [TEXT])
        return [b"x"]

    caller, over = threading.current_thread(), threading.Event()
    monkeypatch.setattr(Channel, "ended", property(ended))
    assert call(app).data == b"x"
