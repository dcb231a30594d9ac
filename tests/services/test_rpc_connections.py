"""Connections are used again, and a call is sent once more only where nothing of it had been sent."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from flask_aibridge.errors import ServicesUnavailable, Unauthorized
from flask_aibridge.services.rpc.client import Client
from tests.services.messages import START
from tests.services.rpc_fakes import SHARED_KEY

pytestmark = pytest.mark.usefixtures("no_leaks")


def test_a_server_that_is_not_there() -> None:
    """One attempt, and one more, for idempotent calls; without the URL or a key in the message."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        pool = _CountingPool()
        client = Client(pool, url, shared_key=SHARED_KEY)
        with pytest.raises(ServicesUnavailable, match=r"^services\.admit: .*\(NewConnectionError\)") as away:
            client.admit(START, None)
        assert away.value.not_asked
        assert pool.connections == 2
        pool.connections = 0
        with pytest.raises(ServicesUnavailable):
            client.mcp_configurator.mcp_access_tokens("ada", ["git"])
        assert pool.connections == 1
        client.close()


def test_a_connection_is_used_again_but_not_by_a_forked_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes on one connection would read each other's answers. An error's answer is read to its end, too."""
    with _keeping_alive() as (url, connections):
        client = Client(urllib3.PoolManager(), url)
        for _ in range(3):
            with pytest.raises(Unauthorized):
                client.admit(START, None)
            client.recorder.maintain()
        assert len(connections) == 1
        monkeypatch.setattr("flask_aibridge.services.rpc.client.os.getpid", lambda: -1)
        for _ in range(3):
            client.recorder.maintain()
        assert len(connections) == 2
        client.close()


@contextlib.contextmanager
def _keeping_alive() -> Iterator[tuple[str, list[Any]]]:
    """A server that keeps connections open, with a list of those it had."""
    connections: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            connections.append(self.request)
            super().setup()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            ok = self.path.endswith("maintain")
            body = b'{"result":null}' if ok else b'{"error":{"class":"Unauthorized","reason":"expired"}}'
            self.send_response(200 if ok else 403)
            self.send_header("AIBridge-RPC-Version", "1.0")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", connections
        server.shutdown()
        thread.join()


class _CountingPool(urllib3.PoolManager):
    """Counts attempts to connect."""

    connections = 0

    def __init__(self) -> None:
        super().__init__()
        outer = self

        class Connection(urllib3.connection.HTTPConnection):
            def connect(self) -> None:
                outer.connections += 1
                super().connect()

        class Pool(urllib3.HTTPConnectionPool):
            ConnectionCls = Connection

        self.pool_classes_by_scheme = {"http": Pool}


def test_a_connection_that_breaks_after_sending_is_not_tried_again() -> None:
    """Whether the call was made is not known then."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted = 0

        def accept() -> None:
            nonlocal accepted
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                accepted += 1
                with connection:
                    connection.recv(65536)

        thread = threading.Thread(target=accept)
        thread.start()
        client = Client(urllib3.PoolManager(), f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(ServicesUnavailable) as away:
            client.admit(START, None)
        assert not away.value.not_asked
        assert accepted == 1
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(20)
    client.close()
