"""PEP 3333, rule by rule (R27–R30): how long a body is, and where there is none."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytest
from urllib3.exceptions import ProtocolError

from tests.transport.calls import TEXT, Scripted, answering, call, read_until_error, wait_for

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOGGER = "flask_aibridge.transport"


def assert_refused(app: WSGIApplication, rule: str, caplog: pytest.LogCaptureFixture, **request: Any) -> None:
    """The caller gets a 500 that gives nothing away; the log names the rule."""
    caplog.clear()
    response = call(app, legal=False, **request)
    assert (response.status, response.data) == (500, b"Internal Server Error\n")
    (record,) = (record for record in caplog.records if record.levelno >= logging.ERROR)
    assert record.name == LOGGER
    assert record.exc_info is not None
    assert rule in str(record.exc_info[1])


@pytest.mark.parametrize("lengths", [("1", "2"), ("x",), ("-1",), ("",), ("1, 1",), ("1.0",)])
def test_r27_a_content_length_that_is_none_is_a_500(
    lengths: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    headers = [TEXT, *(("Content-Length", length) for length in lengths)]
    assert_refused(answering([b"x"], headers=headers), "Content-Length", caplog)


def test_r27_equal_content_lengths_are_one() -> None:
    response = call(answering([b"abc"], headers=[TEXT, ("Content-Length", "3"), ("content-length", "3")]))
    assert response.headers.getlist("Content-Length") == ["3"]
    assert response.data == b"abc"


@pytest.mark.parametrize(
    ("body", "length"),
    [([b"abc"], "3"), ((b"abc",), "3"), ([], "0"), ((), "0"), ([b"ab", b"", b"c"], "3"), ([b""], "0")],
)
def test_r28_a_complete_body_gets_its_content_length(body: Iterable[bytes], length: str) -> None:
    response = call(answering(body), legal=False)
    assert response.headers["Content-Length"] == length
    assert len(response.data) == int(length)


def test_r28_a_streamed_body_gets_none() -> None:
    """Nor a Transfer-Encoding: there is no wire that would need one."""
    response = call(Scripted(b"a", b"b"))
    assert not {"content-length", "transfer-encoding"} & {name.lower() for name in response.headers}
    assert response.data == b"ab"


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")]
)
@pytest.mark.parametrize("preload", [True, False])
def test_r29_where_no_body_is_sent_the_iterable_is_run_and_closed(
    method: str, status: str, preload: bool
) -> None:
    ran = threading.Event()
    headers = [TEXT] if method == "HEAD" else []  # the validator allows 204 and 304 no Content-Type
    script = Scripted(b"one", b"two", ran.set, status=status, headers=headers)
    response = call(script, method=method, preload_content=preload)
    assert response.read() == b""
    wait_for(ran)
    script.assert_closed_once()
    response.close()


@pytest.mark.parametrize(
    ("method", "status", "kept"),
    [("HEAD", "200 OK", True), ("GET", "304 Not Modified", True), ("GET", "204 No Content", False)],
)
@pytest.mark.parametrize("streamed", [True, False])
def test_r29_content_length_without_a_body(method: str, status: str, kept: bool, streamed: bool) -> None:
    chunks = [b"x" * 5]
    app = answering(iter(chunks) if streamed else chunks, status, [("Content-Length", "5")])
    response = call(app, method=method, legal=False)
    assert response.status == int(status[:3])
    assert response.headers.get("Content-Length") == ("5" if kept else None)
    assert response.data == b""


@pytest.mark.parametrize("streamed", [True, False])
def test_r30_more_than_the_content_length_is_cut_off(
    streamed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    chunks = [b"abc", b"def", b"ghi"]
    app = answering(iter(chunks) if streamed else chunks, headers=[TEXT, ("Content-Length", "4")])
    assert call(app, legal=False).data == b"abcd"
    assert "more than its Content-Length" in caplog.text


@pytest.mark.parametrize("streamed", [True, False])
def test_r30_less_than_the_content_length_is_an_incomplete_read(
    streamed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    chunks = [b"abc"]
    app = answering(iter(chunks) if streamed else chunks, headers=[TEXT, ("Content-Length", "4")])
    response = call(app, legal=False, preload_content=False)
    got, error = read_until_error(response)
    assert got == b"abc"
    assert isinstance(error, ProtocolError)
    assert "IncompleteRead" in str(error)
    assert "less than its Content-Length" in caplog.text


@pytest.mark.parametrize("method_and_status", [("HEAD", "200 OK"), ("GET", "204 No Content")], ids=str)
def test_r29_a_head_without_a_body_does_not_wait_for_the_end(method_and_status: tuple[str, str]) -> None:
    """The first chunk commits it, though none of it is sent."""
    method, status = method_and_status
    gate = threading.Event()
    headers = [TEXT] if method == "HEAD" else []
    script = Scripted(b"one", lambda: wait_for(gate), status=status, headers=headers)
    response = call(script, method=method)
    assert not script.closed.is_set()
    assert response.status == int(status[:3])
    gate.set()
    script.assert_closed_once()


def test_r30_an_endless_body_ends_at_its_content_length(caplog: pytest.LogCaptureFixture) -> None:
    """PEP 3333: the server stops iterating when enough has been sent; nobody's leaving would end it otherwise."""
    closed = threading.Event()

    def endless() -> Iterable[bytes]:
        try:
            while True:
                yield b"abc"
        finally:
            closed.set()

    assert call(answering(endless(), headers=[TEXT, ("Content-Length", "4")]), legal=False).data == b"abca"
    wait_for(closed)
    assert caplog.text.count("more than its Content-Length") == 1


def test_r30_writing_on_past_the_content_length_raises_in_the_app() -> None:
    raised = threading.Event()

    def app(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [TEXT, ("Content-Length", "4")])
        write(b"abcdef")
        try:
            write(b"g")
        except AssertionError:
            raised.set()
        return []

    assert call(app, legal=False).data == b"abcd"
    wait_for(raised)
