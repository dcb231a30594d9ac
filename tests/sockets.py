"""Requests whose body comes over a socket, as gunicorn hands them to an app."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from tests.bridge.wsgi import DEADLINE


class Input:
    """``wsgi.input`` over a socket: reads until it has as much as was asked for, as gunicorn's does."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            piece = self._connection.recv(size - len(self._buffer))
            if not piece:
                break
            self._buffer += piece
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken


class SocketRequest:
    """A request whose body comes as its client sends it."""

    def __init__(self, length: int = 100, *, gives_socket: bool = True) -> None:
        self.client, self.server = socket.socketpair()
        self.client.settimeout(DEADLINE)
        self.environ: dict[str, Any] = {
            "CONTENT_LENGTH": str(length),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.input": Input(self.server),
        }
        if gives_socket:
            self.environ["gunicorn.socket"] = self.server

    def close(self) -> None:
        self.client.close()
        self.server.close()


def of_gunicorn(connection: socket.socket, length: int | None) -> Any:
    """``wsgi.input`` as gunicorn has it, of a body in chunks where it has no length."""
    body = pytest.importorskip("gunicorn.http.body")
    unreader = pytest.importorskip("gunicorn.http.unreader").SocketUnreader(connection)
    reader = body.ChunkedReader(SimpleNamespace(), unreader)
    return body.Body(reader if length is None else body.LengthReader(unreader, length))
