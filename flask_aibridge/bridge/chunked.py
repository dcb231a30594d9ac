"""Pure: bodies in the chunked transfer coding (RFC 9112 section 7.1), fed in pieces of any size."""

from __future__ import annotations

import re
from typing import Final

MAX_LINE: Final = 64 * 1024
"""Bytes of a chunk-size line, or of the whole trailer section. Size lines have about five, trailers are next to
unknown; it is the limit of the standard library."""

_SIZE: Final = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*)?\r?\n")
_NEXT_SIZE: Final = re.compile(rb"\r\n([0-9A-Fa-f]{1,8})\r\n")
"""The end of a chunk and the size of the next one, as nearly every server writes them."""

_TRAILER_END: Final = re.compile(rb"(?:\A|\n)\r?\n")


class BadChunk(Exception):
    """The bytes are not in the chunked coding. ``body`` is what they held before that was seen."""

    def __init__(self, message: str, body: bytes = b"") -> None:
        super().__init__(message)
        self.body = body


class Dechunker:
    """Takes the chunked coding off one body. ``at_trailer`` says that its last chunk has arrived, ``ended`` that its
    trailer has, ``excess`` that something came after that, which can only be a mistake."""

    def __init__(self) -> None:
        self.ended = False
        self.excess = False
        self._left = 0  # bytes of the chunk under way that are still to come
        self._framing = b""  # the beginning of what stands between chunks, kept until it is whole
        self._first = True
        self.at_trailer = False

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return those of the body that are among them.

        Raises ``BadChunk`` where the coding is broken; there is no going on after that.
        """
        if len(data) <= self._left:  # the middle of a large chunk
            self._left -= len(data)
            return data
        pieces, position = [data[: self._left]] if self._left else [], self._left
        self._left = 0
        if self._framing:
            data, self._framing = self._framing + data[position:], b""
            position = 0
        try:
            self._read(data, position, pieces)
        except BadChunk as error:
            error.body = b"".join(pieces)
            raise
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read(self, data: bytes, position: int, pieces: list[bytes]) -> None:
        """Read from ``position``, which stands between two chunks."""
        while not self.at_trailer:
            if not self._first:
                position = _take_whole(data, position, pieces)
            start = self._after_chunk(data, position)
            match = None if start is None else _SIZE.match(data, start)
            if match is None:
                self._hold(data[position:], start is not None and data.find(b"\n", start) >= 0)
                return
            size, position = int(match[1], 16), match.end()
            self._first = False
            if size == 0:
                self.at_trailer = True
                break
            piece = data[position : position + size]
            position += len(piece)
            if piece:
                pieces.append(piece)
            if len(piece) < size:
                self._left = size - len(piece)
                return
        self._read_trailer(data[position:])

    def _after_chunk(self, data: bytes, position: int) -> int | None:
        """Where the next size line begins: after the line end of the chunk before it, if that has arrived."""
        if self._first:
            return position
        end = data[position : position + 2]
        if end == b"\r\n":
            return position + 2
        if b"\r\n".startswith(end):
            return None
        raise BadChunk("a chunk is longer than it says")

    def _hold(self, framing: bytes, whole: bool) -> None:
        if whole:
            raise BadChunk("the size of a chunk is no number")
        if len(framing) > MAX_LINE:
            raise BadChunk("the line with the size of a chunk has no end")
        self._framing = framing

    def _read_trailer(self, data: bytes) -> None:
        if self.ended:
            self.excess = self.excess or bool(data)
            return
        end = _TRAILER_END.search(data)
        if end is not None:
            self.ended, self.excess = True, end.end() < len(data)
        elif len(data) > MAX_LINE:
            raise BadChunk("the trailer has no end")
        else:
            self._framing = data


def _take_whole(data: bytes, position: int, pieces: list[bytes]) -> int:
    """Take the chunks that are here as a whole, in the usual form, but for the last; return where the next begins."""
    while (found := _NEXT_SIZE.match(data, position)) is not None:
        start = found.end()
        end = start + int(found[1], 16)
        if end == start or end > len(data):
            break
        pieces.append(data[start:end])
        position = end
    return position
