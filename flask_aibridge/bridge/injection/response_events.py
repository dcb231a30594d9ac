"""Pure: response objects of the OpenAI Responses API, and their events, of which some are not for the caller.

What is kept stays byte for byte. Items: https://platform.openai.com/docs/api-reference/responses/object. Events:
https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from flask_aibridge.bridge.injection.blocks import event_of
from flask_aibridge.bridge.intercept.documents import Document, member, parse_document
from flask_aibridge.bridge.intercept.responses import MAX_ITEMS
from flask_aibridge.bridge.intercept.splice import elements, is_utf8, with_member, with_value
from flask_aibridge.bridge.intercept.splice import member as span_of

TERMINAL: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
ADDED: Final = "response.output_item.added"
DONE: Final = "response.output_item.done"

_TELLING: Final = re.compile(rb"response\.(?:completed|incomplete|failed|output_item)")
"""What is in every event by which an item or the response begins or ends."""

_MAX_NUMBER: Final = 2**63
"""Counts above it are none, and are not added up: Python refuses to write very long ones."""

_MAX_DEPTH: Final = 8
"""Levels of a usage object that are added up; the provider's has two."""


class OutputItem(NamedTuple):
    """One item of a response, as it was written and as it was read; the latter is empty where it is no object."""

    text: bytes
    document: Document


class Response(NamedTuple):
    """A response object, as it was written and as it was read."""

    text: bytes
    document: Document

    @property
    def items(self) -> list[OutputItem]:
        """What is in ``output``."""
        span = span_of(self.text, "output")
        output = self.document.get("output")
        if span is None or not isinstance(output, list):
            return []
        text = self.text[span.start : span.end]
        return [
            OutputItem(text[at.start : at.end], item if isinstance(item, dict) else {})
            for at, item in zip(elements(text), output, strict=True)
        ]

    def with_output(self, items: Iterable[OutputItem]) -> Response:
        """The same with other items."""
        text = with_member(self.text, "output", b"[%s]" % b",".join(item.text for item in items))
        return self._replace(text=text)

    def with_usage(self, usage: Document) -> Response:
        """The same with another usage; with its own where JSON has no words for that, or it is nested beyond reason."""
        try:
            text = json.dumps(usage, separators=(",", ":"), allow_nan=False).encode()
        except (ValueError, RecursionError):
            return self
        return self._replace(text=with_member(self.text, "usage", text))


class ResponseEvent(NamedTuple):
    """One event: its type, its data as they were written and as they were read, and the block that it came in."""

    kind: str
    data: bytes
    document: Document
    block: bytes

    @property
    def response(self) -> Response | None:
        """The response object that it holds."""
        inner, span = self.document.get("response"), span_of(self.data, "response")
        if span is None or not isinstance(inner, dict):
            return None
        return Response(self.data[span.start : span.end], inner)

    @property
    def item(self) -> OutputItem:
        """The output item that it holds."""
        span = span_of(self.data, "item")
        text = b"" if span is None else self.data[span.start : span.end]
        return OutputItem(text, member(self.document, "item"))

    @property
    def output_index(self) -> int | None:
        """To which item it belongs."""
        index = self.document.get("output_index")
        return index if isinstance(index, int) and not isinstance(index, bool) else None

    def with_member(self, name: str, value: bytes) -> bytes:
        """Its block, with ``value`` for a member that it has."""
        span = span_of(self.data, name)
        return self.block if span is None else _with_data(self.block, with_value(self.data, span, value))


def read(block: bytes) -> ResponseEvent | None:
    """Read an event; null for what is none or cannot be read. Its type is taken from the data, or is its name."""
    event = event_of(block)
    if event is None or not is_utf8(event.data):
        return None
    document = parse_document(event.data)
    if document is None:
        return None
    kind = document.get("type")
    return ResponseEvent(kind if isinstance(kind, str) else event.name, event.data, document, block)


class Sieve:
    """Takes items out of one stream, as if they had never been in it: their events go, and those of later items count
    without them.

    ``sequence_number`` stays, with gaps: it says in which order events come, and is what a stored response is read on
    by (``starting_after``), which only the provider's own numbers can do.

    :param is_unwanted: whether an item goes.
    :param finished: what is to be in the place of a terminal event's response object.
    """

    def __init__(
        self, is_unwanted: Callable[[Document], bool], finished: Callable[[Response], Response]
    ) -> None:
        self._is_unwanted = is_unwanted
        self._finished = finished
        self.gone: dict[int, Document] = {}
        """The items that went, under their index; ``MAX_ITEMS`` at most."""

    def passed(self, block: bytes) -> bytes:
        """What passes of a block: all of it, with another number or response in it, or nothing."""
        if not (_TELLING.search(block) or (self.gone and b"output_index" in block)):
            return block
        event = read(block)
        if event is None:
            return block
        if event.kind in TERMINAL:
            return self._terminal(event)
        index = event.output_index
        if index is None:
            return block
        if event.kind in (ADDED, DONE) and self._goes(index, event.item.document):
            self.gone[index] = event.item.document
        if index in self.gone:
            return b""
        before = sum(each < index for each in self.gone)
        return event.with_member("output_index", b"%d" % (index - before)) if before else block

    def _goes(self, index: int, item: Document) -> bool:
        return (index in self.gone or len(self.gone) < MAX_ITEMS) and self._is_unwanted(item)

    def _terminal(self, event: ResponseEvent) -> bytes:
        response = event.response
        if response is None:
            return event.block
        finished = self._finished(response)
        return event.block if finished is response else event.with_member("response", finished.text)


def word(document: Document, name: str) -> str:
    """A member that is text; empty where it is something else."""
    value = document.get(name)
    return value if isinstance(value, str) else ""


def added(one: Mapping[str, Any], other: Mapping[str, Any], depth: int = 1) -> Document:
    """Two usage objects as one: numbers are summed up, of anything else the second has the last word."""
    total: Document = {**one}
    for name, value in other.items():
        before = one.get(name)
        if isinstance(value, Mapping):
            if depth < _MAX_DEPTH:
                total[name] = added(before if isinstance(before, Mapping) else {}, value, depth + 1)
        elif _is_number(before) and _is_number(value):
            total[name] = before + value
        elif value is not None or name not in total:
            total[name] = value
    return total


def _is_number(value: object) -> bool:
    """Whether it can be added up: a count, or what the tokens cost where a server says that."""
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and -_MAX_NUMBER < value < _MAX_NUMBER
    )


def _with_data(block: bytes, data: bytes) -> bytes:
    """A block with other data; its other lines stay."""
    lines: list[bytes] = []
    is_said = False
    for line in block.splitlines(keepends=True):
        if line.startswith(b"data:") and not is_said:
            end = line[len(line.rstrip(b"\r\n")) :]
            lines.append((end or b"\n").join(b"data: " + each for each in data.split(b"\n")) + end)
            is_said = True
        elif not line.startswith(b"data:"):
            lines.append(line)
    return b"".join(lines)
