"""One exchange on a connection of urllib3's, without urllib3's way of making it.

Pools, TLS, timeouts and reuse are urllib3's. The request is written, and its answer read, on the connection's socket:
what urllib3 and ``http.client`` do between the two takes more than half of the CPU of a request to a provider.
"""

from __future__ import annotations

import http.client
from contextlib import suppress
from typing import Any

from flask_aibridge.bridge.heads import BadHead, Head, read_head
from flask_aibridge.bridge.received import READ_SIZE, ReceivedResponse


class _Fields(list[tuple[str, str]]):
    """Header fields, as urllib3 has them."""

    def items(self) -> list[tuple[str, str]]:
        return self


class _NoFile:
    """What ``http.client`` keeps for as long as there is a body."""

    def close(self) -> None:
        """Nothing."""

    flush = close


class DirectResponse(ReceivedResponse):
    """A response whose head was read from the socket, and whose body is. It stands for urllib3's response, too.

    :param connection: what it comes on, and ``pool`` what that is given back to.
    """

    def __init__(self, connection: Any, pool: Any, head: Head) -> None:
        self._head = head
        self.status, self.reason, self.chunked = head.status, head.reason, head.chunked
        self.headers = _Fields(head.headers)  # type: ignore[assignment]
        self.length_remaining = head.length
        self.connection = connection
        self._pool = pool
        self.fp = _NoFile()  # type: ignore[assignment]
        self._begin(connection.sock)

    @property
    def reusable(self) -> bool:
        """Whether the connection can be used again."""
        whole = self._body_left == 0 if self._dechunker is None else self._dechunker.ended
        if self._head.length == 0 and self._head.early:
            return False
        return whole and not self._excess and not self._head.closes and not self._has_more()

    def release_conn(self) -> None:
        """Give the connection back, once: closed, unless it can be used again."""
        connection, self.connection = self.connection, None
        if connection is not None:
            if not self.reusable:
                connection.close()
            self._pool._put_conn(connection)

    def _come_along(self) -> bytes:
        return self._head.early


def receive_head(sock: Any, method: str) -> Head:
    """Read the head of the answer, and what comes along with it.

    Raises ``http.client.HTTPException`` for one that is none or does not come, ``OSError`` for a broken connection.
    """
    data = b""
    while True:
        piece = sock.recv(READ_SIZE)
        if not piece:
            if data:
                raise http.client.IncompleteRead(b"")
            raise http.client.RemoteDisconnected("Remote end closed connection without response")
        data = data + piece if data else piece
        try:
            head = read_head(data, method)
        except BadHead as error:
            raise http.client.HTTPException(str(error)) from error
        if head is not None:
            return head


def send(sock: Any, head: bytes, body: bytes) -> None:
    """Send a request. A provider may answer before it has read all of it, and close: its answer is still there."""
    with suppress(BrokenPipeError, ConnectionResetError):
        # One piece, so that a small request is one packet; a large body is not copied for it.
        if len(body) <= READ_SIZE:
            sock.sendall(head + body)
        else:
            sock.sendall(head)
            sock.sendall(body)
