"""Says what a piece of code left behind: open descriptors and running threads."""

from __future__ import annotations

import gc
import os
import threading
from time import monotonic

POLL_SECONDS = 0.005
"""Descriptors and threads announce nothing when they go, so they are looked at this often."""

WORKER_THREAD_PREFIX = "aibridge-"
"""Idle workers are cached on purpose; they carry this name and are not leaks."""


class Snapshot:
    """The descriptors and threads that there were when it was taken."""

    def __init__(self) -> None:
        self._descriptors = open_descriptors()
        self._threads = set(threading.enumerate())

    def left_behind(self) -> list[str]:
        """What has come since and is still there, one phrase for each."""
        # Collecting takes a fifth of a second in a long run, and is of use only where something has been left.
        if self._seen():
            gc.collect()
        return self._seen()

    def _seen(self) -> list[str]:
        threads = [thread.name for thread in threading.enumerate() if thread not in self._threads]
        return [
            *(f"descriptor {number}" for number in sorted(open_descriptors() - self._descriptors)),
            *(f"thread {name}" for name in threads if not name.startswith(WORKER_THREAD_PREFIX)),
        ]

    def still_left_behind(self, seconds: float) -> list[str]:
        """Like :meth:`left_behind`, after waiting so many seconds at most for everything to go."""
        give_up, pause = monotonic() + seconds, threading.Event()
        while (left := self.left_behind()) and monotonic() < give_up:
            pause.wait(POLL_SECONDS)
        return left


def open_descriptors() -> set[int]:
    """The numbers of this process's open descriptors, without the one that reads the list."""
    listed = [int(name) for name in os.listdir("/dev/fd")]
    return {number for number in listed if _is_open(number)}


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
