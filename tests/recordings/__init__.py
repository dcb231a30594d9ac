"""Exchanges with providers that we made ourselves, one per file: what is asked, answered and recorded.

A file begins with a sentence, then has four parts, each after a line ``-- name --``:

- ``request <path>``: the caller's body;
- ``response <status>``: the header fields of the answer;
- ``body``, or ``body: <changes>``: the answer's body, and how the bytes on the wire differ from what is written here
  (see ``CHANGES``) or from how answers are usually sent (see ``DELIVERY``);
- ``expected``: a JSON object with the record's ``status``, and everything else that is recorded; ``answers`` is the
  tool call whose result is the request's last word.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent

CHANGES: Final[dict[str, Callable[[bytes], bytes]]] = {
    "crlf": lambda body: body.replace(b"\n", b"\r\n"),
    "cr": lambda body: body.replace(b"\n", b"\r"),
    "bom": lambda body: b"\xef\xbb\xbf" + body,
    "unended": lambda body: body.rstrip(b"\n"),
    "empty": lambda body: b"",
    "gzip": lambda body: gzip.compress(body, mtime=0),
    "base64": lambda body: base64.b64decode(body),
    "megabyte": lambda body: body.replace(b"{{megabyte}}", b"x" * 1_000_000),
}

DELIVERY: Final = {"cut", "trailers", "no length", "length"}
"""The connection breaks after the body; trailer fields; a body that ends with the connection; a declared length."""

_PART: Final = re.compile(r"^-- (request|response|body|expected)(?:: | )?(.*?) ?--\n", re.MULTILINE)


@dataclass(frozen=True)
class Recording:
    """One exchange."""

    name: str
    about: str
    path: str
    request: bytes
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    delivery: frozenset[str]
    expected: dict[str, Any]

    def __str__(self) -> str:
        return self.name

    @property
    def is_cut(self) -> bool:
        return "cut" in self.delivery

    @property
    def media_type(self) -> str:
        return dict(self.headers)["Content-Type"].partition(";")[0].lower()

    @property
    def encoding(self) -> str:
        return dict(self.headers).get("Content-Encoding", "identity")

    @property
    def abridged(self) -> bytes:
        """The body, its megabyte cut down to what is still longer than anything that is held back."""
        return self.body.replace(b"x" * 1_000_000, b"x" * 20_000)

    @cached_property
    def document(self) -> dict[str, Any]:
        """The request, read; empty for one that cannot be."""
        try:
            document: dict[str, Any] = json.loads(self.request)
        except ValueError:
            return {}
        return document

    @cached_property
    def relayed(self) -> bytes:
        """The bytes that the caller gets: all, but for the event that is withheld."""
        marker = self.expected.get("withheld")
        if marker is None:
            return self.body
        events = re.split(rb"(?<=\n\n)|(?<=\r\n\r\n)|(?<=\r\r)", self.body)
        kept = [event for event in events if marker.encode() not in event]
        assert len(kept) == len(events) - 1, "one event is withheld"
        return b"".join(kept)


def read(path: Path) -> Recording:
    """Read one file."""
    about, *parts = _PART.split(path.read_bytes().decode())
    found = {kind: (argument, text) for kind, argument, text in zip(*[iter(parts)] * 3, strict=True)}
    changes = [change for change in found["body"][0].split(", ") if change]
    body = found["body"][1].encode()
    headers = [_header(line) for line in found["response"][1].splitlines()]
    if "event-stream" not in dict(headers)["Content-Type"].lower():
        body = body.rstrip(b"\n")
    for change in changes:
        body = CHANGES[change](body) if change in CHANGES else body
    return Recording(
        path.stem,
        about.strip(),
        found["request"][0],
        found["request"][1].rstrip("\n").encode(),
        int(found["response"][0]),
        headers,
        body,
        frozenset(changes) & DELIVERY,
        json.loads(found["expected"][1]),
    )


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(": ")
    return name, value


ALL: Final = [read(path) for path in sorted(FOLDER.glob("*.txt"))]
