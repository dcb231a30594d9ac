"""How an exchange ends when its caller leaves, and what the app hears of it."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from urllib3 import BaseHTTPResponse, Timeout
from urllib3.exceptions import ProtocolError, ReadTimeoutError

from tests.transport.blocked import Blocked
from tests.transport.calls import (
    DEADLINE,
    TEXT,
    URL,
    Scripted,
    call,
    eventually,
    pool_for,
    read_until_error,
    wait_for,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


HOW = pytest.mark.parametrize("how", ["wait", "callback"])


@HOW
def test_closing_the_response_wakes_the_app_at_once(how: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = Blocked(how)
    response = call(app, preload_content=False)
    assert response.read1() == b"one"
    wait_for(app.blocked)
    assert not app.woken.is_set()
    response.close()
    app.assert_stopped()
    assert not caplog.records  # it is nobody's error


@HOW
def test_closing_an_unread_response_wakes_the_app(how: str) -> None:
    app = Blocked(how)
    call(app, preload_content=False).close()
    app.assert_stopped()


@HOW
def test_a_read_timeout_before_the_head_wakes_the_app(how: str) -> None:
    app = Blocked(how, first=b"")
    with pytest.raises(ReadTimeoutError):
        call(app, timeout=Timeout(read=0.1))
    app.assert_stopped()


@HOW
def test_a_read_timeout_in_the_body_wakes_the_app(how: str) -> None:
    app = Blocked(how)
    response = call(app, preload_content=False, timeout=Timeout(read=0.1))
    got, error = read_until_error(response)
    assert got == b"one"
    assert isinstance(error, ReadTimeoutError)
    app.assert_stopped()


@HOW
def test_a_read_timeout_while_preloading_wakes_the_app(how: str) -> None:
    app = Blocked(how)
    with pytest.raises(ReadTimeoutError):
        call(app, timeout=Timeout(read=0.1))
    app.assert_stopped()


@HOW
def test_giving_the_response_up_to_the_garbage_collector_wakes_the_app(how: str) -> None:
    app = Blocked(how)
    response = call(app, preload_content=False)
    wait_for(app.blocked)
    del response
    gc.collect()
    app.assert_stopped()


def test_a_response_in_a_cycle_is_given_up_when_it_is_collected() -> None:
    app = Blocked("wait")
    cycle: list[Any] = [call(app, preload_content=False)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    app.assert_stopped()


def test_a_generator_over_stream_that_is_dropped_lets_go_of_the_exchange() -> None:
    app = Blocked("wait")

    def chunks() -> Iterator[bytes]:
        yield from call(app, preload_content=False).stream()

    iterator = chunks()
    assert next(iterator) == b"one"
    del iterator
    gc.collect()
    app.assert_stopped()


def test_leaving_a_with_block_closes_the_response() -> None:
    app = Blocked("wait")
    response = call(app, preload_content=False)
    with response:
        assert response.read1() == b"one"
    app.assert_stopped()


def test_shutdown_wakes_a_reader_in_another_thread() -> None:
    app = Blocked("wait")
    response = call(app, preload_content=False)
    assert response.read1() == b"one"
    errors: list[BaseException | None] = []
    reader = threading.Thread(target=lambda: errors.append(read_until_error(response)[1]))
    reader.start()
    wait_for(app.blocked)
    response.shutdown()
    reader.join(DEADLINE)
    assert len(errors) == 1
    app.assert_stopped()


def test_closing_in_another_thread_wakes_the_reader() -> None:
    app = Blocked("wait")
    response = call(app, preload_content=False)
    assert response.read1() == b"one"
    ended: list[object] = []
    reader = threading.Thread(target=lambda: ended.append(read_until_error(response)))
    reader.start()
    wait_for(app.blocked)
    response.close()
    reader.join(DEADLINE)
    assert len(ended) == 1
    app.assert_stopped()


def test_a_writer_that_waits_for_room_is_woken_when_the_caller_leaves() -> None:
    raised: list[BaseException] = []
    running, over = threading.Event(), threading.Event()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [TEXT])
        try:
            for _ in range(100):
                write(b"x" * 10_000)
                running.set()
        except OSError as error:
            raised.append(error)
        over.set()
        return []

    response = call(app, preload_content=False)
    wait_for(running)
    response.close()
    wait_for(over)
    assert isinstance(raised[0], BrokenPipeError)


def test_only_the_exchange_whose_caller_leaves_is_cancelled() -> None:
    gate = threading.Event()
    stays, leaves = Scripted(b"one", lambda: wait_for(gate), b"two"), Blocked("wait")

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return (stays if environ["PATH_INFO"] == "/stays" else leaves)(environ, start_response)

    with pool_for(app) as pool:
        staying = pool.request("GET", URL + "/stays", preload_content=False)
        leaving = pool.request("GET", URL + "/leaves", preload_content=False)
        leaving.close()
        leaves.assert_stopped()
        assert not stays.environ["flask_aibridge.cancellation"].cancelled
        gate.set()
        assert staying.read() == b"onetwo"


def test_it_fires_after_a_normal_end_too() -> None:
    fired = threading.Event()
    script = Scripted(
        b"one", lambda: script.environ["flask_aibridge.cancellation"].on_cancel(fired.set), b"two"
    )
    assert call(script).data == b"onetwo"
    wait_for(fired)
    assert script.environ["flask_aibridge.cancellation"].cancelled


def test_it_fires_after_an_exception_too() -> None:
    fired = threading.Event()
    script = Scripted(
        lambda: script.environ["flask_aibridge.cancellation"].on_cancel(fired.set), ValueError()
    )
    assert call(script).status == 500
    wait_for(fired)


def test_it_has_not_fired_while_the_app_closes_its_body_at_a_normal_end() -> None:
    states: list[bool] = []
    script = Scripted(
        b"one", on_close=lambda: states.append(script.environ["flask_aibridge.cancellation"].cancelled)
    )
    assert call(script).data == b"one"
    assert states == [False]


def test_a_callback_that_was_taken_off_is_not_called() -> None:
    called: list[int] = []
    last = threading.Event()

    def register() -> None:
        cancellation = script.environ["flask_aibridge.cancellation"]
        take_off = cancellation.on_cancel(lambda: called.append(1))
        cancellation.on_cancel(last.set)
        take_off()
        take_off()

    script = Scripted(b"one", register)
    assert call(script).data == b"one"
    wait_for(last)
    assert not called


def test_callbacks_run_in_the_thread_that_cancels() -> None:
    threads: list[int] = []
    ready = threading.Event()

    def register() -> None:
        script.environ["flask_aibridge.cancellation"].on_cancel(lambda: threads.append(threading.get_ident()))
        ready.set()
        script.environ["flask_aibridge.cancellation"].wait(DEADLINE)

    script = Scripted(b"one", register)
    response = call(script, preload_content=False)
    wait_for(ready)
    response.close()
    assert threads == [threading.get_ident()]


def test_the_next_empty_chunk_notices_that_the_caller_left() -> None:
    """An app that sends keep-alive nothings is ended by them."""
    stopped = threading.Event()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [TEXT])
        try:
            yield b"one"
            while True:
                yield b""
        finally:
            stopped.set()

    call(app, preload_content=False).close()
    wait_for(stopped)


def test_closing_after_the_end_does_not_disturb_the_app() -> None:
    """The whole Content-Length has arrived, so the caller is done; what the app still does is its own affair."""
    gate, finished = threading.Event(), threading.Event()
    script = Scripted(b"one", lambda: wait_for(gate), finished.set, headers=[TEXT, ("Content-Length", "3")])
    response = call(script, preload_content=False)
    assert response.read() == b"one"
    assert response.closed
    response.close()
    gate.set()
    wait_for(finished)
    script.assert_closed_once()


ENDS: list[Callable[[BaseHTTPResponse], object]] = [
    lambda response: response.close(),
    lambda response: response.shutdown(),
    lambda response: response.read(),
]


@pytest.mark.parametrize("end", ENDS)
def test_ending_at_any_moment_ends_the_app_once(end: Callable[[BaseHTTPResponse], object]) -> None:
    """A race on purpose: the caller leaves while the app is at whatever point it is."""
    for _ in range(100):
        script = Scripted(b"one", b"two", b"three")
        response = call(script, preload_content=False)
        end(response)
        script.assert_closed_once()
        eventually(lambda: script.environ["flask_aibridge.cancellation"].cancelled, "cancelled")  # noqa: B023
        response.close()


def test_reading_after_close_gives_nothing() -> None:
    response = call(Blocked("wait"), preload_content=False)
    response.close()
    assert response.read() == b""
    assert response.read1() == b""
    assert list(response.stream()) == []


def test_reading_after_shutdown_is_an_incomplete_read() -> None:
    response = call(Blocked("wait"), preload_content=False)
    response.shutdown()
    with pytest.raises(ProtocolError):
        response.read()


def test_a_body_that_writes_while_it_is_closed_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """R42: the caller has left, which is nobody's fault."""
    closed = threading.Event()

    def app(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [TEXT])

        def body() -> Iterable[bytes]:
            try:
                while True:
                    yield b"x" * 4096
            finally:
                closed.set()
                write(b"last words")

        return body()

    call(app, legal=False, preload_content=False).close()
    wait_for(closed)
    no_worker = threading.Event()
    call(Scripted(b"x", no_worker.set))
    wait_for(no_worker)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
