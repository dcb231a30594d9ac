"""Pure: exchanges of the Anthropic Messages API.

Events: https://platform.claude.com/docs/en/build-with-claude/streaming. Usage arrives in ``message_start``,
and in one or more ``message_delta`` events whose counts are cumulative; ``message_stop`` is the last word;
``error`` may come at any time. Content comes in blocks, each begun, continued and stopped under its index.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from flask_aibridge.bridge.intercept.content import (
    MAX_OPEN,
    Budget,
    dicts,
    json_text,
    last_user_text,
    name_of,
)
from flask_aibridge.bridge.intercept.documents import Document, member, parse_document
from flask_aibridge.bridge.intercept.failures import failure
from flask_aibridge.bridge.intercept.usage import ANTHROPIC
from flask_aibridge.bridge.intercept.vocabulary import Item, Thought, ToolCall, ToolKind
from flask_aibridge.bridge.intercept.wire_format import WireFormat
from flask_aibridge.bridge.sse import Event

_TOOLS: Final[dict[str, ToolKind]] = {
    "tool_use": "client",
    "server_tool_use": "server",
    "mcp_tool_use": "server",
}
"""Blocks by which the model calls a tool, and who runs it."""

_UNREAD: Final = frozenset({"ping", "content_block_start", "content_block_delta", "content_block_stop"})
"""Events that say nothing about tokens or the end: they are most of a stream."""


class Messages(WireFormat):
    """One exchange of ``/v1/messages``."""

    counting = ANTHROPIC
    ping = b'event: ping\ndata: {"type": "ping"}\n\n'

    def __init__(self, request: Document | None = None, *, content: bool = True) -> None:
        super().__init__(request, content=content)
        self._blocks: dict[int, _Block] = {}

    def read_event(self, event: Event) -> Iterable[Item]:
        """Read one event. Its type is taken from the data: servers of other makes may leave ``event:``
        out."""
        name, data = event
        if self._over or (name in _UNREAD and not self._is_content(name, data)):
            return ()
        if name == "message" and b'"text_delta"' in data:
            return ()
        return self._read(parse_document(data) or {}, name)

    def error_event(self, message: str, interception_id: str, last: bytes) -> bytes:
        """Return an ``error`` event, of the type that says that another attempt may succeed."""
        error = {"type": "overloaded_error", "message": message}
        document = {"type": "error", "error": error, "request_id": interception_id}
        return b"event: error\ndata: %s\n\n" % json.dumps(document).encode()

    def _is_content(self, name: str, data: bytes) -> bool:
        """Whether a block's event is part of a tool call or a thought. Texts are relayed unparsed: within a string the
        quotes would be escaped, so a model that writes these words does not match."""
        if not self._content:
            return False
        if name == "content_block_delta":
            return b'input_json_delta"' in data or b'"thinking_delta"' in data
        if name == "content_block_start":
            return b'tool_use"' in data or b'"thinking"' in data
        return name == "content_block_stop" and bool(self._blocks)

    def _read(self, document: Document, name: str) -> Iterator[Item]:
        match document.get("type"):
            case "message_start":
                yield from self._read_message(member(document, "message"))
            case "message_delta":
                self._read_reason(member(document, "delta"))
                self._usage.update(document.get("usage"))
            case "message_stop":
                yield from self._end()
            case "error":
                yield failure(document.get("error"))
            case "content_block_start" if self._content:
                self._start(document)
            case "content_block_delta" if self._content:
                self._continue(document)
            case "content_block_stop" if self._content:
                yield from self._stop(document)
            case None if name == "error":
                yield failure(document.get("error") or document)

    def _prompt_of(self, request: Document) -> str | None:
        return last_user_text(request.get("messages"))

    def _read_document(self, document: Document) -> Iterator[Item]:
        if document.get("type") == "error" or document.get("error") is not None:
            yield failure(document.get("error"))
        self._read_reason(document)
        yield from self._read_message(document)
        if self._content:
            for block in dicts(document.get("content")):
                yield from _Block(block, self._budget).said(self._message_id)

    def _read_message(self, message: Document) -> Iterator[Item]:
        yield from self._introduce(message.get("id"))
        self._usage.update(message.get("usage"))

    def _read_reason(self, document: Document) -> None:
        self._finish_reason = name_of(document.get("stop_reason")) or self._finish_reason

    def _start(self, document: Document) -> None:
        index = document.get("index")
        if isinstance(index, int) and len(self._blocks) < MAX_OPEN:
            block = _Block(member(document, "content_block"), self._budget)
            if block.kind or block.thinks:
                self._blocks[index] = block

    def _continue(self, document: Document) -> None:
        block = self._block(document)
        if block is not None:
            block.add(member(document, "delta"))

    def _stop(self, document: Document) -> Iterator[Item]:
        block = self._block(document)
        if block is not None:
            del self._blocks[document["index"]]
            yield from block.said(self._message_id)

    def _block(self, document: Document) -> _Block | None:
        index = document.get("index")
        return self._blocks.get(index) if isinstance(index, int) else None

    def _open_content(self, *, whole: bool) -> Iterator[Item]:
        """What has no stop: the last block of an answer that ran out of tokens, or broke off."""
        blocks, self._blocks = self._blocks, {}
        for block in blocks.values():
            if whole or block.kind is None:
                yield from block.said(self._message_id)


class _Block:
    """One content block. ``kind`` says who runs the tool that it calls, null where it calls none."""

    def __init__(self, document: Document, budget: Budget) -> None:
        kind = document.get("type")
        self.kind = _TOOLS.get(kind) if isinstance(kind, str) else None
        self.thinks = kind == "thinking"
        self._document: dict[str, Any] = document if self.kind else {}
        self._text = budget.text()
        if self.thinks:
            self._text.add(document.get("thinking"))

    def add(self, delta: Document) -> None:
        """Take the next piece; signatures say nothing."""
        if self.kind:
            self._text.add(delta.get("partial_json"))
        elif self.thinks:
            self._text.add(delta.get("thinking"))

    def said(self, message_id: str) -> Iterator[Item]:
        """What the block means, as far as it has come."""
        if self.kind:
            block = self._document
            yield ToolCall(
                name_of(block.get("name")) or "",
                # Without a single piece the input is what the block began with: an empty object, or a whole one.
                str(self._text) or json_text(block.get("input", {})),
                call_id=name_of(block.get("id")),
                kind=self.kind,
                message_id=message_id,
            )
        elif self._text:
            yield Thought(str(self._text), "thinking")
