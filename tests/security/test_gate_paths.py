"""Without a licence no request reaches the bridge by the public door, however its path and its method are written."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import EnvironBuilder, run_wsgi_app

from flask_aibridge import AIBridge
from tests.security.gateways import LICENSE, PREFIX, SIGNING, Tripwire

SLASHES = [
    "/",
    "//",
    "///",
    "%2f",
    "%2F",
    "/./",
    "/%2e/",
    "\\",
    "%5c",
    "/;/",
    "%252f",
    "%c0%af",
    "%e0%80%af",
    "/%00/",
]
WORDS = [
    *(
        "api",
        "v2",
        "aibridge",
        "API",
        "Aibridge",
        "aibridge.",
        "aibridge;x=1",
        "aibridge%00",
        "%61ibridge",
        "aibrid%67e",
    ),
    *(
        "aibridge ",
        "aibridge%20",
        "aıbridge",
        "ａｉｂｒｉｄｇｅ",
        ".",
        "..",
        "%2e%2e",
        "%2E.",
        "..;",
        "..%00",
        "...",
        "",
    ),
    *(
        "anthropic",
        "openai",
        "v1",
        "messages",
        "chat",
        "completions",
        "models",
        "responses",
        "%6dessages",
        "messages.json",
    ),
    *(
        "keys",
        "interceptions",
        "providers",
        "openapi.json",
        "healthz",
        "static",
        "@",
        "x@y",
        "*",
        "~",
        "é",
        "%ff",
        "\r\n",
    ),
]
METHODS = [
    "GET",
    "POST",
    "HEAD",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PUT",
    "PATCH",
    "DELETE",
    "post",
    "PROPFIND",
    "X" * 40,
    "",
]
HEADERS: list[dict[str, str]] = [
    {},
    {"X-HTTP-Method-Override": "POST"},
    {"X-HTTP-Method": "POST", "X-Method-Override": "POST"},
    {"X-Original-URL": f"{PREFIX}/anthropic/v1/messages", "X-Rewrite-URL": f"{PREFIX}/anthropic/v1/messages"},
    {"X-Forwarded-Prefix": PREFIX, "X-Forwarded-Host": "elsewhere.example", "X-Script-Name": PREFIX},
    {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
    {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "x"},
    {"Flask-Aibridge.Cancellation": "x", "Flask_Aibridge_Source": "agents"},
    {"X-AIBridge-License": "grace", "X-AIBridge-Source": "agents"},
    {"Authorization": "Bearer x", "X-Api-Key": "x"},
    {"Expect": "100-continue", "Transfer-Encoding": "chunked"},
]

_REST = st.lists(st.tuples(st.sampled_from(SLASHES), st.sampled_from(WORDS)), max_size=6)
REST = _REST.map(lambda parts: "".join(slash + word for slash, word in parts))
STARTS = [
    *(
        PREFIX,
        "/" + PREFIX,
        "//x" + PREFIX,
        "/x/.." + PREFIX,
        PREFIX.upper(),
        PREFIX.replace("/", "//"),
        PREFIX + "/",
    ),
    *(
        PREFIX.replace("/", "%2f"),
        "/api/v2/x/../aibridge",
        "/api/v2/%61ibridge",
        "http://elsewhere.example" + PREFIX,
        "",
    ),
    *(
        "//elsewhere.example" + PREFIX,
        PREFIX + "@elsewhere.example",
        "\\api\\v2\\aibridge",
        "/api/v2/aibridge%00",
        "*",
    ),
]
PATHS = st.builds(lambda start, rest: start + rest, st.sampled_from(STARTS), REST)


class Opened(NamedTuple):
    """A host with a licence, and the bridge behind its public door."""

    tripwire: Tripwire
    app: Flask


def host_app(bridge: Any, **config: Any) -> Flask:
    """An app with no licence unless the config has one, and a page of the host's own that takes any path."""
    app = Flask("host", static_folder=None)
    app.config |= {
        "AIBRIDGE_REDIS_URL": "memory://",
        "AIBRIDGE_LICENSE_PUBLIC_KEYS": {SIGNING.kid: SIGNING.public_pem},
        "AIBRIDGE_PROVIDERS": {},
        **config,
    }
    app.add_url_rule("/own/<path:path>", view_func=lambda path: path, endpoint="own")
    AIBridge(app, bridge)
    return app


@pytest.fixture(scope="module")
def tripwire() -> Tripwire:
    return Tripwire()


@pytest.fixture(scope="module")
def closed(tripwire: Tripwire) -> Iterator[Flask]:
    app = host_app(tripwire)
    yield app
    app.extensions["aibridge"].close()


@pytest.fixture(scope="module")
def opened() -> Iterator[Opened]:
    """An open door, with a licence, and the bridge behind it."""
    tripwire = Tripwire()
    app = host_app(tripwire, AIBRIDGE_LICENSE=LICENSE)
    yield Opened(tripwire, app)
    app.extensions["aibridge"].close()


def environ_of(method: str, path: str, headers: dict[str, str], script_name: str = "") -> dict[str, Any]:
    """As a server makes it that changes nothing: PATH_INFO decoded once, byte for byte."""
    target, _, query = path.partition("?")
    environ: dict[str, Any] = EnvironBuilder(method="GET").get_environ()
    environ |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
    return environ | {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": script_name,
        "PATH_INFO": unquote_to_bytes(target).decode("latin-1"),
        "QUERY_STRING": query,
        "REQUEST_URI": path,
        "RAW_URI": path,
        "wsgi.input": io.BytesIO(b'{"model": "m"}'),
        "CONTENT_LENGTH": "14",
    }


@given(
    method=st.sampled_from(METHODS) | st.text(max_size=8),
    path=PATHS,
    headers=st.sampled_from(HEADERS),
    script_name=st.sampled_from(["", "/", "/x", PREFIX, "/api", "//x", "/%2e%2e"]),
)
def test_no_environ_reaches_the_bridge(
    closed: Flask, tripwire: Tripwire, method: str, path: str, headers: dict[str, str], script_name: str
) -> None:
    """Whatever a server makes of a request line: the refusal, or another page's answer, and no failure."""
    _, status, _ = run_wsgi_app(closed, environ_of(method, path, headers, script_name), buffered=True)
    assert tripwire.calls == []
    assert not status.startswith("5")


@given(method=st.sampled_from(METHODS[:-1]), path=PATHS, headers=st.sampled_from(HEADERS))
def test_no_request_reaches_the_bridge(
    closed: Flask, tripwire: Tripwire, method: str, path: str, headers: dict[str, str]
) -> None:
    """The same by Flask's own test client, which reads a path as Flask's server does."""
    try:
        response = closed.test_client().open(path, method=method, headers=headers, data=b"{}")
    except ValueError:
        return  # Werkzeug's client cannot spell it; the app's own exceptions become answers
    assert tripwire.calls == []
    assert response.status_code < 500


@given(path=PATHS, method=st.sampled_from(METHODS[:-1]))
def test_what_reaches_an_open_door_is_below_the_prefix(opened: Opened, path: str, method: str) -> None:
    """With a licence the bridge sees what follows the prefix and nothing above it; and these paths do reach it."""
    tripwire, app = opened
    tripwire.calls.clear()
    run_wsgi_app(app, environ_of(method, path, {}), buffered=True)
    for environ in tripwire.calls:
        assert environ["SCRIPT_NAME"] == PREFIX
        assert environ["PATH_INFO"][:1] in ("", "/")
        decoded = unquote_to_bytes(path.partition("?")[0]).decode("latin-1")
        assert ("/" + decoded.lstrip("/")) == PREFIX + environ["PATH_INFO"]


@pytest.mark.parametrize(
    "path", [PREFIX, PREFIX + "/", PREFIX + "//x", f"{PREFIX}/anthropic/v1/messages", f"//{PREFIX[1:]}/x"]
)
def test_the_paths_tried_are_ones_that_an_open_door_takes(opened: Opened, closed: Flask, path: str) -> None:
    """What is refused above is refused by the licence, not because there is nothing there."""
    tripwire, app = opened
    tripwire.calls.clear()
    run_wsgi_app(app, environ_of("POST", path, {}), buffered=True)
    assert len(tripwire.calls) == 1
    _, status, _ = run_wsgi_app(closed, environ_of("POST", path, {}), buffered=True)
    assert status == "403 FORBIDDEN"


@pytest.mark.parametrize(
    "key", ["flask_aibridge.cancellation", "flask_aibridge.source", "flask_aibridge.key_id"]
)
def test_nothing_by_the_public_door_counts_as_in_process(opened: Opened, key: str) -> None:
    """Even with such a key in the environ, which no HTTP header can become: the bridge does not see it."""
    tripwire, app = opened
    tripwire.calls.clear()
    environ = environ_of("POST", f"{PREFIX}/anthropic/v1/messages", {})
    environ[key] = "forged"
    run_wsgi_app(app, environ, buffered=True)
    (seen,) = tripwire.calls
    assert [name for name in seen if name.startswith("flask_aibridge.")] == []


def test_a_header_cannot_become_a_key_of_the_transports(opened: Opened) -> None:
    """CGI's rule for names (RFC 3875, section 4.1.18) puts ``HTTP_`` before every one."""
    tripwire, app = opened
    tripwire.calls.clear()
    headers = dict.fromkeys(("flask_aibridge.cancellation", "flask-aibridge.source"), "forged")
    app.test_client().post(f"{PREFIX}/x", headers=headers)
    (seen,) = tripwire.calls
    assert [name for name in seen if name.startswith("flask_aibridge.")] == []


def test_a_proxys_headers_do_not_open_the_gate(closed: Flask, tripwire: Tripwire) -> None:
    """Nor with Werkzeug's ProxyFix, which lets them say the prefix and the host."""
    fixed = ProxyFix(closed.wsgi_app, x_prefix=1, x_host=1)
    for prefix in (PREFIX, "/api", "/", "//", "/../x"):
        for path in (f"{PREFIX}/anthropic/v1/messages", "/anthropic/v1/messages", f"//{PREFIX[1:]}/x"):
            headers = {"X-Forwarded-Prefix": prefix, "X-Forwarded-Host": "elsewhere.example"}
            run_wsgi_app(fixed, environ_of("POST", path, headers), buffered=True)
    assert tripwire.calls == []
