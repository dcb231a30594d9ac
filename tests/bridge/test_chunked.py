"""The chunked coding: taken off in pieces of any size, and never mistaken for the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.chunked import MAX_LINE, BadChunk, Dechunker
from tests.bridge.upstreams import chunk

PIECES = [b"hello", b"", b"a" * 300, b"\r\n", b"0\r\n\r\n"]
WHOLE = b"".join(chunk(piece) for piece in PIECES if piece) + b"0;last\r\nX-A: b\r\nX-C: d\r\n\r\n"


def feed_all(dechunker: Dechunker, pieces: list[bytes]) -> bytes:
    return b"".join(map(dechunker.feed, pieces))


@pytest.mark.parametrize("at", range(1, len(WHOLE)))
def test_a_body_cut_anywhere_in_two(at: int) -> None:
    """The same bytes, and the end only with the last of them."""
    dechunker = Dechunker()
    body = dechunker.feed(WHOLE[:at])
    assert not dechunker.ended
    body += dechunker.feed(WHOLE[at:])
    assert (body, dechunker.ended, dechunker.excess) == (b"".join(PIECES), True, False)


def test_a_body_byte_by_byte() -> None:
    """The same."""
    dechunker = Dechunker()
    assert feed_all(dechunker, [bytes([byte]) for byte in WHOLE]) == b"".join(PIECES)
    assert dechunker.ended


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.lists(st.integers(1, 30), max_size=40))
def test_any_body_in_any_pieces(pieces: list[bytes], cuts: list[int]) -> None:
    """What was put in comes out."""
    whole = b"".join(map(chunk, pieces)) + chunk(b"")
    dechunker, fed = Dechunker(), []
    for cut in cuts:
        fed.append(whole[:cut])
        whole = whole[cut:]
    assert feed_all(dechunker, [*fed, whole]) == b"".join(pieces)
    assert dechunker.ended


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_any_bytes_at_all(pieces: list[bytes]) -> None:
    """Raise nothing but the documented error."""
    dechunker = Dechunker()
    try:
        feed_all(dechunker, pieces)
    except BadChunk:
        assert not dechunker.ended


@pytest.mark.parametrize("size", [b"5\r\n", b"05\r\n", b" 5 \r\n", b"5;a=b\r\n", b"5 ; a\r\n", b"5\n"])
def test_ways_to_write_a_size(size: bytes) -> None:
    """Extensions are skipped, and what the standard library takes is taken."""
    assert Dechunker().feed(size + b"hello\r\n") == b"hello"


@pytest.mark.parametrize(
    "size", [b"-5\r\n", b"+5\r\n", b"0x5\r\n", b"5_0\r\n", b"\r\n", b"g\r\n", b"5 5\r\n", b"f" * 16 + b"\r\n"]
)
def test_sizes_that_are_none(size: bytes) -> None:
    """What ``int`` would take among them."""
    with pytest.raises(BadChunk):
        Dechunker().feed(size + b"hello\r\n")


@pytest.mark.parametrize("rest", [b"x", b"\rx", b"\n\n", b"hello"])
def test_a_chunk_that_is_longer_than_it_says(rest: bytes) -> None:
    """What it held before is in the error."""
    with pytest.raises(BadChunk) as raised:
        Dechunker().feed(b"5\r\nhello" + rest)
    assert raised.value.body == b"hello"


@pytest.mark.parametrize("start", [b"5;", b"0\r\nX: "])
def test_lines_without_end(start: bytes) -> None:
    """Are not kept without bound."""
    dechunker = Dechunker()
    dechunker.feed(start)
    with pytest.raises(BadChunk):
        feed_all(dechunker, [b"x" * 1024] * (MAX_LINE // 1024 + 1))


@pytest.mark.parametrize("pieces", [[chunk(b"") + b"HTTP/1.1"], [chunk(b""), b"H"]])
def test_bytes_after_the_end(pieces: list[bytes]) -> None:
    """Are no part of the body, and are told."""
    dechunker = Dechunker()
    assert feed_all(dechunker, pieces) == b""
    assert dechunker.excess
