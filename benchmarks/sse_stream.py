"""A stream of 2,000 server-sent events of 94 bytes, as fast as the app yields and the client reads."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

import httpx
import httpx2
import urllib3
import werkzeug.test
from apps import EVENT_COUNT, EVENT_SIZE, EVENTS, SSE_BODY, SSE_PATH, application
from faces import BASE_URL, Faces, faces
from measure import Comparison, Contestant, Section, Target, run_rounds, timed, timed_async
from peers import gunicorn

URL = BASE_URL + SSE_PATH

READ_SIZE = 65536
"""What a reader of the bare pipe asks for: the capacity of a Linux pipe."""

FLOOR = "floor: bare pipe between two threads"
URLLIB3 = "Flask-AIBridge, urllib3 stream()"
READ1 = "Flask-AIBridge, urllib3 read1()"
REQUESTS = "Flask-AIBridge, requests iter_content(None)"
HTTPX2 = "Flask-AIBridge, httpx2 iter_raw()"
HTTPX2_ASYNC = "Flask-AIBridge, httpx2 async aiter_raw()"
HTTPX = "Flask-AIBridge, httpx iter_raw()"
PEER_WERKZEUG = "werkzeug.test.Client (pulls, no thread)"
PEER_HTTPX2 = "httpx2.WSGITransport (pulls, no thread)"
PEER_HTTPX = "httpx.WSGITransport (pulls, no thread)"
PEER_GUNICORN = "gunicorn gthread, loopback, urllib3 stream()"

COMPARISONS = (
    Comparison("urllib3 stream() : bare pipe", URLLIB3, FLOOR, Target(1.0)),
    Comparison("loopback gunicorn : urllib3 stream()", PEER_GUNICORN, URLLIB3, Target(8, at_least=True)),
    Comparison("urllib3 read1() : bare pipe", READ1, FLOOR),
    Comparison("requests iter_content(None) : bare pipe", REQUESTS, FLOOR),
    Comparison("httpx2 iter_raw() : bare pipe", HTTPX2, FLOOR),
    Comparison("httpx2 async aiter_raw() : bare pipe", HTTPX2_ASYNC, FLOOR),
    Comparison("httpx iter_raw() : bare pipe", HTTPX, FLOOR),
    Comparison("httpx2 iter_raw() : httpx2.WSGITransport", HTTPX2, PEER_HTTPX2),
)

Chunks = Callable[[], Iterable[bytes]]
"""Makes the request and returns the iterator of the client library itself, with nothing laid over it."""


def measure(*, rounds: int, batch: int) -> Section:
    """Measure the stream through every face and every peer that streams, side by side."""
    with BarePipe() as floor, faces(application) as ours, _peers() as peers:
        contestants = [Contestant(FLOOR, timed(floor.run), floor.check), *_ours(ours), *peers]
        timings, figures = run_rounds(contestants, COMPARISONS, rounds=rounds, batch=batch)
    title = f"{EVENT_COUNT:,} server-sent events of {EVENT_SIZE} bytes"
    return Section(title, figures, timings, ["Every byte arrived in every run of every contestant."])


class BarePipe:
    """The floor: a thread that writes the same events to an `os.pipe`, and a reader that takes what is there.

    The writer is one thread for all runs, asleep until it is given a pipe: starting a thread is not part of
    it.
    """

    def __enter__(self) -> BarePipe:
        self._pipes: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._writer.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pipes.put(None)
        self._writer.join()

    def _write(self) -> None:
        while (descriptor := self._pipes.get()) is not None:
            for event in EVENTS:
                os.write(descriptor, event)
            os.close(descriptor)

    def run(self) -> None:
        """Pass all the events through a new pipe."""
        size = 0
        reader, writer = os.pipe()
        self._pipes.put(writer)
        while chunk := os.read(reader, READ_SIZE):
            size += len(chunk)
        os.close(reader)
        _check_size(FLOOR, size)

    def check(self) -> None:
        """Raise unless the pipe delivers the events as they are."""
        reader, writer = os.pipe()
        self._pipes.put(writer)
        with open(reader, "rb") as pipe:
            _check_body(FLOOR, pipe.read())


def _ours(ours: Faces) -> list[Contestant]:
    def through_urllib3() -> urllib3.BaseHTTPResponse:
        return ours.pool.request("GET", URL, preload_content=False)

    async def through_httpx2_async() -> AsyncIterator[bytes]:
        request = ours.httpx2_async_client.build_request("GET", URL)
        return (await ours.httpx2_async_client.send(request, stream=True)).aiter_raw()

    return [
        _contestant(URLLIB3, lambda: through_urllib3().stream()),
        _contestant(READ1, lambda: iter(through_urllib3().read1, b"")),
        _contestant(REQUESTS, lambda: ours.session.get(URL, stream=True).iter_content(None)),
        _contestant(HTTPX2, _streaming_httpx(ours.httpx2_client)),
        _async_contestant(HTTPX2_ASYNC, ours, through_httpx2_async),
        _contestant(HTTPX, _streaming_httpx(ours.httpx_client)),
    ]


@contextlib.contextmanager
def _peers() -> Iterator[list[Contestant]]:
    werkzeug_client = werkzeug.test.Client(application)
    with (
        httpx2.Client(transport=httpx2.WSGITransport(application)) as httpx2_client,
        httpx.Client(transport=httpx.WSGITransport(application)) as httpx_client,
        gunicorn() as server,
        urllib3.PoolManager() as http,
    ):
        yield [
            _contestant(PEER_WERKZEUG, lambda: werkzeug_client.get(SSE_PATH).iter_encoded()),
            _contestant(PEER_HTTPX2, _streaming_httpx(httpx2_client)),
            _contestant(PEER_HTTPX, _streaming_httpx(httpx_client)),
            _contestant(
                PEER_GUNICORN, lambda: http.request("GET", server + SSE_PATH, preload_content=False).stream()
            ),
        ]


def _streaming_httpx(client: httpx.Client | httpx2.Client) -> Chunks:
    if isinstance(client, httpx.Client):
        return lambda: client.send(client.build_request("GET", URL), stream=True).iter_raw()
    return lambda: client.send(client.build_request("GET", URL), stream=True).iter_raw()


def _contestant(name: str, chunks: Chunks) -> Contestant:
    def run() -> None:
        size = 0
        for chunk in chunks():
            size += len(chunk)
        _check_size(name, size)

    return Contestant(name, timed(run), lambda: _check_body(name, b"".join(chunks())))


def _async_contestant(
    name: str, ours: Faces, chunks: Callable[[], Awaitable[AsyncIterator[bytes]]]
) -> Contestant:
    async def run() -> None:
        size = 0
        async for chunk in await chunks():
            size += len(chunk)
        _check_size(name, size)

    async def body() -> bytes:
        return b"".join([chunk async for chunk in await chunks()])

    return Contestant(name, timed_async(ours.runner, run), lambda: _check_body(name, ours.runner.run(body())))


def _check_size(name: str, size: int) -> None:
    if size != len(SSE_BODY):
        raise RuntimeError(f"{name} delivered {size:,} bytes of {len(SSE_BODY):,}")


def _check_body(name: str, body: bytes) -> None:
    _check_size(name, len(body))
    if body != SSE_BODY:
        raise RuntimeError(f"{name} delivered other bytes than the app yielded")
