"""An app that waits until it is cancelled."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from flask_aibridge.transport import Cancellation
from tests.transport.calls import (
    DEADLINE,
    Scripted,
    wait_for,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Blocked:
    """An app that sends ``first`` and then waits, for as long as nobody cancels it.

    ``how`` is the way in which it listens: by a callback, or by waiting for the cancellation itself.
    """

    def __init__(self, how: str, first: bytes = b"one") -> None:
        self._how = how
        self._first = first
        self.blocked = threading.Event()
        self.woken = threading.Event()
        self.ended_by: list[str] = []
        self.script: Scripted | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        cancellation: Cancellation = environ["flask_aibridge.cancellation"]
        self.script = Scripted(self._first, lambda: self._wait(cancellation), b"never read")
        return self.script(environ, start_response)

    def _wait(self, cancellation: Cancellation) -> None:
        self.blocked.set()
        if self._how == "wait":
            assert cancellation.wait(DEADLINE)
        else:
            news = threading.Event()
            take_off = cancellation.on_cancel(news.set)
            assert news.wait(DEADLINE)
            take_off()
        assert cancellation.cancelled
        self.woken.set()

    def assert_stopped(self) -> None:
        wait_for(self.woken)
        assert self.script is not None
        self.script.assert_closed_once()
