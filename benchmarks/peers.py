"""What the transport is measured against: the floor of urllib3's own cost, and a server over loopback."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import urllib3
from apps import JSON_PATH, REQUEST_BODY, REQUEST_HEADERS, RESPONSE_BODY
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.response import HTTPResponse

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

GUNICORN_START = 20.0
"""Seconds that gunicorn may take to answer its first request."""

GUNICORN_STOP = 5.0
"""Seconds that gunicorn may take to end by itself once it is told to."""


class CannedConnection:
    """A urllib3 connection that has its response ready: no socket, no app, no environ, no thread.

    All that is left is what urllib3 itself does for a request, in stock classes: the floor of a transport that
    replaces the connection alone. One that also spares urllib3 some of its work can come nearer than that to it,
    or below it. It answers the methods and attributes that `HTTPConnectionPool.urlopen` uses.
    """

    default_port = 80
    default_socket_options: tuple[object, ...] = ()
    is_verified = True
    proxy = None
    proxy_is_verified = None
    has_connected_to_proxy = False

    def __init__(self, host: str, port: int | None = None, **_options: object) -> None:
        self.host = host
        self.port = port
        self.timeout: float | None = None
        self.is_closed = True
        self.is_connected = False

    def request(
        self,
        method: str,
        url: str,
        body: object = None,
        headers: object = None,
        *,
        chunked: bool = False,
        preload_content: bool = True,
        decode_content: bool = True,
        enforce_content_length: bool = True,
    ) -> None:
        """Note how the answer is wanted and who asks."""
        self.is_closed, self.is_connected = False, True
        self._asked: dict[str, Any] = {
            "request_method": method,
            "request_url": url,
            "preload_content": preload_content,
            "decode_content": decode_content,
            "enforce_content_length": enforce_content_length,
        }

    def getresponse(self) -> HTTPResponse:
        """Return a stock response over the bytes of the app's answer."""
        return HTTPResponse(
            body=io.BytesIO(RESPONSE_BODY),
            headers={"Content-Type": "application/json", "Content-Length": str(len(RESPONSE_BODY))},
            status=200,
            version=11,
            version_string="HTTP/1.1",
            reason="OK",
            **self._asked,
        )

    def close(self) -> None:
        """Forget the exchange, as a connection does whose socket is closed."""
        self.is_closed, self.is_connected = True, False


class CannedConnectionPool(HTTPConnectionPool):
    ConnectionCls = CannedConnection  # type: ignore[assignment]


def canned_pool_manager() -> urllib3.PoolManager:
    """Return a stock PoolManager whose connections are CannedConnections."""
    manager = urllib3.PoolManager()
    manager.pool_classes_by_scheme = {"http": CannedConnectionPool}
    return manager


class HandedOverTransport(httpx2.WSGITransport):
    """httpx2's own transport, run by another thread: the floor of a transport that calls the app eagerly in a thread.

    It waits for ever, has nothing to cancel, takes one request at a time and no exception. The thread is woken by a
    pipe, which lets it run while the caller gets ready to wait, and the caller by a lock.
    """

    def __init__(self, app: WSGIApplication) -> None:
        super().__init__(app)
        self._hears, self._calls = os.pipe()
        self._answered = threading.Lock()
        self._answered.acquire()
        threading.Thread(target=self._serve, daemon=True).start()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Have the thread call the app."""
        self._request = request
        os.write(self._calls, b"x")
        self._answered.acquire()
        return self._response

    def close(self) -> None:
        """End the thread."""
        os.close(self._calls)

    def _serve(self) -> None:
        with open(self._hears, "rb", buffering=0) as hears:
            while hears.read(1):
                self._response = super().handle_request(self._request)
                self._answered.release()


@contextlib.contextmanager
def gunicorn() -> Iterator[str]:
    """Serve `apps.application` with gunicorn's gthread worker on a free loopback port; yield the base URL.

    One process with threads and keep-alive, on the cores that the caller is pinned to, ended on the way out.
    The socket is bound here and handed down, so there is no port to guess and no log line to wait for.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        child = subprocess.Popen(_gunicorn_command(listener.fileno()), pass_fds=[listener.fileno()])
    try:
        _wait_until_it_answers(base_url)
        yield base_url
    finally:
        child.terminate()
        try:
            child.wait(GUNICORN_STOP)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _gunicorn_command(listener: int) -> list[str]:
    options = {
        "--bind": f"fd://{listener}",
        "--worker-class": "gthread",
        "--workers": "1",
        "--threads": "4",
        "--keep-alive": "300",
        "--graceful-timeout": "1",
        "--log-level": "warning",
        "--pythonpath": str(Path(__file__).parent),
        "--worker-tmp-dir": tempfile.gettempdir(),
    }
    flags = [part for option in options.items() for part in option]
    return [sys.executable, "-m", "gunicorn", "--no-control-socket", *flags, "apps:application"]


def _wait_until_it_answers(base_url: str) -> None:
    with urllib3.PoolManager(retries=False, timeout=GUNICORN_START) as http:
        try:
            http.request("POST", base_url + JSON_PATH, body=REQUEST_BODY, headers=REQUEST_HEADERS)
        except urllib3.exceptions.HTTPError as error:
            raise RuntimeError(
                "gunicorn does not answer: see what it printed above, and whether "
                "benchmarks/requirements.txt is installed"
            ) from error
