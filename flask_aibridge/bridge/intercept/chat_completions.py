"""Pure: answers of the OpenAI Chat Completions API.

Events: https://platform.openai.com/docs/api-reference/chat-streaming. Usage arrives in a last chunk, where
the caller asked for it with ``stream_options.include_usage``; servers of other makes put it in any chunk, or
in all of them, so the last one that is not null counts. ``[DONE]`` is the last word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from flask_aibridge.bridge.intercept.turn import Document, WireFormat, failure, parse_document
from flask_aibridge.bridge.intercept.usage import OPENAI_CHAT, UsageMerge
from flask_aibridge.bridge.intercept.vocabulary import Ended, Item, Usage
from flask_aibridge.bridge.sse import Event

_WORTH_PARSING = re.compile(rb'"(?:usage|error|finish_reason)"\s*:\s*[{"]')
"""Only chunks in which one of these is not null are parsed. Within a string of the JSON text the quotes would
be escaped, so a model that writes these words does not match."""


class ChatCompletions(WireFormat):
    """One answer of ``/v1/chat/completions``."""

    def __init__(self) -> None:
        self._usage = UsageMerge(OPENAI_CHAT)
        self._finished = False

    def read_document(self, document: Document) -> Iterator[Item]:
        """Read a completion, a chunk of one, or an error document."""
        if document.get("error") is not None:
            yield failure(document["error"])
        tokens = self._usage.update(document.get("usage"))
        if tokens is not None:
            yield Usage(tokens)

    def read_event(self, event: Event) -> Iterator[Item]:
        """Read one event."""
        if event.data.startswith(b"[DONE]"):
            yield Ended()
        elif event.name == "error":
            document = parse_document(event.data) or {}
            yield failure(document.get("error") or document)
        elif _WORTH_PARSING.search(event.data):
            document = parse_document(event.data) or {}
            self._finished = self._finished or _has_finish_reason(document)
            yield from self.read_document(document)

    def read_end(self) -> Iterator[Item]:
        """Take a finish reason for the end: not every server of this format sends ``[DONE]``."""
        if self._finished:
            yield Ended()


def _has_finish_reason(chunk: Document) -> bool:
    choices = chunk.get("choices")
    return isinstance(choices, list) and any(
        isinstance(one, dict) and one.get("finish_reason") for one in choices
    )
