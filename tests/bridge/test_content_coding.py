"""Request bodies that come compressed."""

from __future__ import annotations

import gzip
import os
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge import content_coding
from flask_aibridge.bridge.content_coding import MAX_STEPS, accepted, codings_of, decoded_body
from flask_aibridge.bridge.intercept.decoding import Decoder, decoder_for
from flask_aibridge.bridge.request import MAX_REQUEST_BODY, Refused
from tests.bridge.compressing import COMPRESS, zstd_library

MIB = 1024 * 1024

HERE = sorted(coding for coding in COMPRESS if decoder_for(coding) is not None)
"""What can be taken in this environment."""

each_coding = pytest.mark.parametrize("coding", COMPRESS)


def refusal_of(body: bytes, coding: str, limit: int = 1000) -> Refused:
    with pytest.raises(Refused) as refused:
        decoded_body(body, coding, limit)
    return refused.value


@each_coding
@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_what_was_compressed_comes_out(coding: str, size: int) -> None:
    """Every byte of it, also of what does not shrink."""
    for body in (b"x" * size, os.urandom(size)):
        assert decoded_body(COMPRESS[coding](body), coding, size) == body


@each_coding
def test_one_of_the_largest(coding: str) -> None:
    """Within the bounds by far, whether it shrinks or not."""
    for body in (b"\0" * MAX_REQUEST_BODY, os.urandom(4 * MIB)):
        assert decoded_body(COMPRESS[coding](body), coding, MAX_REQUEST_BODY) == body


@each_coding
def test_a_byte_too_many(coding: str) -> None:
    """The bound is on what comes out."""
    assert refusal_of(COMPRESS[coding](b"x" * 1001), coding).status == 413


@each_coding
def test_a_bomb_costs_the_bound_and_no_more(coding: str) -> None:
    """It is not decompressed before it is found to be too large, nor is it within another coding."""
    bomb = COMPRESS[coding](b"\0" * (64 * MIB))
    for body, codings in ((bomb, coding), (gzip.compress(bomb), f"{coding}, gzip")):
        tracemalloc.start()
        try:
            refused = refusal_of(body, codings, MIB)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert (refused.status, refused.message[:20]) == (413, "Request body too lar")
        assert peak < 8 * MIB


@each_coding
@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: body[:-1],
        lambda body: body[:1],
        lambda body: body + b"more",
        lambda body: b"\xff" * 50,
        lambda body: b"{}",
    ],
)
def test_what_is_not_whole_or_not_what_it_says(coding: str, spoil: Callable[[bytes], bytes]) -> None:
    """Half a body is not forwarded, nor one with more behind it."""
    refused = refusal_of(spoil(COMPRESS[coding](b"hello " * 50)), coding)
    assert refused.status == 400
    assert "decompressed" in refused.message


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_bodies_in_several_members(coding: str) -> None:
    """As parallel compressors make them; but not in a number that is only there to keep the reader busy."""
    compress = COMPRESS[coding]
    assert decoded_body(compress(b"ab") * 1000, coding, 2000) == b"ab" * 1000
    refused = refusal_of(compress(b"") * (MAX_STEPS + 1), coding)
    assert (refused.status, "too many parts" in refused.message) == (400, True)


def test_a_window_that_would_take_all_the_memory() -> None:
    """RFC 9659: no more than 8 MiB."""
    zstd = zstd_library()
    options = {
        zstd.CompressionParameter.window_log: 27,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    compressor = zstd.ZstdCompressor(options=options)
    body = compressor.compress(b"x") + compressor.flush()
    assert refusal_of(body, "zstd").status == 400


def test_codings_around_each_other() -> None:
    """They are undone from the last to the first; two at the most."""
    body = zlib.compress(gzip.compress(b"hello"))
    assert decoded_body(body, "gzip, deflate", 1000) == b"hello"
    assert refusal_of(gzip.compress(b"hello"), "gzip, deflate").status == 400
    assert refusal_of(b"x", "gzip, gzip, gzip").status == 415


def test_a_stage_between_has_the_bound_too() -> None:
    """What is small in the end may have been large before."""
    inner = gzip.compress(b"", 0) + gzip.compress(b"\0" * 900, 0) * 2
    assert refusal_of(gzip.compress(inner), "gzip, gzip").status == 413


@pytest.mark.parametrize("coding", ["compress", "aws-chunked", "gzip, rot13", "x" * 1000, "gzip;q=1", "*"])
def test_codings_that_nobody_here_knows(coding: str) -> None:
    """The client is told what it may send, in the header of RFC 9110 section 15.5.16."""
    refused = refusal_of(b"x", coding)
    assert refused.status == 415
    assert refused.headers == (("Accept-Encoding", accepted()),)
    assert len(refused.message) < 300


def test_without_a_library_its_coding_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the standard library has is."""

    def found(coding: str) -> Decoder | None:
        return None if coding in ("br", "zstd") else decoder_for(coding)

    monkeypatch.setattr(content_coding, "decoder_for", found)
    assert accepted() == "gzip, deflate"
    assert refusal_of(b"x", "zstd").headers == (("Accept-Encoding", "gzip, deflate"),)
    assert decoded_body(gzip.compress(b"x"), "gzip", 10) == b"x"


def test_what_is_not_compressed_stays() -> None:
    """Also an empty body, whatever is said of it."""
    body = b"hello"
    assert decoded_body(body, "identity", 3) is body
    assert decoded_body(body, " , ", 3) is body
    assert decoded_body(b"", "rot13", 3) == b""


@given(st.text(st.sampled_from("gzip,deflate xbr;=\t"), max_size=30))
def test_any_value_names_some_codings(value: str) -> None:
    """None of them empty."""
    assert all(coding and coding == coding.strip() for coding in codings_of(value))


@given(st.binary(max_size=200), st.sampled_from(HERE), st.booleans(), st.integers(0, 300))
def test_any_bytes_are_decoded_or_refused(data: bytes, coding: str, is_compressed: bool, limit: int) -> None:
    """In one of the three ways, and never to more than the bound."""
    body = COMPRESS[coding](data) if is_compressed else data
    decoded, status = decoded_or_refused(body, coding, limit)
    if decoded is None:
        assert status in (400, 413)
        assert not is_compressed or len(data) > limit
    else:
        assert len(decoded) <= limit
        assert not is_compressed or decoded == data


def decoded_or_refused(body: bytes, coding: str, limit: int) -> tuple[bytes | None, int]:
    try:
        return decoded_body(body, coding, limit), 200
    except Refused as refused:
        return None, refused.status


@given(st.binary(min_size=1, max_size=300), st.integers(0, 10**6), st.integers(0, 255))
def test_a_changed_byte_never_changes_what_comes_out_of_gzip(data: bytes, place: int, value: int) -> None:
    """It has a checksum; some of its bits mean nothing."""
    body = bytearray(gzip.compress(data, mtime=0))
    body[place % len(body)] = value
    decoded, status = decoded_or_refused(bytes(body), "gzip", 1000)
    assert decoded == data or status == 400
