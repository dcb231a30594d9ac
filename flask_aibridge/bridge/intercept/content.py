"""Pure: what people and models said, gathered while it passes, within bounds.

A record is not a place to pour an unbounded answer into, and a worker must not hold one for its sake: every text, the
number of blocks open at a time and the whole of an answer have their limit. What is cut ends with an ellipsis.
"""

from __future__ import annotations

import json
from typing import Any, Final

MAX_TEXT: Final = 256 * 1024
"""Characters of one prompt, one tool call's arguments, one thought: files that agents write and logs that people paste
are smaller, and the services store up to four times that."""

MAX_GATHERED: Final = 4 * 1024 * 1024
"""Characters that are gathered of one answer, all texts together. Nothing more is taken then, counted or kept."""

MAX_OPEN: Final = 64
"""Blocks and tool calls that may be under way at the same time. Models call a handful in parallel; an index above
that is a server gone wrong."""

MAX_NAME: Final = 256
"""Characters of tools' names and of providers' ids, as in the stored form."""


class Budget:
    """How much of an answer's content may still be gathered."""

    def __init__(self, room: int = MAX_GATHERED) -> None:
        self.room = room

    def text(self) -> Gathered:
        """An empty text within this budget."""
        return Gathered(self)


class Gathered:
    """A text that arrives in pieces."""

    __slots__ = ("_budget", "_is_cut", "_pieces", "_room")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._room = MAX_TEXT
        self._pieces: list[str] = []
        self._is_cut = False

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, piece: object) -> None:
        """Take the next piece; anything but a string says nothing."""
        if not isinstance(piece, str) or not piece or self._is_cut:
            return
        room = min(self._room, self._budget.room)
        if len(piece) > room:
            piece, self._is_cut = f"{piece[: max(room - 1, 0)]}…", True
        self._room -= len(piece)
        self._budget.room -= len(piece)
        self._pieces.append(piece)

    def __str__(self) -> str:
        return "".join(self._pieces)


def cut(text: str, limit: int = MAX_TEXT) -> str:
    """``text``, its end replaced by an ellipsis where it is too long."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def name_of(value: object) -> str | None:
    """A name or id; null for anything but a string with something in it."""
    return value[:MAX_NAME] if isinstance(value, str) and value else None


def json_text(value: object) -> str:
    """Arguments that came as a JSON value, as text; what came as text is that text. Empty for a value that is nested
    beyond reason."""
    if isinstance(value, str):
        return cut(value)
    try:
        return cut(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    except RecursionError:
        return ""


def dicts(value: object) -> list[dict[str, Any]]:
    """The objects of a JSON array; none where it is something else."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def texts(parts: object, kind: str) -> list[str]:
    """The texts of those parts of a message that are of the type ``kind``."""
    found = [part.get("text") for part in dicts(parts) if part.get("type") == kind]
    return [text for text in found if isinstance(text, str)]


def last_user_text(messages: object) -> str | None:
    """What the user said in the last of ``messages``, in the form that Messages and Chat Completions share: its text,
    or its last part that is text.

    Null where somebody else spoke last, and where the user's turn holds only the results of tools. Agents put
    instructions of their own into parts before the last one.
    """
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(last, dict) or last.get("role") != "user":
        return None
    content = last.get("content")
    if isinstance(content, str):
        return content
    found = texts(content, "text")
    return found[-1] if found else None
