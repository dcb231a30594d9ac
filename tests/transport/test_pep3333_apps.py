"""PEP 3333, rule by rule (R39–R45): whole apps, their contexts and the validators."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import flask
import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from tests.transport.calls import (
    DEADLINE,
    TEXT,
    URL,
    answering,
    call,
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
