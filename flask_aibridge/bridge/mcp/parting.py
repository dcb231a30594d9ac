"""Ends sessions that nobody needs any more. A server whose session is not ended ends it itself, some time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from time import monotonic
from typing import Final

from flask_aibridge.bridge.mcp.client import MCPClient

AT_ONCE: Final = 8
"""Threads that end sessions, for as long as that takes."""

LATER_SECONDS: Final = 30.0
"""For those that nobody waits for: a thread must not hang on to servers that are away."""


def end_sessions(clients: Iterable[MCPClient], seconds: float) -> None:
    """End the sessions of these clients; those that are left after so many seconds are left as they are."""
    left = deque(client for client in clients if client.has_session)
    give_up = monotonic() + seconds

    def work() -> None:
        while left and monotonic() < give_up:
            try:
                client = left.popleft()
            except IndexError:  # another thread has taken the last
                return
            client.end_session()

    threads = [
        threading.Thread(target=work, name="mcp-farewell", daemon=True)
        for _ in range(min(AT_ONCE, len(left)))
    ]
    for thread in [thread for thread in threads if _started(thread)]:
        thread.join(max(give_up - monotonic(), 0))


def end_sessions_later(clients: Iterable[MCPClient]) -> threading.Thread | None:
    """The same, without waiting for it; the thread that does it, null where there is nothing to do."""
    clients = [client for client in clients if client.has_session]
    if not clients:
        return None
    thread = threading.Thread(
        target=end_sessions, args=(clients, LATER_SECONDS), name="mcp-farewell", daemon=True
    )
    return thread if _started(thread) else None


def _started(thread: threading.Thread) -> bool:
    try:
        thread.start()
    except RuntimeError:  # the system has no thread left
        return False
    return True
