"""Pure: heads of HTTP/1.1 messages: a request's, written, and a response's, read (RFC 9112).

For the one connection between the bridge and a provider, where ``http.client`` and the e-mail parser under it take
longer than everything that the bridge itself does for a request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

MAX_HEAD: Final = 128 * 1024
"""Bytes of a response's head, interim ones before it included; those of providers have one or two thousand."""

MAX_HEADERS: Final = 100
"""Header fields of a response, as in ``http.client``."""

_CONTINUE: Final = range(100, 200)
_SWITCHING_PROTOCOLS: Final = 101
_BODILESS: Final = (204, 304)
_END: Final = re.compile(rb"\n\r?\n")  # the last line may end in a CR, which its value is stripped of
_STATUS_LINE: Final = re.compile(r"HTTP/1\.([01]) +([1-9][0-9]{2})(?: ([^\r\n]*))?", re.ASCII)
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_METHODS_WITHOUT_BODY: Final = ("GET", "HEAD", "DELETE")


class BadHead(Exception):
    """The bytes are not the head of a response."""


class Head(NamedTuple):
    """The head of a final response. ``length`` is that of its body, null where the chunked coding or the end of the
    connection tells; ``early`` is what came along behind the head."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    chunked: bool
    length: int | None
    closes: bool
    early: bytes


def request_head(method: str, target: str, host: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """The head of a request, with the length of its body.

    Raises ``ValueError`` for what would make more, or other, lines of it.
    """
    lines = [f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n"]
    lines += [f"{_checked(name)}: {value}\r\n" for name, value in headers.items()]
    if body or method not in _METHODS_WITHOUT_BODY:
        lines.append(f"Content-Length: {len(body)}\r\n")
    lines.append("\r\n")
    head = "".join(lines)
    breaks = len(lines) + 1  # the first has two
    if head.count("\n") != breaks or head.count("\r") != breaks or "\0" in head:
        raise ValueError("A header, or the target, of a request to a provider has a line break in it.")
    return head.encode("latin-1")


@lru_cache(512)
def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:64]!r} is no name of a header.")
    return name


def read_head(data: bytes, method: str) -> Head | None:
    """The head of the final response that ``data`` begins with, interim ones left out; null where it is not whole yet.

    Raises ``BadHead`` for what is none.
    """
    received = len(data)
    while True:
        end = _END.search(data)
        if end is None:
            if received > MAX_HEAD:
                raise BadHead("the head of the answer has no end")
            return None
        head = _parsed(data[: end.start()].decode("latin-1"), data[end.end() :], method)
        if head.status not in _CONTINUE or head.status == _SWITCHING_PROTOCOLS:
            return head
        data = head.early


def _parsed(text: str, early: bytes, method: str) -> Head:
    lines = text.split("\n")
    first = lines[0].rstrip("\r")
    found = _STATUS_LINE.fullmatch(first)
    if found is None:
        raise BadHead("the answer does not begin as one of HTTP/1.1 does")
    headers, known = _fields(lines)
    status = int(found[2])
    chunked, length = False, None
    if status in _BODILESS or status in _CONTINUE or method == "HEAD":
        length = 0
    else:
        chunked, length = _is_chunked(known.get("transfer-encoding")), _length(known.get("content-length"))
    # RFC 9112 section 6.3: of a coding and a length, the coding counts, and something is wrong.
    tokens, closes = known.get("connection", "").lower(), chunked is (length is not None)
    closes = closes or "close" in tokens
    if chunked:
        length = None
    if status in _CONTINUE or (found[1] == "0" and "keep-alive" not in tokens):
        closes = True  # after 101 the connection speaks something else
    return Head(status, (found[3] or "").strip(), headers, chunked, length, closes, early)


def _fields(lines: list[str]) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Each header field as it came, and by its name in lower case, where fields of one name are one list."""
    if len(lines) > MAX_HEADERS + 1:
        raise BadHead(f"the answer has more than {MAX_HEADERS} headers")
    headers: list[tuple[str, str]] = []
    known: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        lower = _lower_name(name) if colon else None
        if lower is None:
            if line[:1] not in (" ", "\t") or not headers:
                raise BadHead("the head of the answer has a line that is no header")
            name, value = headers.pop()  # RFC 9112 section 5.2: a folded line is one with a space
            headers.append((name, f"{value} {line.strip()}"))
            continue
        value = value.strip(" \t\r")
        headers.append((name, value))
        known[lower] = f"{known[lower]}, {value}" if lower in known else value
    return headers, known


@lru_cache(512)
def _lower_name(name: str) -> str | None:
    """A header's name in lower case; null for what is none."""
    return name.lower() if _NAME.fullmatch(name) else None


def _is_chunked(coding: str | None) -> bool:
    """Raises ``BadHead`` for a coding that no request asks for: where its body ends, nobody here could tell."""
    if coding is None or coding.lower() in ("", "identity"):
        return False
    if coding.lower() != "chunked":
        raise BadHead("the answer is in a transfer coding that was not asked for")
    return True


def _length(value: str | None) -> int | None:
    """As urllib3 reads it: the same length twice is one length, and what is no number is none."""
    if value is None:
        return None
    lengths = {part.strip() for part in value.split(",")}
    if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in lengths):
        return None
    if len({int(part) for part in lengths}) > 1:
        raise BadHead("the answer has several lengths")
    return int(lengths.pop())
