"""Asks several servers for their tools at once, and waits for none of them for long."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic
from typing import Final

from flask_aibridge.bridge.intercept.documents import Document
from flask_aibridge.bridge.mcp.client import LIST_SECONDS, MCPClient

AT_ONCE: Final = 8
"""Servers that are asked at the same time for one user; each takes a thread for as long."""

GRACE_SECONDS: Final = 0.5
"""How long those that were stopped are waited for. A lookup of a name stops for nothing: its thread is left behind."""


class Discovery:
    """One round of questions; by server id, ``lists`` is what was answered, and ``failures`` says why nothing was."""

    def __init__(self, clients: Mapping[str, MCPClient], seconds: float = LIST_SECONDS) -> None:
        self.lists: dict[str, list[Document]] = {}
        self.failures: dict[str, Exception] = {}
        self._clients = dict(clients)
        self._seconds = seconds
        self._waiting = deque(self._clients.items())
        self._stops: dict[object, Callable[[], None]] = {}
        self._threads = 0
        self._over = False
        self._changed = threading.Condition()

    def run(self) -> None:
        """Return when all have answered, or the time is over. What has not been answered by then is a failure."""
        try:
            for _ in range(min(AT_ONCE, len(self._clients))):
                self._start_thread()
            self._wait(self._seconds)
        finally:
            with self._changed:
                self._over = True
                stops = list(self._stops.values())
            for stop in stops:
                stop()
        if stops:
            self._wait(GRACE_SECONDS)
        with self._changed:
            for server in self._clients.keys() - self.lists.keys() - self.failures.keys():
                late = f"The MCP server {server!r} was not asked, or has not answered, within {self._seconds:g} s."
                self.failures[server] = TimeoutError(late)

    def _start_thread(self) -> None:
        with self._changed:
            self._threads += 1
        try:
            threading.Thread(target=self._work, name="mcp-tools", daemon=True).start()
        except RuntimeError:  # the system has no thread left: those that there are do it all
            with self._changed:
                self._threads -= 1

    def _work(self) -> None:
        try:
            while (next_one := self._next()) is not None:
                self._ask(*next_one)
        finally:
            with self._changed:
                self._threads -= 1
                self._changed.notify_all()

    def _next(self) -> tuple[str, MCPClient] | None:
        with self._changed:
            return None if self._over or not self._waiting else self._waiting.popleft()

    def _ask(self, server: str, client: MCPClient) -> None:
        listed: list[Document] | None = None
        failure: Exception | None = None
        try:
            listed = client.list_tools(self._on_stop)
        except Exception as error:
            failure = error
        with self._changed:
            if self._over:
                return
            if listed is not None:
                self.lists[server] = listed
            elif failure is not None:
                self.failures[server] = failure

    def _on_stop(self, stop: Callable[[], None]) -> Callable[[], None]:
        key = object()
        with self._changed:
            self._stops[key] = stop
            over = self._over
        if over:
            stop()

        def forget() -> None:
            with self._changed, suppress(KeyError):
                del self._stops[key]

        return forget

    def _wait(self, seconds: float) -> None:
        give_up = monotonic() + seconds
        with self._changed:
            while self._threads and (left := give_up - monotonic()) > 0:
                self._changed.wait(left)
