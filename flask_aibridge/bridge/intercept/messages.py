"""Pure: answers of the Anthropic Messages API.

Events: https://platform.claude.com/docs/en/build-with-claude/streaming. Usage arrives in ``message_start``,
and in one or more ``message_delta`` events whose counts are cumulative; ``message_stop`` is the last word;
``error`` may come at any time.
"""

from __future__ import annotations

from collections.abc import Iterator

from flask_aibridge.bridge.intercept.turn import Document, WireFormat, failure, member, parse_document
from flask_aibridge.bridge.intercept.usage import ANTHROPIC, UsageMerge
from flask_aibridge.bridge.intercept.vocabulary import Ended, Item, Usage
from flask_aibridge.bridge.sse import Event

_UNREAD = frozenset({"content_block_start", "content_block_delta", "content_block_stop", "ping"})
"""Events that say nothing about tokens or the end: they are most of a stream and are not parsed."""


class Messages(WireFormat):
    """One answer of ``/v1/messages``."""

    def __init__(self) -> None:
        self._usage = UsageMerge(ANTHROPIC)

    def read_document(self, document: Document) -> Iterator[Item]:
        """Read a message, or an error document."""
        if document.get("type") == "error":
            yield failure(document.get("error"))
        yield from self._read_usage(document)

    def read_event(self, event: Event) -> Iterator[Item]:
        """Read one event. Its type is taken from the data: servers of other makes may leave ``event:``
        out."""
        if event.name in _UNREAD:
            return
        document = parse_document(event.data) or {}
        match document.get("type"):
            case "message_start":
                yield from self._read_usage(member(document, "message"))
            case "message_delta":
                yield from self._read_usage(document)
            case "message_stop":
                yield Ended()
            case "error":
                yield failure(document.get("error"))

    def _read_usage(self, document: Document) -> Iterator[Item]:
        tokens = self._usage.update(document.get("usage"))
        if tokens is not None:
            yield Usage(tokens)
