"""A request's headers and body, as urllib3's callers give them, in the form that the environ needs.

The rules are those of ``urllib3.connection.HTTPConnection.request()``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from urllib3.util.request import SKIP_HEADER, SKIPPABLE_HEADERS, body_to_chunks

from .environ import header_text

__all__ = ["framed", "header_pairs", "limited"]


def header_pairs(headers: Mapping[str, str] | None) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """The headers as pairs of text, and the lower-case names of those that must not get a default."""
    pairs: list[tuple[str, str]] = []
    skipped: tuple[str, ...] = ()
    for key, content in headers.items() if headers else ():
        name, value = header_text(key), header_text(content)
        if value != SKIP_HEADER:
            pairs.append((name, value))
        elif name.lower() in SKIPPABLE_HEADERS:
            skipped += (name.lower(),)
        else:
            allowed = "', '".join(sorted(SKIPPABLE_HEADERS))
            raise ValueError(f"urllib3.util.SKIP_HEADER only supports '{allowed}', not {name!r}.")
    return pairs, skipped


def framed(
    environ: dict[str, Any], method: str, body: Any, *, chunked: bool, blocksize: int
) -> tuple[bytes, Iterable[bytes | str] | None]:
    """The body, whole or else in parts, with its framing put into ``environ``; a framing that the caller
    chose stays.
    """
    parts: Iterable[bytes | str] | None = None
    if type(body) is bytes:
        content: bytes | None = body
    else:
        parts, length = body_to_chunks(body, method=method, blocksize=blocksize)
        content = None
        if length is not None:
            content = b"" if parts is None else b"".join(map(_as_bytes, parts))
    if chunked or "HTTP_TRANSFER_ENCODING" in environ:
        environ.setdefault("HTTP_TRANSFER_ENCODING", "chunked")
        environ.pop("CONTENT_LENGTH", None)
    elif "CONTENT_LENGTH" in environ:
        if content is not None:
            content = _clipped(content, int(environ["CONTENT_LENGTH"]))
    elif content is not None:
        environ["CONTENT_LENGTH"] = str(len(content))
    elif parts is not None:
        environ["HTTP_TRANSFER_ENCODING"] = "chunked"
    return (content or b"", None) if content is not None or parts is None else (b"", parts)


def _as_bytes(part: bytes | str) -> bytes:
    return part.encode() if isinstance(part, str) else bytes(part)


def _clipped(content: bytes, length: int) -> bytes:
    if len(content) < length:
        raise ValueError(
            f"Content-Length says {length} bytes, but the body has {len(content)}; leave the header out."
        )
    return content[:length]


def limited(parts: Iterable[bytes | str], content_length: str | None) -> Iterable[bytes]:
    """``parts`` as bytes without empty ones, cut off at ``content_length``."""
    left = None if content_length is None else int(content_length)
    for part in parts:
        data = _as_bytes(part)
        if left is not None:
            data = data[:left]
            left -= len(data)
        if data:
            yield data
