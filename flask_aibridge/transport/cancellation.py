"""``Cancellation``: how a WSGI app learns, at once, that nobody waits for its answer any more.

WSGI itself tells an app only at its next write. An app that is blocked on its own upstream needs to be told
before that, from another thread: this is what travels in ``environ["flask_aibridge.cancellation"]``.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable

__all__ = ["Cancellation"]

_log = logging.getLogger("flask_aibridge.transport")

# One for all: it is held for a list operation only, and most exchanges never take it.
# Reentrant, because the garbage collector may end an exchange in the very thread that holds it.
_registry = threading.RLock()


def _renew_registry() -> None:
    """In a forked child: the thread that may have held the lock does not exist here."""
    global _registry
    _registry = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_registry)


class Cancellation:
    """Set once: when the caller closes the response early or times out, or when the app has finished.

    Safe to use from any thread, and after the exchange is over.
    """

    __slots__ = ("_callbacks", "_cancelled")

    def __init__(self) -> None:
        self._cancelled = False
        self._callbacks: list[Callable[[], object]] | None = None

    def __repr__(self) -> str:
        return f"<Cancellation {'set' if self._cancelled else 'not set'}>"

    @property
    def cancelled(self) -> bool:
        """Whether the exchange is over: stop working for it."""
        return self._cancelled

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until the exchange is over, at most ``timeout`` seconds; returns :attr:`cancelled`."""
        if not self._cancelled:
            event = threading.Event()
            take_off = self.on_cancel(event.set)
            try:
                event.wait(timeout)
            finally:
                take_off()
        return self._cancelled

    def on_cancel(self, callback: Callable[[], object]) -> Callable[[], object]:
        """Have ``callback`` called once when the exchange is over; at once if it is already.

        It runs in the thread that ends the exchange, so it must be quick: shut a socket down, set an event.
        What it raises is logged. Returns a function that takes the callback off again: call it when what the
        callback would stop is done, since a normal end of the app calls it too.
        """
        with _registry:
            if self._callbacks is None:
                self._callbacks = []
            self._callbacks.append(callback)
        # _fire() sets the mark before it looks for callbacks, this looks for the mark after it has added one:
        # at least one of the two sees the other, and taking it off decides who calls it.
        if self._cancelled and self._take_off(callback):
            _call(callback)
        return functools.partial(self._take_off, callback)

    def _take_off(self, callback: Callable[[], object]) -> bool:
        with _registry:
            if self._callbacks is None or callback not in self._callbacks:
                return False
            self._callbacks.remove(callback)
            return True

    def _fire(self) -> None:
        """Set it and call what was registered; for the exchange that owns it."""
        self._cancelled = True
        if self._callbacks is None:
            return
        with _registry:
            callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            _call(callback)


def _call(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception:
        _log.exception(
            "A callback of Cancellation.on_cancel() raised; it should only stop something, and quickly."
        )
