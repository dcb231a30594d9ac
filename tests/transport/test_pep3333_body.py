"""PEP 3333, rule by rule (R33–R45): the body, its end, and whole apps."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import flask
import pytest
from urllib3.exceptions import ProtocolError
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from tests.transport.calls import (
    DEADLINE,
    TEXT,
    URL,
    Scripted,
    Step,
    answering,
    call,
    eventually,
    pool_for,
    raising,
    seen_environ,
    wait_for,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

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


def test_r39_an_app_that_lets_its_exceptions_out_is_a_500_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Raising them in the caller is not offered: a caller of urllib3 is ready for a 500, not for any exception."""
    app = flask.Flask("app")
    app.testing = True
    app.add_url_rule("/", view_func=raising(ValueError("let out")))  # type: ignore[arg-type]
    assert call(app).status == 500
    assert "let out" in caplog.text


def test_r40_no_context_is_pushed_around_the_iteration() -> None:
    """Flask has popped its own by then, unless the view asked it not to."""
    app = flask.Flask("app")

    @app.get("/")
    def view() -> flask.Response:
        def body() -> Iterator[str]:
            yield f"{flask.has_request_context()} {flask.has_app_context()}"

        return flask.Response(body())

    assert call(app).data == b"False False"


def test_r41_trailers_are_not_offered() -> None:
    assert not [key for key in seen_environ() if "trailer" in key.lower()]


def test_r42_after_the_caller_left_a_write_raises_and_a_generator_is_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    left, over = threading.Event(), threading.Event()
    raised: list[BaseException] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        write = start_response("200 OK", [TEXT])
        try:
            yield b"a"
            wait_for(left)
            try:
                write(b"b")
            except OSError as error:
                raised.append(error)
            while True:
                yield b"c"
        except GeneratorExit as error:
            raised.append(error)
            raise
        finally:
            over.set()

    call(app, preload_content=False).close()
    left.set()
    wait_for(over)
    assert [type(error).__mro__[1] for error in raised] == [BrokenPipeError, BaseException]
    assert not caplog.records


def test_r43_protocol_and_objects_of_the_environ() -> None:
    environ = seen_environ(method="POST", body=b"abc", legal=False)
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert environ["flask_aibridge.cancellation"].wait(DEADLINE)
    with pytest.raises(OSError, match="over"):
        environ["wsgi.input"].read()


def flask_app() -> flask.Flask:
    app = flask.Flask("app")

    @app.route("/echo", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    def echo() -> flask.Response:
        return flask.Response(flask.request.stream.read(-1) or flask.request.full_path)

    @app.get("/stream")
    def stream() -> flask.Response:
        return flask.Response(iter(["one ", "two"]), content_type="text/event-stream")

    return app


def through_lint(app: WSGIApplication) -> WSGIApplication:
    lint = pytest.importorskip("webtest.lint")
    wrapped: WSGIApplication = lint.middleware(app)
    return wrapped


@pytest.mark.parametrize("strict", [lambda app: app, through_lint])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("target", ["/echo", "/echo?q=%20", "/stream", "/missing/%FF"])
def test_r44_the_validators_find_nothing(
    strict: Any, method: str, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    """wsgiref's around everything, WebTest's stricter one inside it."""
    body = b"abc" if method in ("POST", "PUT", "PATCH") else None
    response = call(strict(flask_app()), target, method=method, body=body)
    assert response.status in (200, 404, 405)
    assert not errors_of(caplog)


def test_r44_lint_finds_nothing_in_streamed_bodies() -> None:
    app = through_lint(flask_app())
    assert call(app, "/stream").data == b"one two"
    assert call(app, "/echo", method="POST", body=iter([b"ab", b"c"])).data == b"abc"


def test_r45_middleware_that_comes_later_counts() -> None:
    app = flask_app()
    with pool_for(app) as pool:
        assert pool.request("GET", URL + "/missing").status == 404
        app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/missing": answering([b"found"])})  # type: ignore[method-assign]
        assert pool.request("GET", URL + "/missing").data == b"found"


def test_r45_middleware_inside_counts() -> None:
    app = flask.Flask("app")
    app.add_url_rule("/", view_func=lambda: f"{flask.request.remote_addr} {flask.request.url}")
    app.wsgi_app = ProxyFix(app.wsgi_app, x_host=1)  # type: ignore[method-assign]
    forwarded = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Host": "outer.test"}
    assert call(app, headers=forwarded).data == b"192.0.2.1 http://outer.test/"
