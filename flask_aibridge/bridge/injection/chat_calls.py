"""Pure: one round of a Chat Completions stream: what the model says, and which of its calls are whose.

Calls come in fragments. Not every server numbers them from zero, one by one, or at all, and not every one gives each
an id: https://platform.openai.com/docs/api-reference/chat-streaming says what OpenAI's own does.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from flask_aibridge.bridge.injection.tools import InjectedCall
from flask_aibridge.bridge.intercept.content import dicts, name_of
from flask_aibridge.bridge.intercept.documents import Document, member

MAX_MESSAGE: Final = 4 * 1024 * 1024
"""Characters of a round's message that are kept to be sent with the next request; the longest outputs of models are a
tenth of that. Of a message that is longer nothing is sent, and no call is run."""

MAX_CALLS: Final = 256
"""Calls of one message that are told apart. One at a time is what the model was told; further ones are a server gone
wrong, and pass as they come."""

CALLED: Final = frozenset({"tool_calls", "function_call"})
"""Why a message ends that only calls tools."""

_RUNNABLE: Final = CALLED | {"stop"}
"""Why a message ends whose calls are whole. Some servers say ``stop`` of any; ``length`` cuts arguments short, and
after ``content_filter`` nothing is to be run."""

_BESIDE: Final = frozenset({"role", "content", "tool_calls"})


def is_runnable(reason: object) -> bool:
    """Whether the calls of a message that ended for ``reason`` may be run."""
    return reason in _RUNNABLE if isinstance(reason, str) else False


def function_of(call: object) -> str | None:
    """The name of the function that ``call``, or its first fragment, is about; null for any other."""
    return name_of(member(call, "function").get("name")) if isinstance(call, dict) else None


def as_sent_back(message: Mapping[str, Any], calls: list[Document]) -> Document:
    """The model's message as the next request has it: as received, without the members that say nothing, and with
    ``calls``. Of speech the request takes the id alone."""
    sent = {"role": "assistant", "content": message.get("content")}
    sent |= {name: value for name, value in _said(message.items()) if name not in _BESIDE}
    audio = sent.pop("audio", None)
    if isinstance(audio, dict) and audio.get("id"):
        sent["audio"] = {"id": audio["id"]}
    return sent | {"tool_calls": calls}


def completed(call: Mapping[str, Any], made_up_id: str) -> Document:
    """A call as it is sent back: with an id, and with arguments."""
    function = member(dict(call), "function")
    arguments = function.get("arguments")
    sent = {name: value for name, value in call.items() if name != "index" and value is not None}
    sent["id"] = call_id if isinstance(call_id := call.get("id"), str) and call_id else made_up_id
    sent["type"] = sent.get("type") or "function"
    sent["function"] = function | {"arguments": "{}" if arguments in (None, "") else arguments}
    return sent


def as_pending(call: Document, message_id: str) -> InjectedCall:
    """What is to be run for a call that is complete."""
    function = call["function"]
    arguments = function["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return InjectedCall(call["id"], function["name"], text, message_id)


class Round:
    """What is known of one round's stream.

    :param injected: the names of the tools of the bridge's.
    """

    def __init__(self, injected: Collection[str]) -> None:
        self.reason: str | None = None
        self.failed = False
        self.usage: Document | None = None
        self.is_too_long = False
        self._injected = injected
        self._room = MAX_MESSAGE
        self._texts: dict[str, io.StringIO] = {}
        self._others: dict[str, Any] = {}
        self._open: dict[int, _Call] = {}
        self._calls: list[_Call] = []
        self._next = 0

    @property
    def has_injected(self) -> bool:
        """Whether the model has called a tool of the bridge's."""
        return any(call.is_injected for call in self._calls)

    @property
    def has_callers(self) -> bool:
        """Whether the model has called a tool of the caller's."""
        return any(call.is_injected is False for call in self._calls) or "function_call" in self._others

    @property
    def is_runnable(self) -> bool:
        """Whether all that the model has called is to be run, and can be."""
        whole = is_runnable(self.reason) and not (self.failed or self.is_too_long)
        return (
            whole
            and bool(self._calls)
            and all(call.is_injected for call in self._calls)
            and not self.has_callers
        )

    def hear(self, delta: Document) -> None:
        """Take the next piece of the message, but for its calls."""
        for name, value in delta.items():
            if value is None or name in ("role", "tool_calls"):
                continue
            if isinstance(value, str):
                if self._takes(len(value)):
                    self._texts.setdefault(name, io.StringIO()).write(value)
            elif self._takes(len(json.dumps(value))):
                known = self._others.setdefault(name, [] if isinstance(value, list) else {})
                if isinstance(value, list) and isinstance(known, list):
                    known.extend(value)
                elif isinstance(value, dict) and isinstance(known, dict):
                    known.update(_said(value.items()))
                else:
                    self._others[name] = value

    def sort(self, fragments: list[Any]) -> list[Any]:
        """Take the next fragments of calls; return those of the caller's, numbered as though there were no others."""
        kept: list[Any] = []
        position = 0
        for fragment in fragments:
            if not isinstance(fragment, dict):
                kept.append(fragment)
                continue
            given = fragment.get("index")
            index = position if given is None else given
            position += 1
            call = self._call(index, fragment) if isinstance(index, int) else None
            if call is None:
                kept.append(fragment)
            else:
                kept += self._sorted(call, index, fragment)
        return kept

    def calls(self, made_up_id: str) -> list[Document]:
        """The calls of the bridge's tools, as they are sent back."""
        injected = [call for call in self._calls if call.is_injected]
        return [completed(call.whole(), f"{made_up_id}_{at}") for at, call in enumerate(injected)]

    def message(self, calls: list[Document]) -> Document:
        """The whole message with ``calls``, as it is sent back."""
        texts = {name: text.getvalue() for name, text in self._texts.items()}
        return as_sent_back(self._others | texts, calls)

    def _call(self, index: int, fragment: Document) -> _Call | None:
        call = self._open.get(index)
        if call is not None and not call.is_another(fragment):
            return call
        if len(self._calls) >= MAX_CALLS:
            return None
        call = self._open[index] = _Call(fragment)
        self._calls.append(call)
        return call

    def _sorted(self, call: _Call, index: int, fragment: Document) -> Iterator[Document]:
        """Take a fragment; return what the caller gets of its call. Some servers tell the name later than the id: until
        then nobody knows whose the call is."""
        waiting: list[Document] = []
        if call.is_injected is None:
            name = function_of(fragment)
            if not name:
                if self._takes(call.size_of(fragment)):
                    call.waiting.append(fragment)
                return
            waiting, call.waiting = call.waiting, []
            number = self._next if self.has_injected else index
            call.decide(name, is_injected=name in self._injected, number=number)
            if not call.is_injected:
                self._next = max(self._next, number + 1)
        for each in (*waiting, fragment):
            if not call.is_injected:
                yield each if call.number == index else each | {"index": call.number}
            elif self._takes(call.size_of(each)):
                call.add(each)

    def _takes(self, size: int) -> bool:
        self._room -= size
        self.is_too_long = self.is_too_long or self._room < 0
        return not self.is_too_long


class _Call:
    """One call. Only of one of the bridge's what it says is kept; ``waiting`` is what came before its name."""

    def __init__(self, first: Document) -> None:
        self.is_injected: bool | None = None
        self.number = 0
        self.waiting: list[Document] = []
        self._id = name_of(first.get("id"))
        self._name: str | None = None
        self._arguments = io.StringIO()
        self._whole: Document = {}

    def decide(self, name: str, *, is_injected: bool, number: int) -> None:
        """Take whose call it is, and which number it has for the caller."""
        self._name, self.is_injected, self.number = name, is_injected, number

    def is_another(self, fragment: Document) -> bool:
        """Whether a fragment of the same index begins another call: some servers number all of them 0."""
        call_id, name = name_of(fragment.get("id")), function_of(fragment)
        if call_id is not None and self._id is not None:
            return call_id != self._id
        return name is not None and self._name is not None and name != self._name

    def size_of(self, fragment: Document) -> int:
        """How much of the room for a message a fragment takes."""
        arguments = member(fragment, "function").get("arguments")
        if self._whole and isinstance(arguments, str):
            return len(arguments)
        return len(json.dumps(fragment))

    def add(self, fragment: Document) -> None:
        """Take the next fragment. A signature, or whatever else a server puts beside the function, is kept."""
        self._id = self._id or name_of(fragment.get("id"))
        function = member(fragment, "function")
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            self._arguments.write(arguments)
            function = _without(function, ("arguments",))
        merged = member(self._whole, "function") | dict(_said(function.items()))
        self._whole |= dict(_said(fragment.items()))
        self._whole["function"] = merged

    def whole(self) -> Document:
        """The call, as far as it has come."""
        text = self._arguments.getvalue()
        function = member(self._whole, "function") | {"name": self._name}
        return self._whole | {"function": function | ({"arguments": text} if text else {})}


def _said(members: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in members if value not in (None, "", [], {}))


def _without(document: Document, names: Collection[str]) -> Document:
    return {name: value for name, value in document.items() if name not in names}


def injected_among(calls: object, injected: Collection[str]) -> list[Document]:
    """Those of a whole message's ``calls`` that are of the bridge's tools."""
    return [call for call in dicts(calls) if function_of(call) in injected]
