"""Pure: what several rounds of Chat Completions have in common for the caller: one id, one time, one usage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from flask_aibridge.bridge.injection.chat_requests import written
from flask_aibridge.bridge.intercept.documents import Document
from flask_aibridge.bridge.intercept.splice import member as span_of
from flask_aibridge.bridge.intercept.splice import with_member

_LARGEST: Final = 2**63
"""No count is as large; what is says nothing, and cannot be written where it has thousands of digits."""

_LONGEST_HEAD: Final = 1024
"""Bytes of a text's beginning that are compared with the next one's."""

_DEPTH: Final = 8
"""Levels of a usage object that are added up; real ones have two."""


class WovenAnswer:
    """What the caller has been told of the answer, and what it has cost before the round that is under way."""

    def __init__(self) -> None:
        self.is_first = True
        self._shared: Document = {}
        self._earlier: Document | None = None
        self._head = (b"", b"")  # how the last edited text began, before and after

    @property
    def message_id(self) -> str:
        """The provider's id of the first round; empty where it gave none."""
        found = self._shared.get("id")
        return found if isinstance(found, str) else ""

    def identify(self, document: Document) -> None:
        """Take what the first round's first document says of itself; those without an id only lead up to it."""
        if self.is_first and not self._shared and document.get("id"):
            self._shared = {name: document[name] for name in ("id", "created", "model") if name in document}

    def edited(self, text: bytes, document: Document) -> bytes:
        """``text``, that of ``document``, as a part of the one answer."""
        if self.is_first:
            return text
        text = self._identified(text, document)
        if self._earlier is not None and isinstance(document.get("usage"), dict):
            text = with_written(text, "usage", self.total(document["usage"]))
        return text

    def _identified(self, text: bytes, document: Document) -> bytes:
        """``text`` with the id and the time of the first round. The chunks of a round begin alike, so that next to none
        has to be searched for them."""
        before, after = self._head
        if before and text.startswith(before):
            return after + text[len(before) :]
        edited, end = text, 0
        for name in ("id", "created"):
            span = span_of(text, name) if name in self._shared and document.get(name) else None
            if span is not None:
                edited, end = with_written(edited, name, self._shared[name]), max(end, span.end)
        if end < _LONGEST_HEAD:
            self._head = text[:end], edited[: len(edited) - len(text) + end]
        return edited

    def total(self, usage: Mapping[str, Any] | None) -> Document | None:
        """The usage of all rounds, of which ``usage`` is the last; null where none was reported."""
        if self._earlier is None or usage is None:
            return self._earlier if usage is None else dict(usage)
        return added(self._earlier, usage)

    def usage_chunk(self, total: Document) -> bytes:
        """An event that holds nothing but ``total``."""
        chunk = {**self._shared, "object": "chat.completion.chunk", "choices": [], "usage": total}
        return b"data: %s\n\n" % written(chunk)

    def next_round(self, usage: Mapping[str, Any] | None) -> None:
        """Go on to another round, after one that has cost ``usage``."""
        self._earlier = self.total(usage)
        self.is_first = False
        self._head = (b"", b"")


def with_written(text: bytes, name: str, value: object) -> bytes:
    """``text``, a JSON object, with ``value`` under ``name``."""
    return with_member(text, name, written(value))


def added(earlier: Mapping[str, Any], later: Mapping[str, Any], depth: int = _DEPTH) -> Document:
    """``earlier`` and ``later`` with all their numbers added up, which are counts, seconds and prices; of the rest, the
    later value stands unless it is null."""
    total = dict(earlier)
    for name, value in later.items():
        known = total.get(name)
        if isinstance(value, Mapping) and isinstance(known, Mapping) and depth > 1:
            total[name] = added(known, value, depth - 1)
        elif _is_number(value) and _is_number(known):
            total[name] = known + value
        elif value is not None or name not in total:
            total[name] = value
    return total


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < _LARGEST and math.isfinite(value)
