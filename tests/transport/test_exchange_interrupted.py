"""How an exchange ends when a signal interrupts its caller, as Ctrl-C does."""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
from urllib3 import BaseHTTPResponse

from flask_aibridge.transport import WSGIPoolManager, context, exchange
from flask_aibridge.transport.response_body import ResponseBody
from tests.transport.blocked import Blocked
from tests.transport.calls import (
    URL,
    Scripted,
    call,
    eventually,
    wait_for,
)

pytestmark = pytest.mark.slow


class Interrupted(BaseException):
    """What a signal handler raises in the caller's thread, as Ctrl-C does."""


@pytest.fixture
def interrupted_soon() -> Iterator[None]:
    """A signal interrupts the test's thread after a moment."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise Interrupted

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


@pytest.mark.usefixtures("interrupted_soon")
@pytest.mark.parametrize("timeout", [None, 15.0])
def test_an_interrupt_while_waiting_for_the_head_cancels(timeout: float | None) -> None:
    app = Blocked("wait", first=b"")
    with pytest.raises(Interrupted):
        call(app, timeout=timeout)
    app.assert_stopped()


@pytest.mark.usefixtures("interrupted_soon")
@pytest.mark.parametrize("preload", [True, False])
def test_an_interrupt_while_reading_cancels(preload: bool) -> None:
    app = Blocked("wait")
    responses: list[BaseHTTPResponse] = []

    def read() -> None:
        responses.append(call(app, preload_content=preload))
        responses[0].read()

    with pytest.raises(Interrupted):
        read()
    responses.clear()
    gc.collect()
    app.assert_stopped()


@pytest.mark.usefixtures("interrupted_soon")
def test_an_interrupt_while_waiting_for_a_slot_loses_none() -> None:
    gate = threading.Event()
    pool = WSGIPoolManager(Scripted(b"one", lambda: wait_for(gate)), max_concurrency=1)
    first = pool.request("GET", URL, preload_content=False)
    with pytest.raises(Interrupted):
        pool.request("GET", URL, timeout=15.0)
    gate.set()
    assert first.read() == b"one"
    assert pool.request("GET", URL, timeout=15.0).data == b"one"


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize(
    "function",
    [exchange.Exchange.__init__, context.callers_context, ResponseBody.__init__],
    ids=lambda function: function.__qualname__,
)
def test_an_interrupt_around_the_start_of_a_call_loses_no_slot(function: Any) -> None:
    """At each line of what runs between the taking of a slot and the response."""
    stream = Scripted(*[b"x" * 4096] * 100)
    pool = WSGIPoolManager(stream, max_concurrency=2)
    lines = interrupted = 0
    while lines == interrupted:
        interrupted += 1
        lines = _interrupt_at_line(function.__code__, interrupted, pool)
        gc.collect()
        eventually(lambda: pool.mounted.slots.taken == 0, "the slot given back")
    assert interrupted > 1


def _interrupt_at_line(code: Any, number: int, pool: WSGIPoolManager) -> int:
    """Interrupts a request at that line of ``code``, counted as they run; how many ran."""
    ran = 0

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal ran
        if frame.f_code is not code:
            return trace if event == "call" else None
        if event == "line":
            ran += 1
            if ran == number:
                sys.settrace(None)
                raise Interrupted
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        pool.request("GET", URL, preload_content=False).close()
    except Interrupted:
        pass
    finally:
        sys.settrace(previous)
    return ran
