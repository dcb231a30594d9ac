"""Any WSGI app on a loopback port, for as long as a ``with`` block lasts."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from flask_aibridge.testing.stand_in import StandInProvider

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

SHUTDOWN_SECONDS = 5.0
"""How long the end of the ``with`` block waits for requests still running, whose connections have been cut by
then."""

_POLL_SECONDS = 0.02

App = TypeVar("App", bound="WSGIApplication")


class Served(Generic[App]):
    """An app that is being served: where, and the app itself (``stand_in``, whatever it is)."""

    def __init__(self, base_url: str, stand_in: App) -> None:
        self.base_url = base_url
        self.stand_in = stand_in


@overload
def serve_stand_in(stand_in: None = None) -> contextlib.AbstractContextManager[Served[StandInProvider]]: ...
@overload
def serve_stand_in(stand_in: App) -> contextlib.AbstractContextManager[Served[App]]: ...
def serve_stand_in(stand_in: Any = None) -> contextlib.AbstractContextManager[Served[Any]]:
    """Serve ``stand_in``, a ``StandInProvider`` by default or any other WSGI app, at a free port of
    127.0.0.1.

    The object given has ``.base_url`` (``http://127.0.0.1:<port>``) and ``.stand_in``. Each connection has a
    daemon thread of its own, and each piece of a body is sent as soon as the app yields it. At the end of the
    block connections that are still open are cut, and their threads waited for, for five seconds at most.
    """
    return _serving(StandInProvider() if stand_in is None else stand_in)


@contextlib.contextmanager
def _serving(app: Any) -> Iterator[Served[Any]]:
    server = _Server("127.0.0.1", 0, app, _Handler)
    thread = threading.Thread(
        target=server.serve_forever, args=(_POLL_SECONDS,), name="stand-in", daemon=True
    )
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{server.port}", app)
    finally:
        server.shutdown()
        thread.join(SHUTDOWN_SECONDS)
        server.server_close()
        server.cut_connections()


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # for chunked bodies, whose end shows whether they are whole
    disable_nagle_algorithm = True

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Keep quiet: the stand-in's own record is for assertions, and stderr belongs to the program."""

    def connection_dropped(self, error: BaseException, environ: Any = None) -> None:
        """Take it that the client left; the app's iterable is closed all the same."""


class _Server(ThreadedWSGIServer):
    """Keeps account of its connections, so that none outlives it."""

    def __init__(self, *args: Any) -> None:
        self._open: dict[socket.socket, threading.Thread] = {}
        self._open_lock = threading.Lock()
        super().__init__(*args)

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Keep quiet: an app that raises on purpose drops its connection, and that is all there is to see."""

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection."""
        with self._open_lock:
            self._open[request] = threading.current_thread()
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._open_lock:
                del self._open[request]

    def cut_connections(self) -> None:
        """Cut what is still open and wait for its threads."""
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        with self._open_lock:
            running = dict(self._open)
        for connection in running:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in running.values():
            thread.join(max(deadline - time.monotonic(), 0))
