"""Reading a request before it is forwarded, and turning it away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

MAX_REQUEST_BODY = 32 * 1024 * 1024
"""The largest request body. It is Anthropic's own limit; a worker holds a body in memory until the provider
has it."""

_READ_SIZE = 1024 * 1024
_SAFE = "/:@!$&'()*+,;=~-._"


class Refused(Exception):
    """The bridge answers in the provider's place: ``status``, a sentence for the caller, further headers.

    ``error`` is what operators are told instead of the sentence, where they may know more than the caller.
    """

    def __init__(
        self, status: int, message: str, *headers: tuple[str, str], error: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers
        self.error = error


def split_path(environ: Mapping[str, Any]) -> tuple[str, str]:
    """Return the provider's name and the decoded path below it, which begins with a slash or is empty."""
    name, slash, rest = environ.get("PATH_INFO", "").removeprefix("/").partition("/")
    return name, slash + rest


def is_plain(path: str) -> bool:
    """Tell whether ``path`` (decoded) means the same to whoever reads it.

    Dot segments, empty ones, backslashes, control characters and percent signs that survived the decoding are
    ways to have the allow-list see one path and the provider another.
    """
    segments = path.split("/")[1:]
    if any(segment in ("", ".", "..") for segment in segments):
        return False
    return path.isascii() and path.isprintable() and not any(char in path for char in "\\%?#; ")


def forwarded_path(environ: Mapping[str, Any], path: str) -> str:
    """Return ``path`` percent-encoded: as the caller wrote it where the server kept that, so that ``%2F``
    stays what it is."""
    written = environ.get("REQUEST_URI") or environ.get("RAW_URI") or ""
    if written.startswith("/"):
        above = environ.get("SCRIPT_NAME", "").count("/") + 1
        tail = "/" + "/".join(written.partition("?")[0].split("/")[above + 1 :])
        if unquote_to_bytes(tail) == path.encode("latin-1"):
            return tail
    return quote(path, safe=_SAFE, encoding="latin-1")


def read_body(environ: Mapping[str, Any], limit: int = MAX_REQUEST_BODY) -> bytes:
    """Read the whole request body.

    Raises ``Refused`` with 413 for more than ``limit`` bytes, before reading them where the length is
    declared, with 400 for a length that is no number or a body that breaks off, and with 411 for a body whose
    end the server does not tell.
    """
    declared = environ.get("CONTENT_LENGTH") or ""
    if not declared:
        return _read_undeclared(environ, limit)
    if not (declared.isascii() and declared.isdigit()):
        raise Refused(400, "Content-Length is not a number.")
    length = int(declared) if len(declared) < 20 else limit + 1
    if length > limit:
        raise too_large(limit)
    body = _read(environ, length, limit)
    if len(body) < length:
        raise Refused(400, "The request body ended before its Content-Length.")
    return body


def too_large(limit: int) -> Refused:
    """Return the refusal of a body of more than ``limit`` bytes."""
    return Refused(
        413, f"Request body too large. The maximum allowed request body size is {limit // 2**20} MiB."
    )


def _read_undeclared(environ: Mapping[str, Any], limit: int) -> bytes:
    # PEP 3333 has no word for chunked bodies: servers that can end `wsgi.input` themselves say so by this key.
    if environ.get("wsgi.input_terminated"):
        return _read(environ, limit + 1, limit)
    if environ.get("HTTP_TRANSFER_ENCODING"):
        raise Refused(411, "This server takes no chunked request bodies: send a Content-Length.")
    return b""


def _read(environ: Mapping[str, Any], length: int, limit: int) -> bytes:
    stream, pieces, left = environ["wsgi.input"], [], length
    while left > 0:
        try:
            piece = stream.read(min(left, _READ_SIZE))
        except Exception as error:
            # Each server has exceptions of its own for a body that breaks off or is chunked wrongly.
            raise Refused(400, "The request body could not be read to its end.", error=repr(error)) from error
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece)
    if length > limit and left == 0:
        raise too_large(limit)
    return b"".join(pieces)


def wants_websocket(environ: Mapping[str, Any]) -> bool:
    """Tell whether the request asks to be upgraded to a WebSocket."""
    return "websocket" in environ.get("HTTP_UPGRADE", "").lower()
