"""The embedded store under gunicorn: the arbiter holds it, so that it does not stop and start with the workers.

With ``preload_app`` the arbiter knows the application and starts the store before the first worker. Without, it does
not, and must not load it; so a worker that has used the store leaves it running when it ends, and tells the arbiter
through a pipe which folder it is in. The arbiter takes it over then, and lets it go at its own end.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, Final

from flask_aibridge.app_state import app_states
from flask_aibridge.errors import AIBridgeError

__all__ = ["leave_to_arbiter", "prepare", "take_over"]

READ_BYTES: Final = 65_536
"""All that a pipe holds."""

_pipe: list[int] = []
"""Of the arbiter and its workers: what is read from and what is written to."""

_buffer = bytearray()


def prepare(cfg: Any, log: Any) -> None:
    """In the arbiter: start the store of an application that is loaded already, and be ready to hear of others'."""
    if not _pipe:
        _pipe.extend(os.pipe())
        for descriptor in _pipe:
            os.set_blocking(descriptor, False)
    if cfg.preload_app:
        for state in app_states():
            if state.uses_embedded_server:
                _hold(state.instance_path, cfg, log)


def leave_to_arbiter() -> None:
    """In a worker that ends: leave the store running, if it was used, and say where it is."""
    from flask_aibridge.services.embedded import leave_running

    for folder in leave_running():
        with suppress(OSError):  # nobody listens, or a thousand workers have said it before
            os.write(_pipe[1], os.fsencode(folder) + b"\0")


def take_over(cfg: Any, log: Any) -> None:
    """In the arbiter: hold the store that a worker has left."""
    with suppress(OSError, IndexError):
        _buffer.extend(os.read(_pipe[0], READ_BYTES))
    while b"\0" in _buffer:
        folder, _, rest = bytes(_buffer).partition(b"\0")
        _buffer[:] = rest
        _hold(os.fsdecode(folder), cfg, log)


def _hold(instance_path: str, cfg: Any, log: Any) -> None:
    from flask_aibridge.services.embedded import acquire, server_binary

    # The store belongs to one user, and an arbiter that is root is not the one its workers are.
    if server_binary() is None or cfg.uid != os.geteuid():
        return
    try:
        acquire(instance_path)
    except AIBridgeError as error:
        log.warning(
            "The arbiter cannot hold the embedded store, which the workers start themselves: %s", error
        )
