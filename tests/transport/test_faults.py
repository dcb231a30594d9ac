"""Faults: whatever goes wrong, and however often, no descriptor, thread or slot is left behind."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from urllib3 import Timeout
from urllib3.exceptions import MaxRetryError, NewConnectionError, ReadTimeoutError

from flask_aibridge.transport import WSGIPoolManager, workers
from tests.transport.calls import (
    DEADLINE,
    TEXT,
    URL,
    Scripted,
    call,
    eventually,
    pool_for,
    raising,
    read_until_error,
    run_script,
    wait_for,
)

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

TIMES = 100


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """Descriptors and threads are as before, once the idle workers have gone; every slot of the process is free."""
    monkeypatch.setattr(workers, "IDLE_SECONDS", 0.05)
    eventually(
        lambda: not [t for t in threading.enumerate() if t.name.startswith("aibridge-")], "workers gone"
    )
    request.getfixturevalue("no_leaks")
    yield
    eventually(
        lambda: not [t for t in threading.enumerate() if t.name.startswith("aibridge-")], "workers gone"
    )
    assert workers.process_slots.taken == 0


def endless(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    start_response("200 OK", [TEXT])
    while True:
        yield b"x" * 1000


def blocked(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Sends a little, then waits until it is cancelled."""
    start_response("200 OK", [TEXT])
    yield b"x"
    assert environ["flask_aibridge.cancellation"].wait(DEADLINE)


@pytest.mark.parametrize("app", [endless, blocked])
def test_streams_closed_early(app: Any) -> None:
    with pool_for(app) as pool:
        for _ in range(TIMES):
            response = pool.request("GET", URL, preload_content=False)
            assert response.read1(10)
            response.close()


@pytest.mark.parametrize("app", [endless, blocked])
def test_streams_closed_early_all_open_at_once(app: Any) -> None:
    with pool_for(app) as pool:
        responses = [pool.request("GET", URL, preload_content=False) for _ in range(TIMES)]
        for response in responses[::2]:
            response.fileno()
        for response in responses:
            response.close()


@pytest.mark.parametrize("app", [endless, blocked])
def test_streams_left_to_the_garbage_collector(app: Any) -> None:
    with pool_for(app) as pool:
        for number in range(TIMES):
            response = pool.request("GET", URL, preload_content=False)
            if number % 2:
                response.fileno()
            if number % 3:
                response.read1(10)
            del response
        gc.collect()


def test_timeouts_of_the_head() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["flask_aibridge.cancellation"].wait(DEADLINE)
        start_response("200 OK", [TEXT])
        return [b"late"]

    with pool_for(app) as pool:
        for _ in range(TIMES):
            with pytest.raises(ReadTimeoutError):
                pool.request("GET", URL, timeout=Timeout(read=0.005), retries=False)


def test_timeouts_of_the_body() -> None:
    with pool_for(blocked) as pool:
        for _ in range(TIMES):
            try:
                response = pool.request(
                    "GET", URL, timeout=Timeout(read=0.01), preload_content=False, retries=False
                )
            except ReadTimeoutError:
                continue  # on a busy machine the head is late as well; the exchange is given up either way
            assert isinstance(read_until_error(response)[1], ReadTimeoutError)


def test_timeouts_that_are_retried() -> None:
    script = Scripted(lambda: script.environ["flask_aibridge.cancellation"].wait(DEADLINE))
    with pool_for(script, legal=False) as pool:
        for _ in range(TIMES // 10):
            with pytest.raises(MaxRetryError):
                pool.request("GET", URL, timeout=Timeout(read=0.01), retries=2)
    eventually(lambda: len(script.closes) == len(script.calls) == 3 * (TIMES // 10), "every try has ended")


@pytest.mark.parametrize(
    "steps", [[ValueError("no")], [b"x", ValueError("no")], [SystemExit(1)], [b"x", KeyboardInterrupt()]]
)
def test_exceptions_of_the_app(steps: list[Any]) -> None:
    step: list[Any] = [raising(step) if isinstance(step, BaseException) else step for step in steps]
    with pool_for(Scripted(*step)) as pool:
        for _ in range(TIMES):
            read_until_error(pool.request("GET", URL, preload_content=False, retries=False))


@pytest.mark.parametrize("body", [lambda: b"x" * 300_000, lambda: iter([b"x" * 50_000] * 6)])
def test_request_bodies_that_nobody_reads(body: Callable[[], Any]) -> None:
    with pool_for(Scripted(b"no")) as pool:
        for _ in range(TIMES):
            assert pool.request("POST", URL, body=body()).data == b"no"


def test_request_bodies_that_break_off() -> None:
    class Broken(Exception):
        pass

    def body() -> Iterator[bytes]:
        yield b"x"
        raise Broken

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.input"].read(-1)
        return []

    with pool_for(app) as pool:
        for _ in range(TIMES):
            with pytest.raises(Broken):
                pool.request("POST", URL, body=body(), retries=False)


def test_callers_in_many_threads_that_leave_at_any_moment() -> None:
    failed: list[BaseException] = []

    def leave(pool: WSGIPoolManager, start: int) -> None:
        try:
            for number in range(50):
                response = pool.request("GET", URL, preload_content=False)
                for _ in range((start + number) % 4):
                    response.read1(100)
                response.close()
        except BaseException as error:
            failed.append(error)

    with pool_for(endless) as pool:
        threads = [threading.Thread(target=leave, args=(pool, start)) for start in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()
    assert not failed


def test_no_descriptor_for_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Scripted(b"x")
    with pool_for(script, max_concurrency=1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pipe", raising(OSError(errno.EMFILE, "Too many open files")))
            for _ in range(TIMES):
                for body in (None, b"x", iter([b"x"])):
                    with pytest.raises(NewConnectionError, match="Too many open files"):
                        pool.request("POST", URL, body=body, retries=False)
            with pytest.raises(MaxRetryError):
                pool.request("GET", URL, retries=2)
        assert script.calls == []
        assert pool.request("GET", URL).data == b"x"


def test_no_descriptor_for_fileno(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for one late is told so; the stream can be read on, and closed."""
    gate = threading.Event()
    response = call(Scripted(b"x", lambda: wait_for(gate), b"y"), preload_content=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pipe", raising(OSError(errno.EMFILE, "Too many open files")))
        with contextlib.suppress(OSError):  # a response may have had one from the start
            response.fileno()
    gate.set()
    assert response.read() == b"xy"


@pytest.mark.parametrize(
    "scenario",
    [
        "without_descriptors",
        "a_hung_app_does_not_keep_the_process",
        "a_child_makes_its_own_calls",
        "a_full_pool_is_empty_in_a_child",
        "a_living_child_does_not_hold_the_parents_streams",
        "an_inherited_channel_is_refused_in_the_child",
        "an_inherited_response_is_an_error_in_the_child",
        "an_inherited_response_that_is_dropped_in_the_child_stays_the_parents",
        "a_killed_child_leaves_the_parents_streams_alone",
        "a_child_does_not_keep_the_parents_descriptors",
        "an_app_may_fork_in_its_worker",
        "multiprocessing_by_fork",
        "forks_race_with_calls",
        "a_cancellation_works_in_a_child_whatever_was_locked",
        "workers_of_before_a_fork_are_not_called_in_the_child",
    ],
)
def test_in_a_process_of_its_own(scenario: str) -> None:
    run_script("scenarios_process.py", scenario)
