"""What a server answers, read from its socket: RESP2, of which redis-py's own reader takes longer than the server.

Specification: https://redis.io/docs/latest/develop/reference/protocol-spec/.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import redis

PIECE: Final = 64 * 1024
"""Bytes taken from the socket at a time; most answers are one piece of a few hundred."""

MAX_DEPTH: Final = 8
"""Levels of lists in an answer; those of the scripts have two. What is deeper is not Redis."""


def read_replies(sock: Any, count: int, error_of: Callable[[str], Exception]) -> list[Any]:
    """The next ``count`` replies: text, integers, null, lists of such, and exceptions by ``error_of``, as replies.

    :raises redis.ConnectionError: the server has closed the connection, or says that it cannot be used.
    :raises redis.InvalidResponse: this is not RESP2.
    :raises OSError: the socket's own, its timeout among them.
    """
    data = sock.recv(PIECE)
    if count == 1 and data[:1] == b"$":  # as most are: one text, and all of it
        head, _, rest = data.partition(b"\r\n")
        if rest[-2:] == b"\r\n" and head[1:] == b"%d" % (len(rest) - 2):
            return [_text(rest[:-2])]
    reader = _Reader(sock, data, error_of)
    replies = [reader.reply(MAX_DEPTH) for _ in range(count)]
    if reader.has_more:
        raise redis.InvalidResponse("The server said more than it was asked.")
    return replies


class _Reader:
    __slots__ = ("_at", "_data", "_error_of", "_receive")

    def __init__(self, sock: Any, data: bytes, error_of: Callable[[str], Exception]) -> None:
        self._receive = sock.recv
        self._error_of = error_of
        self._data = data
        self._at = 0

    @property
    def has_more(self) -> bool:
        return self._at < len(self._data)

    def reply(self, depth: int) -> Any:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            return self._bulk(_number(rest))
        if kind == b":":
            return _number(rest)
        if kind == b"*" and depth:
            length = _number(rest)
            return None if length < 0 else [self.reply(depth - 1) for _ in range(length)]
        if kind == b"+":
            return _text(rest)
        if kind == b"-":
            error = self._error_of(rest.decode("utf-8", "replace"))
            if isinstance(error, redis.ConnectionError):
                raise error
            return error
        raise redis.InvalidResponse("The server does not answer in RESP2.")

    def _line(self) -> bytes:
        end = self._data.find(b"\r\n", self._at)
        while end < 0:
            if len(self._data) - self._at > PIECE:
                raise redis.InvalidResponse("The server does not answer in RESP2.")
            self._more()
            end = self._data.find(b"\r\n", self._at)
        line = self._data[self._at : end]
        self._at = end + 2
        return line

    def _bulk(self, length: int) -> str | None:
        if length < 0:
            return None
        end = self._at + length
        while len(self._data) < end + 2:
            before = self._at
            self._more()
            end += self._at - before
        text = self._data[self._at : end]
        self._at = end + 2
        return _text(text)

    def _more(self) -> None:
        piece = self._receive(PIECE)
        if not piece:
            raise redis.ConnectionError("The server has closed the connection.")
        self._data = self._data[self._at :] + piece
        self._at = 0


def _number(digits: bytes) -> int:
    try:
        return int(digits)
    except ValueError:
        raise redis.InvalidResponse("The server does not answer in RESP2.") from None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
