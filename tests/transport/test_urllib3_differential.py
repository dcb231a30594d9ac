"""The same request over a socket, by a stock ``urllib3.PoolManager``, and in process: both ends see the same."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest
import urllib3
from urllib3.exceptions import MaxRetryError

from flask_aibridge.testing import serve_stand_in
from flask_aibridge.transport import WSGIPoolManager
from tests.transport.apps_faces import Answers, Seen
from tests.transport.scenarios_urllib3 import ANSWERS, REQUESTS, Scenario, answers

Options = dict[str, Any]
Form = Callable[[urllib3.PoolManager, str, str, Options], urllib3.BaseHTTPResponse]
Outcome = dict[str, Any]

# The server's own, and the connection's: an app in process has neither.
_NOT_COMPARED = {"date", "server", "connection", "transfer-encoding"}


class Peer:
    """A loopback server and the app in it."""

    def __init__(self, base_url: str, app: Answers) -> None:
        self.base_url = base_url
        self.app = app


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    app = answers()
    with serve_stand_in(app) as served:
        yield Peer(served.base_url, app)


def _plain(manager: urllib3.PoolManager, method: str, url: str, options: Options) -> urllib3.BaseHTTPResponse:
    return manager.request(method, url, **options)


def _with_more(
    manager: urllib3.PoolManager, method: str, url: str, options: Options
) -> urllib3.BaseHTTPResponse:
    """One argument more than the usual ones, of no effect."""
    return manager.request(method, url, **{"enforce_content_length": True, **options})


def _read_later(
    manager: urllib3.PoolManager, method: str, url: str, options: Options
) -> urllib3.BaseHTTPResponse:
    return manager.request(method, url, preload_content=False, **options)


def _by_the_pool(
    manager: urllib3.PoolManager, method: str, url: str, options: Options
) -> urllib3.BaseHTTPResponse:
    """As requests does it: the pool's method, so redirects to another host are not followed."""
    pool = manager.connection_from_url(url)
    target = url[url.index("/", len("http://")) :]
    return pool.request(method, target, **options)


def _blocking(
    manager: urllib3.PoolManager, method: str, url: str, options: Options
) -> urllib3.BaseHTTPResponse:
    """With a pool that lends one connection at a time: whatever is not given back shows."""
    manager.connection_pool_kw.update(block=True, maxsize=1, timeout=urllib3.Timeout(connect=20.0, read=20.0))
    response = manager.request(method, url, preload_content=False, **options)
    response.read()
    manager.request("GET", url.partition("?")[0].rpartition("/")[0] + "/ok", retries=False)
    return response


def _read(response: urllib3.BaseHTTPResponse) -> bytes:
    return response.data


def _streamed(response: urllib3.BaseHTTPResponse) -> bytes:
    # Said, since urllib3 does not decode a chunked body in stream() unless told to, and any other body it does.
    return b"".join(response.stream(7, decode_content=response.decode_content))


def _in_bits(response: urllib3.BaseHTTPResponse) -> bytes:
    return b"".join(iter(lambda: response.read(999), b""))


def _as_it_comes(response: urllib3.BaseHTTPResponse) -> bytes:
    return b"".join(iter(lambda: response.read1(4096), b""))


FORMS: dict[str, tuple[Form, Callable[[urllib3.BaseHTTPResponse], bytes]]] = {
    "plain": (_plain, _read),
    "with more": (_with_more, _read),
    "read later": (_read_later, _read),
    "streamed": (_read_later, _streamed),
    "in bits": (_read_later, _in_bits),
    "as it comes": (_read_later, _as_it_comes),
    "by the pool": (_by_the_pool, _read),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scenario", [*REQUESTS, *ANSWERS], ids=lambda scenario: scenario.name)
def test_both_ends_see_what_they_would_over_a_socket(peer: Peer, scenario: Scenario, form: str) -> None:
    """The app the method, path, query, headers and body; the caller the status, reason, headers, data or exception."""
    _compare(peer, scenario, *FORMS[form], wrap=lambda app: app)


@pytest.mark.parametrize(
    "scenario",
    [s for s in (*REQUESTS, *ANSWERS) if s.name not in ("unknown method", "latin-1 headers")],
    ids=lambda scenario: scenario.name,
)
@pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD")
def test_as_a_validated_app(peer: Peer, scenario: Scenario) -> None:
    """The same behind ``wsgiref.validate``, whose iterables are no lists and have a ``close()``."""
    _compare(peer, scenario, _read_later, _streamed, wrap=validator)


@pytest.mark.parametrize(
    "scenario",
    [s for s in (*REQUESTS, *ANSWERS) if "timeout" not in s.name],
    ids=lambda scenario: scenario.name,
)
def test_with_one_connection_at_a_time(peer: Peer, scenario: Scenario) -> None:
    """Whatever came of the response, the connection is back in the pool when it has been read."""
    _compare(peer, scenario, _blocking, _read, wrap=lambda app: app)


@pytest.mark.parametrize("form", ["plain", "with more", "read later"])
def test_connections_and_requests_are_counted_as_over_a_socket(peer: Peer, form: str) -> None:
    """``num_connections`` and ``num_requests`` of the pool: no connection is opened that was not needed."""
    differences = []
    for scenario in (*REQUESTS, *ANSWERS):
        url = peer.base_url + scenario.target
        stock, own = urllib3.PoolManager(), WSGIPoolManager(answers())
        for manager in (stock, own):
            _outcome(manager, peer.app, scenario, url, *FORMS[form])
        if _counters(own, url) != _counters(stock, url):
            differences.append((scenario.name, _counters(own, url), _counters(stock, url)))
        stock.clear()
        own.clear()
    assert differences == []


def _compare(
    peer: Peer, scenario: Scenario, form: Form, read: Callable[[Any], bytes], *, wrap: Callable[[Any], Any]
) -> None:
    url = peer.base_url + scenario.target
    over_socket = urllib3.PoolManager()
    stock, seen_over_socket = _outcome(over_socket, peer.app, scenario, url, form, read)
    app = answers()
    in_process = WSGIPoolManager(wrap(app))
    own, seen_in_process = _outcome(in_process, app, scenario, url, form, read)
    for manager in (over_socket, in_process):
        manager.clear()
    if "length" not in stock or "length" not in own:
        stock.pop("length", None), own.pop("length", None)
    assert own == stock
    assert seen_in_process == seen_over_socket


def _outcome(
    manager: urllib3.PoolManager,
    app: Answers,
    scenario: Scenario,
    url: str,
    form: Form,
    read: Callable[[Any], bytes],
) -> tuple[Outcome, list[Outcome]]:
    app.seen.clear()
    options = scenario.options()
    logging.disable(logging.CRITICAL)
    try:
        response = form(manager, scenario.method, url, options)
        try:
            outcome = _answer(response, scenario)
            outcome["data"] = _bytes_read(response, read) if scenario.body_of_answer else None
        finally:
            response.close()
    except Exception as error:
        outcome = {"error": _described(error)}
    finally:
        logging.disable(logging.NOTSET)
        if isinstance(options.get("body"), io.IOBase):
            options["body"].close()
    return outcome, [_request(seen, scenario) for seen in app.seen]


def _counters(manager: urllib3.PoolManager, url: str) -> tuple[int, int]:
    pool = manager.connection_from_url(url)
    return pool.num_connections, pool.num_requests


def _bytes_read(response: urllib3.BaseHTTPResponse, read: Callable[[Any], bytes]) -> Any:
    try:
        return read(response)
    except Exception as error:
        return _described(error)


def _answer(response: urllib3.BaseHTTPResponse, scenario: Scenario) -> Outcome:
    headers = [
        (n, v) for n, v in response.headers.items() if n.lower() not in _NOT_COMPARED | {"content-length"}
    ]
    history = response.retries.history if response.retries is not None else ()
    if not scenario.body_of_answer:
        return {"status": response.status}
    outcome: Outcome = {
        "status": response.status,
        "reason": response.reason,
        "headers": headers,
        "url": response.geturl(),
        "history": [(one.method, one.status, one.redirect_location) for one in history],
        "version": (response.version, response.version_string),
    }
    if "Content-Length" in response.headers:
        outcome["length"] = response.headers["Content-Length"]
    return outcome


def _request(seen: Seen, scenario: Scenario) -> Outcome:
    environ = seen.environ
    return {
        "method": seen.method,
        "target": (environ["SCRIPT_NAME"], seen.path, seen.query, environ["REQUEST_URI"]),
        "headers": seen.headers,
        "body": seen.body if scenario.body_seen else None,
        "server": (environ["SERVER_PORT"], environ["SERVER_PROTOCOL"], environ["wsgi.url_scheme"]),
    }


def _described(error: BaseException | None) -> Any:
    """The type of an error and of what it wraps; the words may differ, the types decide what a caller catches."""
    if isinstance(error, MaxRetryError):
        return MaxRetryError, error.url, _described(error.reason)
    if isinstance(error, UnicodeEncodeError):
        return ValueError  # whose subclass it is
    return type(error)
