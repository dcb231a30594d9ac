"""``WSGIPoolManager`` is a stock urllib3 citizen: pools, retries, redirects, timeouts, and its exceptions by phase."""

from __future__ import annotations

import http.client
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import urllib3
from urllib3 import Retry, Timeout
from urllib3.exceptions import (
    ClosedPoolError,
    ConnectTimeoutError,
    EmptyPoolError,
    LocationParseError,
    LocationValueError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    ResponseError,
    URLSchemeUnknown,
)

from flask_aibridge.transport import WSGIPoolManager
from tests.transport.apps_faces import Answers, Faucet, raising, silent

TEXT = [("Content-Type", "text/plain")]
URL = "http://app.test/x"


@pytest.fixture
def app() -> Answers:
    return Answers()


@pytest.fixture
def manager(app: Answers) -> Iterator[WSGIPoolManager]:
    manager = WSGIPoolManager(app)
    yield manager
    manager.clear()


@pytest.fixture
def faucet() -> Iterator[Faucet]:
    faucet = Faucet()
    yield faucet
    faucet.end()


def _pool(manager: WSGIPoolManager) -> Any:
    return manager.connection_from_url(URL)


# Connections and pools


def test_it_is_a_pool_manager(manager: WSGIPoolManager) -> None:
    """To ``isinstance`` and as a context manager."""
    assert isinstance(manager, urllib3.PoolManager)
    with manager as entered:
        assert entered is manager
        assert isinstance(_pool(manager), urllib3.HTTPConnectionPool)


def test_a_connection_is_used_again(manager: WSGIPoolManager) -> None:
    """Once its response has been read: one connection, three requests."""
    for _ in range(3):
        manager.request("GET", URL)
    response = manager.request("GET", URL, preload_content=False)
    response.read()
    response.release_conn()
    assert (_pool(manager).num_connections, _pool(manager).num_requests) == (1, 4)


def test_an_open_response_has_its_connection_to_itself(faucet: Faucet) -> None:
    """A second request opens another."""
    manager = WSGIPoolManager(faucet)
    first = manager.request("GET", URL, preload_content=False)
    second = manager.request("GET", URL, preload_content=False)
    assert _pool(manager).num_connections == 2
    assert first.connection is not second.connection
    first.close()
    second.close()


@pytest.mark.parametrize("preload", [True, False])
def test_an_error_answer_needs_no_second_connection(
    app: Answers, manager: WSGIPoolManager, preload: bool
) -> None:
    """A 404 is a response as any other."""
    app.answers["/x"] = ("404 Not Found", TEXT, [b"no"])
    response = manager.request("GET", URL, preload_content=preload)
    assert response.data == b"no"
    assert _pool(manager).num_connections == 1


def test_hosts_have_pools_of_their_own(app: Answers, manager: WSGIPoolManager) -> None:
    """Scheme, host and port tell them apart; all lead to the app."""
    urls = ["http://a.test/", "http://b.test/", "https://a.test/", "http://a.test:81/"]
    assert len({id(manager.connection_from_url(url)) for url in urls}) == 4
    assert manager.connection_from_url("http://A.test:80/") is manager.connection_from_url(urls[0])
    for url in urls:
        assert manager.request("GET", url).data == b"ok"
    assert [(one.environ["wsgi.url_scheme"], one.headers["HOST"]) for one in app.seen] == [
        ("http", "a.test"),
        ("http", "b.test"),
        ("https", "a.test"),
        ("http", "a.test:81"),
    ]


def test_https_needs_no_tls_and_warns_of_nothing(app: Answers) -> None:
    """Nor do the TLS settings of the manager matter, wherever they point."""
    manager = WSGIPoolManager(
        app, cert_reqs="CERT_NONE", ca_certs="/nowhere.pem", assert_hostname="x", timeout=5
    )
    assert manager.request("GET", "https://app.test/x").status == 200


def test_a_closed_pool_refuses(manager: WSGIPoolManager) -> None:
    """With urllib3's error."""
    pool = _pool(manager)
    pool.request("GET", "/x")
    pool.close()
    with pytest.raises(ClosedPoolError):
        pool.request("GET", "/x")


def test_a_response_outlives_the_pools(faucet: Faucet) -> None:
    """``clear()`` lets exchanges under way go on, and later requests open anew."""
    manager = WSGIPoolManager(faucet)
    response = manager.request("GET", URL, preload_content=False)
    manager.clear()
    assert len(manager.pools) == 0
    faucet.send(b" still here")
    faucet.end()
    assert response.read() == b"first still here"
    other = manager.request("GET", URL, preload_content=False)
    assert other.status == 200
    other.close()


def test_a_blocking_pool_lends_what_it_has(faucet: Faucet) -> None:
    """``block=True, maxsize=1``: the second caller waits its pool timeout; a response that was read gives way."""
    manager = WSGIPoolManager(faucet, block=True, maxsize=1)
    pool = _pool(manager)
    first = pool.request("GET", "/x", preload_content=False)
    with pytest.raises(EmptyPoolError):
        pool.urlopen("GET", "/x", pool_timeout=0.01, retries=False)
    faucet.end()
    assert first.read() == b"first"
    faucet.end()
    assert pool.urlopen("GET", "/x", pool_timeout=0.01).status == 200


def test_the_managers_headers_are_sent_unless_a_request_has_its_own(app: Answers) -> None:
    """As urllib3 does: they replace, not merge."""
    manager = WSGIPoolManager(app, headers={"X-Mine": "1"})
    manager.request("GET", URL)
    assert app.last.headers["X_MINE"] == "1"
    manager.request("GET", URL, headers={"X-Other": "2"})
    assert "X_MINE" not in app.last.headers
    manager.request("POST", URL, body=iter([b"x"]))
    assert app.last.headers["X_MINE"] == "1"


def test_the_callers_headers_are_left_alone(app: Answers, manager: WSGIPoolManager) -> None:
    """Whatever defaults a request gets."""
    headers = {"X-A": "1"}
    manager.request("POST", URL, headers=headers, json={})
    manager.request(
        "POST",
        URL,
        headers=headers,
        body=b"x",
        retries=Retry(1, status_forcelist=[200], raise_on_status=False),
    )
    assert headers == {"X-A": "1"}


def test_proxies_of_the_environment_do_not_apply(app: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the variables say."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    manager = WSGIPoolManager(app)
    assert manager.request("GET", "http://app.test/").status == 200
    assert manager.request("GET", "https://app.test/").status == 200


def test_a_manager_cannot_be_pickled(manager: WSGIPoolManager) -> None:
    """And says why."""
    with pytest.raises(TypeError, match="app lives in this process"):
        pickle.dumps(manager)


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("ftp://app.test/", URLSchemeUnknown),
        ("http:///x", LocationValueError),
        ("http://[", LocationValueError),
    ],
)
def test_a_url_that_leads_nowhere(manager: WSGIPoolManager, url: str, error: type[Exception]) -> None:
    """Gets urllib3's errors."""
    with pytest.raises(error):
        manager.request("GET", url)


# Retries


def test_a_status_of_the_list_is_retried(app: Answers, manager: WSGIPoolManager) -> None:
    """Until another comes."""
    statuses = iter(["500 A", "502 B", "200 C"])
    app.answers["/x"] = lambda seen: (next(statuses), TEXT, [b"."])
    response = manager.request("GET", URL, retries=Retry(3, status_forcelist=[500, 502]))
    assert response.status == 200
    assert response.retries is not None
    assert [one.status for one in response.retries.history] == [500, 502]


def test_too_many_statuses_of_the_list(app: Answers, manager: WSGIPoolManager) -> None:
    """Are a ``MaxRetryError`` for that reason, or the last response where the caller prefers that."""
    app.answers["/x"] = ("500 A", TEXT, [b"."])
    with pytest.raises(MaxRetryError) as caught:
        manager.request("GET", URL, retries=Retry(1, status_forcelist=[500]))
    assert isinstance(caught.value.reason, ResponseError)
    assert len(app.seen) == 2
    retries = Retry(1, status_forcelist=[500], raise_on_status=False)
    assert manager.request("GET", URL, retries=retries).status == 500


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable", "413 Too Large"])
def test_retry_after_is_respected(app: Answers, manager: WSGIPoolManager, status: str) -> None:
    """By default, for methods that may be repeated; a POST gets the answer as it is."""
    answers = iter([(status, [*TEXT, ("Retry-After", "0")], [b"."]), ("200 OK", TEXT, [b"!"])] * 2)
    app.answers["/x"] = lambda seen: next(answers)
    assert manager.request("GET", URL).data == b"!"
    assert manager.request("POST", URL, body=b"x").data == b"."


@pytest.mark.parametrize(
    "broken",
    [("200 OK", TEXT, raising(OSError("x"), b"a")), ("200 OK", [*TEXT, ("Content-Length", "5")], [b"a"])],
)
def test_a_broken_answer_is_asked_for_again(app: Answers, manager: WSGIPoolManager, broken: Any) -> None:
    """For GET; a POST is never sent twice."""
    answers = iter([broken, ("200 OK", TEXT, [b"!"])])
    app.answers["/x"] = lambda seen: next(answers)
    assert manager.request("GET", URL).data == b"!"
    assert len(app.seen) == 2
    app.answers["/x"] = broken
    with pytest.raises(ProtocolError):
        manager.request("POST", URL, body=b"x", retries=3)
    assert len(app.seen) == 3


def test_read_timeouts_are_retried(app: Answers, manager: WSGIPoolManager) -> None:
    """For GET, each time with the body from its start; the reason is in the error."""
    gave_up = threading.Event()
    manager = WSGIPoolManager(silent(gave_up))
    retries = Retry(1, allowed_methods=None)
    with pytest.raises(MaxRetryError) as caught:
        manager.request("GET", URL, timeout=0.05, retries=retries)
    assert isinstance(caught.value.reason, ReadTimeoutError)
    assert _pool(manager).num_requests == 2


def test_a_retried_file_is_rewound(app: Answers, manager: WSGIPoolManager, tmp_path: Any) -> None:
    """Each try sends all of it from where it stood."""
    path = tmp_path / "body"
    path.write_bytes(b"--the body")
    with path.open("rb") as file:
        file.seek(2)
        retries = Retry(1, status_forcelist=[200], raise_on_status=False)
        manager.request("PUT", URL, body=file, retries=retries)
    assert [one.body for one in app.seen] == [b"the body", b"the body"]


def test_the_retries_of_the_manager_are_the_default(app: Answers) -> None:
    """As for any pool."""
    manager = WSGIPoolManager(app, retries=Retry(2, status_forcelist=[200]))
    with pytest.raises(MaxRetryError):
        manager.request("GET", URL)
    assert len(app.seen) == 3


# Redirects


def test_a_redirect_to_another_host_stays_in_process(app: Answers, manager: WSGIPoolManager) -> None:
    """And does not take the caller's secrets along."""
    app.answers["/x"] = ("302 Found", [*TEXT, ("Location", "https://elsewhere.example:444/y?z")], [b""])
    secrets = {"Authorization": "Bearer s", "Cookie": "s=1", "Proxy-Authorization": "x", "X-Kept": "1"}
    response = manager.request("GET", URL, headers=secrets)
    assert response.geturl() == "https://elsewhere.example:444/y?z"
    second = app.last
    assert (second.path, second.query, second.headers["HOST"]) == ("/y", "z", "elsewhere.example:444")
    assert second.headers["X_KEPT"] == "1"
    assert not {"AUTHORIZATION", "COOKIE", "PROXY_AUTHORIZATION"} & second.headers.keys()
    assert app.seen[0].headers["AUTHORIZATION"] == "Bearer s"


def test_a_redirect_within_the_host_keeps_the_credentials(app: Answers, manager: WSGIPoolManager) -> None:
    """As urllib3 has it."""
    app.answers["/x"] = ("307 Temporary", [*TEXT, ("Location", "y")], [b""])
    manager.request("POST", URL, body=b"kept", headers={"Authorization": "Bearer s"})
    second = app.last
    assert (second.method, second.path, second.body) == ("POST", "/y", b"kept")
    assert second.headers["AUTHORIZATION"] == "Bearer s"


def test_a_303_is_followed_by_a_get_without_the_body(app: Answers, manager: WSGIPoolManager) -> None:
    """Nor its framing headers."""
    app.answers["/x"] = ("303 See Other", [*TEXT, ("Location", "/y")], [b""])
    manager.request("POST", URL, body=b"gone", headers={"Content-Type": "a/b"})
    second = app.last
    assert (second.method, second.body) == ("GET", b"")
    assert not {"CONTENT_TYPE", "CONTENT_LENGTH", "TRANSFER_ENCODING"} & second.headers.keys()


def test_each_request_has_an_environ_of_its_own(manager: WSGIPoolManager) -> None:
    """What an app leaves in one is not in the next, of a redirect or of a retry."""
    left: list[bool] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        left.append("left" in environ)
        environ["left"] = True
        start_response("302 Found", [*TEXT, ("Location", "/x")])
        return [b""]

    retries = Retry(2, raise_on_redirect=False)
    assert WSGIPoolManager(app).request("GET", URL, retries=retries).status == 302
    assert left == [False] * 3


# Timeouts


@pytest.mark.parametrize(
    "timeout",
    [
        0.05,
        Timeout(read=0.05),
        Timeout(total=0.05),
        Timeout(connect=5, read=0.05),
        Timeout(total=5, read=0.05),
    ],
)
@pytest.mark.parametrize("preload", [True, False])
def test_no_head_in_time(timeout: Any, preload: bool) -> None:
    """Is a ``ReadTimeoutError``, and the app learns at once that nobody waits."""
    gave_up = threading.Event()
    manager = WSGIPoolManager(silent(gave_up))
    with pytest.raises(ReadTimeoutError):
        manager.request("GET", URL, timeout=timeout, retries=False, preload_content=preload)
    assert gave_up.wait(20)


@pytest.mark.parametrize("read", ["read", "read1", "stream"])
def test_silence_in_the_body(faucet: Faucet, read: str) -> None:
    """Longer than the read timeout is a ``ReadTimeoutError`` too, after what came before; it cancels the exchange."""
    manager = WSGIPoolManager(faucet)
    response = manager.request("GET", URL, preload_content=False, timeout=Timeout(read=0.05), retries=False)
    assert response.read1(5) == b"first"
    with pytest.raises(ReadTimeoutError):
        b"".join(response.stream()) if read == "stream" else getattr(response, read)(100)
    assert faucet.cancelled.wait(20)
    assert faucet.closed.wait(20)


@pytest.mark.usefixtures("no_leaks")
def test_silence_while_preloading(faucet: Faucet) -> None:
    """The same, from ``request()`` itself."""
    with pytest.raises(ReadTimeoutError):
        WSGIPoolManager(faucet).request("GET", URL, timeout=0.05, retries=False)
    assert faucet.closed.wait(20)


def test_the_timeout_of_the_manager_is_the_default() -> None:
    """And a request's own replaces it."""
    manager = WSGIPoolManager(silent(threading.Event()), timeout=Timeout(read=0.02), retries=False)
    with pytest.raises(ReadTimeoutError, match="read timeout=0.02"):
        manager.request("GET", URL)
    with pytest.raises(ReadTimeoutError, match="read timeout=0.03"):
        manager.request("GET", URL, timeout=0.03)


def test_a_connect_timeout_waits_for_a_free_call(faucet: Faucet) -> None:
    """Past ``max_concurrency``, the app is not called; when a call ends, the next may go."""
    manager = WSGIPoolManager(faucet, max_concurrency=1)
    first = manager.request("GET", URL, preload_content=False)
    with pytest.raises(ConnectTimeoutError):
        manager.request("POST", URL, timeout=Timeout(connect=0.02), retries=False)
    with pytest.raises(MaxRetryError) as caught:
        manager.request("POST", URL, timeout=Timeout(connect=0.02), retries=2)
    assert isinstance(caught.value.reason, ConnectTimeoutError)
    assert faucet.calls == 1
    first.close()
    assert faucet.closed.wait(20)
    second = manager.request("GET", URL, preload_content=False, timeout=Timeout(connect=20))
    assert second.status == 200
    second.close()


# Exceptions by phase


@pytest.mark.usefixtures("no_leaks")
def test_no_descriptors_left_is_a_new_connection_error(app: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was called, so any method may be tried again."""

    def exhausted() -> tuple[int, int]:
        raise OSError(24, os.strerror(24))

    monkeypatch.setattr(os, "pipe", exhausted)
    manager = WSGIPoolManager(app, max_concurrency=1)
    with pytest.raises(NewConnectionError, match="Too many open files"):
        manager.request("POST", URL, body=b"x", retries=False)
    with pytest.raises(MaxRetryError) as caught:
        manager.request("POST", URL, body=b"x", retries=1)
    assert isinstance(caught.value.reason, NewConnectionError)
    monkeypatch.undo()
    assert manager.request("POST", URL, body=b"x", timeout=20).data == b"ok"
    assert len(app.seen) == 1


def test_no_thread_left_is_a_new_connection_error(app: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for threads."""

    def exhausted(_: Callable[[], object]) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("flask_aibridge.transport.workers.run", exhausted)
    manager = WSGIPoolManager(app, max_concurrency=1)
    for _ in range(2):
        with pytest.raises(NewConnectionError, match="can't start new thread"):
            manager.request("GET", URL, retries=False)
    monkeypatch.undo()
    assert manager.request("GET", URL, timeout=20).data == b"ok"


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_an_error_before_the_head_is_a_500(
    app: Answers, manager: WSGIPoolManager, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Logged with its traceback."""
    app.answers["/x"] = ("200 OK", TEXT, raising(error))
    assert manager.request("GET", URL).status == 500
    assert type(error).__name__ in caplog.text


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt()])
def test_an_error_after_the_head_is_an_incomplete_read(
    app: Answers, manager: WSGIPoolManager, error: BaseException
) -> None:
    """After every byte that came before it."""
    app.answers["/x"] = ("200 OK", TEXT, raising(error, b"a", b"b"))
    response = manager.request("GET", URL, preload_content=False)
    received: list[bytes] = []
    with pytest.raises(ProtocolError, match="IncompleteRead"):
        received.extend(response.stream())
    assert b"".join(received) == b"ab"
    assert response.read() == b""


def test_reading_a_closed_response_is_the_end(faucet: Faucet) -> None:
    """As urllib3 has it: no bytes, no error."""
    response = WSGIPoolManager(faucet).request("GET", URL, preload_content=False)
    faucet.send(b"lost")
    response.close()
    assert response.closed
    assert response.read() == b""
    assert faucet.closed.wait(20)


# Connections used directly


def test_a_connection_by_hand(app: Answers, manager: WSGIPoolManager) -> None:
    """As botocore uses it: the first four arguments by position, header values in bytes."""
    pool = _pool(manager)
    connection = pool._get_conn()
    connection.request(
        "POST", "/model/a%3Ab/converse?x=1", b"body", {"X-Amz-Date": b"now", "Content-Type": b"a/b"}
    )
    response = connection.getresponse()
    assert (response.status, response.data) == (200, b"ok")
    seen = app.last
    assert (seen.path, seen.query, seen.body) == ("/model/a:b/converse", "x=1", b"body")
    assert seen.environ["REQUEST_URI"] == "/model/a%3Ab/converse?x=1"
    assert (seen.headers["X_AMZ_DATE"], seen.headers["CONTENT_TYPE"]) == ("now", "a/b")
    pool._put_conn(connection)


def test_a_connections_life(manager: WSGIPoolManager) -> None:
    """Closed until it is used, and again after ``close()``; it says where it leads."""
    connection = _pool(manager)._new_conn()
    assert (connection.is_closed, connection.is_connected) == (True, False)
    connection.connect()
    assert (connection.is_closed, connection.is_connected) == (False, True)
    with pytest.raises(http.client.ResponseNotReady):
        connection.getresponse()
    assert "app.test" in str(connection)
    connection.close()
    assert connection.is_closed


def test_an_absolute_target(app: Answers, manager: WSGIPoolManager) -> None:
    """Is taken as proxies do: its host overrides."""
    connection = _pool(manager)._new_conn()
    connection.request("GET", "http://other.test:8/p?q", headers={"Host": "app.test"})
    assert connection.getresponse().data == b"ok"
    assert (app.last.path, app.last.query, app.last.headers["HOST"]) == ("/p", "q", "other.test:8")


@pytest.mark.usefixtures("no_leaks")
def test_closing_a_connection_cancels_its_exchange(faucet: Faucet) -> None:
    """Before the response and while it is read."""
    manager = WSGIPoolManager(faucet)
    connection = _pool(manager)._new_conn()
    connection.request("GET", "/x")
    assert faucet.started.wait(20)
    connection.close()
    assert faucet.cancelled.wait(20)


def test_a_tunnel_is_refused(manager: WSGIPoolManager) -> None:
    """There is no proxy on the way."""
    with pytest.raises(ValueError, match="no proxy"):
        _pool(manager)._new_conn().set_tunnel("x")


@pytest.mark.parametrize("port", ["65536", "99999"])
def test_a_port_out_of_range_is_refused(manager: WSGIPoolManager, app: Answers, port: str) -> None:
    with pytest.raises(LocationParseError):
        manager.request("GET", f"http://app.test:{port}/")
    assert app.seen == []


def test_a_retry_class_may_retry_what_it_likes(manager: WSGIPoolManager, app: Answers) -> None:
    """A subclass's ``is_retry()`` is asked about every answer, a success too."""

    class Impatient(Retry):
        def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
            return status_code == 202

    answers = iter([("202 Accepted", TEXT, [b"."]), ("200 OK", TEXT, [b"!"])])
    app.answers["/x"] = lambda seen: next(answers)
    assert manager.request("GET", URL, retries=Impatient(3)).data == b"!"


def test_a_connection_whose_attempt_failed_is_closed() -> None:
    """What it may still have under way is cancelled, whoever takes the connection next."""
    pool: Any = _pool(WSGIPoolManager(silent(threading.Event())))
    attempt = pool.attempt("GET", "/x", timeout=0.05)
    assert isinstance(attempt.error, ReadTimeoutError)
    (conn,) = pool._idle
    assert conn.is_closed
