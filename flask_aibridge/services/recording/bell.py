"""What wakes the thread that stores what is recorded."""

from __future__ import annotations

import threading
from contextlib import suppress


class Bell:
    """Wakes the writer. It is one lock, so that a finaliser may ring at any moment, unlike an ``Event``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """End the present wait, or the next one."""
        with suppress(RuntimeError):  # it has been rung already
            self._lock.release()

    def wait(self, seconds: float) -> None:
        """Return when it is rung, after ``seconds`` at the latest."""
        self._lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))
