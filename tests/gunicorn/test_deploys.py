"""Under gunicorn: workers that stop, in every way they do, break no stream that could end; nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse

import pytest

from tests.gunicorn.serving import PREFIX, Gunicorn, Provider, Stream, statuses, until
from tests.services.servers import Server, redis_binary, started, valkey_binary

pytest.importorskip("gunicorn")
pytest.importorskip("gevent")
pytestmark = [pytest.mark.slow, pytest.mark.servers]

MORE_THAN_A_SOCKET_HOLDS = 4 * 1024 * 1024

GTHREAD = ("--worker-class", "gthread", "--threads", "16")
GEVENT = ("--worker-class", "gevent")
CLASSES = pytest.mark.parametrize(
    "options",
    [
        pytest.param(GTHREAD, id="gthread"),
        pytest.param((*GTHREAD, "--preload"), id="gthread-preload"),
        pytest.param(GEVENT, id="gevent"),
        pytest.param((*GEVENT, "--preload"), id="gevent-preload"),
    ],
)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider().served() as provider:
        yield provider


@pytest.fixture(scope="module")
def store() -> Iterator[Server]:
    binary = valkey_binary() or redis_binary()
    if binary is None:
        pytest.skip("needs a Redis or Valkey server")
    server = Server(binary)
    with started(server):
        yield server


@pytest.fixture
def redis_url(store: Server) -> str:
    store.flush()
    return store.url


@CLASSES
def test_term_lets_streams_of_both_doors_end(
    options: tuple[str, ...], provider: Provider, redis_url: str
) -> None:
    """They end by themselves, and so do calls that no request of the server's belongs to; then the worker ends."""
    with Gunicorn(provider, *options, "--graceful-timeout", "40", AIBRIDGE_REDIS_URL=redis_url) as server:
        streams = [server.ask().begun(), server.ask("/agent").begun()]
        background = server.ask("/background")
        assert background.read()
        until(lambda: statuses(redis_url) == ["running"] * 3, "the start of three interceptions")
        server.signal(signal.SIGTERM)
        until(lambda: "Handling signal: term" in server.logged(), "the signal")
        provider.go_on.set()
        assert all(stream.is_whole for stream in streams)
        assert server.process.wait(30) == 0
        assert statuses(redis_url) == ["completed"] * 3
        assert not server.spooled()
        assert "Traceback" not in server.logged()


@pytest.mark.parametrize("options", [pytest.param(GTHREAD, id="gthread"), pytest.param(GEVENT, id="gevent")])
def test_a_worker_waits_for_calls_in_process(
    options: tuple[str, ...], provider: Provider, redis_url: str
) -> None:
    """Also where the server itself has nothing left to wait for."""
    with Gunicorn(provider, *options, "--graceful-timeout", "40", AIBRIDGE_REDIS_URL=redis_url) as server:
        assert server.ask("/background").read()
        until(lambda: statuses(redis_url) == ["running"], "the start of the interception")
        server.signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(2)
        provider.go_on.set()
        assert server.process.wait(30) == 0
        assert statuses(redis_url) == ["completed"]
        assert not server.spooled()


@CLASSES
def test_streams_that_are_late_end_with_an_error(
    options: tuple[str, ...], provider: Provider, redis_url: str
) -> None:
    """In the provider's own form, and before gunicorn kills the worker."""
    with Gunicorn(provider, *options, "--graceful-timeout", "6", AIBRIDGE_REDIS_URL=redis_url) as server:
        streams = [server.ask().begun(), server.ask("/agent").begun()]
        assert server.stop() == 0
        for stream in streams:
            assert b"event: error" in stream.read()
            assert stream.broken is None
        assert statuses(redis_url) == ["interrupted"] * 2
        assert not server.spooled()
        assert "SIGKILL" not in server.logged()


@pytest.mark.parametrize("options", [pytest.param(GTHREAD, id="gthread"), pytest.param(GEVENT, id="gevent")])
def test_a_reload_under_load_breaks_nothing(
    options: tuple[str, ...], provider: Provider, redis_url: str
) -> None:
    with Gunicorn(
        provider, *options, "--workers", "2", "--graceful-timeout", "40", AIBRIDGE_REDIS_URL=redis_url
    ) as server:
        before = server.worker()
        slow = [server.ask().begun() for _ in range(4)]
        clients = [Client(server) for _ in range(4)]
        server.signal(signal.SIGHUP)
        until(lambda: server.logged().count("Booting worker") == 4, "new workers")
        seen = [client.served for client in clients]
        until(
            lambda: all(c.served_more_than(before + 2) for c, before in zip(clients, seen, strict=True)),
            "their answers",
        )
        provider.go_on.set()
        server.signal(signal.SIGHUP)  # gunicorn sees to it when the workers of before have ended
        until(lambda: server.logged().count("Booting worker") == 6, "still newer workers")
        for client in clients:
            client.end()
        assert all(stream.is_whole for stream in slow)
        assert before != server.worker()
        assert server.stop() == 0
        served = len(slow) + sum(client.served for client in clients)
        assert statuses(redis_url).count("completed") == served
        assert len(statuses(redis_url)) == served
        assert not server.spooled()


class Client:
    """Asks for one short stream after the other; those that are refused for now it asks for again."""

    def __init__(self, server: Gunicorn) -> None:
        self.served = 0
        self._server, self._ending = server, threading.Event()
        self._failed: list[object] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.is_set() and not self._failed:
            try:
                stream = self._server.ask(words="quick")
            except (OSError, HTTPException) as error:
                self._failed.append(error)
                break
            if stream.is_whole:
                self.served += 1
            elif stream.status != 503 or "Retry-After" not in stream.headers:
                self._failed.append((stream.worker, stream.status, stream.data, stream.broken))

    def served_more_than(self, times: int) -> bool:
        assert not self._failed, self._failed
        return self.served > times

    def end(self) -> None:
        self._ending.set()
        self._thread.join(60)
        assert not self._failed


@pytest.mark.parametrize("options", [pytest.param(GTHREAD, id="gthread"), pytest.param(GEVENT, id="gevent")])
def test_a_worker_that_has_had_its_requests_lets_streams_end(
    options: tuple[str, ...], provider: Provider, redis_url: str
) -> None:
    """max_requests: the last request is served like any other, and those before it too."""
    with Gunicorn(
        provider, *options, "--max-requests", "6", "--graceful-timeout", "40", AIBRIDGE_REDIS_URL=redis_url
    ) as server:
        streams = [server.ask().begun()]
        worker = streams[0].worker
        while "Autorestarting" not in server.logged():
            streams.append(server.ask().begun())
        assert len(streams) >= 3
        provider.go_on.set()
        assert all(stream.is_whole for stream in streams)
        until(lambda: server.worker() != worker, "another worker")
        assert {stream.worker for stream in streams} == {worker}
        assert server.stop() == 0
        assert statuses(redis_url) == ["completed"] * len(streams)
        assert not server.spooled()


def test_what_comes_while_a_worker_stops_is_refused(provider: Provider, redis_url: str) -> None:
    """503 with Retry-After, in the provider's form, once it has been sent; and the connection is closed."""
    pytest.importorskip(
        "gunicorn", minversion="27", reason="older ones drop idle connections when a worker stops"
    )
    with Gunicorn(provider, *GTHREAD, "--keep-alive", "30", AIBRIDGE_REDIS_URL=redis_url) as server:
        stream = server.ask().begun()
        kept = [server.connection() for _ in range(20)]
        try:
            for connection in kept:
                assert asked(connection, "GET", "/readyz").status == 200
            os.kill(stream.worker, signal.SIGTERM)
            until(lambda: asked(kept.pop(), "GET", "/readyz").status == 503, "the worker's end")
            for body in (b"{}", b"x" * MORE_THAN_A_SOCKET_HOLDS):
                response = asked(kept.pop(), "POST", "/anthropic/v1/messages", body)
                assert response.status == 503
                assert response.headers["Retry-After"]
                assert response.headers["Connection"] == "close"
                assert "api_error" in response.headers["X-Body"]
        finally:
            for connection in kept:
                connection.close()
        provider.go_on.set()
        assert stream.is_whole


def asked(connection: HTTPConnection, method: str, path: str, body: bytes | None = None) -> HTTPResponse:
    """The answer, read; ``X-Body`` is its body."""
    connection.request(method, PREFIX + path, body)
    response = connection.getresponse()
    response.headers["X-Body"] = response.read().decode()
    return response


def test_a_worker_that_is_killed_leaves_no_interception_open(provider: Provider, redis_url: str) -> None:
    """Another worker ends it as interrupted."""
    with Gunicorn(
        provider, *GTHREAD, "--workers", "2", env={"HOST_LEASE": "1.0"}, AIBRIDGE_REDIS_URL=redis_url
    ) as server:
        stream: Stream = server.ask().begun()
        os.kill(stream.worker, signal.SIGKILL)
        stream.read()
        assert not stream.is_whole
        until(lambda: server.ask(words="quick").is_whole, "an answer of another worker")
        until(lambda: "interrupted" in statuses(redis_url), "the sweep")
        assert server.stop() == 0
        assert set(statuses(redis_url)) == {"interrupted", "completed"}
        assert not server.spooled()


def test_sync_serves_what_is_short_and_says_that_it_cuts_the_rest(provider: Provider, redis_url: str) -> None:
    with Gunicorn(provider, "--workers", "2", AIBRIDGE_REDIS_URL=redis_url) as server:
        assert all(server.ask(words="quick").is_whole for _ in range(3))
        assert server.logged().count("kills a stream that lasts longer than timeout = 30") == 1
        assert server.stop() == 0
        assert statuses(redis_url) == ["completed"] * 3


def test_a_stream_that_is_cut_by_the_timeout_of_sync_is_recorded_as_interrupted(
    provider: Provider, redis_url: str
) -> None:
    """The arbiter kills the worker, and a moment before that it is told."""
    with Gunicorn(provider, "--timeout", "2", AIBRIDGE_REDIS_URL=redis_url) as server:
        server.ask().read()
        assert "WORKER TIMEOUT" in server.logged()
        until(lambda: statuses(redis_url) == ["interrupted"], "the end of the record")
        assert server.stop() == 0
        assert not server.spooled()
