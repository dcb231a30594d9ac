"""Providers whose every byte a test decides."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from types import TracebackType

from tests.bridge.wsgi import DEADLINE

JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Frame ``data`` as one chunk; the empty one ends the body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def answering(answers: Iterable[tuple[int, str, bytes]]) -> Callable[[Peer], None]:
    """A script that answers each request with the next of these: status, media type and body."""
    left = list(answers)

    def script(peer: Peer) -> None:
        while peer.read_request():
            status, kind, body = left.pop(0)
            head = f"HTTP/1.1 {status} OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            peer.send(head.encode() + body)

    return script


class Peer:
    """One accepted connection: reads requests, sends what it is told to."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(DEADLINE)
        self.connection = connection
        self._file = connection.makefile("rb")
        self.requests: list[tuple[bytes, bytes]] = []

    def read_request(self) -> bool:
        """Read one request; false if the client has gone."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self._file.readline()
            if not line:
                return False
            head += line
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        self.requests.append((head, self._file.read(int(lengths[0].split(b":")[1]) if lengths else 0)))
        return True

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def is_gone(self) -> bool:
        """Wait for the client to close the connection."""
        return self._file.read(1) == b""

    def close(self) -> None:
        self._file.close()
        self.connection.close()


class ScriptedUpstream:
    """A TCP server that runs ``script`` with each connection, in a thread of its own, until the ``with`` block ends."""

    def __init__(self, script: Callable[[Peer], None], tls: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._accepting = threading.Thread(target=self._accept)
        self._serving: list[threading.Thread] = []
        self.peers: list[Peer] = []
        self.base_url = f"http{'s' if tls else ''}://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> ScriptedUpstream:
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(DEADLINE)
        self._listener.close()
        for thread in self._serving:
            thread.join(DEADLINE)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
                if self._tls is not None:
                    connection = self._tls.wrap_socket(connection, server_side=True)
            except OSError:
                return
            peer = Peer(connection)
            self.peers.append(peer)
            thread = threading.Thread(target=self._serve, args=(peer,))
            self._serving.append(thread)
            thread.start()

    def _serve(self, peer: Peer) -> None:
        try:
            self._script(peer)
        except OSError:
            pass  # the bridge closed the connection, as some tests want
        finally:
            peer.close()
