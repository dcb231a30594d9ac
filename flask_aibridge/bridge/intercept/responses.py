"""Pure: exchanges of the OpenAI Responses API.

Events: https://platform.openai.com/docs/api-reference/responses-streaming. Usage is part of the response
object, which is complete in the terminal events ``response.completed``, ``response.incomplete`` and
``response.failed``; a bare ``error`` event ends a stream as well. An output item is complete in
``response.output_item.done``, so the deltas before it need no reading.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from flask_aibridge.bridge.intercept.content import Budget, dicts, json_text, name_of, texts
from flask_aibridge.bridge.intercept.documents import Document, member, parse_document
from flask_aibridge.bridge.intercept.failures import failure
from flask_aibridge.bridge.intercept.usage import OPENAI_RESPONSES
from flask_aibridge.bridge.intercept.vocabulary import Item, Thought, ThoughtSource, ToolCall, ToolKind
from flask_aibridge.bridge.intercept.wire_format import WireFormat
from flask_aibridge.bridge.sse import Event

_TERMINAL: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
_CREATED: Final = "response.created"
_DONE: Final = "response.output_item.done"

_READ: Final = re.compile(
    rb'"type"\s*:\s*"(?:response\.(?:created|completed|incomplete|failed|output_item\.done)|error)"'
)
"""What is read of a stream that names no events."""

_WITH_ID: Final = re.compile(rb'"response"\s*:\s*\{\s*"id"\s*:\s*"([^"\\]{1,256})"')
"""``response.created`` repeats the whole request, instructions and tools; all that is wanted of it stands in front."""

_NUMBER: Final = re.compile(rb'"sequence_number"\s*:\s*(\d{1,18})')

MAX_ITEMS: Final = 1000
"""Output items of one answer that are told apart. Agents' answers have a few dozen."""


class _Tool(NamedTuple):
    """How an output item calls a tool: the tool's name, where the item does not have it, the member with the arguments,
    and who runs it."""

    name: str | None
    arguments: str
    kind: ToolKind = "server"


_TOOLS: Final[dict[str, _Tool]] = {
    "function_call": _Tool(None, "arguments", "client"),
    "custom_tool_call": _Tool(None, "input", "client"),
    "local_shell_call": _Tool("local_shell", "action", "client"),
    "shell_call": _Tool("shell", "action", "client"),
    "apply_patch_call": _Tool("apply_patch", "operation", "client"),
    "computer_call": _Tool("computer", "action", "client"),
    "mcp_call": _Tool(None, "arguments"),
    "web_search_call": _Tool("web_search", "action"),
    "file_search_call": _Tool("file_search", "queries"),
    "code_interpreter_call": _Tool("code_interpreter", "code"),
    "image_generation_call": _Tool("image_generation", "revised_prompt"),
}


class Responses(WireFormat):
    """One exchange of ``/v1/responses``."""

    counting = OPENAI_RESPONSES

    def __init__(self, request: Document | None = None, *, content: bool = True) -> None:
        super().__init__(request, content=content)
        self._seen: set[str | int] = set()

    def read_event(self, event: Event) -> Iterable[Item]:
        """Read one event. Its type is taken from the data where the stream names no events."""
        name, data = event
        if self._over:
            return ()
        if name == _CREATED:
            return self._read_created(data)
        if name in _TERMINAL or name == "error" or (name == _DONE and self._content):
            return self._read(parse_document(data) or {}, name)
        if name == "message" and _READ.search(data):
            return self._read(parse_document(data) or {}, name)
        return ()

    def error_event(self, message: str, interception_id: str, last: bytes) -> bytes:
        """Return a bare ``error`` event, numbered after the last one that went out."""
        numbers = _NUMBER.findall(last)
        number = int(numbers[-1]) + 1 if numbers else 0
        error = {"code": "server_error", "message": message, "param": None, "sequence_number": number}
        return b"event: error\ndata: %s\n\n" % json.dumps({"type": "error"} | error).encode()

    def _read_created(self, data: bytes) -> Iterator[Item]:
        found = _WITH_ID.search(data)
        if found is not None:
            yield from self._introduce(found[1].decode("utf-8", "replace"))

    def _read(self, document: Document, name: str) -> Iterator[Item]:
        kind = document.get("type")
        if isinstance(kind, str) and kind in _TERMINAL:
            yield from self._read_document(member(document, "response"))
            yield from self._end()
        elif kind == _DONE:
            yield from self._read_item(member(document, "item"), document.get("output_index"))
        elif kind == _CREATED:
            yield from self._introduce(member(document, "response").get("id"))
        elif kind == "error" or name == "error":
            # The API puts code and message at the top of the event; others wrap them as HTTP errors do.
            yield failure(document.get("error") or {**document, "type": document.get("code")})

    def _prompt_of(self, request: Document) -> str | None:
        asked = request.get("input")
        if isinstance(asked, str):
            return asked
        last = asked[-1] if isinstance(asked, list) and asked else None
        if not isinstance(last, dict) or last.get("role") != "user":
            return None
        content = last.get("content")
        return content if isinstance(content, str) else "\n".join(texts(content, "input_text"))

    def _read_document(self, document: Document) -> Iterator[Item]:
        """Read a response object, or an error document."""
        yield from self._introduce(document.get("id"))
        if document.get("error") is not None:
            yield failure(document["error"])
        self._usage.update(document.get("usage"))
        details = member(document, "incomplete_details")
        self._finish_reason = name_of(details.get("reason")) or name_of(document.get("status"))
        for index, item in enumerate(dicts(document.get("output"))):
            yield from self._read_item(item, index)

    def _read_item(self, item: Document, index: object) -> Iterator[Item]:
        """Read an output item, once: the response object repeats those that came as events."""
        if not self._content or len(self._seen) >= MAX_ITEMS:
            return
        place = index if isinstance(index, int) else len(self._seen)
        key = name_of(item.get("id")) or name_of(item.get("call_id")) or place
        if key in self._seen:
            return
        self._seen.add(key)
        kind = item.get("type")
        tool = _TOOLS.get(kind) if isinstance(kind, str) else None
        if tool is not None:
            yield _call(item, tool, self._message_id)
        else:
            yield from _thoughts(item, self._budget)


class Compaction(Responses):
    """One exchange of ``/v1/responses/compact``, by which agents have a history summed up. The tokens count; the user
    has said nothing new."""

    def _prompt_of(self, request: Document) -> str | None:
        return None


def _call(item: Document, tool: _Tool, message_id: str) -> ToolCall:
    arguments: Any = item.get(tool.arguments)
    return ToolCall(
        name_of(item.get("name")) or tool.name or "",
        "" if arguments is None else json_text(arguments),
        call_id=name_of(item.get("call_id")),
        item_id=name_of(item.get("id")),
        kind=tool.kind,
        message_id=message_id,
    )


def _thoughts(item: Document, budget: Budget) -> Iterator[Thought]:
    """Summaries of reasoning, reasoning that is shown itself, and what an agent says between its steps."""
    found: list[tuple[str, ThoughtSource]] = []
    if item.get("type") == "reasoning":
        found += [(text, "reasoning_summary") for text in texts(item.get("summary"), "summary_text")]
        found += [(text, "thinking") for text in texts(item.get("content"), "reasoning_text")]
    elif item.get("type") == "message" and item.get("phase") == "commentary":
        found += [("".join(texts(item.get("content"), "output_text")), "commentary")]
    for text, source in found:
        thought = budget.text()
        thought.add(text)
        if thought:
            yield Thought(str(thought), source)
