"""``public_door``: the licence first, then the bridge, and a response that is the bridge's own."""

from __future__ import annotations

import gc
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, cast
from wsgiref.validate import validator

import pytest
from flask import Flask, Response, session
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import TestResponse, create_environ, run_wsgi_app

from flask_aibridge import AIBridge
from flask_aibridge.config import ProviderSettings
from flask_aibridge.license.gate import Gate
from flask_aibridge.license.issuing import SigningKey, issue_license
from flask_aibridge.license.refusal_forms import provider_types
from flask_aibridge.public_door import MAX_WRITTEN, make_public_door
from tests.sockets import SocketRequest

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

KEY = SigningKey.generate("k1")
LICENSE = issue_license(KEY)
PREFIX = "/api/v2/aibridge"


def make_app(bridge: Any = None, token: str | None = LICENSE, prefix: str = PREFIX, **config: Any) -> Flask:
    """An app with this bridge (``None`` for none) behind a public door."""
    app = Flask("host")
    app.config.update(
        AIBRIDGE_BRIDGE=None,
        AIBRIDGE_LICENSE=token,
        AIBRIDGE_LICENSE_PUBLIC_KEYS={"k1": KEY.public_pem},
        AIBRIDGE_URL_PREFIX=prefix,
        **config,
    )
    AIBridge(app, bridge)
    return app


@cache
def app_that_stays(bridge: Any = None, token: str | None = LICENSE) -> Flask:
    """As :func:`make_app`, for the many tests that change nothing: an app takes longer to make than to ask."""
    return make_app(bridge, token)


class Echo:
    """A bridge that answers with the environ it was called with, as far as JSON goes."""

    def __init__(self) -> None:
        self.environ: WSGIEnvironment = {}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.environ = environ
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({"path": environ["PATH_INFO"], "script": environ["SCRIPT_NAME"]}).encode()]


def refuse_to_be_called(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    raise AssertionError("the gate is closed")


PATHS = [
    *("", "/", "//x", "/anthropic/v1/messages", "/a//b/", "/a%2Fb", "/%0a", "/..", "/.", "/%ff", "/a;b?c=d"),
    *("/anything", "/é", "/%00", "/http://x/"),
]
METHODS = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "PROPFIND",
    "QUERY",
    "X-MADE-UP",
]


class TestTheGate:
    @pytest.mark.parametrize("bridge", [None, refuse_to_be_called])
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("path", PATHS)
    def test_without_a_licence_everything_is_403(self, bridge: Any, method: str, path: str) -> None:
        """Every path and method below the prefix, bridge or none."""
        response = app_that_stays(bridge, token=None).test_client().open(PREFIX + path, method=method)
        assert response.status_code == 403
        assert response.content_type == "application/json"
        if method != "HEAD":
            body = json.loads(response.data)
            assert list(body)[-2:] == ["message", "code"]
            assert ("error" in body) == path.startswith("/anthropic/")
            assert body["code"] == "license_required"
            assert body["message"].startswith("AI Bridge is a licensed feature. ")

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("path", PATHS)
    def test_entitled_and_not_mounted_is_404(self, method: str, path: str) -> None:
        """In the words of the contract."""
        response = app_that_stays().test_client().open(PREFIX + path, method=method)
        assert response.status_code == 404
        assert response.content_type == "application/json"
        if method != "HEAD":
            assert response.data == b'{"message": "aibridge handler not mounted", "code": "not_mounted"}'

    @pytest.mark.parametrize("path", ["X", "X/y", "-2", "%20", ".json", "%2e"])
    def test_what_only_begins_like_the_prefix_is_not_ours(self, path: str) -> None:
        """Another path of the host."""
        response = make_app(token=None).test_client().get(PREFIX + path)
        assert response.status_code == 404
        assert b"aibridge" not in response.data.lower()

    def test_an_attempt_to_open_a_websocket_reaches_the_gate(self) -> None:
        """Routing alone would call it a bad request."""
        headers = {"Connection": "Upgrade", "Upgrade": "websocket"}
        response = make_app(token=None).test_client().get(PREFIX + "/x", headers=headers)
        assert response.status_code == 403
        assert make_app(Echo()).test_client().get(PREFIX + "/x", headers=headers).status_code == 200

    def test_the_licence_is_asked_before_the_body_is_read(self) -> None:
        """Nobody uploads a megabyte to be refused."""
        app = make_app(refuse_to_be_called, token=None)
        environ = create_environ(PREFIX + "/x", method="POST", headers={"Content-Length": "1000000"})
        environ["wsgi.input"] = cast("Any", None)
        _, status, _ = run_wsgi_app(app, environ)
        assert status == "403 FORBIDDEN"

    @pytest.mark.parametrize(
        ("token", "code"),
        [
            ("nonsense", "license_malformed"),
            (issue_license(SigningKey.generate("k2")), "license_unknown_key"),
            (issue_license(SigningKey.generate("k1")), "license_bad_signature"),
            (issue_license(KEY, nbf=1_000_000_000), "license_expired"),
            (issue_license(KEY, nbf=int(time.time()) + 10_000), "license_not_yet_valid"),
            (issue_license(KEY, features={}), "license_feature_missing"),
            ("x" * 20_000, "license_too_large"),
        ],
    )
    def test_each_reason_has_its_code(self, token: str, code: str) -> None:
        """In the body, for programs."""
        response = make_app(refuse_to_be_called, token=token).test_client().get(PREFIX)
        assert (response.status_code, response.get_json()["code"]) == (403, code)

    def test_a_licence_installed_while_running(self) -> None:
        """Opens the door for the next request."""
        app = make_app(Echo(), token=None)
        client = app.test_client()
        assert client.get(PREFIX).status_code == 403
        app.extensions["aibridge"].gate.install(LICENSE)
        assert client.get(PREFIX).status_code == 200

    @pytest.mark.parametrize(("bridge", "status"), [(Echo(), 200), (None, 404)])
    def test_in_grace_it_is_open_and_says_so(self, bridge: Any, status: int) -> None:
        """In a header, which changes nothing for a client that does not look."""
        now = int(time.time())
        token = issue_license(KEY, nbf=now - 1000, license_expires=now - 10)
        response = make_app(bridge, token=token).test_client().get(PREFIX)
        assert (response.status_code, response.headers["X-AIBridge-License"]) == (status, "grace")

    def test_in_the_term_there_is_no_such_header(self) -> None:
        """Nor where the door is closed."""
        assert "X-AIBridge-License" not in make_app(Echo()).test_client().get(PREFIX).headers
        assert "X-AIBridge-License" not in make_app(token=None).test_client().get(PREFIX).headers

    def test_a_refusal_is_not_kept_by_a_proxy(self) -> None:
        """It ends with a setting."""
        assert make_app(token=None).test_client().get(PREFIX).headers["Cache-Control"] == "no-store"
        assert make_app().test_client().get(PREFIX).headers["Cache-Control"] == "no-store"


class TestTheEnd:
    """Of a process, which takes no new requests then."""

    @pytest.mark.parametrize(
        ("path", "type_"),
        [("/anthropic/v1/messages", "api_error"), ("/openai/v1/responses", "server_error"), ("/x", "")],
    )
    def test_requests_are_refused_for_now(self, path: str, type_: str) -> None:
        """In the provider's form; whoever asks again is served by another process."""
        app = make_app(refuse_to_be_called)
        assert app.extensions["aibridge"].drain(0) is True
        response = app.test_client().post(PREFIX + path)
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "1"
        assert "X-Should-Retry" not in response.headers
        assert response.json is not None
        assert response.json["code"] == "draining"
        assert response.json.get("error", {}).get("type", "") == type_

    def test_the_licence_is_asked_first(self) -> None:
        app = make_app(refuse_to_be_called, token=None)
        app.extensions["aibridge"].drain(0)
        assert app.test_client().post(PREFIX).status_code == 403


class TestUnreadBodies:
    """Of refused requests: a client that is still sending would not see why, if the connection ended under it."""

    @pytest.mark.parametrize(
        ("make", "status"),
        [
            pytest.param(lambda: make_app(token=None), 403, id="licence"),
            pytest.param(make_app, 404, id="not mounted"),
            pytest.param(lambda: drained(make_app(refuse_to_be_called)), 503, id="the end"),
        ],
    )
    def test_they_are_thrown_away(self, make: Callable[[], Flask], status: int) -> None:
        """Before the answer, where the server gives its socket."""
        upload = SocketRequest()
        upload.client.sendall(b"x" * 100)
        environ = create_environ(PREFIX + "/anthropic/v1/messages", method="POST") | upload.environ
        _, answered, _ = run_wsgi_app(make(), environ)
        assert answered.startswith(str(status))
        upload.client.sendall(b"next")
        assert upload.server.recv(10) == b"next"
        upload.close()


def drained(app: Flask) -> Flask:
    """One whose process is about to end."""
    app.extensions["aibridge"].drain(0)
    return app


class TestTheGatesWords:
    """In the shape of the provider that the path names, as far as that is known without looking anywhere."""

    @staticmethod
    def door(
        path: str, status: int = 403, providers: tuple[ProviderSettings, ...] = (), **request: Any
    ) -> TestResponse:
        app = Flask("host")
        types = provider_types(providers)
        app.register_blueprint(
            make_public_door(
                PREFIX,
                Gate(),
                lambda: refuse_to_be_called,
                provider_type=types.get,
                refusal_status=status,
            )
        )
        return app.test_client().open(PREFIX + path, **request)

    @pytest.mark.parametrize("path", ["/anthropic", "/anthropic/", "/anthropic/v1/messages", "/anthropic//x"])
    def test_anthropics(self, path: str) -> None:
        """An ``error`` of its own, and what every refusal has."""
        body = json.loads(self.door(path, method="POST").data)
        assert body["type"] == "error"
        assert body["error"] == {"type": "permission_error", "message": body["message"]}
        assert body["message"].startswith("AI Bridge is a licensed feature. ")
        assert body["code"] == "license_required"

    def test_openais(self) -> None:
        """The gate's code is the error's."""
        body = json.loads(self.door("/openai/v1/chat/completions", method="POST").data)
        assert set(body) == {"error", "message", "code"}
        assert body["error"]["message"] == body["message"]
        assert body["error"]["code"] == body["code"] == "license_required"

    def test_a_provider_of_another_name(self) -> None:
        """By its settings."""
        providers = (ProviderSettings("claude-eu", "anthropic", "https://eu.example"),)
        assert json.loads(self.door("/claude-eu/v1/messages", providers=providers).data)["type"] == "error"

    @pytest.mark.parametrize("path", ["", "/", "/x", "/x/anthropic", "/anthropic2", "/Anthropic/v1", "/%00"])
    def test_for_nobody_in_particular(self, path: str) -> None:
        """Two members, as ever."""
        assert set(json.loads(self.door(path).data)) == {"message", "code"}

    @pytest.mark.parametrize("status", [402, 403])
    @pytest.mark.parametrize("path", ["", "/anthropic/v1/messages", "/openai/v1/responses"])
    def test_it_is_final(self, path: str, status: int) -> None:
        """SDKs are told not to try again; which status it is, is the administrator's choice."""
        response = self.door(path, status)
        assert response.status_code == status
        assert response.headers["X-Should-Retry"] == "false"
        assert response.headers["Cache-Control"] == "no-store"

    def test_an_open_door_says_nothing_of_that(self) -> None:
        """The bridge's answers are the bridge's."""
        assert "X-Should-Retry" not in make_app(Echo()).test_client().get(PREFIX).headers
        assert "X-Should-Retry" not in make_app().test_client().get(PREFIX).headers


def in_grace() -> str:
    now = int(time.time())
    return issue_license(KEY, nbf=now - 1000, license_expires=now - 10, exp=now + 100_000)


class TestTheWarningInGrace:
    def test_it_names_the_day(self) -> None:
        """On which the door closes."""
        token = in_grace()
        warning = make_app(Echo(), token=token).test_client().get(PREFIX).headers["X-AIBridge-Warning"]
        ends = datetime.fromtimestamp(time.time() + 100_000, UTC)
        assert warning.isascii()
        assert "grace" in warning
        assert ends.strftime("%Y-%m-%d") in warning

    def test_every_response_has_it(self) -> None:
        """Also the host's own, of an exception."""

        def fail(_environ: WSGIEnvironment, _start_response: StartResponse) -> Iterable[bytes]:
            raise ZeroDivisionError

        for bridge, status in ((Echo(), 200), (None, 404), (fail, 500)):
            app = make_app(bridge, token=in_grace(), PROPAGATE_EXCEPTIONS=False)
            app.logger.disabled = True
            response = app.test_client().get(PREFIX + "/anthropic/v1/messages")
            assert response.status_code == status
            assert response.headers["X-AIBridge-Warning"]
            assert response.headers["X-AIBridge-License"] == "grace"

    def test_a_bridge_cannot_contradict(self) -> None:
        """Its own header of that name goes."""

        def bridge(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [("X-AIBridge-Warning", "all is well"), ("X-AIBridge-License", "good")])
            return [b""]

        headers = make_app(bridge, token=in_grace()).test_client().get(PREFIX).headers
        assert headers.getlist("X-AIBridge-License") == ["grace"]
        assert len(headers.getlist("X-AIBridge-Warning")) == 1
        assert "grace" in headers["X-AIBridge-Warning"]

    def test_otherwise_there_is_none(self) -> None:
        """In the term, and where the door is closed."""
        for app in (make_app(Echo()), make_app(), make_app(token=None)):
            assert "X-AIBridge-Warning" not in app.test_client().get(PREFIX).headers


class TestRouting:
    @pytest.mark.parametrize(
        ("path", "path_info"),
        [
            ("", ""),
            ("/", "/"),
            ("/openai/v1/responses", "/openai/v1/responses"),
            ("//x", "//x"),
            ("/a//b/", "/a//b/"),
            ("/a%2Fb", "/a/b"),
            ("/%0Ax", "/\nx"),
        ],
    )
    def test_the_prefix_moves_to_script_name(self, path: str, path_info: str) -> None:
        """And what is below it is left as it came, with no redirect."""
        response = make_app(Echo()).test_client().get(PREFIX + path)
        assert response.get_json() == {"path": path_info, "script": PREFIX}

    @pytest.mark.parametrize("raw", [b"/\xff", "/é".encode(), b"/\xed\xa0\x80"])
    def test_a_path_that_is_no_text(self, raw: bytes) -> None:
        """Bytes are bytes: PATH_INFO is handed on undecoded."""
        echo = Echo()
        environ = create_environ("/")
        environ["PATH_INFO"] = PREFIX + raw.decode("latin-1")
        run_wsgi_app(make_app(echo), environ)
        assert echo.environ["PATH_INFO"].encode("latin-1") == raw

    def test_an_app_that_is_mounted_itself(self) -> None:
        """Behind a proxy or a dispatcher, SCRIPT_NAME grows."""
        echo = Echo()
        environ = create_environ(PREFIX + "/x")
        environ["SCRIPT_NAME"] = "/host"
        run_wsgi_app(make_app(echo), environ)
        assert (echo.environ["SCRIPT_NAME"], echo.environ["PATH_INFO"]) == ("/host" + PREFIX, "/x")

    def test_a_doubled_slash_within_the_prefix(self) -> None:
        """It is another path; whoever sends a prompt there is not redirected, which would lose the body."""
        path = PREFIX.replace("/v2", "//v2")
        assert make_app(Echo()).test_client().post(path + "/x").status_code == 404

    def test_doubled_leading_slashes(self) -> None:
        """Routing takes them for one, and so does the prefix."""
        echo = Echo()
        environ = create_environ("/")
        environ["PATH_INFO"] = "//" + PREFIX + "/x"
        run_wsgi_app(make_app(echo), environ)
        assert (echo.environ["SCRIPT_NAME"], echo.environ["PATH_INFO"]) == (PREFIX, "/x")

    @pytest.mark.parametrize("prefix", ["/ai", "/a.b/c", "/x+(y)*"])
    def test_another_prefix(self, prefix: str) -> None:
        """Whatever the config allows is taken literally."""
        client = make_app(Echo(), prefix=prefix).test_client()
        assert client.get(f"{prefix}/v1").get_json() == {"path": "/v1", "script": prefix}
        assert client.get(PREFIX).status_code == 404

    def test_a_more_specific_route_wins(self) -> None:
        """A management page below the prefix, whether it came before or after; other methods are the bridge's."""
        app = make_app(Echo())
        app.add_url_rule(f"{PREFIX}/dashboard", view_func=lambda: "all", endpoint="all")
        app.add_url_rule(f"{PREFIX}/dashboard/<key>", view_func=lambda key: key, endpoint="one")
        client = app.test_client()
        assert client.get(f"{PREFIX}/dashboard").data == b"all"
        assert client.get(f"{PREFIX}/dashboard/7").data == b"7"
        assert client.get(f"{PREFIX}/dashboard/7/8").get_json()["path"] == "/dashboard/7/8"
        assert client.delete(f"{PREFIX}/dashboard").get_json()["path"] == "/dashboard"

    def test_an_app_that_routes_by_host(self) -> None:
        """The door is there on every host."""
        app = Flask("host", host_matching=True, static_host="static.example")
        app.config.update(AIBRIDGE_LICENSE=LICENSE, AIBRIDGE_LICENSE_PUBLIC_KEYS={"k1": KEY.public_pem})
        AIBridge(app, cast("Any", Echo()))
        for host in ("http://a.example/", "http://b.example:8080/"):
            assert app.test_client().get(PREFIX, base_url=host).status_code == 200

    def test_its_url_can_be_built(self) -> None:
        """By the name of its endpoint."""
        app = make_app(Echo())
        with app.test_request_context():
            assert app.url_for("aibridge.public_door", path="/openai/v1") == f"{PREFIX}/openai/v1"

    def test_it_is_a_blueprint(self) -> None:
        """To be exempted from what guards forms, by its name or its view."""
        app = make_app()
        assert "aibridge" in app.blueprints
        assert app.view_functions["aibridge.public_door"].__name__ == "public_door"

    @given(st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=30))
    def test_any_path_below_the_prefix_arrives(self, text: str) -> None:
        """Character by character."""
        echo = Echo()
        environ = create_environ("/")
        environ["PATH_INFO"] = f"{PREFIX}/{text}"
        run_wsgi_app(make_app(echo), environ)
        assert echo.environ["PATH_INFO"] == f"/{text}"


class TestTheEnviron:
    def test_it_is_a_copy(self) -> None:
        """The bridge may change it; the host sees its own."""
        echo, environ = Echo(), create_environ(PREFIX + "/x")
        run_wsgi_app(make_app(echo), environ)
        assert environ["PATH_INFO"] == PREFIX + "/x"

    def test_nothing_of_ours_is_in_it(self) -> None:
        """What came by HTTP never counts as in process, whatever a server or a middleware put there."""
        echo = Echo()
        environ = create_environ(
            PREFIX + "/x", headers={"flask_aibridge.source": "agents", "Flask-AIBridge": "x"}
        )
        environ.update({"flask_aibridge.source": "agents", "flask_aibridge.cancellation": object()})
        run_wsgi_app(make_app(echo), environ)
        assert [key for key in echo.environ if key.startswith("flask_aibridge.")] == []
        assert "werkzeug.request" not in echo.environ

    def test_the_body_is_untouched(self) -> None:
        """Not even a form is parsed: the stream is the server's own, at its beginning."""
        bodies: list[bytes] = []

        def bridge(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            bodies.append(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            start_response("204 No Content", [])
            return []

        make_app(bridge, MAX_CONTENT_LENGTH=3).test_client().post(PREFIX, data={"a": "b" * 10})
        assert bodies == [b"a=bbbbbbbbbb"]

    def test_no_session_is_opened(self) -> None:
        """No ``Vary: Cookie``, which would end all caching, and no cookie."""
        app = make_app(Echo(), SECRET_KEY="x")
        response = app.test_client().get(PREFIX, headers={"Cookie": "session=abc"})
        assert "Vary" not in response.headers
        assert "Set-Cookie" not in response.headers


def answer(
    bridge: Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]], method: str = "GET"
) -> tuple[bytes, str, list[tuple[str, str]]]:
    """What a server gets from the host app: body, status, headers."""
    app = make_app(bridge)
    body, status, headers = run_wsgi_app(app, create_environ(PREFIX, method=method))
    return b"".join(body), status, list(headers)


class TestTheResponse:
    def test_its_head_is_the_bridges(self) -> None:
        """Reason, order, case and repetition; nothing is added."""
        head = [("x-b", "1"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-A", "ü")]

        def bridge(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response("299 Very Odd", head)
            return iter([b"x"])

        assert answer(bridge) == (b"x", "299 Very Odd", head)

    @pytest.mark.parametrize("body", [[b"ab", b"c"], (b"abc",), [b"", b"abc", b""]])
    def test_a_whole_body_has_its_length(self, body: Any) -> None:
        """Where the bridge gave it at once."""

        def bridge(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [])
            return cast("Iterable[bytes]", body)

        assert answer(bridge) == (b"abc", "200 OK", [("Content-Length", "3")])

    def test_an_empty_body_has_its_length(self) -> None:
        """Zero, so that a connection can be kept."""

        def bridge(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [])
            return []

        assert answer(bridge) == (b"", "200 OK", [("Content-Length", "0")])

    @pytest.mark.parametrize("length", [None, "3"])
    @pytest.mark.parametrize("body", [[], [b"abc"]])
    def test_head(self, body: list[bytes], length: str | None) -> None:
        """No body, and the length only if the bridge says it."""
        given = [("Content-Length", length)] if length else []

        def bridge(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            assert environ["REQUEST_METHOD"] == "HEAD"
            start_response("200 OK", given)
            return body

        assert answer(bridge, "HEAD") == (b"", "200 OK", given)

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    @pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified"])
    def test_a_body_is_closed_once(self, method: str, status: str) -> None:
        """Read or not."""
        closed: list[int] = []

        class Body:
            def __iter__(self) -> Iterator[bytes]:
                return iter([b"a", b"b"])

            def close(self) -> None:
                closed.append(1)

        def bridge(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response(status, [])
            return Body()

        app_iter, _, _ = run_wsgi_app(make_app(bridge), create_environ(PREFIX, method=method))
        list(app_iter)
        cast("Any", app_iter).close()
        cast("Any", app_iter).close()
        assert closed == [1]

    def test_after_request_functions_work(self) -> None:
        """They see the status and may add headers."""
        app = make_app(Echo())

        def mark(response: Response) -> Response:
            response.headers["X-Host"] = f"saw {response.status_code}"
            return response

        app.after_request(mark)
        assert app.test_client().get(PREFIX).headers["X-Host"] == "saw 200"

    def test_a_body_dropped_by_an_after_request_function_is_closed(self) -> None:
        """One that raises leaves nobody to close it."""
        closed: list[int] = []

        class Body:
            def __iter__(self) -> Iterator[bytes]:
                return iter([b"a", b"b"])

            def close(self) -> None:
                closed.append(1)

        def bridge(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [])
            return Body()

        def fail(response: Response) -> Response:
            raise ZeroDivisionError

        app = make_app(bridge)
        app.logger.disabled = True  # a test's log keeps the traceback, and with it the body
        app.after_request(fail)
        assert app.test_client().get(PREFIX).status_code == 500
        gc.collect()
        assert closed == [1]

    def test_it_is_of_the_hosts_class(self) -> None:
        """So that its own after_request functions find what they expect."""

        class Own(Response):
            default_mimetype = "text/odd"

        app = make_app(lambda environ, start_response: (start_response("200 OK", []), [b"x"])[1])
        app.response_class = Own
        seen: list[Any] = []
        app.after_request(lambda response: seen.append(type(response)) or response)  # type: ignore[func-returns-value]
        assert "Content-Type" not in app.test_client().get(PREFIX).headers
        assert seen == [Own]

    def test_a_session_of_the_host_is_still_saved(self) -> None:
        """If the host itself uses one in a hook."""
        app = make_app(Echo(), SECRET_KEY="x")

        def use() -> None:
            session["seen"] = True

        app.before_request(use)
        assert "session=" in app.test_client().get(PREFIX).headers["Set-Cookie"]

    def test_wsgi_is_kept_on_both_sides(self) -> None:
        """The host app to its server, and the bridge's view of its caller."""

        def bridge(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            environ["wsgi.input"].read(2)
            start_response("200 OK", [("Content-Type", "text/plain")])
            return iter([b"a", b"b"])

        app = make_app(validator(bridge))
        environ = create_environ(PREFIX + "/x", method="POST", data=b"ab")
        environ = {key: value for key, value in environ.items() if key != "HTTP_CONTENT_LENGTH"}
        status: list[str] = []
        body = validator(app.wsgi_app)(environ, lambda line, *_: status.append(line) or (lambda _data: None))  # type: ignore[func-returns-value]
        assert b"".join(body) == b"ab"
        cast("Any", body).close()
        assert status == ["200 OK"]


class TestWrite:
    """The imperative way of PEP 3333, kept for old apps."""

    def test_before_and_between_and_after(self) -> None:
        """In the order of the app's steps."""

        def bridge(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            write = start_response("200 OK", [])
            write(b"1")
            write(b"2")
            yield from ()

            def steps() -> Iterator[bytes]:
                write(b"3")
                yield b"4"
                write(b"5")
                yield b""
                yield b"6"
                write(b"7")

            yield from steps()

        assert answer(bridge)[0] == b"1234567"

    @pytest.mark.parametrize("rest", [[], [b"c"], (b"c",)])
    def test_and_a_whole_body(self, rest: Any) -> None:
        """What was written comes first."""

        def bridge(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            write = start_response("200 OK", [])
            write(b"a")
            write(b"")
            write(b"b")
            return cast("Iterable[bytes]", rest)

        body = b"ab" + b"".join(rest)
        assert answer(bridge) == (body, "200 OK", [("Content-Length", str(len(body)))])

    def test_what_is_written_is_bounded(self) -> None:
        """A bridge that writes without end is stopped, not collected."""

        def bridge(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            write = start_response("200 OK", [])
            for _ in range(MAX_WRITTEN // 1000 + 2):
                write(b"x" * 1000)
            raise AssertionError("never reached")

        with pytest.raises(RuntimeError, match="return an iterable instead"):
            make_app(bridge, TESTING=True).test_client().get(PREFIX)


class TestStartResponse:
    def test_exc_info_replaces_a_head_that_is_not_sent(self) -> None:
        """An app that fails in time can still say so."""

        def bridge(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [("X-Old", "1")])
            try:
                raise ValueError("late")
            except ValueError as error:
                start_response("502 Bad Gateway", [], cast("Any", (ValueError, error, error.__traceback__)))
            return [b"sorry"]

        assert answer(bridge)[1:] == ("502 Bad Gateway", [("Content-Length", "5")])

    def test_exc_info_before_the_first_bytes_of_a_stream(self) -> None:
        """The head is fixed by bytes, not by the return."""

        def bridge(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [])
            yield b""
            error = ValueError("late")
            start_response("502 Bad Gateway", [], cast("Any", (ValueError, error, None)))
            yield b"sorry"

        assert answer(bridge)[:2] == (b"sorry", "502 Bad Gateway")

    @pytest.mark.parametrize("by_write", [False, True])
    def test_exc_info_after_bytes_is_raised(self, by_write: bool) -> None:
        """Nothing can be taken back."""

        def bridge(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            write = start_response("200 OK", [])
            if by_write:
                write(b"a")
            else:
                yield b"a"
            error = ValueError("late")
            start_response("502 Bad Gateway", [], cast("Any", (ValueError, error, None)))

        def read() -> None:
            list(make_app(bridge, TESTING=True).test_client().get(PREFIX).response)

        with pytest.raises(ValueError, match="late"):
            read()

    BREACHES: tuple[Callable[[Any], Any], ...] = (
        lambda start_response: [b"no head"],
        lambda start_response: [],
        lambda start_response: (start_response("200 OK", []), start_response("200 OK", []), [])[2],
        lambda start_response: (start_response("200", []), [])[1],
        lambda start_response: (start_response("OK", []), [])[1],
        lambda start_response: (start_response("200 OK\r\nX: y", []), [])[1],
        lambda start_response: (start_response("200 OK", [("X", "a\r\nY: b")]), [])[1],
        lambda start_response: (start_response("200 OK", [("X", "a\0")]), [])[1],
        lambda start_response: (start_response("200 OK", [("X: y\r\nZ", "a")]), [])[1],
        lambda start_response: (start_response("200 OK", [("", "a")]), [])[1],
    )

    @pytest.mark.parametrize("breach", BREACHES)
    def test_a_breach_of_the_protocol_is_a_500(self, breach: Callable[[Any], Any]) -> None:
        """Named in the log; nothing of a forged head gets out."""
        app = make_app(lambda environ, start_response: breach(start_response), PROPAGATE_EXCEPTIONS=False)
        response = app.test_client().get(PREFIX)
        assert response.status_code == 500
        assert "Y" not in response.headers
        with pytest.raises(RuntimeError, match="The bridge"):
            make_app(lambda environ, start_response: breach(start_response), TESTING=True).test_client().get(
                PREFIX
            )

    def test_an_exception_of_the_bridge_is_the_hosts_500(self) -> None:
        """With the host's own error page, and the body closed."""
        closed: list[int] = []

        def bridge(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            try:
                yield b""
                raise ZeroDivisionError
            finally:
                closed.append(1)

        app = make_app(bridge, PROPAGATE_EXCEPTIONS=False)
        app.register_error_handler(500, lambda error: ("own page", 500))
        assert app.test_client().get(PREFIX).data == b"own page"
        assert closed == [1]


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is printed by a test."""


@contextmanager
def serving(app: WSGIApplication) -> Iterator[tuple[str, int]]:
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield "127.0.0.1", server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.usefixtures("no_leaks")
class TestOverASocket:
    def test_each_chunk_arrives_as_it_is_yielded(self, deadline: float) -> None:
        """The bridge waits for the client between two chunks: nothing is held back."""
        go_on = threading.Semaphore(0)

        def bridge(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [("Content-Type", "text/event-stream")])
            for number in range(5):
                assert go_on.acquire(timeout=deadline)
                yield b"data: %d\n\n" % number

        with serving(make_app(bridge)) as address:
            connection = http.client.HTTPConnection(*address, timeout=deadline)
            connection.request("GET", PREFIX)
            go_on.release()
            response = connection.getresponse()
            for number in range(5):
                assert response.read(9) == b"data: %d\n\n" % number
                go_on.release()
            assert response.read() == b""
            connection.close()

    def test_a_client_that_leaves_ends_the_bridge(self, deadline: float) -> None:
        """Its body is closed once, in the thread that iterates it."""
        closed: list[int] = []
        ended = threading.Event()

        class Body:
            def __iter__(self) -> Iterator[bytes]:
                while True:
                    yield b"x" * 65536

            def close(self) -> None:
                closed.append(1)
                ended.set()

        def bridge(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [])
            return Body()

        with serving(make_app(bridge)) as address:
            connection = http.client.HTTPConnection(*address, timeout=deadline)
            connection.request("GET", PREFIX)
            response = connection.getresponse()
            assert response.read(10)
            response.close()
            connection.close()
            assert ended.wait(deadline)
        assert closed == [1]

    def test_methods_reach_the_bridge(self, deadline: float) -> None:
        """Over the wire as in the test client."""
        methods: list[str] = []

        def bridge(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            methods.append(environ["REQUEST_METHOD"])
            start_response("204 No Content", [])
            return []

        with serving(make_app(bridge)) as address:
            for method in METHODS:
                connection = http.client.HTTPConnection(*address, timeout=deadline)
                connection.request(method, f"{PREFIX}/x")
                assert connection.getresponse().status == 204
                connection.close()
        assert methods == METHODS
