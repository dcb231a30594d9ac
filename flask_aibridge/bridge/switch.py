"""Stopping an exchange with a provider, from any thread, and how exchanges fail."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flask_aibridge.errors import AIBridgeError


class UpstreamFailure(AIBridgeError):
    """The provider could not be reached, or its answer broke off. The message is for operators, not for
    callers."""


class UpstreamBroken(UpstreamFailure):
    """The answer broke off before its end."""


class UpstreamTimeout(UpstreamFailure):
    """The provider was silent for the whole read timeout."""


class UpstreamCancelled(UpstreamFailure):
    """The exchange was stopped from this side: the caller gave up, or the bridge is shutting down."""


class UpstreamSilent(Exception):
    """Nothing has come for as long as the reader cared to wait. Nothing is lost either: read again."""


class Switch:
    """Stops one exchange from any thread.

    The lock is re-entrant because a garbage collection, in whatever thread it happens to run, may be what
    throws it.
    """

    def __init__(self) -> None:
        self.thrown = False
        self.attached = False
        self._lock = threading.RLock()
        self._stop: Callable[[], object] | None = None

    def attach(self, stop: Callable[[], object]) -> None:
        """Have ``stop`` called when the switch is thrown; raises ``UpstreamCancelled`` if it has been."""
        with self._lock:
            self._stop, self.attached = stop, True
        if self.thrown:
            raise UpstreamCancelled("the caller gave up before the provider was asked")

    def detach(self) -> None:
        """Stop nothing from here on: the connection belongs to somebody else."""
        with self._lock:
            self._stop = None

    def throw(self) -> None:
        """Stop the exchange now."""
        with self._lock:
            self.thrown = True
            if self._stop is not None:
                self._stop()


def stopper(sock: Any) -> Callable[[], None]:
    """Return what wakes whoever waits on a socket, and ends the exchange on it."""

    def stop() -> None:
        with suppress(OSError):  # it has been closed
            if isinstance(sock, socket.socket):
                # Not `sock.shutdown`: that of an SSLSocket drops its TLS state under the thread that is reading.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            else:
                sock.shutdown(socket.SHUT_RDWR)

    return stop
