"""Scenarios that need a process of their own (forks, few descriptors, exits), run by name from other tests."""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import urllib3
from urllib3.exceptions import NewConnectionError, ProtocolError

from flask_aibridge.transport import WSGIPoolManager, cancellation, workers
from flask_aibridge.transport.pipe import Channel, Doorbell
from tests.leaks import Snapshot, open_descriptors
from tests.transport.calls import DEADLINE, URL, Scripted, eventually, wait_for


def nothing_starts_before_the_first_call() -> None:
    """Imports, transports and init_app start no thread and open no descriptor."""
    threads, descriptors = threading.active_count(), open_descriptors()
    import flask

    from flask_aibridge import AIBridge
    from flask_aibridge.transport import Source, TransportFactory

    bridge = AIBridge()
    bridge.init_app(flask.Flask("app"), wsgi_app=Scripted(b"x"))
    pool = TransportFactory(Scripted(b"x")).transport_for("openai", Source.AGENTS)
    pool.connection_from_url("https://api.openai.com/v1")
    assert threading.active_count() == threads == 1
    assert open_descriptors() == descriptors
    assert pool.request("GET", URL).data == b"x"
    assert threading.active_count() == 2


def a_hung_app_does_not_keep_the_process() -> None:
    """Neither before its head nor in its body, nor one that waits for room; the interpreter just exits."""
    never, started = threading.Event(), threading.Semaphore(0)
    stuck = [
        Scripted(b"x", started.release, never.wait),
        Scripted(b"x", started.release, *[b"y" * 100_000] * 3),
    ]
    responses = [WSGIPoolManager(script).request("GET", URL, preload_content=False) for script in stuck]
    silent = threading.Thread(
        target=lambda: WSGIPoolManager(Scripted(started.release, never.wait)).request("GET", URL), daemon=True
    )
    silent.start()
    for _ in range(3):
        assert started.acquire(timeout=DEADLINE)
    globals()["kept_until_exit"] = responses


def without_descriptors() -> None:
    """EMFILE: urllib3's NewConnectionError, nothing called, nothing left open; and it works again afterwards."""
    warm = Scripted(b"x")
    pool = WSGIPoolManager(warm)
    assert pool.request("GET", URL).data == b"x"
    calls = len(warm.calls)
    taken = _take_all_descriptors()
    for _ in range(20):
        for body in (b"x", iter([b"x"])):
            _assert_refused(pool, body)
    assert len(warm.calls) == calls
    for descriptor in taken:
        os.close(descriptor)
    before = Snapshot()
    assert pool.request("GET", URL).data == b"x"
    assert pool.request("GET", URL, preload_content=False).read() == b"x"
    assert not before.still_left_behind(DEADLINE)


def _take_all_descriptors() -> list[int]:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    taken = []
    while True:
        try:
            taken.append(os.dup(0))
        except OSError:
            return taken


def _assert_refused(pool: WSGIPoolManager, body: Any) -> None:
    with pytest.raises(NewConnectionError, match="Too many open files"):
        pool.request("POST", URL, body=body, retries=False)


def _in_a_child(run: Callable[[], object]) -> int:
    """Fork, run it in the child, which then exits at once; gives the child's number."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.alarm(30)
        run()
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def _wait_for_child(child: int) -> None:
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, f"the child failed: {status}"


class _Stream:
    """A stream that is open in the parent when it forks."""

    def __init__(self, path: str = "") -> None:
        self.gate = threading.Event()
        self.blocked = threading.Event()
        self.script = Scripted(b"one", self.blocked.set, lambda: wait_for(self.gate), b"two")
        self.response = WSGIPoolManager(self.script).request("GET", URL, preload_content=False)
        assert self.response.read1() == b"one"
        wait_for(self.blocked)

    def finish(self) -> None:
        self.gate.set()
        assert self.response.read() == b"two"
        self.script.assert_closed_once()


def a_child_makes_its_own_calls() -> None:
    """After the parent has used the transport, with streams open in the parent."""
    pool = WSGIPoolManager(Scripted(b"x", b"y"), max_concurrency=2)
    streams = [_Stream() for _ in range(3)]
    gate = threading.Event()
    held = [
        WSGIPoolManager.request(pool, "GET", URL, preload_content=False) for _ in range(2)
    ]  # all slots of the pool are or were taken when the process forks

    def child() -> None:
        threads = threading.active_count()
        assert threads == 1
        for _ in range(5):
            assert pool.request("GET", URL, timeout=10).data == b"xy"
        fresh = _Stream()
        fresh.finish()
        nested = WSGIPoolManager(Scripted(b"", lambda: pool.request("GET", URL), b"z"))
        assert nested.request("GET", URL).data == b"z"

    children = [_in_a_child(child) for _ in range(3)]
    for number in children:
        _wait_for_child(number)
    gate.set()
    for stream in streams:
        stream.finish()
    for response in held:
        assert response.read() == b"xy"
    assert pool.request("GET", URL).data == b"xy"


def a_full_pool_is_empty_in_a_child() -> None:
    """What holds the parent's slots does not exist in the child."""
    gate = threading.Event()
    pool = WSGIPoolManager(Scripted(b"x", lambda: gate.wait(DEADLINE)), max_concurrency=1)
    held = pool.request("GET", URL, preload_content=False)

    def child() -> None:
        gate.set()
        assert (
            pool.request("GET", URL, timeout=urllib3.Timeout(connect=0.5, read=10), retries=False).data
            == b"x"
        )

    _wait_for_child(_in_a_child(child))
    gate.set()
    assert held.read() == b"x"


def a_living_child_does_not_hold_the_parents_streams() -> None:
    """The parent's streams go on and end while a child that inherited their descriptors still lives."""
    read_end, write_end = os.pipe()
    streams = [_Stream() for _ in range(4)]
    for stream in streams:
        stream.response.fileno()
    child = _in_a_child(lambda: os.read(read_end, 1))
    streams[0].response.close()
    streams[0].gate.set()
    streams[0].script.assert_closed_once()
    for stream in streams[1:]:
        stream.finish()
    os.write(write_end, b"x")
    _wait_for_child(child)
    os.close(read_end)
    os.close(write_end)


def an_inherited_response_is_an_error_in_the_child() -> None:
    """Instead of a wait that never ends; and closing it there does nothing to the parent's."""
    stream = _Stream()
    other = _Stream()
    other.response.fileno()

    def child() -> None:
        for inherited in (stream, other):
            try:
                inherited.response.read()
            except (ProtocolError, OSError):
                pass
            else:
                raise AssertionError("read a response of the parent")
            inherited.response.close()
        gc.collect()

    _wait_for_child(_in_a_child(child))
    stream.finish()
    other.finish()


def an_inherited_channel_is_refused_in_the_child() -> None:
    """Both kinds of waiting, and the descriptor; leaving it is the parent's affair."""
    channel, doorbell = Channel(), Doorbell()
    descriptor = channel.fileno()
    channel.put(b"x")

    def child() -> None:
        for refused in (channel.take, lambda: channel.wait(0), channel.fileno):
            with pytest.raises(OSError):
                refused()
        assert channel.abandon() is False
        with pytest.raises(OSError):
            os.fstat(descriptor)
        taken = [os.dup(0) for _ in range(4)]
        doorbell.close()
        assert all(os.fstat(number) for number in taken)

    _wait_for_child(_in_a_child(child))
    assert channel.take() == b"x"
    assert channel.abandon() is True
    doorbell.ring()
    assert doorbell.wait(0)
    doorbell.close()


def an_inherited_response_that_is_dropped_in_the_child_stays_the_parents() -> None:
    streams = [_Stream() for _ in range(2)]

    def child() -> None:
        streams.clear()
        gc.collect()

    _wait_for_child(_in_a_child(child))
    for stream in streams:
        stream.finish()


def a_killed_child_leaves_the_parents_streams_alone() -> None:
    read_end, write_end = os.pipe()
    ready_end, ready = os.pipe()
    streams = [_Stream() for _ in range(3)]
    pool = WSGIPoolManager(Scripted(b"x", b"y"))

    def child() -> None:
        mine = [pool.request("GET", URL, preload_content=False) for _ in range(3)]
        os.write(ready, b"x")
        os.read(read_end, 1)
        mine.clear()

    number = _in_a_child(child)
    os.read(ready_end, 1)
    os.kill(number, signal.SIGKILL)
    _, status = os.waitpid(number, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    for stream in streams:
        stream.finish()
    assert pool.request("GET", URL).data == b"xy"
    for descriptor in (read_end, write_end, ready_end, ready):
        os.close(descriptor)


def a_child_does_not_keep_the_parents_descriptors() -> None:
    """Those of the streams and of the workers are closed in it at once."""
    before = open_descriptors()
    streams = [_Stream() for _ in range(5)]
    for stream in streams:
        stream.response.fileno()
    assert len(open_descriptors()) > len(before)

    def child() -> None:
        assert open_descriptors() <= before, f"kept {sorted(open_descriptors() - before)}"

    _wait_for_child(_in_a_child(child))
    for stream in streams:
        stream.finish()


def an_app_may_fork_in_its_worker() -> None:
    """As subprocess libraries and pre-fork pools do; the child goes on alone and exits."""
    children: list[int] = []
    script = Scripted(b"one", lambda: children.append(_in_a_child(lambda: None)), b"two")
    assert WSGIPoolManager(script).request("GET", URL).data == b"onetwo"
    _wait_for_child(children[0])
    assert WSGIPoolManager(script).request("GET", URL).data == b"onetwo"
    _wait_for_child(children[1])


def _call_in_a_pool(number: int) -> bytes:
    data: bytes = WSGIPoolManager(Scripted(b"%d" % number, b"!")).request("GET", URL, timeout=10).data
    return data


def multiprocessing_by_fork() -> None:
    stream = _Stream()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(_call_in_a_pool, range(10)).get(60) == [b"%d!" % number for number in range(10)]
    stream.finish()


def forks_race_with_calls() -> None:
    """Whatever a lock or list is in the middle of when the process forks, the child can make calls."""
    stop = threading.Event()
    pool = WSGIPoolManager(Scripted(b"x", b"y"), max_concurrency=4)

    def hammer() -> None:
        while not stop.is_set():
            with pool.request("GET", URL, preload_content=False) as response:
                response.read1(1)

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()

    def child() -> None:
        for _ in range(3):
            assert pool.request("GET", URL, timeout=15).data == b"xy"

    try:
        for _ in range(30):
            _wait_for_child(_in_a_child(child))
    finally:
        stop.set()
    for thread in threads:
        thread.join(DEADLINE)
    eventually(lambda: pool.mounted.slots.taken == 0, "all slots are free")


def a_cancellation_works_in_a_child_whatever_was_locked() -> None:
    """The lock of the callbacks is held by a thread that the child does not have."""
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with cancellation._registry:
            locked.set()
            wait_for(done)

    thread = threading.Thread(target=hold)
    thread.start()
    wait_for(locked)
    child = _in_a_child(lambda: cancellation.Cancellation().on_cancel(print)())
    done.set()
    thread.join()
    _wait_for_child(child)


def workers_of_before_a_fork_are_not_called_in_the_child() -> None:
    assert WSGIPoolManager(Scripted(b"x")).request("GET", URL).data == b"x"
    eventually(lambda: workers.process_slots.taken == 0, "the worker is idle")

    def child() -> None:
        assert WSGIPoolManager(Scripted(b"x")).request("GET", URL, timeout=10).data == b"x"

    _wait_for_child(_in_a_child(child))
    assert WSGIPoolManager(Scripted(b"x")).request("GET", URL).data == b"x"


if __name__ == "__main__":
    globals()[sys.argv[1]]()
