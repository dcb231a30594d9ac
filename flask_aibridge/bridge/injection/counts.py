"""Pure: the token counts of several rounds as those of one answer.

Within a round the last explicit value of a field wins, as providers report totals more than once; over the rounds each
field is added up, for each of them was paid for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from flask_aibridge.bridge.intercept.documents import Document
from flask_aibridge.bridge.intercept.usage import MAX_COUNTS
from flask_aibridge.services.records import MAX_TOKENS

Counts: TypeAlias = dict[tuple[str, ...], int]
"""Whole numbers of a usage object, each under the names that lead to it."""

_DEPTH: Final = 4
"""Objects within each other that are looked into; providers have two."""


def update(counts: Counts, usage: object) -> None:
    """Take one report of a round: what it has replaces what was known, what is missing or null leaves it. Names beyond
    ``MAX_COUNTS`` are ignored."""
    for path, count in _numbers(usage, (), _DEPTH).items():
        if path in counts or len(counts) < MAX_COUNTS:
            counts[path] = count


def added(some: Counts, others: Counts) -> Counts:
    """The sum of two rounds."""
    return {path: some.get(path, 0) + others.get(path, 0) for path in some | others}


def written(usage: object, counts: Counts) -> bytes:
    """JSON text of ``usage``, the last that was reported, with ``counts`` in it; its other members stay."""
    document: Document = dict(usage) if isinstance(usage, dict) else {}
    for path, count in counts.items():
        _put(document, path, count)
    try:
        return json.dumps(document, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return written(None, counts)


def _numbers(usage: object, path: tuple[str, ...], depth: int) -> Counts:
    counts: Counts = {}
    for name, value in usage.items() if isinstance(usage, Mapping) else ():
        if isinstance(value, int) and not isinstance(value, bool):
            if 0 <= value <= MAX_TOKENS:  # beyond it is no count, nor is it recorded as one
                counts[*path, name] = value
        elif depth > 1:
            counts |= _numbers(value, (*path, name), depth - 1)
    return counts


def _put(document: dict[str, Any], path: tuple[str, ...], count: int) -> None:
    *outer, last = path
    for name in outer:
        inner = document.get(name)
        document[name] = dict(inner) if isinstance(inner, dict) else {}
        document = document[name]
    document[last] = count
