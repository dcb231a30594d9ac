"""Waiting until a process has no more requests of the bridge's: by its own count, where it keeps one, and else by
that of the in-process door."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from flask_aibridge.transport import workers

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["drain"]

POLL_SECONDS: Final = 0.05
"""How often calls in process are counted, where nobody says that the last has ended."""


def drain(bridge: WSGIApplication | None, timeout: float) -> bool:
    """Wait for the requests of a bridge: whether they ended by themselves within ``timeout`` seconds.

    A bridge with a method ``drain(timeout) -> bool``, as the built-in one, is asked to do it: it refuses new requests
    and ends those that are late. For any other one, calls in process are waited for here, and requests that came by
    the server by the server."""
    own = getattr(bridge, "drain", None)
    if callable(own):
        return bool(own(timeout))
    deadline = time.monotonic() + timeout
    while workers.running() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return not workers.running()
