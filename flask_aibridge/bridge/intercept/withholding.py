"""Pure: keeping single events of a stream from a caller who did not ask for them.

All other bytes pass as they came. Only an event whose end has not arrived is held back, since its end decides; events
are sent whole, so that is next to never.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from flask_aibridge.bridge.sse import Event, parse_block

MAX_HELD: Final = 16 * 1024
"""Bytes of an event that are held back until its end arrives. What is withheld is a chunk with a few counts, below 2
KiB; a longer event is none, and passes as it comes."""

_EVENT_END: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
"""A blank line, by any of the three line ends."""

_LONGEST_END: Final = 4
_WHOLE: Final = (b"\n\n", b"\r\n\r\n")


class Withholder:
    """Takes events out of one stream.

    :param suspicious: a pattern that is in the bytes of every event that is to be withheld.
    :param is_unwanted: whether an event in which it was found is to be withheld.
    """

    def __init__(self, suspicious: re.Pattern[bytes], is_unwanted: Callable[[Event], bool]) -> None:
        self._suspicious = suspicious
        self._is_unwanted = is_unwanted
        self._held = b""
        self._passes = False  # the event under way is too long to be withheld
        self._may_end_in_lf = False  # the last event ended in a CR, to which an LF may still belong
        self._lf_passes = True

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the stream; return those that pass now."""
        plain = self._plain(data)
        if plain == len(data):
            return data
        kept: list[bytes] = [data[:plain]]
        data = data[plain:]
        if self._may_end_in_lf and data:
            self._may_end_in_lf = False
            if data[0] == 0x0A:
                kept.append(data[:1] if self._lf_passes else b"")
                data = data[1:]
        kept.extend(self._events(data))
        return b"".join(kept)

    def rest(self) -> bytes:
        """What was held back of an event that has no end."""
        held, self._held = self._held, b""
        return held

    def _plain(self, data: bytes) -> int:
        """How many of the bytes are whole events of which none is to be withheld, without a look at each of them."""
        if self._held or self._passes or self._may_end_in_lf or not data.endswith(_WHOLE):
            return 0
        found = self._suspicious.search(data)
        if found is None:
            return len(data)
        ends = [(data.rfind(end, 0, found.start()), len(end)) for end in _WHOLE]
        return max(at + length if at >= 0 else 0 for at, length in ends)

    def _events(self, data: bytes) -> Iterator[bytes]:
        seen = max(len(self._held) - _LONGEST_END + 1, 0)
        data = self._held + data
        start = 0
        for match in _EVENT_END.finditer(data, seen):
            block, start = data[start : match.end()], match.end()
            self._lf_passes = self._passes or not self._is_withheld(block)
            self._passes = False
            if self._lf_passes:
                yield block
        self._may_end_in_lf = start == len(data) and data.endswith(b"\r")
        yield self._hold(data[start:])

    def _hold(self, rest: bytes) -> bytes:
        """Hold an event's beginning back, or, of one that is too long, so much as its end may begin with."""
        self._passes = self._passes or len(rest) > MAX_HELD
        keep = min(len(rest), _LONGEST_END - 1) if self._passes else len(rest)
        self._held = rest[len(rest) - keep :]
        return rest[: len(rest) - keep]

    def _is_withheld(self, block: bytes) -> bool:
        if self._suspicious.search(block) is None:
            return False
        event = parse_block(block.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
        return event is not None and self._is_unwanted(event)
