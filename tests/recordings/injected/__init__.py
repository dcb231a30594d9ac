"""Requests with injected tools, one per file: each round's answer, what the tools return, and what the caller gets.

A file begins with a sentence, then has parts, each after a line ``-- name --``:

- ``request <path>``: the caller's body;
- ``answer <status> <media type>``, one for each round: the provider's body;
- ``result`` or ``error``, one for each call that is run: what the tool says;
- ``relayed``: what the caller gets, or ``relayed: as the last`` for the bytes of the last round;
- ``expected``: a JSON object with what is recorded. ``tools`` are name, input, call id, kind, server and error of each;
  ``asked``, for each round but the first, the messages (or input items) that the bridge added to the caller's.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flask_aibridge.bridge.injection.tools import InjectedTool, ToolResult

FOLDER: Final = Path(__file__).parent

SERVER: Final = "https://tickets.invalid/mcp"
TOOL: Final = InjectedTool(
    "bmcp_tickets_find",
    "tickets",
    SERVER,
    "find",
    "Finds tickets.",
    {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
)

_PART: Final = re.compile(
    r"^-- (request|answer|result|error|relayed|expected)(?:: | )?(.*?) ?--\n", re.MULTILINE
)


@dataclass(frozen=True)
class Story:
    """One request, and what came of it."""

    name: str
    about: str
    path: str
    request: bytes
    answers: tuple[tuple[int, str, bytes], ...]
    results: tuple[ToolResult, ...]
    relayed: bytes
    expected: dict[str, Any]

    def __str__(self) -> str:
        return self.name

    @property
    def streams(self) -> bool:
        return self.answers[0][1] == "text/event-stream"

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.request)
        return document


def read(path: Path) -> Story:
    """Read one file."""
    about, *parts = _PART.split(path.read_text("utf-8"))
    named = [(kind, argument, text) for kind, argument, text in zip(*[iter(parts)] * 3, strict=True)]
    answers = []
    for _, argument, text in (part for part in named if part[0] == "answer"):
        status, kind = argument.split(" ")
        body = text if kind == "text/event-stream" else text.rstrip("\n")
        answers.append((int(status), kind, body.encode()))
    (request,) = (part for part in named if part[0] == "request")
    (relayed,) = (part for part in named if part[0] == "relayed")
    (expected,) = (part for part in named if part[0] == "expected")
    results = [
        ToolResult(text.rstrip("\n"), kind == "error")
        for kind, _, text in named
        if kind in ("result", "error")
    ]
    given = relayed[2] if answers[0][1] == "text/event-stream" else relayed[2].rstrip("\n")
    return Story(
        path.stem,
        about.strip(),
        request[1],
        request[2].rstrip("\n").encode(),
        tuple(answers),
        tuple(results),
        answers[-1][2] if relayed[1] == "as the last" else given.encode(),
        json.loads(expected[2]),
    )


ALL: Final = [read(path) for path in sorted(FOLDER.glob("*.txt"))]
