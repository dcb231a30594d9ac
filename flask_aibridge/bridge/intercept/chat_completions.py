"""Pure: exchanges of the OpenAI Chat Completions API.

Events: https://platform.openai.com/docs/api-reference/chat-streaming. Usage arrives in a last chunk, where it was asked
for with ``stream_options.include_usage``; servers of other makes put it in any chunk, or in all of them, so the last
one that is not null counts. ``[DONE]`` is the last word. Where the caller did not ask for usage the bridge does, and
keeps the chunk that comes of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Final

from flask_aibridge.bridge.intercept.content import MAX_OPEN, Budget, dicts, last_user_text, name_of
from flask_aibridge.bridge.intercept.documents import Document, member, parse_document
from flask_aibridge.bridge.intercept.failures import failure
from flask_aibridge.bridge.intercept.splice import is_utf8, with_new_member, with_value
from flask_aibridge.bridge.intercept.splice import member as span_of
from flask_aibridge.bridge.intercept.usage import OPENAI_CHAT
from flask_aibridge.bridge.intercept.vocabulary import Item, Thought, ToolCall
from flask_aibridge.bridge.intercept.wire_format import WireFormat
from flask_aibridge.bridge.intercept.withholding import Withholder
from flask_aibridge.bridge.sse import Event

_ACCOUNT: Final = re.compile(rb'"(?:usage|error|finish_reason)"\s*:\s*[{"]')
_CONTENT: Final = re.compile(
    rb'"(?:(?:usage|error|finish_reason|function_call|reasoning(?:_content)?)"\s*:\s*[{"]|tool_calls"\s*:\s*\[)'
)
"""Only chunks in which one of these is not null are parsed. Within a string of the JSON text the quotes would
be escaped, so a model that writes these words does not match."""

_NO_CHOICES: Final = re.compile(rb'"choices"\s*:\s*\[\s*\]')

_OPTIONS: Final = "stream_options"
_ASKED: Final = "include_usage"
_ASKING: Final = b'{"include_usage":true}'


class ChatCompletions(WireFormat):
    """One exchange of ``/v1/chat/completions``."""

    counting = OPENAI_CHAT

    def __init__(self, request: Document | None = None, *, content: bool = True) -> None:
        super().__init__(request, content=content)
        request = request or {}
        self._streams = request.get("stream") is True
        self._has_options = _OPTIONS in request
        self._options: object = request.get(_OPTIONS)
        self._has_asked = False
        self.has_begun = False
        self._choices: dict[int, _Choice] = {}
        self._worth_parsing = _CONTENT if content else _ACCOUNT

    def edit_request(self, body: bytes) -> bytes:
        """Ask for usage on behalf of a caller who streams and does not ask."""
        if not self._streams or self._asks() or not is_utf8(body):
            return body
        edited = self._with_options(body) if self._has_options else with_new_member(body, _OPTIONS, _ASKING)
        self._has_asked = edited is not body
        return edited

    def _asks(self) -> bool:
        return isinstance(self._options, dict) and self._options.get(_ASKED) is True

    def _with_options(self, body: bytes) -> bytes:
        """The options that are there, completed; what is no object is the provider's to refuse."""
        span = span_of(body, _OPTIONS)
        if span is None or not (self._options is None or isinstance(self._options, dict)):
            return body
        if self._options is None:
            return with_value(body, span, _ASKING)
        options = body[span.start : span.end]
        asked = span_of(options, _ASKED)
        if asked is None:
            return with_value(body, span, with_new_member(options, _ASKED, b"true"))
        return with_value(body, span, with_value(options, asked, b"true"))

    def withholder(self) -> Withholder | None:
        """Keep the chunk without choices that holds the usage: some clients take ``choices[0]`` of every chunk."""
        return Withholder(_NO_CHOICES, _is_usage_alone) if self._has_asked else None

    def read_event(self, event: Event) -> Iterable[Item]:
        """Read one event."""
        name, data = event
        if self._over:
            return ()
        if data.startswith(b"[DONE]"):
            return self._end()
        if self.has_begun and name != "error" and not self._worth_parsing.search(data):
            return ()
        return self._read(parse_document(data), name)

    def silent(self, data: bytes) -> int:
        """Those before the first that may be worth parsing, or the last word."""
        if not self.has_begun:
            return 0
        found, done = self._worth_parsing.search(data), data.find(b"[DONE]")
        if found is None and done < 0:
            return len(data)
        end = done if found is None or 0 <= done < found.start() else found.start()
        last = data.rfind(b"\n\n", 0, end)
        return last + 2 if last >= 0 else 0

    def read_end(self) -> Iterator[Item]:
        """Take a finish reason for the end: not every server of this format sends ``[DONE]``."""
        return self._end() if self._finish_reason else self.cut()

    def error_event(self, message: str, interception_id: str, last: bytes) -> bytes:
        """Return a chunk with nothing but an error; ``[DONE]`` does not follow, since nothing is done."""
        error = {"message": message, "type": "server_error", "param": None, "code": "service_unavailable"}
        return b"data: %s\n\n" % json.dumps({"error": error}).encode()

    def _read(self, document: Document | None, name: str) -> Iterator[Item]:
        if document is None:
            return
        if name == "error":
            yield failure(document.get("error") or document)
            return
        self.has_begun = True
        yield from self._read_document(document)

    def _prompt_of(self, request: Document) -> str | None:
        return last_user_text(request.get("messages"))

    def _read_document(self, document: Document) -> Iterator[Item]:
        """Read a completion, a chunk of one, or an error document."""
        yield from self._introduce(document.get("id"))
        if document.get("error") is not None:
            yield failure(document["error"])
        elif document.get("object") == "error":  # vLLM's
            yield failure(document)
        self._usage.update(document.get("usage"))
        for position, choice in enumerate(dicts(document.get("choices"))):
            yield from self._read_choice(choice, position)

    def _read_choice(self, document: Document, position: int) -> Iterator[Item]:
        reason = name_of(document.get("finish_reason"))
        self._finish_reason = self._finish_reason or reason
        if not self._content:
            return
        index = document.get("index", position)
        choice = self._choices.get(index) if isinstance(index, int) else None
        if choice is None:
            if not isinstance(index, int) or len(self._choices) >= MAX_OPEN:
                return
            choice = self._choices[index] = _Choice(self._budget)
        choice.add(member(document, "delta") or member(document, "message"))
        if reason:
            yield from choice.said(self._message_id, whole=True)

    def _open_content(self, *, whole: bool) -> Iterator[Item]:
        for choice in self._choices.values():
            yield from choice.said(self._message_id, whole=whole)


class _Choice:
    """What one choice holds beside its text."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._thought = budget.text()
        self._calls: dict[int, _Call] = {}
        self._complete: list[_Call] = []

    def add(self, delta: Document) -> None:
        """Take the next piece, or a whole message."""
        reasoning = delta.get("reasoning_content")
        self._thought.add(delta.get("reasoning") if reasoning is None else reasoning)
        for position, fragment in enumerate(dicts(delta.get("tool_calls"))):
            index = fragment.get("index", position)
            if isinstance(index, int):
                self._add_call(index, fragment)
        if isinstance(delta.get("function_call"), dict):  # deprecated in 2023, still sent
            self._add_call(-1, {"function": delta["function_call"]})

    def said(self, message_id: str, *, whole: bool) -> Iterator[Item]:
        """What has been gathered, once; calls of tools only of a choice that is ``whole``."""
        if self._thought:
            yield Thought(str(self._thought), "thinking")
            self._thought = self._budget.text()
        calls, self._calls, self._complete = [*self._complete, *self._calls.values()], {}, []
        if whole:
            for call in calls:
                yield call.said(message_id)

    def _add_call(self, index: int, fragment: Document) -> None:
        call = self._calls.get(index)
        if call is not None and call.is_another(fragment):
            self._complete.append(self._calls.pop(index))
            call = None
        if call is None:
            if len(self._calls) + len(self._complete) >= MAX_OPEN:
                return
            call = self._calls[index] = _Call(self._budget)
        call.add(fragment)


class _Call:
    """One call of a tool, in fragments: the first has its id and name, the others go on with the arguments."""

    def __init__(self, budget: Budget) -> None:
        self._id: str | None = None
        self._name: str | None = None
        self._arguments = budget.text()

    def is_another(self, fragment: Document) -> bool:
        """Whether a fragment of the same index begins another call: some servers number all of them 0."""
        call_id = name_of(fragment.get("id"))
        return call_id is not None and self._id is not None and call_id != self._id

    def add(self, fragment: Document) -> None:
        """Take the next fragment, of a function or of a custom tool."""
        called = member(fragment, "function") or member(fragment, "custom")
        self._id = self._id or name_of(fragment.get("id"))
        self._name = self._name or name_of(called.get("name"))
        self._arguments.add(called.get("arguments"))
        self._arguments.add(called.get("input"))

    def said(self, message_id: str) -> ToolCall:
        """The call, as far as it has come."""
        return ToolCall(self._name or "", str(self._arguments), self._id, message_id=message_id)


def _is_usage_alone(event: Event) -> bool:
    document = parse_document(event.data)
    return document is not None and document.get("choices") == [] and isinstance(document.get("usage"), dict)
