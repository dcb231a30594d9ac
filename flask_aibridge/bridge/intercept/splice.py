"""Pure: changing one member of a JSON text and nothing else.

Request bodies go to the provider byte for byte: prompt caches, signatures over reasoning and duplicate keys depend on
what was written, not on what it means. Where a field has to change, its own characters do and no others.
"""

from __future__ import annotations

import json
import re
from typing import Final, NamedTuple

_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]:,]', re.DOTALL)
"""Strings, whole, and the characters that give JSON its structure. Numbers and literals need no reading."""

_SPACE: Final = b" \t\r\n"


class Span(NamedTuple):
    """Where in a text a value stands."""

    start: int
    end: int


def with_new_member(text: bytes, name: str, value: bytes) -> bytes:
    """``text``, a JSON object, with ``value``, JSON text, under ``name`` as its last member.

    ``text`` must be valid JSON in UTF-8 and have no such member: that is for the caller to know, who has parsed it.
    """
    end = len(text.rstrip(_SPACE)) - 1
    comma = b"" if text[:end].strip(_SPACE) == b"{" else b","
    return b"".join((text[:end], comma, json.dumps(name).encode(), b":", value, text[end:]))


def with_member(text: bytes, name: str, value: bytes) -> bytes:
    """``text``, a JSON object, with ``value``, JSON text, under ``name``: in the place of what is there, or as its last
    member."""
    span = member(text, name)
    return with_new_member(text, name, value) if span is None else with_value(text, span, value)


def with_value(text: bytes, span: Span, value: bytes) -> bytes:
    """``text`` with ``value`` in the place of ``span``."""
    return b"".join((text[: span.start], value, text[span.end :]))


def member(text: bytes, name: str) -> Span | None:
    """Where the value of the last member ``name`` of a JSON object stands, without the space around it; null where
    there is none. Members of objects within it do not count."""
    found: Span | None = None
    depth, before, key, start = 0, b"", b"", 0
    for token in _TOKEN.finditer(text):
        mark = token[0][:1]
        if depth == 1:
            if mark == b'"' and before in b"{,":
                key = token[0]
            elif mark == b":":
                start = token.end()
            elif mark in b",}" and before != b"{" and _is(key, name):
                found = _without_space(text, start, token.start())
        if mark in b"{[":
            depth += 1
        elif mark in b"}]":
            depth -= 1
        if depth == 1:
            before = mark
    return found


def elements(text: bytes) -> list[Span]:
    """Where the values of a JSON array stand, without the space around them. Those of arrays within it do not count."""
    found: list[Span] = []
    depth, start = 0, 0
    for token in _TOKEN.finditer(text):
        mark = token[0][:1]
        if mark in b"{[":
            depth += 1
        elif mark in b"}]":
            depth -= 1
        if (depth == 1 and mark == b",") or (depth == 0 and mark == b"]"):
            found.append(_without_space(text, start, token.start()))
        if depth == 1 and mark in b"[,":
            start = token.end()
    return [span for span in found if span.start < span.end]


def is_utf8(text: bytes) -> bool:
    """Whether a JSON object may be edited as bytes. Other encodings of Unicode have zeros, or a mark at the start."""
    return text.lstrip(_SPACE).startswith(b"{") and text.rstrip(_SPACE).endswith(b"}")


def _is(key: bytes, name: str) -> bool:
    if b"\\" not in key:
        return key[1:-1] == name.encode()
    read: str = json.loads(key)
    return read == name


def _without_space(text: bytes, start: int, end: int) -> Span:
    value = text[start:end]
    return Span(end - len(value.lstrip(_SPACE)), start + len(value.rstrip(_SPACE)))
