"""Pure: injected tools in exchanges of the OpenAI Chat Completions API.

The caller of a stream reads the text of all rounds, one after the other, as it arrives; of a document it gets the last
round's, with the text of all. https://platform.openai.com/docs/guides/function-calling
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from flask_aibridge.bridge.injection.chat_answer import WovenAnswer, with_written
from flask_aibridge.bridge.injection.chat_calls import (
    CALLED,
    MAX_MESSAGE,
    as_pending,
    as_sent_back,
    completed,
    injected_among,
    is_runnable,
)
from flask_aibridge.bridge.injection.chat_requests import (
    named,
    takes_tools,
    with_choice,
    with_one_call_at_a_time,
    with_results,
    with_tools,
    written,
)
from flask_aibridge.bridge.injection.chat_stream import WovenStream
from flask_aibridge.bridge.injection.tools import InjectedCall, InjectedTool, ToolResult
from flask_aibridge.bridge.injection.weaver import Weaver
from flask_aibridge.bridge.intercept.documents import Document, member, parse_document
from flask_aibridge.bridge.intercept.splice import is_utf8

_TEXTS: Final = ("content", "reasoning_content", "reasoning")
"""Members of a message that are joined over all rounds."""


class ChatCompletionsWeaver(Weaver):
    """One request to ``/v1/chat/completions``."""

    def __init__(self, request: Document, tools: Sequence[InjectedTool]) -> None:
        super().__init__(request, tools)
        mine = set(self._tools) - named(request)
        self._injected = mine if self.can_weave(request) else set()
        self._body = b""
        self._message = b""
        self._number = 0
        self._last = False
        self._answer = WovenAnswer()
        self._stream = WovenStream(self._answer, self._injected)
        self._usage: Document | None = None
        self._earlier: list[Document] = []

    @classmethod
    def can_weave(cls, request: Document) -> bool:
        """False for several choices, for a caller who says which tools may be called, and for what will be refused."""
        return takes_tools(request)

    def first_request(self, body: bytes) -> bytes:
        """The caller's body with the tools behind its own."""
        if not is_utf8(body):
            self._injected.clear()
        if self._injected:
            body = with_tools(body, [self._tools[name] for name in self._tools if name in self._injected])
            body = with_one_call_at_a_time(body, self._request)
        self._body = body
        return body

    def next_request(self, results: Sequence[ToolResult], *, last: bool) -> bytes:
        """The round's body with the model's message and the ``results`` at the end of the messages."""
        body = with_results(self._body, self._message, self.pending, results)
        if last:
            body = with_choice(body, "none")
        self._body, self._message, self.pending = body, b"", ()
        self._last = last
        self._number += 1
        return body

    def take_document(self, body: bytes) -> bytes | None:
        """Take a completion."""
        document = parse_document(body) if self._injected else None
        if document is None:
            return body
        self._answer.identify(document)
        try:
            text = body if is_utf8(body) else written(document)
            given = self._taken(text, document)
        except RecursionError:  # it can be read, but not be written again
            return body
        return body if given == text else given

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of a stream."""
        return self._stream.feed(data) if self._injected else data

    def finish(self) -> bytes:
        """Take the end of a stream."""
        if not self._injected:
            return b""
        given = self._stream.finish(runs=not self._last)
        calls = self._stream.round.calls(self._made_up_id)
        if self._stream.goes_on:
            self._pend(self._stream.round.message(calls), calls)
            self._stream.next_round()
        else:
            self.dropped += self._as_pending(calls)
        return given

    @property
    def _made_up_id(self) -> str:
        """What ids begin with that a server has left out."""
        return f"call_{self._number}"

    def _taken(self, body: bytes, document: Document) -> bytes | None:
        choice = _only_choice(document)
        message = member(choice, "message")
        calls = injected_among(message.get("tool_calls"), self._injected)
        if not calls:
            return self._merged(body, document, choice)
        complete = [completed(call, f"{self._made_up_id}_{at}") for at, call in enumerate(calls)]
        if len(body) > MAX_MESSAGE or not self._runs(choice, calls):
            self.dropped += self._as_pending(complete)
            return self._merged(body, document, _without_calls(choice, calls))
        self._pend(as_sent_back(message, complete), complete)
        self._earlier.append({name: message.get(name) for name in _TEXTS})
        self._answer.next_round(usage if isinstance(usage := document.get("usage"), dict) else None)
        return None

    def _runs(self, choice: Document, calls: list[Document]) -> bool:
        message, reason = member(choice, "message"), choice.get("finish_reason")
        is_alone = len(message["tool_calls"]) == len(calls) and not message.get("function_call")
        return is_alone and not self._last and (reason in (None, "") or is_runnable(reason))

    def _pend(self, message: Document, calls: list[Document]) -> None:
        self._message = written(message)
        self.pending = self._as_pending(calls)

    def _as_pending(self, calls: list[Document]) -> tuple[InjectedCall, ...]:
        return tuple(as_pending(call, self._answer.message_id) for call in calls)

    def _merged(self, body: bytes, document: Document, choice: Document) -> bytes:
        """``body``, that of ``document``, as the one answer, with ``choice`` in it."""
        message = member(choice, "message")
        if message:
            choice = choice | {"message": message | self._joined(message)}
        text = self._answer.edited(body, document)
        if not self._answer.is_first and not isinstance(document.get("usage"), dict):
            total = self._answer.total(None)
            text = text if total is None else with_written(text, "usage", total)
        return with_written(text, "choices", [choice]) if choice != _only_choice(document) else text

    def _joined(self, message: Document) -> Document:
        """The texts of all rounds."""
        joined = {}
        for name in _TEXTS:
            earlier = [each[name] for each in self._earlier if each.get(name)]
            if earlier:
                joined[name] = _together([*earlier, message.get(name)])
        return joined


def _only_choice(document: Document) -> Document:
    choices = document.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        return {}
    return choices[0]


def _without_calls(choice: Document, calls: list[Document]) -> Document:
    """``choice`` without ``calls``, which it ends no more for where there are no others."""
    message: Document = dict(choice["message"])
    message["tool_calls"] = [
        call for call in message["tool_calls"] if not any(call is each for each in calls)
    ]
    if message["tool_calls"]:
        return choice | {"message": message}
    del message["tool_calls"]
    is_over = choice.get("finish_reason") in CALLED
    return choice | {"message": message} | ({"finish_reason": "stop"} if is_over else {})


def _together(texts: list[Any]) -> Any:
    """Texts, joined. Some servers give a list of parts in the place of a text."""
    if all(isinstance(text, str) or text is None for text in texts):
        return "".join(text for text in texts if text)
    parts: list[Any] = []
    for text in texts:
        if isinstance(text, list):
            parts.extend(text)
        elif text:
            parts.append({"type": "text", "text": text})
    return parts
