"""Pure: the machine that follows one answer, for every wire format.

A ``WireFormat`` knows what the documents and events of one API mean; a turn feeds it. There are two turns, as
there are two ways to answer: ``StreamingTurn`` for server-sent events and ``BlockingTurn`` for one JSON
document. Both relay every byte they are fed, unchanged, before they say what they found in it; both can be
fed in any pieces.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeAlias

from flask_aibridge.bridge.intercept.vocabulary import Ended, Failed, Item, Relay
from flask_aibridge.bridge.sse import Event, SSEParser

MAX_PARSED_ANSWER = 8 * 1024 * 1024
"""The largest JSON answer that is kept to be parsed. Larger ones (embeddings by the thousand, images) are
relayed unread, so that a worker never holds more than this for the sake of a record."""

MAX_WORDS = 200
"""Characters of a provider's error message that are kept: enough to know it by, too few to carry a prompt."""

Document: TypeAlias = dict[str, Any]


class WireFormat(ABC):
    """What the answers of one API mean. It holds the state of one answer, so it serves one answer only."""

    @abstractmethod
    def read_document(self, document: Document) -> Iterable[Item]:
        """Say what a whole JSON answer means."""

    @abstractmethod
    def read_event(self, event: Event) -> Iterable[Item]:
        """Say what one server-sent event means."""

    def read_end(self) -> Iterable[Item]:
        """Say what the end of the stream means, where the events have not said it."""
        return ()


class Turn(Protocol):
    """One answer on its way: bytes in, vocabulary out."""

    def feed(self, data: bytes) -> Iterator[Item]:
        """Take the next bytes of the answer."""

    def finish(self) -> Iterator[Item]:
        """Take the end of the answer's bytes, which came as the transfer protocol promised."""


class StreamingTurn:
    """Follows an answer of server-sent events."""

    def __init__(self, wire_format: WireFormat, parser: SSEParser | None = None) -> None:
        self._format = wire_format
        self._parser = parser or SSEParser()

    def feed(self, data: bytes) -> Iterator[Item]:
        """Relay ``data``, then say what the events that it completed mean."""
        yield Relay(data)
        for event in self._parser.feed(data):
            yield from self._format.read_event(event)

    def finish(self) -> Iterator[Item]:
        """Read what was left without its blank line; an event too large to follow leaves the end unknown:
        ended."""
        for event in self._parser.finish():
            yield from self._format.read_event(event)
        yield from self._format.read_end()
        if self._parser.overflowed:
            yield Ended()


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
        yield Relay(data)

    def finish(self) -> Iterator[Item]:
        """Say what the whole document means."""
        document = parse_document(b"".join(self._kept))
        if document is not None:
            yield from self._format.read_document(document)
        yield Ended()


class UnreadTurn:
    """Relays an answer that nothing is to be learned from."""

    def feed(self, data: bytes) -> Iterator[Item]:
        """Relay ``data``."""
        yield Relay(data)

    def finish(self) -> Iterator[Item]:
        """Say that the answer is whole."""
        yield Ended()


def parse_document(data: bytes) -> Document | None:
    """Parse a JSON object; null for anything else, however broken."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def member(document: Document, name: str) -> Document:
    """Return the object under ``name``, or an empty one where there is none."""
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def failure(error: object) -> Failed:
    """Describe the error object that both OpenAI and Anthropic put under ``error``."""
    if not isinstance(error, dict):
        return Failed("error", str(error)[:MAX_WORDS])
    kind = error.get("type") or error.get("code") or "error"
    return Failed(str(kind)[:MAX_WORDS], str(error.get("message") or "")[:MAX_WORDS])
