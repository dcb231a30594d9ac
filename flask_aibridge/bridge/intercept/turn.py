"""Pure: the machines that follow one answer, whatever its wire format.

There are two, as there are two ways to answer: ``StreamingTurn`` for server-sent events and ``BlockingTurn`` for one
JSON document; a ``WireFormat`` tells them what the documents and events of one API mean. Both relay every byte they
are fed before they say what they found in it; both can be fed in any pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from flask_aibridge.bridge.intercept.documents import parse_document
from flask_aibridge.bridge.intercept.failures import INVALID_RESPONSE
from flask_aibridge.bridge.intercept.vocabulary import Ended, Failed, Item, Relay
from flask_aibridge.bridge.intercept.wire_format import WireFormat
from flask_aibridge.bridge.sse import SSEParser

MAX_PARSED_ANSWER: Final = 8 * 1024 * 1024
"""The largest JSON answer that is kept to be parsed. Larger ones (embeddings by the thousand, images) are
relayed unread, so that a worker never holds more than this for the sake of a record."""


class Turn(Protocol):
    """One answer on its way: bytes in, vocabulary out. It is over with ``finish`` or ``cut``, whichever is first."""

    def feed(self, data: bytes) -> Iterator[Item]:
        """Take the next bytes of the answer."""

    def finish(self) -> Iterator[Item]:
        """Take the end of the answer's bytes, which came as the transfer protocol promised."""

    def cut(self) -> Iterator[Item]:
        """Take that no more bytes will come, though the answer may not be whole: say what is known of it."""


class StreamingTurn:
    """Follows an answer of server-sent events."""

    def __init__(self, wire_format: WireFormat, parser: SSEParser | None = None) -> None:
        self._format = wire_format
        self._parser = parser or SSEParser()
        self._withholder = wire_format.withholder()

    def feed(self, data: bytes) -> Iterator[Item]:
        """Relay ``data``, then say what the events that it completed mean."""
        passing = data if self._withholder is None else self._withholder.feed(data)
        if passing:
            yield Relay(passing)
        if self._parser.is_plain(data):
            if not self._format.has_begun:
                first = data.find(b"\n\n") + 2
                yield from self._read(data[:first])
                data = data[first:]
            # What one look at all of these events can tell need not be looked for in each.
            data = data[self._format.silent(data) :]
        if data:
            yield from self._read(data)

    def finish(self) -> Iterator[Item]:
        """Read what was left without its blank line; an event too large to follow leaves the end unknown:
        ended."""
        yield from self._rest()
        for event in self._parser.finish():
            yield from self._format.read_event(event)
        if self._parser.overflowed:
            yield from self._format.cut()
            yield Ended()
        else:
            yield from self._format.read_end()

    def cut(self) -> Iterator[Item]:
        """Relay what was held back, and say what is known."""
        yield from self._rest()
        yield from self._format.cut()

    def _read(self, data: bytes) -> Iterator[Item]:
        for event in self._parser.feed(data):
            yield from self._format.read_event(event)

    def _rest(self) -> Iterator[Item]:
        rest = b"" if self._withholder is None else self._withholder.rest()
        if rest:
            yield Relay(rest)


class BlockingTurn:
    """Follows an answer of one JSON document, of which it keeps up to ``limit`` bytes to read at the end."""

    def __init__(self, wire_format: WireFormat, limit: int = MAX_PARSED_ANSWER) -> None:
        self._format = wire_format
        self._limit = limit
        self._size = 0
        self._kept: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[Item]:
        """Relay ``data`` and keep it."""
        self._size += len(data)
        if self._size <= self._limit:
            self._kept.append(data)
        else:
            self._kept.clear()
        if data:
            yield Relay(data)

    def finish(self) -> Iterator[Item]:
        """Say what the whole document means. One that broke off is not whole, though the connection ended well: an
        answer without a length may end anywhere. What never was a document is the provider's failure."""
        if self._size > self._limit:
            yield from self._format.cut()
            yield Ended()
            return
        body = b"".join(self._kept)
        document = parse_document(body)
        if document is not None:
            yield from self._format.read_document(document)
            return
        if not body.lstrip().startswith(b"{"):
            yield Failed(INVALID_RESPONSE, "the answer is no JSON object")
        yield from self._format.cut()

    def cut(self) -> Iterator[Item]:
        """Half a document says nothing."""
        return self._format.cut()


class UnreadTurn:
    """Relays an answer that nothing is to be learned from; what is known without it is said at its end."""

    def __init__(self, wire_format: WireFormat | None = None) -> None:
        self._format = wire_format

    def feed(self, data: bytes) -> Iterator[Item]:
        """Relay ``data``."""
        if data:
            yield Relay(data)

    def finish(self) -> Iterator[Item]:
        """Say that the answer is whole."""
        yield from self.cut()
        yield Ended()

    def cut(self) -> Iterator[Item]:
        """Say what the request alone tells."""
        if self._format is not None:
            yield from self._format.cut()
