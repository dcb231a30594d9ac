"""The check for leaks finds leaks."""

from __future__ import annotations

import os
import threading

from tests.leaks import Snapshot


def test_an_open_descriptor_is_found() -> None:
    """Both ends of a pipe are named while they are open, and not once they are closed."""
    before = Snapshot()
    ends = os.pipe()
    found = before.left_behind()
    for end in ends:
        os.close(end)

    assert found == [f"descriptor {end}" for end in sorted(ends)]
    assert before.left_behind() == []


def test_a_running_thread_is_found(deadline: float) -> None:
    """A thread is named while it runs; one that ends in time is waited for."""
    before, end = Snapshot(), threading.Event()
    thread = threading.Thread(target=end.wait, name="left-over", daemon=True)
    thread.start()
    found = before.still_left_behind(seconds=0)
    end.set()

    assert found == ["thread left-over"]
    assert before.still_left_behind(deadline) == []


def test_an_idle_worker_is_no_leak(deadline: float) -> None:
    """The transport keeps its workers for the next call."""
    before, end = Snapshot(), threading.Event()
    thread = threading.Thread(target=end.wait, name="aibridge-7", daemon=True)
    thread.start()
    found = before.left_behind()
    end.set()
    thread.join(deadline)

    assert found == []
