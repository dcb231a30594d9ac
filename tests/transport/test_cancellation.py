"""``Cancellation`` by itself: set once, heard by everybody, called back at most once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from flask_aibridge.transport import Cancellation
from tests.transport.calls import DEADLINE, eventually, raising, wait_for


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Threads take turns as often as they can, which brings races out."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_a_new_one_is_not_set() -> None:
    cancellation = Cancellation()
    assert cancellation.cancelled is False
    assert cancellation.wait(0) is False
    assert cancellation.wait(0.01) is False
    assert "not set" in repr(cancellation)


def test_a_set_one_stays_set() -> None:
    cancellation = Cancellation()
    cancellation._fire()
    cancellation._fire()
    assert cancellation.cancelled is True
    assert cancellation.wait() is True
    assert cancellation.wait(0) is True
    assert "not set" not in repr(cancellation)


def test_cancelled_cannot_be_set_by_an_app() -> None:
    with pytest.raises(AttributeError):
        Cancellation().cancelled = True  # type: ignore[misc]


def test_callbacks_are_called_once_in_order() -> None:
    cancellation = Cancellation()
    called: list[int] = []
    for number in range(3):
        cancellation.on_cancel(lambda number=number: called.append(number))  # type: ignore[misc]
    assert called == []
    cancellation._fire()
    cancellation._fire()
    assert called == [0, 1, 2]


def test_a_callback_that_comes_late_is_called_at_once() -> None:
    cancellation = Cancellation()
    cancellation._fire()
    threads: list[int] = []
    take_off = cancellation.on_cancel(lambda: threads.append(threading.get_ident()))
    assert threads == [threading.get_ident()]
    take_off()


def test_a_callback_taken_off_is_not_called() -> None:
    cancellation = Cancellation()
    called: list[str] = []
    take_off = cancellation.on_cancel(lambda: called.append("off"))
    cancellation.on_cancel(lambda: called.append("on"))
    take_off()
    take_off()
    cancellation._fire()
    take_off()
    assert called == ["on"]


def test_a_callback_put_on_twice_and_taken_off_once_is_called_once() -> None:
    cancellation = Cancellation()
    called: list[int] = []

    def callback() -> None:
        called.append(1)

    cancellation.on_cancel(callback)
    cancellation.on_cancel(callback)()
    cancellation._fire()
    assert called == [1]


def test_a_callback_that_raises_is_logged_and_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    cancellation = Cancellation()
    called: list[int] = []
    cancellation.on_cancel(raising(ValueError("in the callback")))
    cancellation.on_cancel(lambda: called.append(1))
    cancellation._fire()
    cancellation.on_cancel(raising(ValueError("too late")))
    assert called == [1]
    assert "in the callback" in caplog.text
    assert "too late" in caplog.text


def test_a_callback_may_put_on_and_take_off_others() -> None:
    cancellation = Cancellation()
    called: list[str] = []

    def callback() -> None:
        assert cancellation.cancelled
        take_off()
        cancellation.on_cancel(lambda: called.append("late"))

    take_off = cancellation.on_cancel(callback)
    cancellation._fire()
    assert called == ["late"]


def test_every_waiting_thread_is_woken() -> None:
    cancellation = Cancellation()
    started = threading.Barrier(9)

    def wait() -> bool:
        started.wait(DEADLINE)
        return cancellation.wait(DEADLINE)

    with ThreadPoolExecutor(8) as executor:
        waits = [executor.submit(wait) for _ in range(8)]
        started.wait(DEADLINE)
        cancellation._fire()
        assert all(done.result(DEADLINE) for done in waits)


def test_a_wait_that_timed_out_leaves_nothing_to_call() -> None:
    """An app that polls does not pile up callbacks."""
    cancellation = Cancellation()
    for _ in range(3):
        cancellation.wait(0)
    assert not cancellation._callbacks


@pytest.mark.usefixtures("frequent_switches")
def test_each_callback_is_called_exactly_once_whoever_comes_first() -> None:
    for _ in range(50):
        cancellation = Cancellation()
        counts = [0] * 40
        ready, threads = threading.Event(), []

        def register(start: int) -> None:
            wait_for(ready)  # noqa: B023
            for number in range(start, start + 10):

                def count(number: int = number) -> None:
                    counts[number] += 1  # noqa: B023

                cancellation.on_cancel(count)  # noqa: B023

        threads = [threading.Thread(target=register, args=(start,)) for start in range(0, 40, 10)]
        for thread in threads:
            thread.start()
        ready.set()
        cancellation._fire()
        for thread in threads:
            thread.join(DEADLINE)
        eventually(lambda: counts == [1] * 40, "every callback called once")  # noqa: B023
