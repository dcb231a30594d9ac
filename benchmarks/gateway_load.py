"""The client of the benchmark: raw HTTP/1.1 over one kept connection, as cheap as can be."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

from canned_provider import FAST_MODEL, LONG_MODEL, MODEL

SECONDS = 30.0
"""How long an answer may take."""

PROMPT = "Please look at the failing test and say why it fails. " * 4


def body_of(model: str = MODEL, *, stream: bool = False) -> bytes:
    """A request's body."""
    document: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": PROMPT}]}
    return json.dumps(document | ({"stream": True} if stream else {})).encode()


BLOCKING = body_of()
STREAMING = body_of(stream=True)
LONG_STREAMING = body_of(LONG_MODEL, stream=True)
FAST_STREAMING = body_of(FAST_MODEL, stream=True)


@dataclass(frozen=True)
class Target:
    """Where requests go, and with what."""

    host: str
    port: int
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def at(self, port: int) -> Target:
        """The same elsewhere."""
        return replace(self, port=port)


class Client:
    """One connection. ``ask`` returns the seconds to the whole answer."""

    def __init__(self, target: Target) -> None:
        headers = {
            "Host": f"{target.host}:{target.port}",
            "User-Agent": "OpenAI/Python 3.0.0",
            "Accept": "application/json",
            "Content-Type": "application/json",
            **target.headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._head = f"POST {target.path} HTTP/1.1\r\n{lines}".encode()
        self._socket = socket.create_connection((target.host, target.port), SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, body: bytes) -> float:
        """Send a request and read its answer."""
        message = b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body)
        began = perf_counter()
        self._socket.sendall(message)
        received = b""
        while not _is_whole(received):
            data = self._socket.recv(262144)
            if not data:
                raise RuntimeError(f"the answer broke off: {received[-300:]!r}")
            received += data
        took = perf_counter() - began
        if not received.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the answer is {received[:600]!r}")
        return took

    def close(self) -> None:
        self._socket.close()


def _is_whole(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    head = head.lower()
    _, found, length = head.partition(b"\r\ncontent-length:")
    if found:
        return len(body) >= int(length.partition(b"\r\n")[0])
    return body.endswith(b"0\r\n\r\n") and b"[DONE]" in body[-200:]
