"""Pure: reading along in an answer that is compressed though the bridge asked for one that is not.

The caller gets the bytes as they came; a decoder beside them gives the turn what it can read. gzip and deflate are
decoded by the standard library; zstd and Brotli where a library for them is there, as by the extra ``[compression]``
(``compression.zstd`` is from Python 3.14 on). By any other coding the answer is relayed unread.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Protocol

from flask_aibridge.bridge.intercept.turn import Turn, UnreadTurn
from flask_aibridge.bridge.intercept.vocabulary import Item, Relay

MAX_PIECE: Final = 64 * 1024
"""Bytes that are decoded at a time."""

MAX_DECODED: Final = 8 * 1024 * 1024
"""Bytes that one read of an answer, of up to 64 KiB, may decode to. Text shrinks to a tenth; what shrinks to less than
a hundredth is there to keep the reader busy."""


WINDOW_LOG: Final = 23
"""The largest window of zstd, 8 MiB, as a power of two: RFC 9659 admits no larger one, and a decoder holds as much."""


class CannotDecode(Exception):
    """The answer is not what its ``Content-Encoding`` says, or far too much of it."""


class Decoder(Protocol):
    """Decodes one stream of bytes."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` decodes to, in pieces of up to about ``MAX_PIECE`` bytes; raises any exception for what
        cannot be decoded."""

    @property
    def whole(self) -> bool:
        """Whether what was fed ends where the coding says that it ends."""


class DecodedTurn:
    """Relays an answer as it came, and lets a turn follow what it decodes to."""

    def __init__(self, turn: Turn, decoder: Decoder) -> None:
        self._turn = turn
        self._decoder: Decoder | None = decoder

    def feed(self, data: bytes) -> Iterator[Item]:
        """Relay ``data``, then say what is found in what it holds."""
        if data:
            yield Relay(data)
        if self._decoder is None:
            return
        try:
            for piece in _bounded(self._decoder.feed(data)):
                yield from _read(self._turn.feed(piece))
        except CannotDecode:
            self._decoder = None
            yield from _read(self._turn.cut())
            self._turn = UnreadTurn()

    def finish(self) -> Iterator[Item]:
        """Say what the end means; of an answer that could not be decoded to its end, that is whole."""
        return _read(self._turn.finish())

    def cut(self) -> Iterator[Item]:
        """Say what is known."""
        return _read(self._turn.cut())


def decoder_for(encoding: str) -> Decoder | None:
    """A decoder for a ``Content-Encoding``; null for ``identity``, for one that is unknown here, and for several."""
    make = _DECODERS.get(encoding.strip().lower())
    try:
        return make() if make is not None else None
    except ImportError:
        return None


def _read(items: Iterator[Item]) -> Iterator[Item]:
    return (item for item in items if not isinstance(item, Relay))


def _bounded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    size = 0
    while True:
        try:
            piece = next(pieces, None)
        except Exception as error:  # each library has its own
            raise CannotDecode from error
        if piece is None:
            return
        size += len(piece)
        if size > MAX_DECODED:
            raise CannotDecode
        if piece:
            yield piece


class _Zlib:
    """gzip, of any number of members, and deflate with zlib's header (RFC 9110 section 8.4.1)."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(32 + zlib.MAX_WBITS)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._decoder.eof:
                self._decoder = zlib.decompressobj(32 + zlib.MAX_WBITS)
            yield self._decoder.decompress(data, MAX_PIECE)
            data = self._decoder.unconsumed_tail or self._decoder.unused_data

    @property
    def whole(self) -> bool:
        return self._decoder.eof


class _Zstd:
    """Zstandard, of any number of frames (RFC 8878)."""

    def __init__(self) -> None:
        library = _first_of("compression.zstd", "backports.zstd")
        options = {library.DecompressionParameter.window_log_max: WINDOW_LOG}
        self._make: Callable[[], Any] = partial(library.ZstdDecompressor, options=options)
        self._decoder = self._make()

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data or not (self._decoder.needs_input or self._decoder.eof):
            if self._decoder.eof:
                self._decoder = self._make()
            yield self._decoder.decompress(data, MAX_PIECE)
            data = self._decoder.unused_data if self._decoder.eof else b""

    @property
    def whole(self) -> bool:
        return bool(self._decoder.eof)


class _Brotli:
    """Brotli (RFC 7932), by a library that can be told to stop: 1.2 or newer."""

    def __init__(self) -> None:
        self._decoder: Any = _first_of("brotli", "brotlicffi").Decompressor()
        if not hasattr(self._decoder, "can_accept_more_data"):
            raise ImportError("this library for Brotli cannot be told to stop")

    def feed(self, data: bytes) -> Iterator[bytes]:
        piece = self._decoder.process(data, output_buffer_limit=MAX_PIECE)
        # It may have taken all it was fed, and not have given all that it holds.
        while piece or not self._decoder.can_accept_more_data():
            yield piece
            if self.whole and self._decoder.can_accept_more_data():
                return
            piece = self._decoder.process(b"", output_buffer_limit=MAX_PIECE)

    @property
    def whole(self) -> bool:
        return bool(self._decoder.is_finished())


_DECODERS: Final[Mapping[str, Callable[[], Decoder]]] = MappingProxyType(
    {"gzip": _Zlib, "x-gzip": _Zlib, "deflate": _Zlib, "zstd": _Zstd, "br": _Brotli}
)


def _first_of(*names: str) -> Any:
    for name in names[:-1]:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return importlib.import_module(names[-1])
