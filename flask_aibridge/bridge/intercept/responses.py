"""Pure: answers of the OpenAI Responses API.

Events: https://platform.openai.com/docs/api-reference/responses-streaming. Usage is part of the response
object, which is complete in the terminal events ``response.completed``, ``response.incomplete`` and
``response.failed``; a bare ``error`` event ends a stream as well.
"""

from __future__ import annotations

from collections.abc import Iterator

from flask_aibridge.bridge.intercept.turn import Document, WireFormat, failure, member, parse_document
from flask_aibridge.bridge.intercept.usage import OPENAI_RESPONSES, UsageMerge
from flask_aibridge.bridge.intercept.vocabulary import Ended, Item, Usage
from flask_aibridge.bridge.sse import Event

_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})
_READ = (b'"response.completed"', b'"response.incomplete"', b'"response.failed"', b'"error"')


class Responses(WireFormat):
    """One answer of ``/v1/responses``."""

    def __init__(self) -> None:
        self._usage = UsageMerge(OPENAI_RESPONSES)

    def read_document(self, document: Document) -> Iterator[Item]:
        """Read a response object, or an error document."""
        if document.get("error") is not None:
            yield failure(document["error"])
        tokens = self._usage.update(document.get("usage"))
        if tokens is not None:
            yield Usage(tokens)

    def read_event(self, event: Event) -> Iterator[Item]:
        """Read one event. Its type is taken from the data where the stream names no events."""
        if event.name not in _TERMINAL and event.name != "error" and not _unnamed_but_read(event):
            return
        document = parse_document(event.data) or {}
        kind = document.get("type")
        if kind in _TERMINAL:
            yield from self.read_document(member(document, "response"))
            yield Ended()
        elif kind == "error" or event.name == "error":
            # The API puts code and message at the top of the event; others wrap them as HTTP errors do.
            yield failure(document.get("error") or {**document, "type": document.get("code")})


def _unnamed_but_read(event: Event) -> bool:
    return event.name == "message" and any(word in event.data for word in _READ)
