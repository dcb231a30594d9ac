"""What of the caller's context an app sees: its context variables, and nothing of Flask's."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import flask
import pytest

from flask_aibridge.transport import WSGIPoolManager
from tests.transport.calls import TEXT, URL, Scripted, call, eventually, pool_for, wait_for

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

trace: contextvars.ContextVar[str] = contextvars.ContextVar("trace", default="none")


def test_context_variables_travel_to_every_step_of_the_app() -> None:
    seen: list[str] = []
    script = Scripted(
        b"one", lambda: seen.append(trace.get()), b"two", on_close=lambda: seen.append(trace.get())
    )
    token = trace.set("caller")
    try:
        assert call(script).data == b"onetwo"
    finally:
        trace.reset(token)
    assert seen == ["caller", "caller"]


def test_what_the_app_sets_stays_in_its_call() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        before = trace.get()
        trace.set("app")
        start_response("200 OK", [TEXT])
        yield before.encode() + b" "
        yield trace.get().encode()

    with pool_for(app) as pool:
        assert [pool.request("GET", URL).data for _ in range(3)] == [b"none app"] * 3
    assert trace.get() == "none"


def test_the_context_is_that_of_the_request_not_of_the_read() -> None:
    gate = threading.Event()
    script = Scripted(b"one ", lambda: wait_for(gate), lambda: seen.append(trace.get()))
    seen: list[str] = []
    token = trace.set("at the request")
    response = call(script, preload_content=False)
    trace.reset(token)
    gate.set()
    response.read()
    assert seen == ["at the request"]


def test_a_plain_app_sees_nothing_of_the_callers_flask_contexts() -> None:
    seen: dict[str, object] = {}

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        seen.update(app=flask.has_app_context(), request=flask.has_request_context(), trace=trace.get())
        start_response("200 OK", [TEXT])
        return []

    outer = flask.Flask("outer")
    with outer.test_request_context("/outer"):
        token = trace.set("caller")
        assert call(app).status == 200
        trace.reset(token)
        assert flask.request.path == "/outer"
    assert seen == {"app": False, "request": False, "trace": "caller"}


class Nested:
    """One Flask app whose ``/outer`` calls its own ``/inner`` through the transport."""

    def __init__(self) -> None:
        self.app = flask.Flask("nested")
        self.app.secret_key = "test"
        self.pool = WSGIPoolManager(self.app)
        self.torn_down: list[str] = []
        self.app.add_url_rule("/outer", view_func=self.outer)
        self.app.add_url_rule("/inner", view_func=self.inner)
        self.app.add_url_rule("/stream", view_func=self.stream)
        self.app.add_url_rule("/relay", view_func=self.relay)
        self.app.teardown_appcontext(self._teardown)

    def _teardown(self, _error: BaseException | None) -> None:
        self.torn_down.append(flask.g.get("name", "unnamed"))

    def outer(self) -> dict[str, Any]:
        flask.g.name = "outer"
        flask.session["user"] = "alice"
        token = trace.set("outer")
        inner = self.pool.request("GET", URL + "/inner?q=1", headers={"X-Inner": "1"}).json()
        trace.reset(token)
        return {
            "inner": inner,
            "g": flask.g.name,
            "path": flask.request.path,
            "torn_down": list(self.torn_down),
            "g_names": sorted(flask.g),
        }

    def inner(self) -> dict[str, Any]:
        names = sorted(flask.g)
        flask.g.name = "inner"
        flask.g.only_inner = True
        return {
            "app": flask.current_app.name,
            "g": names,
            "path": flask.request.full_path,
            "header": flask.request.headers.get("X-Inner"),
            "session": dict(flask.session),
            "trace": trace.get(),
        }

    def stream(self) -> flask.Response:
        flask.g.name = "stream"

        def body() -> Iterator[str]:
            yield f"{flask.request.path} "
            yield f"{flask.g.name} "
            yield flask.current_app.name

        return flask.Response(flask.stream_with_context(body()))

    def relay(self) -> flask.Response:
        """Streams what another view streams, each within its own request."""
        flask.g.name = "relay"
        response = self.pool.request("GET", URL + "/stream", preload_content=False)

        def body() -> Iterator[bytes]:
            yield from response.stream()
            yield f" {flask.g.name} {flask.request.path}".encode()

        return flask.Response(flask.stream_with_context(body()))


def test_a_flask_app_that_calls_itself_gets_a_context_of_its_own() -> None:
    nested = Nested()
    outer = nested.app.test_client().get("/outer", headers={"X-Outer": "1"}).json
    assert outer is not None
    assert outer["inner"] == {
        "app": "nested",
        "g": [],
        "path": "/inner?q=1",
        "header": "1",
        "session": {},
        "trace": "outer",
    }
    assert outer["g"] == "outer"
    assert outer["g_names"] == ["name"]
    assert outer["path"] == "/outer"


def test_both_contexts_are_torn_down_each_with_its_own_g() -> None:
    nested = Nested()
    outer = nested.app.test_client().get("/outer").json
    assert outer is not None
    assert outer["torn_down"] == ["inner"]
    assert nested.torn_down == ["inner", "outer"]


def test_the_same_through_two_levels_of_the_transport() -> None:
    nested = Nested()
    outer = call(nested.app, "/outer").json()
    assert (outer["g"], outer["inner"]["g"], outer["inner"]["trace"]) == ("outer", [], "outer")
    assert nested.torn_down == ["inner", "outer"]


def torn_down_by_the_test_client(path: str) -> list[str]:
    """Some versions of Flask tear a context down twice for a body that keeps it."""
    nested = Nested()
    nested.app.test_client().get(path)
    return nested.torn_down


def test_stream_with_context_works_inside(caplog: pytest.LogCaptureFixture) -> None:
    nested = Nested()
    assert call(nested.app, "/stream").data == b"/stream stream nested"
    assert nested.torn_down == torn_down_by_the_test_client("/stream")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_stream_with_context_inside_stream_with_context() -> None:
    nested = Nested()
    assert nested.app.test_client().get("/relay").data == b"/stream stream nested relay /relay"
    assert sorted(nested.torn_down) == sorted(
        torn_down_by_the_test_client("/stream") + ["relay"] * len(torn_down_by_the_test_client("/stream"))
    )


def test_a_stream_with_context_that_is_left_early_is_torn_down(caplog: pytest.LogCaptureFixture) -> None:
    nested = Nested()
    call(nested.app, "/stream", preload_content=False).close()
    expected = torn_down_by_the_test_client("/stream")
    eventually(lambda: nested.torn_down == expected, "everything is torn down")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_two_apps_keep_their_current_app() -> None:
    inner, outer = flask.Flask("inner"), flask.Flask("outer")
    pool = WSGIPoolManager(inner)
    inner.add_url_rule("/", view_func=lambda: flask.current_app.name)

    @outer.get("/")
    def view() -> str:
        answer = pool.request("GET", URL).data.decode()
        return f"{answer} in {flask.current_app.name}"

    assert outer.test_client().get("/").data == b"inner in outer"


def test_a_context_of_the_caller_does_not_outlive_the_call() -> None:
    """A cached worker holds nothing of the last one it served."""

    class Value:
        alive = 0

        def __init__(self) -> None:
            Value.alive += 1

        def __del__(self) -> None:
            Value.alive -= 1

    variable: contextvars.ContextVar[Value] = contextvars.ContextVar("variable")

    def ask() -> None:
        variable.set(Value())
        assert call(Scripted(b"one")).data == b"one"

    contextvars.copy_context().run(ask)
    eventually(lambda: Value.alive == 0, "the value of the caller's variable is let go of")
