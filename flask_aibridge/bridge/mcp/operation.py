"""One thing that is asked of a server, in as many exchanges as it takes: it has one deadline, and can be stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType


class Operation:
    """Ends the exchange under way when the time is over, or when it is stopped from any thread; a socket's own timeout
    starts anew with each byte. It is the ``Cancellation`` of its exchanges."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.expired = False
        self.stopped = False
        # Re-entrant, as a switch is: a garbage collection may be what stops it.
        self._lock = threading.RLock()
        self._ends: dict[object, Callable[[], None]] = {}
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True
        self._timer.name = "mcp-deadline"

    def __enter__(self) -> Operation:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have ``callback`` called when it ends, at once where it has; what is returned takes it off again."""
        key = object()
        with self._lock:
            self._ends[key] = callback
            over = self.expired or self.stopped
        if over:
            callback()

        def forget() -> None:
            with self._lock:
                self._ends.pop(key, None)

        return forget

    def stop(self) -> None:
        """End it: whoever wanted its result has left."""
        self._end("stopped")

    def _expire(self) -> None:
        self._end("expired")

    def _end(self, why: str) -> None:
        with self._lock:
            if not (self.expired or self.stopped):
                setattr(self, why, True)
            ends = list(self._ends.values())
        for end in ends:
            end()
