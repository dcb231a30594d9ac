"""Pure: a stream of server-sent events as whole blocks of bytes, each an event with the blank line that ends it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from flask_aibridge.bridge.sse import Event, parse_block

MAX_BLOCK: Final = 8 * 1024 * 1024
"""Bytes of one event that are held until its end arrives; the largest real ones are pictures of some MiB. One that is
longer passes as it comes, unread."""

_END: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
"""A blank line, by any of the three line ends."""

_LONGEST_END: Final = 4


class Blocks:
    """Cuts one stream into blocks. Joined, they are its bytes, whatever pieces it came in."""

    def __init__(self) -> None:
        self._held = b""
        self._passes = False  # the event under way is too long to be held

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes; return what is whole now. A piece of an event that is too long is a block, too, which
        :func:`event_of` cannot read."""
        seen = max(len(self._held) - _LONGEST_END + 1, 0)
        data = self._held + data
        start = 0
        for match in _END.finditer(data, seen):
            if match.end() == len(data) and data.endswith(b"\r"):
                break  # a line feed may still belong to it
            block, start = data[start : match.end()], match.end()
            self._passes = False
            yield block
        rest = data[start:]
        self._passes = self._passes or len(rest) > MAX_BLOCK
        keep = min(len(rest), _LONGEST_END - 1) if self._passes else len(rest)
        self._held = rest[len(rest) - keep :]
        if len(rest) > keep:
            yield rest[: len(rest) - keep]

    def rest(self) -> bytes:
        """What was held of an event that has no end."""
        held, self._held = self._held, b""
        return held


def event_of(block: bytes) -> Event | None:
    """The event of a block; null for comments alone and for what is none."""
    return parse_block(block.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
