"""PEP 3333, rule by rule (R14–R20): ``wsgi.input``, the request body as an app reads it."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from flask_aibridge.transport import WSGIPoolManager
from tests.transport.calls import DEADLINE, TEXT, URL, call, seen_environ, wait_for

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def read_by(read: Callable[[Any], Any], body: Any, *, legal: bool = True, **request: Any) -> Any:
    """What ``read`` makes of the ``wsgi.input`` of a POST with this body, in the app."""
    results: list[Any] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        results.append(read(environ["wsgi.input"]))
        start_response("200 OK", [TEXT])
        return []

    assert call(app, method="POST", body=body, legal=legal, **request).status == 200
    (result,) = results
    return result


def streamed(content: bytes, size: int = 3) -> Iterator[bytes]:
    """The content as a body of unknown length."""
    return (content[start : start + size] for start in range(0, len(content), size))


LINES = b"one\ntwo\n\nfour"


@pytest.mark.parametrize("body", [lambda: LINES, lambda: streamed(LINES), lambda: io.BytesIO(LINES)])
@pytest.mark.parametrize(
    ("read", "result"),
    [
        (lambda body: [body.read(5), body.read(100), body.read(1)], [LINES[:5], LINES[5:], b""]),
        (lambda body: [body.read(-1), body.read(-1)], [LINES, b""]),
        (lambda body: body.read(0), b""),
        (lambda body: [body.readline() for _ in range(6)], [b"one\n", b"two\n", b"\n", b"four", b"", b""]),
        (lambda body: [body.readline(2), body.readline(2), body.readline(9)], [b"on", b"e\n", b"two\n"]),
        (lambda body: body.readlines(), [b"one\n", b"two\n", b"\n", b"four"]),
        (lambda body: body.readlines(1), [b"one\n"]),
        (lambda body: list(body), [b"one\n", b"two\n", b"\n", b"four"]),
        (lambda body: [body.readline(), body.read(-1)], [b"one\n", LINES[4:]]),
    ],
)
def test_r14_input_has_the_methods_of_a_file(body: Callable[[], Any], read: Any, result: Any) -> None:
    assert read_by(read, body()) == result


@pytest.mark.parametrize("body", [lambda: LINES, lambda: streamed(LINES)])
def test_r14_input_may_be_read_without_arguments(body: Callable[[], Any]) -> None:
    """Which the validator refuses apps, but Werkzeug does."""
    assert read_by(lambda body: [body.read(), body.read()], body(), legal=False) == [LINES, b""]


@pytest.mark.parametrize("amount", [4, 3, 5, -1])
def test_r15_input_ends_at_the_content_length(amount: int) -> None:
    headers = {"Content-Length": "4"}
    assert (
        read_by(lambda body: body.read(amount), streamed(b"abcdefgh"), headers=headers)
        == b"abcd"[: amount % 6]
    )
    assert read_by(lambda body: body.read(amount), b"abcdefgh", headers=headers) == b"abcd"[: amount % 6]


@pytest.mark.parametrize(
    "body", [lambda: streamed(b"abc"), lambda: io.BytesIO(b"abc"), lambda: iter(["a", b"bc"])]
)
def test_r16_a_body_of_unknown_length_is_chunked(body: Callable[[], Any]) -> None:
    def read(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        seen.update(environ)
        start_response("200 OK", [TEXT])
        return [environ["wsgi.input"].read(-1)]

    seen: dict[str, Any] = {}
    assert call(read, method="POST", body=body()).data == b"abc"
    assert seen["HTTP_TRANSFER_ENCODING"] == "chunked"
    assert "CONTENT_LENGTH" not in seen
    assert seen["wsgi.input_terminated"] is True


def test_r17_transfer_encoding_wins_over_content_length() -> None:
    headers = {"Content-Length": "2", "Transfer-Encoding": "chunked"}
    environ = seen_environ(method="POST", body=b"abc", headers=headers)
    assert "CONTENT_LENGTH" not in environ
    assert read_by(lambda body: body.read(-1), b"abc", headers=headers) == b"abc"


@pytest.mark.parametrize("length", ["-1", "x", "", "9", "1,1"])
def test_r17_a_wrong_content_length_is_refused_before_the_app_is_called(length: str) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        raise AssertionError("called")

    with pytest.raises(ValueError, match="Content-Length"):
        call(app, method="POST", body=b"abc", headers={"Content-Length": length})


@pytest.mark.parametrize("body", [lambda: b"x" * 1_000_000, lambda: streamed(b"x" * 1_000_000, 50_000)])
def test_r18_an_app_may_ignore_the_body(body: Callable[[], Any]) -> None:
    assert seen_environ(method="POST", body=body())["REQUEST_METHOD"] == "POST"


@pytest.mark.parametrize("body", [lambda: b"abc", lambda: streamed(b"abc"), lambda: None])
@pytest.mark.parametrize("method", ["read", "readline", "readlines", "__next__"])
def test_r18_input_fails_once_the_exchange_is_over(body: Callable[[], Any], method: str) -> None:
    kept: dict[str, Any] = {}

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        kept.update(environ)
        start_response("200 OK", [TEXT])
        return []

    assert call(app, method="POST", body=body(), legal=False).status == 200
    assert kept["flask_aibridge.cancellation"].wait(DEADLINE)
    with pytest.raises(OSError, match="over"):
        getattr(kept["wsgi.input"], method)()


def test_r19_an_expectation_is_passed_on_and_needs_no_answer() -> None:
    environ = seen_environ(method="POST", body=b"abc", headers={"Expect": "100-continue"})
    assert environ["HTTP_EXPECT"] == "100-continue"


def test_r20_a_lazy_body_is_produced_in_the_callers_thread_while_the_app_reads() -> None:
    """Not spooled: the second part is asked for when the app already has the first."""
    has_first, threads = threading.Event(), []

    def body() -> Iterator[bytes]:
        threads.append(threading.get_ident())
        yield b"one"
        wait_for(has_first)
        threads.append(threading.get_ident())
        yield b"two"

    def read(body: Any) -> bytes:
        first: bytes = body.read(3)
        has_first.set()
        rest: bytes = body.read(-1)
        return first + b"," + rest

    assert read_by(read, body()) == b"one,two"
    assert threads == [threading.get_ident()] * 2


def test_r20_a_lazy_body_that_raises_fails_the_call_and_the_apps_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Exception):
        pass

    failed = threading.Event()

    def body() -> Iterator[bytes]:
        yield b"one"
        raise Broken

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read(-1)
        except OSError:
            failed.set()
            raise
        start_response("200 OK", [TEXT])
        return []

    with pytest.raises(Broken):
        call(app, method="POST", body=body())
    wait_for(failed)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_r20_a_lazy_body_waits_for_an_app_that_does_not_read() -> None:
    """At most 64 KiB and one part run ahead of it."""
    sent: list[int] = []
    may_read = threading.Event()

    def body() -> Iterator[bytes]:
        for number in range(40):
            sent.append(number)
            yield b"x" * 8192

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        wait_for(may_read)
        start_response("200 OK", [TEXT])
        return [b"%d" % len(environ["wsgi.input"].read(-1))]

    answers: list[bytes] = []
    pool = WSGIPoolManager(app)
    caller = threading.Thread(target=lambda: answers.append(pool.request("POST", URL, body=body()).data))
    caller.start()
    caller.join(0.2)
    ahead = len(sent)
    may_read.set()
    caller.join(DEADLINE)
    assert answers == [b"%d" % (40 * 8192)]
    assert ahead <= 9
