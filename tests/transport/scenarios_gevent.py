"""Scenarios in a process patched by gevent, run by name from test_gevent; a ``late_…`` one patches it itself."""

from __future__ import annotations

import sys
import warnings

from gevent import monkey

if not sys.argv[1].startswith("late_"):
    monkey.patch_all()

import gc
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import gevent
from urllib3 import Timeout
from urllib3.exceptions import ConnectTimeoutError, ProtocolError, ReadTimeoutError

from flask_aibridge.transport import WSGIPoolManager
from tests.leaks import open_descriptors
from tests.transport.calls import TEXT, URL, Scripted, eventually, read_until_error, wait_for

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PAUSE = 0.3
"""Seconds that something is waited for while the ticker must go on: once at the least, however busy the machine is."""

TICK = 0.01
PAUSE_TICKS = 10
"""How often a pause lets the ticker go on."""


@contextmanager
def ticking(least: int = PAUSE_TICKS // 2) -> Iterator[None]:
    """Another greenlet runs meanwhile, so many times at least: the hub is not blocked."""
    ticks = [0]

    def tick() -> None:
        while True:
            gevent.sleep(TICK)
            ticks[0] += 1

    ticker = gevent.spawn(tick)
    yield
    ticker.kill()
    assert ticks[0] >= least, f"the hub was blocked: {ticks[0]} ticks"


def pause() -> None:
    for _ in range(PAUSE_TICKS):
        gevent.sleep(TICK)


def pool_of(*steps: bytes | Callable[[], object], max_concurrency: int | None = None) -> WSGIPoolManager:
    return WSGIPoolManager(Scripted(*steps), max_concurrency=max_concurrency)


def waiting_for_the_head() -> None:
    with ticking():
        assert pool_of(pause, b"x").request("GET", URL).data == b"x"


def waiting_for_the_body() -> None:
    response = pool_of(b"one", pause, b"two").request("GET", URL, preload_content=False)
    assert response.read1() == b"one"
    with ticking():
        assert response.read1() == b"two"
    assert response.read1() == b""


def each_chunk_arrives_at_once() -> None:
    gates = [threading.Event() for _ in range(5)]
    steps: list[bytes | Callable[[], object]] = []
    for number, gate in enumerate(gates):
        steps += [b"%d" % number, partial(wait_for, gate)]
    response = pool_of(*steps).request("GET", URL, preload_content=False)
    stream = response.stream()
    for number, gate in enumerate(gates):
        assert next(stream) == b"%d" % number
        gate.set()
    assert list(stream) == []


def an_app_that_waits_for_room() -> None:
    sent = [0]

    def count() -> None:
        sent[0] += 8192

    steps: list[bytes | Callable[[], object]] = [b"x" * 8192, count]
    response = pool_of(*steps * 40).request("GET", URL, preload_content=False)
    with ticking():
        pause()
    assert 0 < sent[0] <= 65536 + 8192
    assert len(response.read()) == 40 * 8192


def a_body_that_waits_for_an_app_to_read() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        pause()
        start_response("200 OK", [TEXT])
        return [b"%d" % len(environ["wsgi.input"].read(-1))]

    with ticking():
        response = WSGIPoolManager(app).request("POST", URL, body=(b"x" * 8192 for _ in range(40)))
    assert response.data == b"%d" % (40 * 8192)


def waiting_for_a_slot() -> None:
    gate = threading.Event()
    pool = pool_of(b"x", lambda: wait_for(gate), b"y", max_concurrency=1)
    first = pool.request("GET", URL, preload_content=False)
    with ticking(1):
        try:
            pool.request("GET", URL, timeout=Timeout(connect=PAUSE), retries=False)
        except ConnectTimeoutError:
            pass
        else:
            raise AssertionError("two calls in one slot")
    later = gevent.spawn(lambda: pool.request("GET", URL).data)
    with ticking():
        pause()
    gate.set()
    assert first.read() == b"xy"
    assert later.get(timeout=20) == b"xy"


def a_cancellation_that_is_waited_for() -> None:
    woken = threading.Event()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [TEXT])
        yield b"x"
        assert environ["flask_aibridge.cancellation"].wait(20)
        woken.set()

    response = WSGIPoolManager(app).request("GET", URL, preload_content=False)
    with ticking():
        pause()
    response.close()
    wait_for(woken)


def timeouts() -> None:
    never = threading.Event()
    with ticking(1):
        try:
            pool_of(never.wait).request("GET", URL, timeout=Timeout(read=PAUSE), retries=False)
        except ReadTimeoutError:
            pass
        else:
            raise AssertionError("a head out of nothing")
    response = pool_of(b"x", never.wait).request(
        "GET", URL, timeout=Timeout(read=PAUSE), preload_content=False
    )
    with ticking(1):
        data, error = read_until_error(response)
    assert data == b"x"
    assert isinstance(error, ReadTimeoutError)


def exceptions() -> None:
    def fail() -> None:
        raise gevent.GreenletExit

    logging.disable(logging.CRITICAL)  # they are logged, rightly
    assert pool_of(fail).request("GET", URL).status == 500
    data, error = read_until_error(pool_of(b"x", fail).request("GET", URL, preload_content=False))
    assert data == b"x"
    assert isinstance(error, ProtocolError)
    assert pool_of(b"x").request("GET", URL).data == b"x"


def a_caller_that_is_killed() -> None:
    """As gevent.Timeout and a dropped client do: the exchange ends, and leaves nothing behind."""
    for first in (b"", b"x"):
        over, started = threading.Event(), threading.Event()

        def app(
            environ: WSGIEnvironment,
            start_response: StartResponse,
            first: bytes = first,
            over: threading.Event = over,
            started: threading.Event = started,
        ) -> Iterator[bytes]:
            start_response("200 OK", [TEXT])
            yield first
            started.set()
            assert environ["flask_aibridge.cancellation"].wait(20)
            over.set()

        caller = gevent.spawn(lambda app=app: WSGIPoolManager(app).request("GET", URL).data)
        wait_for(started)
        caller.kill(timeout=20)
        wait_for(over)


def fifty_streams_at_once() -> None:
    gate = threading.Event()
    pool = pool_of(b"one ", lambda: wait_for(gate), b"two ", lambda: gevent.sleep(0.01), b"three")
    readers = [
        gevent.spawn(lambda: b"".join(pool.request("GET", URL, preload_content=False).stream()))
        for _ in range(50)
    ]
    with ticking():
        pause()
    gate.set()
    assert [reader.get(timeout=30) for reader in readers] == [b"one two three"] * 50


def calls_nested_forty_deep() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        depth = int(environ["PATH_INFO"][1:])
        inner = pool.request("GET", f"{URL}/{depth - 1}", timeout=20).data if depth else b""
        start_response("200 OK", [TEXT])
        return [b"%d " % depth + inner]

    pool = WSGIPoolManager(app)
    assert len(pool.request("GET", f"{URL}/40", timeout=20).data.split()) == 41


def nothing_is_left_open() -> None:
    pool = pool_of(b"x", b"y")
    pool.request("GET", URL)
    before = open_descriptors()
    for number in range(100):
        response = pool.request("GET", URL, preload_content=False)
        if number % 2:
            response.read1()
        response.close()
        del response
    gc.collect()
    eventually(lambda: len(open_descriptors()) <= len(before), "every descriptor is closed")


def streams_that_are_open_at_exit() -> None:
    never = threading.Event()
    globals()["kept_until_exit"] = [
        pool_of(b"x", never.wait).request("GET", URL, preload_content=False) for _ in range(5)
    ]


def calls_from_native_threads() -> None:
    """gevent's own thread pool runs what would block the hub in native threads, each with a hub of its own."""
    pool = pool_of(b"one", lambda: gevent.sleep(0.02), b"two")
    threads = gevent.get_hub().threadpool
    with ticking(1):
        results = [threads.spawn(lambda: pool.request("GET", URL, timeout=20).data) for _ in range(10)]
        results += [gevent.spawn(lambda: pool.request("GET", URL, timeout=20).data) for _ in range(10)]
        assert [result.get(timeout=30) for result in results] == [b"onetwo"] * 20


def _patch_late() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gevent would rather be first, and says so
        monkey.patch_all()


def _all_waits() -> None:
    for scenario in (
        waiting_for_the_head,
        waiting_for_the_body,
        an_app_that_waits_for_room,
        waiting_for_a_slot,
        timeouts,
        fifty_streams_at_once,
    ):
        scenario()


def late_after_native_use() -> None:
    """The process is patched when native workers are already there, idle."""
    pool = WSGIPoolManager(Scripted(b"x", b"y"))
    for _ in range(3):
        assert pool.request("GET", URL).data == b"xy"
    _patch_late()
    assert pool.request("GET", URL).data == b"xy"
    _all_waits()


def late_in_a_forked_worker() -> None:
    """As gunicorn's gevent worker does: the app is loaded and used, the process forks, the child is patched."""
    pool = WSGIPoolManager(Scripted(b"x", b"y"))
    assert pool.request("GET", URL).data == b"xy"
    child = os.fork()
    if not child:
        status = 1
        try:
            signal.alarm(60)
            _patch_late()
            assert pool.request("GET", URL).data == b"xy"
            _all_waits()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert pool.request("GET", URL).data == b"xy"


if __name__ == "__main__":
    globals()[sys.argv[1]]()
