"""Pure: one round of the Anthropic Messages API: what the model said in it, and whether the answer goes on.

https://platform.claude.com/docs/en/build-with-claude/streaming for the deltas that a block is put together from.
"""

from __future__ import annotations

import io
import json
from collections.abc import Container
from typing import Final

from flask_aibridge.bridge.injection.counts import Counts
from flask_aibridge.bridge.injection.tools import InjectedCall
from flask_aibridge.bridge.intercept.content import name_of
from flask_aibridge.bridge.intercept.documents import Document, parse_document

MAX_ROUND: Final = 8 * 1024 * 1024
"""What is kept of one round's answer so that the model can be given it back, in characters or bytes. As much as the
longest answer that is read at all; the provider takes requests of up to 32 MB. A longer one has its calls dropped."""

_APPENDED: Final = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
"""The deltas that come in pieces, and the member that has the piece."""

_REPLACED: Final = {"signature_delta": ("signature",), "compaction_delta": ("content", "encrypted_content")}
"""Those that come whole, and the members of the block that they are."""


class Room:
    """How much of a round may still be kept."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, size: int) -> bool:
        """Tell whether there was room for so much."""
        self.left -= size
        return self.left >= 0


class StreamedBlock:
    """One content block, put together from its start and its deltas."""

    def __init__(self, start: Document) -> None:
        self.is_complete = False
        self._document = dict(start)
        self._texts: dict[str, io.StringIO] = {}

    def add(self, delta: Document, size: int, room: Room) -> bool:
        """Take the next piece, of ``size`` bytes as an event; unknown ones say nothing. Return whether there was room
        for it."""
        kind = delta.get("type")
        if not isinstance(kind, str):
            return True
        if kind in _APPENDED:
            name = _APPENDED[kind]
            piece = delta.get(name)
            return not isinstance(piece, str) or self._append(name, piece, room)
        if kind in _REPLACED:
            self._document |= {name: delta[name] for name in _REPLACED[kind] if name in delta}
        elif kind == "citations_delta":
            if not isinstance(self._document.get("citations"), list):
                self._document["citations"] = []
            self._document["citations"].append(delta.get("citation"))
        else:
            return True
        return room.take(size)

    @property
    def arguments(self) -> str:
        """The input of a tool's call as the model wrote it, which need not be JSON."""
        text = self._texts.get("partial_json")
        return text.getvalue() if text else json.dumps(self._input())

    def whole(self) -> Document:
        """The block as a message has it."""
        document = dict(self._document)
        for name, text in self._texts.items():
            if name == "partial_json":
                document["input"] = self._input()
            else:
                begun = document.get(name)
                document[name] = f"{begun if isinstance(begun, str) else ''}{text.getvalue()}"
        return document

    def _append(self, name: str, piece: str, room: Room) -> bool:
        if not piece:
            return True
        if not room.take(len(piece)):
            return False
        self._texts.setdefault(name, io.StringIO()).write(piece)
        return True

    def _input(self) -> Document:
        """The provider takes nothing but an object, whatever the model wrote."""
        text = self._texts.get("partial_json")
        if text is None:
            begun = self._document.get("input")
            return begun if isinstance(begun, dict) else {}
        document = parse_document(text.getvalue().encode("utf-8", "surrogatepass")) or {}
        try:
            json.dumps(document, allow_nan=False)
        except (ValueError, RecursionError):
            return {}
        return document


class Round:
    """What is known of one round.

    :param last: whether no call of it is run.
    """

    def __init__(self, tools: Container[str], *, first: bool = True, last: bool = False) -> None:
        self._tools = tools
        self._is_last = last
        self.is_first = first
        self.is_whole = False  # it came to the end that the provider gave it
        self.is_unfit = False  # not all of it could be read, or kept
        self.message_id = ""
        self.stop_reason: str | None = None
        self.counts: Counts = {}
        self.has_injected = False
        self.has_others = False  # calls of the caller's tools
        self.calls: list[InjectedCall] = []
        self.content: list[bytes] = []  # as JSON text, for the next request

    def is_injected(self, block: Document) -> bool:
        """Tell whether a content block calls a tool of the bridge's, and remember whose tools were called."""
        if block.get("type") != "tool_use":
            return False
        name = block.get("name")
        injected = isinstance(name, str) and name in self._tools
        self.has_injected |= injected
        self.has_others |= not injected
        return injected

    def add_call(self, block: Document, arguments: str) -> None:
        """Remember an injected call."""
        call_id, tool = block.get("id"), str(block.get("name"))
        self.calls.append(
            InjectedCall(call_id if isinstance(call_id, str) else "", tool, arguments, self.message_id)
        )

    @property
    def goes_on(self) -> bool:
        """Whether the calls are to be run, and the model asked again. A call without an id of its own could not be
        answered."""
        ids = {call.call_id for call in self.calls}
        return (
            self.is_whole
            and self.stop_reason == "tool_use"
            and 0 < len(self.calls) == len(ids)
            and "" not in ids
            and not (self.has_others or self.is_unfit or self._is_last)
        )

    @property
    def stops_for_nothing(self) -> bool:
        """Whether the answer is said to stop for a tool, and the caller sees none."""
        return self.has_injected and not self.has_others and self.stop_reason == "tool_use"


def read_reason(found: Round, document: Document) -> None:
    """Take what a message or the delta of one says of its end."""
    found.stop_reason = name_of(document.get("stop_reason")) or found.stop_reason


def is_blank(block: Document) -> bool:
    """Tell whether the provider, who may send such a block, would refuse to be given it back: it takes no text without
    a letter in it."""
    text = block.get("text")
    return block.get("type") == "text" and isinstance(text, str) and not text.strip()
