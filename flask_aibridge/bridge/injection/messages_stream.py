"""Pure: one round's stream of the Anthropic Messages API, relayed as a part of a longer one.

https://platform.claude.com/docs/en/build-with-claude/streaming. What the caller is to see passes event by event, as it
came where it can; an event that has to be edited is written anew around its data, in which one member changes.
"""

from __future__ import annotations

import json
from typing import Final

from flask_aibridge.bridge.injection import counts
from flask_aibridge.bridge.injection.blocks import Blocks, event_of
from flask_aibridge.bridge.injection.counts import Counts
from flask_aibridge.bridge.injection.messages_round import (
    MAX_ROUND,
    Room,
    Round,
    StreamedBlock,
    is_blank,
    read_reason,
)
from flask_aibridge.bridge.intercept.content import MAX_OPEN, name_of
from flask_aibridge.bridge.intercept.documents import Document, member, parse_document
from flask_aibridge.bridge.intercept.splice import is_utf8, with_member
from flask_aibridge.bridge.intercept.splice import member as span_of
from flask_aibridge.bridge.sse import Event, ends_event

_BOM: Final = b"\xef\xbb\xbf"

_CONTENT: Final = frozenset({"content_block_start", "content_block_delta", "content_block_stop"})

_MAX_INDEX: Final = 2**31
"""Beyond it is no index; nobody counts so many blocks."""


class RoundStream:
    """One round's stream.

    :param found: where what is found in it goes.
    :param begun: whether the caller has got the start of the answer.
    :param base: how many blocks the caller has got.
    :param spent: the usage of the rounds before.
    """

    def __init__(
        self, found: Round, *, begun: bool = False, base: int = 0, spent: Counts | None = None
    ) -> None:
        self.begun = begun
        self.top = base
        self._found = found
        self._spent = spent or {}
        self._blocks = Blocks()
        self._at_start = True
        self._in_pieces = False  # of an event that is too long to be read
        self._shift = base
        self._seen: dict[
            int, int | None
        ] = {}  # the open blocks' indices for the caller; null for withheld ones
        self._room = Room(MAX_ROUND)
        self._kept: list[StreamedBlock] = []
        self._open: dict[int, StreamedBlock] = {}
        self._injected: list[tuple[StreamedBlock, Document]] = []
        self._held: list[bytes] = []  # the end, while it may be that the answer goes on
        self._has_said_usage = False

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return what the caller gets of them."""
        return b"".join(map(self._take, self._blocks.feed(data)))

    def finish(self) -> bytes:
        """Take the end; return what is left for the caller, which is nothing where the answer goes on."""
        rest = self._blocks.rest()
        passing = b"" if self._is_trace(rest) else self._take(rest)
        if self._found.goes_on:
            return passing
        passing += self._release()
        usage = self._usage()
        gap = b"\n\n" if usage and passing and not ends_event(passing) else b""
        return passing + gap + usage

    def _is_trace(self, rest: bytes) -> bool:
        """Whether half an event, which no reader would take for one, is not to be seen: it may tell of a call, or come
        after what the provider has not sent like this."""
        event = event_of(rest)
        if not rest or (event is not None and _document(event) is not None):
            return not rest
        edited = self._found.has_injected or not self._found.is_first
        return edited or (b"content_block_start" in rest and b"tool_use" in rest)

    def _take(self, block: bytes) -> bytes:
        if self._at_start:
            self._at_start = False
            # The caller has had one, if any; in the midst of a stream it would be taken for a part of a name.
            plain = block.removeprefix(_BOM)
            block = block if self._found.is_first else plain
        else:
            plain = block
        event = None if self._in_pieces else event_of(plain)
        document = None if event is None else _document(event)
        if event is None or document is None:
            return self._take_unread(block, event)
        kind = name_of(document.get("type")) or event.name
        if kind == "error":
            self._found.is_unfit = True
            return self._release() + self._usage() + block
        if self._held and self._found.is_whole:
            return self._hold(block)
        match kind:
            case "message_start":
                return self._start_message(block, member(document, "message"))
            case "content_block_start" | "content_block_delta" | "content_block_stop":
                return self._take_content(kind, block, event, document)
            case "message_delta" | "message_stop":
                return self._take_end(kind, block, event, document)
        return block

    def _take_unread(self, block: bytes, event: Event | None) -> bytes:
        """Relay what is no event, or not one of ours; what belongs to a call that is withheld is withheld, too."""
        whole = ends_event(block)
        is_piece = self._in_pieces or not whole
        self._in_pieces = not whole
        if is_piece or (event is not None and event.name in _CONTENT):
            self._found.is_unfit = True
            if None in self._seen.values():
                return b""
        return self._hold(block) if self._held and self._found.is_whole else block

    def _start_message(self, block: bytes, message: Document) -> bytes:
        self._found.message_id = self._found.message_id or name_of(message.get("id")) or ""
        counts.update(self._found.counts, message.get("usage"))
        withheld, self.begun = self.begun and not self._found.is_first, True
        return b"" if withheld else block

    def _take_content(self, kind: str, block: bytes, event: Event, document: Document) -> bytes:
        index = document.get("index")
        if not isinstance(index, int) or not 0 <= index < _MAX_INDEX:
            self._found.is_unfit = True
            return block
        if kind == "content_block_start":
            self._start(index, member(document, "content_block"), len(event.data))
        elif index in self._open:
            self._continue(kind, index, member(document, "delta"), len(event.data))
        seen = self._seen.get(index, index + self._shift)
        if kind == "content_block_stop":
            self._seen.pop(index, None)
        if seen is None:
            return b""
        self.top = max(self.top, seen + 1)
        return block if seen == index else _edited(event, "index", b"%d" % seen)

    def _start(self, index: int, content: Document, size: int) -> None:
        started = StreamedBlock(content)
        injected = self._found.is_injected(content)
        if injected:
            self._shift -= 1
            # The caller has been told that the answer ends.
            self._found.is_unfit |= self._has_said_usage
        if len(self._seen) >= MAX_OPEN:
            del self._seen[next(iter(self._seen))]
        self._seen[index] = None if injected else index + self._shift
        self._open.pop(index, None)
        if self._has_room(len(self._open) < MAX_OPEN and self._room.take(size)):
            self._open[index] = started
            self._kept.append(started)
            if injected:
                self._injected.append((started, content))

    def _continue(self, kind: str, index: int, delta: Document, size: int) -> None:
        if kind == "content_block_stop":
            self._open.pop(index).is_complete = True
        elif not self._has_room(self._open[index].add(delta, size, self._room)):
            self._open.clear()

    def _has_room(self, room: bool) -> bool:
        if not room:
            self._found.is_unfit = True
            self._kept.clear()
        return room

    def _take_end(self, kind: str, block: bytes, event: Event, document: Document) -> bytes:
        found = self._found
        if kind == "message_delta":
            read_reason(found, member(document, "delta"))
            counts.update(found.counts, document.get("usage"))
            if found.has_injected:
                return self._hold(block)
            self._has_said_usage = True
            return self._with_sums(block, event, document)
        found.is_whole = True
        self._settle()
        if found.goes_on:
            return self._hold(block)
        return self._release() + self._usage() + block

    def _settle(self) -> None:
        """Make the calls, and what the model is given back of its own words."""
        found = self._found
        if found.calls:
            return
        for each, start in self._injected:
            if each.is_complete or found.is_whole:
                found.add_call(start, each.arguments)
            found.is_unfit |= not each.is_complete
        if found.goes_on:
            try:
                found.content = [_text(whole) for each in self._kept if not is_blank(whole := each.whole())]
            except (ValueError, RecursionError):
                found.is_unfit = True

    def _hold(self, block: bytes) -> bytes:
        self._held.append(block)
        if self._room.take(len(block)):
            return b""
        self._found.is_unfit = True
        return self._release()

    def _release(self) -> bytes:
        """What was held of the end, as the answer's own."""
        self._settle()
        held, self._held = self._held, []
        return b"".join(map(self._released, held))

    def _released(self, block: bytes) -> bytes:
        event = event_of(block)
        document = None if event is None else _document(event)
        if (
            event is None
            or document is None
            or (name_of(document.get("type")) or event.name) != "message_delta"
        ):
            return block
        self._has_said_usage = True
        if self._found.stops_for_nothing and name_of(member(document, "delta").get("stop_reason")):
            span = span_of(event.data, "delta")
            if span is not None:
                delta = with_member(event.data[span.start : span.end], "stop_reason", b'"end_turn"')
                event = event._replace(data=with_member(event.data, "delta", delta))
                block = _event(event)
        return self._with_sums(block, event, document)

    def _with_sums(self, block: bytes, event: Event, document: Document) -> bytes:
        if self._found.is_first:
            return block
        return _edited(event, "usage", counts.written(document.get("usage"), self._sums()))

    def _sums(self) -> Counts:
        return counts.added(self._spent, self._found.counts)

    def _usage(self) -> bytes:
        """An event that says the sums, where the provider's own did not come: otherwise nobody would learn what the
        rounds before have cost. The caller of a single round is told what the provider tells."""
        if self._found.is_first or self._has_said_usage or not (sums := self._sums()):
            return b""
        self._has_said_usage = True
        usage = counts.written({"output_tokens": 0}, sums)
        delta = b'{"stop_reason":null,"stop_sequence":null}'
        return _event(
            Event("message_delta", b'{"type":"message_delta","delta":%s,"usage":%s}' % (delta, usage))
        )


def _document(event: Event) -> Document | None:
    return parse_document(event.data) if is_utf8(event.data) else None


def _edited(event: Event, name: str, value: bytes) -> bytes:
    return _event(event._replace(data=with_member(event.data, name, value)))


def _event(event: Event) -> bytes:
    name = b"" if event.name == "message" else b"event: %s\n" % event.name.encode()
    lines = (b"data: %s\n" % line for line in event.data.split(b"\n"))
    return b"".join((name, *lines, b"\n"))


def _text(document: Document) -> bytes:
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
