"""PEP 3333, rule by rule (R33–R38): the body and its end."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from urllib3.exceptions import ProtocolError

from tests.transport.calls import (
    TEXT,
    Scripted,
    Step,
    answering,
    call,
    eventually,
    raising,
    wait_for,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

LOGGER = "flask_aibridge.transport"


def errors_of(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("item", ["text", bytearray(b"x"), None, 1, memoryview(b"x")])
@pytest.mark.parametrize("as_list", [True, False])
def test_r33_an_item_that_is_not_bytes_first_is_a_500(
    item: Any, as_list: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = answering([item] if as_list else iter([item]))
    assert call(app, legal=False).status == 500
    assert "bytes" in str(errors_of(caplog)[0].exc_info)


def test_r33_an_item_that_is_not_bytes_later_is_an_incomplete_read(caplog: pytest.LogCaptureFixture) -> None:
    items: Any = iter([b"sent", "text"])
    response = call(answering(items), legal=False, preload_content=False)
    assert response.read1() == b"sent"
    with pytest.raises(ProtocolError):
        response.read1()
    assert "bytes" in str(errors_of(caplog)[0].exc_info)


def test_r33_what_is_written_must_be_bytes(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])("text")  # type: ignore[arg-type]
        return []

    assert call(app, legal=False).status == 500
    assert "bytes" in str(errors_of(caplog)[0].exc_info)


def test_r33_each_chunk_goes_out_before_the_next_is_asked_for() -> None:
    gates = [threading.Event() for _ in range(4)]

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [TEXT])
        for number, gate in enumerate(gates):
            yield b"%d" % number
            yield b""
            wait_for(gate)

    response = call(app, preload_content=False)
    for number, gate in enumerate(gates):
        assert response.read1() == b"%d" % number
        gate.set()
    assert response.read1() == b""


def test_r34_write_and_iteration_keep_their_order() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        write = start_response("200 OK", [TEXT])
        write(b"a")
        write(b"b")
        yield b"c"
        write(b"d")
        yield b"e"

    assert call(app).data == b"abcde"


def test_r34_write_sends_at_once() -> None:
    gate = threading.Event()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [TEXT])
        write(b"now")
        wait_for(gate)
        return [b"then"]

    response = call(app, preload_content=False)
    assert response.read1() == b"now"
    gate.set()
    assert response.read() == b"then"


def test_r34_write_waits_for_a_reader_that_stopped() -> None:
    written = [0]

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [TEXT])
        for _ in range(100):
            write(b"x" * 8192)
            written[0] += 8192
        return []

    response = call(app, preload_content=False)
    eventually(lambda: written[0] >= 7 * 8192, "the app runs ahead")
    threading.Event().wait(0.1)
    assert written[0] <= 65536 + 8192
    assert len(response.read()) == 100 * 8192


ENDINGS: list[tuple[str, list[Step], dict[str, Any]]] = [
    ("normal", [b"a", b"b"], {}),
    ("empty", [], {}),
    ("content length reached", [b"a", b"b"], {"headers": [TEXT, ("Content-Length", "2")]}),
    ("more than the content length", [b"a", b"b"], {"headers": [TEXT, ("Content-Length", "1")]}),
    ("less than the content length", [b"a"], {"headers": [TEXT, ("Content-Length", "9")]}),
    ("raised first", [ValueError("no")], {}),
    ("raised later", [b"a", ValueError("no")], {}),
    ("exited", [b"a", SystemExit(3)], {}),
]


@pytest.mark.parametrize(("steps", "options"), [pytest.param(s, o, id=name) for name, s, o in ENDINGS])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_r35_close_is_called_once_where_the_body_was_iterated(
    steps: list[Step], options: dict[str, Any], method: str
) -> None:
    script = Scripted(*steps, **options)
    call(script, method=method, preload_content=False, legal=False).close()
    script.assert_closed_once()


def test_r35_close_is_called_when_the_caller_leaves() -> None:
    left = threading.Event()
    script = Scripted(b"a", lambda: wait_for(left), *[b"b"] * 1000)
    call(script, preload_content=False).close()
    left.set()
    script.assert_closed_once()


def test_r35_an_error_of_close_is_logged_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    script = Scripted(b"a", b"b", on_close=raising(ValueError("in close")))
    response = call(script)
    assert (response.status, response.data) == (200, b"ab")
    assert "close()" in caplog.text
    assert "in close" in caplog.text


def test_r35_an_error_of_close_does_not_hide_the_first(caplog: pytest.LogCaptureFixture) -> None:
    script = Scripted(b"a", ValueError("the first"), on_close=raising(ValueError("in close")))
    with pytest.raises(ProtocolError):
        call(script)
    messages = [str(record.exc_info[1]) for record in errors_of(caplog) if record.exc_info]
    assert messages == ["in close", "the first"]


def test_r35_the_validator_finds_every_iterable_closed(capfd: pytest.CaptureFixture[str]) -> None:
    for steps in ([b"a"], [], [b"a", ValueError("no")]):
        response = call(Scripted(*steps), preload_content=False)
        response.close()
    assert "without being closed" not in capfd.readouterr().err


class Indexed:
    """A sequence by the old protocol."""

    def __getitem__(self, index: int) -> bytes:
        return [b"a", b"b", b"c"][index]


@pytest.mark.parametrize(
    "make",
    [lambda: [b"a", b"bc"], lambda: (b"a", b"bc"), lambda: iter([b"a", b"bc"]), lambda: {b"abc": 1}, Indexed],
)
def test_r36_any_iterable_of_bytes_is_a_body(make: Callable[[], Any]) -> None:
    assert call(answering(make()), legal=False).data == b"abc"


@pytest.mark.parametrize("body", [b"abc", "abc", None, 5, object()])
def test_r36_anything_else_is_a_500(body: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Bytes too: each of their items would be a number."""
    assert call(answering(body), legal=False).status == 500
    assert "must return an iterable of bytes" in str(errors_of(caplog)[0].exc_info)


@pytest.mark.parametrize("length", [None, "100000", "10"])
def test_r37_a_file_wrapper_is_read_and_closed(length: str | None) -> None:
    content = bytes(range(250)) * 400
    file = io.BytesIO(content)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT] if length is None else [TEXT, ("Content-Length", length)])
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file, 8192)
        return wrapped

    assert call(app).data == (content if length is None else content[: int(length)])
    eventually(lambda: file.closed, "the file closed")


@pytest.mark.parametrize("error", [ValueError("secret"), SystemExit("secret"), KeyboardInterrupt("secret")])
def test_r38_an_exception_before_the_head_is_a_500_that_tells_nothing(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        raise error

    response = call(app)
    assert response.status == 500
    assert response.headers["Content-Type"].startswith("text/plain")
    assert b"secret" not in response.data
    (record,) = errors_of(caplog)
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_r38_an_exception_after_the_head_is_an_incomplete_read() -> None:
    response = call(Scripted(b"one", b"two", ValueError("no")), preload_content=False)
    got = bytearray()

    def read_all() -> None:
        for chunk in response.stream():
            got.extend(chunk)

    with pytest.raises(ProtocolError, match="IncompleteRead"):
        read_all()
    assert got == b"onetwo"
