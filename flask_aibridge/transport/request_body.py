"""``wsgi.input``: the request body as the app reads it.

A body of bytes is an in-memory file. A streamed one (a file, a generator) is fed through a bounded channel by
the caller, in its own thread, while the app reads: as over a socket, and with no more memory than a socket's
buffers.
"""

from __future__ import annotations

import errno
import io
from typing import Any

from .pipe import Channel, ReaderGone

__all__ = ["InMemoryInput", "StreamedInput"]


def _over() -> ConnectionResetError:
    return ConnectionResetError(
        errno.ECONNRESET, "The exchange is over; its request body can no longer be read."
    )


class _OverInput(io.BytesIO):
    """What :class:`InMemoryInput` turns into, by its class: nothing is checked while it is in use."""

    __slots__ = ()

    def _refuse(self, *_: Any) -> Any:
        raise _over()

    read = read1 = readinto = readline = readlines = __next__ = _refuse

    def poison(self) -> None:
        """Already over."""


class InMemoryInput(io.BytesIO):
    """A request body that was complete from the start."""

    __slots__ = ()

    def poison(self) -> None:
        """Fail every later read, as a server's closed connection would."""
        self.__class__ = _OverInput  # type: ignore[assignment]


class StreamedInput(io.RawIOBase):
    """A request body that arrives while it is read. An end by error fails the read that reaches it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._over = False

    def poison(self) -> None:
        """Fail every later read, wake one that waits, and let the sender stop."""
        self._over = True
        self._channel.abandon()

    def readable(self) -> bool:
        """True, as for every input."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """``size`` bytes or, at the end, fewer; everything for -1. Waits for them."""
        if size is None or size < 0:
            return b"".join(iter(self._next_part, b""))
        parts: list[bytes] = []
        while size > 0 and (part := self._next_part(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def read1(self, size: int = -1, /) -> bytes:
        """What has arrived, at most ``size`` bytes; waits for the first of it."""
        return b"" if size == 0 else self._next_part(None if size < 0 else size)

    def readinto(self, buffer: Any, /) -> int:
        """Fill ``buffer`` with what has arrived; waits for the first of it."""
        part = self._next_part(len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def readline(self, size: int | None = -1, /) -> bytes:
        """The next line with its newline, at most ``size`` bytes of it."""
        limit = -1 if size is None else size
        parts: list[bytes] = []
        while limit != 0 and (part := self._next_line_part(limit)):
            parts.append(part)
            limit -= len(part) if limit > 0 else 0
            if part.endswith(b"\n"):
                break
        return b"".join(parts)

    def readlines(self, hint: int | None = None, /) -> list[bytes]:
        """The remaining lines, or about ``hint`` bytes of them."""
        lines: list[bytes] = []
        total = 0
        while line := self.readline():
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def _next_line_part(self, limit: int) -> bytes:
        part = self._next_part(None if limit < 0 else limit)
        newline = part.find(b"\n") + 1
        if 0 < newline < len(part):
            self._channel.push_back(part[newline:])
            part = part[:newline]
        return part

    def _next_part(self, limit: int | None = None) -> bytes:
        channel = self._channel
        while True:
            if self._over:
                raise _over()
            if part := channel.take(limit):
                return part
            if channel.drained:
                if channel.error is not None and not isinstance(channel.error, ReaderGone):
                    raise ConnectionResetError(
                        errno.ECONNRESET, "The caller stopped sending its request body."
                    )
                return b""
            channel.wait(None)
