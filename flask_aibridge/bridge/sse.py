"""Pure: server-sent events out of bytes that arrive in any pieces.

The rules are those of the WHATWG HTML standard, section 9.2.6 "Interpreting an event stream". The parser is
on the path of every token, so it never looks at single characters: lines end by C-level searches, and a chunk
that ends no event is put aside without being joined to what came before it.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

MAX_EVENT_BYTES = 8 * 1024 * 1024
"""The largest event that is parsed. A provider that never sends a blank line must not fill the memory; 8 MiB
is above what the APIs send in one event (a base64 image of an image tool is the largest)."""

_BOM = b"\xef\xbb\xbf"

_BLANK_LINE: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))\Z")

LONGEST_END: Final = 4
"""Bytes that a blank line has at most, with the end of the line before it."""


def ends_event(tail: bytes) -> bool:
    """Tell whether a stream that has come to ``tail``, its last bytes, stands between two events."""
    return _BLANK_LINE.search(tail, max(len(tail) - LONGEST_END, 0)) is not None


class Event(NamedTuple):
    """One dispatched event. ``name`` is ``message`` where the stream gave none; ``data`` is UTF-8, its lines
    joined with LF."""

    name: str
    data: bytes


class SSEParser:
    """Turns the bytes of one stream into events.

    An event that is larger than ``max_event_bytes`` ends the parsing, for good: ``overflowed`` is then true
    and ``feed`` returns nothing more. ``id`` and ``retry`` serve reconnecting readers and are not kept.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.overflowed = False
        self._max = max_event_bytes
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._pending_lf = False
        self._after_cr = False
        self._at_start = True

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes of the stream and return the events that they complete, oldest first."""
        if self.overflowed or not data:
            return []
        if self._after_cr or b"\r" in data:
            data = self._with_lf_only(data)
            if not data:
                return []
        if b"\n\n" not in data and not (self._pending_lf and data[0] == 0x0A):
            self._hold(data)
            return []
        return self._complete(data)

    def is_plain(self, data: bytes) -> bool:
        """Tell whether the next bytes are whole events of one line each, which have no names, and nothing else."""
        return (
            not (self._pending_size or self._after_cr)
            and data.endswith(b"\n\n")
            and data.count(b"\n") == 2 * data.count(b"\n\n")
            and b"\r" not in data
            and len(data) <= self._max
        )

    def finish(self) -> list[Event]:
        """Return the event that the end of the stream completes, if any.

        A reader of the standard drops an event that no blank line ends; who keeps an account of the stream
        would rather count the usage in it, so here it is an event like any other.
        """
        if self.overflowed or not self._pending_size:
            return []
        return self._complete(b"\n\n")

    def _with_lf_only(self, data: bytes) -> bytes:
        # A CR ends its line at once; an LF right after it, in this chunk or the next, belongs to the same end.
        if self._after_cr and data[0] == 0x0A:
            data = data[1:]
        self._after_cr = data.endswith(b"\r") if data else False
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _hold(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_size += len(data)
        self._pending_lf = data[-1] == 0x0A
        if self._pending_size - self._pending_lf > self._max:
            self._overflow()

    def _complete(self, data: bytes) -> list[Event]:
        if self._pending_size:
            data = b"".join((*self._pending, data))
        self._pending, self._pending_size, self._pending_lf = [], 0, False
        *blocks, rest = data.split(b"\n\n")
        events = self._parse(blocks)
        if rest and not self.overflowed:
            self._hold(rest)
        return events

    def _parse(self, blocks: list[bytes]) -> list[Event]:
        events: list[Event] = []
        for block in blocks:
            if len(block) > self._max:
                self._overflow()
                break
            event = parse_block(block.removeprefix(_BOM) if self._at_start else block)
            self._at_start = False
            if event is not None:
                events.append(event)
        return events

    def _overflow(self) -> None:
        self.overflowed = True
        self._pending, self._pending_size = [], 0


def parse_block(block: bytes) -> Event | None:
    """Parse the lines of one event, LF between them and without the blank line; null where it has no data."""
    if block.startswith(b"data: ") and b"\n" not in block:  # as most are
        return Event("message", block[6:])
    name, data = b"", []
    for line in block.split(b"\n"):
        if line.startswith(b"data:"):
            data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line.startswith(b"event:"):
            name = line[7:] if line[6:7] == b" " else line[6:]
        elif line == b"data":
            data.append(b"")
        elif line == b"event":
            name = b""
    if not data:
        return None
    return Event(
        name.decode("utf-8", "replace") or "message", data[0] if len(data) == 1 else b"\n".join(data)
    )
