"""A watch as the server answers it: a body of lines, one for each version, and empty objects in between."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final

from flask_aibridge.services.interfaces import Services

JOIN_SECONDS: Final = 2.0
"""How long the end of a watch waits for the thread that reads versions: it was told, and has nothing else to do."""

_ALIVE: Final = b"{}\n"


class Watch:
    """The iterable of one watch's answer.

    A thread waits for the versions; whoever iterates waits for that thread, no longer than ``keep_alive`` seconds. Only
    the newest version is kept for a reader that is slow.

    :param failed: makes the last line of what the versions raised.
    :param forget: called once, when the watch has been closed.
    """

    def __init__(
        self, keep_alive: float, failed: Callable[[Exception], str], forget: Callable[[Watch], None]
    ) -> None:
        self._keep_alive = keep_alive
        self._failed = failed
        self._forget = forget
        self._news = threading.Condition()
        self._version: int | None = None
        self._error: Exception | None = None
        self._ended = False
        self._begun = False
        self._contexts = contextlib.ExitStack()
        self._thread: threading.Thread | None = None
        self._closing = threading.Lock()

    def start(self, observed: AbstractContextManager[Any], host: Callable[[], Services]) -> None:
        """Subscribe; raises what that raises."""
        self._contexts.enter_context(observed)
        versions = self._contexts.enter_context(host().provider_configurator.watch_providers())
        self._thread = threading.Thread(
            target=self._follow, args=(versions,), name="services-watch", daemon=True
        )
        self._thread.start()

    def on_close(self, callback: Callable[[], object]) -> None:
        """Have something undone when the watch is closed."""
        self._contexts.callback(callback)

    def _follow(self, versions: Iterator[int]) -> None:
        try:
            for version in versions:
                with self._news:
                    self._version = version
                    self._news.notify_all()
        except Exception as error:
            with self._news:
                # What is raised because the context was left while waiting is nobody's concern.
                self._error = None if self._ended else error
        self.end()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """The next line. The first comes at once, so that the head goes out."""
        with self._news:
            if not self._begun:
                self._begun = True
                return _ALIVE
            self._news.wait_for(lambda: self._ended or self._version is not None, self._keep_alive)
            version, self._version = self._version, None
            if version is not None:
                return b'{"version":%d}\n' % version
            if not self._ended:
                return _ALIVE
            error, self._error = self._error, None
        if error is None:
            raise StopIteration
        return f"{self._failed(error)}\n".encode()

    def end(self) -> None:
        """Let the iteration stop; any thread, any time, and quick."""
        with self._news:
            self._ended = True
            self._news.notify_all()

    def close(self) -> None:
        """Leave the versions' context and wait for the thread; the first call does it (PEP 3333: the server's)."""
        self.end()
        if not self._closing.acquire(blocking=False):
            return
        try:
            with contextlib.suppress(Exception):  # nobody is left to tell; what matters has been ended
                self._contexts.close()
            if self._thread is not None:
                self._thread.join(JOIN_SECONDS)
        finally:
            self._forget(self)
