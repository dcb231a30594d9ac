"""Compressed answers: the caller gets them as they came, the account reads what they hold."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.intercept.decoding import MAX_DECODED, DecodedTurn, decoder_for
from flask_aibridge.bridge.intercept.messages import Messages
from flask_aibridge.bridge.intercept.turn import BlockingTurn, StreamingTurn
from flask_aibridge.bridge.intercept.vocabulary import Ended, Item, Prompt, Usage
from flask_aibridge.observability import TokenUsage
from tests.bridge.compressing import brotli, zstd
from tests.bridge.intercept.following import said, sse

START = {"type": "message_start", "message": {"usage": {"input_tokens": 1}}}
STREAM = sse(START, {"type": "message_stop"})
SAID = [Usage(TokenUsage(1)), Ended()]
ASKED = {"messages": [{"role": "user", "content": "hi"}]}


CODINGS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    (" X-GZIP ", gzip.compress),
    ("deflate", zlib.compress),
    ("br", brotli),
    ("zstd", zstd),
]


def decoded(encoding: str, body: bytes, size: int = 10**9) -> list[Item]:
    decoder = decoder_for(encoding)
    assert decoder is not None
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return said(DecodedTurn(StreamingTurn(Messages()), decoder), pieces)


@pytest.mark.parametrize(("encoding", "compress"), CODINGS)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_what_is_compressed_is_read(encoding: str, compress: Callable[[bytes], bytes], size: int) -> None:
    """In any pieces; the bytes that pass are the compressed ones (``said`` compares them)."""
    assert decoded(encoding, compress(STREAM), size) == SAID


@pytest.mark.parametrize(("encoding", "compress"), CODINGS)
def test_the_end_of_an_answer_that_holds_much(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    """A decoder may have taken everything and hold back the rest of what it decodes to."""
    assert decoded(encoding, compress(b": " + b"x" * (MAX_DECODED // 2) + b"\n\n" + STREAM)) == SAID


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_answers_in_several_members(encoding: str) -> None:
    """As servers write them that compress event by event."""
    compress = dict(CODINGS)[encoding]
    cut = STREAM.index(b"\n\n") + 2
    assert decoded(encoding, compress(STREAM[:cut]) + compress(STREAM[cut:]), 5) == SAID
    assert decoded(encoding, compress(STREAM[:cut]) + compress(STREAM[cut:])) == SAID


@pytest.mark.parametrize("encoding", ["identity", "compress", "gzip, br", "", "gzip,gzip"])
def test_what_cannot_be_decoded(encoding: str) -> None:
    """One coding at a time, and one that is known."""
    assert decoder_for(encoding) is None


@given(st.binary(max_size=60), st.sampled_from(["gzip", "deflate"]))
def test_bytes_that_are_not_what_they_say(body: bytes, encoding: str) -> None:
    """They pass, and nobody can say that the answer is not whole."""
    decoder = decoder_for(encoding)
    assert decoder is not None
    turn = DecodedTurn(BlockingTurn(Messages(ASKED)), decoder)
    items = said(turn, [body[:9], body[9:], b"more"])
    assert items.count(Prompt("hi")) == 1


def test_a_stream_that_turns_to_rubbish_keeps_what_was_known() -> None:
    """The usage so far counts, once."""
    compressor = zlib.compressobj(wbits=31)
    head = compressor.compress(sse(START)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert decoded("gzip", head + b"\xff" * 50, 3) == SAID
    decoder = decoder_for("gzip")
    assert decoder is not None
    turn = DecodedTurn(StreamingTurn(Messages()), decoder)
    assert list(turn.feed(head))[1:] == []
    assert list(turn.cut()) == [Usage(TokenUsage(1))]


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd"])
def test_a_bomb_is_not_read(encoding: str) -> None:
    """What one read decodes to has a limit."""
    body = dict(CODINGS)[encoding](b" " * (MAX_DECODED + 1) + STREAM)
    assert decoded(encoding, body) == [Ended()]


def test_a_library_that_cannot_be_told_to_stop_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brotli before 1.2 decompresses all that it is given at once."""

    class Old:
        def process(self, data: bytes) -> bytes:
            return data

    monkeypatch.setitem(sys.modules, "brotli", SimpleNamespace(Decompressor=Old))
    assert decoder_for("br") is None
