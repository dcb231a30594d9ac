"""Pure: request bodies that come compressed (RFC 9110 section 8.4), as Codex sends them.

They go on decompressed, without their ``Content-Encoding``: which model is asked for must be known before it is allowed
and recorded, and that a provider takes compressed requests is nowhere promised. What cannot be decompressed here
is refused, for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from flask_aibridge.bridge.intercept.decoding import Decoder, decoder_for
from flask_aibridge.bridge.request import Refused, too_large

CODINGS: Final = ("gzip", "deflate", "br", "zstd")
"""What can be taken; the last two where there is a library for them."""

MAX_CODINGS: Final = 2
"""Codings of one body, one around the other. Clients use one."""

MAX_STEPS: Final = 8192
"""Steps of decompression of one body, each of about 64 KiB at most, in and out: a body of 32 MiB takes some two
thousand. One that is made of empty streams would take millions."""

_PIECE: Final = 64 * 1024


def codings_of(content_encoding: str) -> list[str]:
    """The codings that a ``Content-Encoding`` names, in the order in which they were applied; ``identity`` is none."""
    named = (coding.strip().lower() for coding in content_encoding.split(","))
    return [coding for coding in named if coding not in ("", "identity")]


def accepted() -> str:
    """What a body may be compressed with here, as an ``Accept-Encoding`` says it."""
    return ", ".join(coding for coding in CODINGS if decoder_for(coding) is not None)


def decoded_body(body: bytes, content_encoding: str, limit: int) -> bytes:
    """Return what ``body`` holds, of up to ``limit`` bytes. It is decompressed piece by piece, so that a body that
    holds too much costs no more than one that does not.

    Raises ``Refused`` with 415 for codings that cannot be undone here, with 413 for more than ``limit`` bytes, at any
    stage, and with 400 for a body that is not what it says, or is not whole.
    """
    codings = codings_of(content_encoding)
    if not codings or not body:
        return body
    decoders = [decoder_for(coding) for coding in reversed(codings)]
    if None in decoders or len(decoders) > MAX_CODINGS:
        raise _not_taken(content_encoding)
    stages = [_Stage(decoder, limit) for decoder in decoders if decoder is not None]
    pieces: Iterator[bytes] = (body[at : at + _PIECE] for at in range(0, len(body), _PIECE))
    for stage in stages:
        pieces = stage.feed(pieces)
    return b"".join(pieces)


class _Stage:
    """One coding, being undone."""

    def __init__(self, decoder: Decoder, limit: int) -> None:
        self._decoder = decoder
        self._limit = limit

    def feed(self, data: Iterator[bytes]) -> Iterator[bytes]:
        """Yield what ``data`` decodes to. Raises ``Refused``."""
        size = 0
        for steps, piece in enumerate(self._decoded(data)):
            size += len(piece)
            if size > self._limit:
                raise too_large(self._limit)
            if steps >= MAX_STEPS:
                raise _broken("it is made of too many parts")
            if piece:
                yield piece
        if not self._decoder.whole:
            raise _broken("it is not whole")

    def _decoded(self, data: Iterator[bytes]) -> Iterator[bytes]:
        for piece in data:
            try:
                yield from self._decoder.feed(piece)
            except Exception as error:  # each library has its own
                raise _broken("it is not what it says", repr(error)) from error


def _broken(what: str, error: str | None = None) -> Refused:
    return Refused(400, f"The request body cannot be decompressed: {what}.", error=error)


def _not_taken(content_encoding: str) -> Refused:
    taken = accepted()
    return Refused(
        415,
        f"The AI bridge takes no request body in Content-Encoding {content_encoding[:64]!r}. Send it as it is, "
        f"or in one of: {taken}.",
        # RFC 9110 section 15.5.16: by this the client can tell that it is not the media type.
        ("Accept-Encoding", taken),
        error=f"Content-Encoding {content_encoding[:64]!r}; the extra [compression] adds br and zstd",
    )
