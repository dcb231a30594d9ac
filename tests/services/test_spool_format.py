"""The bytes of a spool file: whole frames are found whatever else is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.services.spool.format import (
    HEADER,
    MAX_PAYLOAD,
    VERSION,
    FrameReader,
    frame,
    unpack,
    version_of,
)

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=5)


def read(*pieces: bytes) -> tuple[list[str], FrameReader]:
    reader = FrameReader()
    payloads = [payload for piece in pieces for payload in reader.feed(piece)] + reader.finish()
    return [unpack(payload)[1] for payload in payloads], reader


@given(TEXTS, st.integers(1, 40))
def test_frames_come_out_as_they_went_in(texts: list[str], size: int) -> None:
    """In pieces of any size."""
    data = b"".join(frame("Kind", text) for text in texts)
    found, reader = read(*(data[at : at + size] for at in range(0, len(data), size)))

    assert found == texts
    assert (reader.damaged, reader.torn) == (0, 0)


@given(TEXTS, st.data())
def test_a_torn_tail_costs_the_torn_frame_alone(texts: list[str], data: st.DataObject) -> None:
    """Cut anywhere, all whole frames come out, and the rest is known to be torn, not damaged."""
    frames = [frame("Kind", text) for text in texts]
    whole = b"".join(frames)
    cut = data.draw(st.integers(0, len(whole)))
    found, reader = read(whole[:cut])
    kept = next(n for n in range(len(frames), -1, -1) if len(b"".join(frames[:n])) <= cut)

    assert found == texts[:kept]
    assert (reader.damaged, reader.torn) == (0, cut - len(b"".join(frames[:kept])))


@given(TEXTS, st.data())
def test_a_damaged_byte_costs_its_own_frame_alone(texts: list[str], data: st.DataObject) -> None:
    """Whichever byte it is, the length included."""
    frames = [frame("Kind", text) for text in texts]
    which = data.draw(st.integers(0, len(frames) - 1))
    at = data.draw(st.integers(0, len(frames[which]) - 1))
    change = data.draw(st.integers(1, 255))
    broken = bytearray(frames[which])
    broken[at] ^= change
    found, reader = read(b"".join([*frames[:which], bytes(broken), *frames[which + 1 :]]))

    assert found == texts[:which] + texts[which + 1 :]
    assert reader.damaged + reader.torn == len(broken)
    assert reader.torn == 0 or which == len(frames) - 1


@given(st.binary(max_size=60), TEXTS, st.integers(1, 40))
def test_rubbish_between_frames_is_skipped(rubbish: bytes, texts: list[str], size: int) -> None:
    """And never taken for a frame; every byte of it is counted."""
    data = frame("Kind", "first") + rubbish + b"".join(frame("Kind", text) for text in texts)
    found, reader = read(*(data[at : at + size] for at in range(0, len(data), size)))

    assert found == ["first", *texts]
    assert reader.damaged == len(rubbish)


def test_a_length_that_cannot_be_is_not_waited_for() -> None:
    """A reader holds no more than the largest frame."""
    reader = FrameReader()
    reader.feed(b"\xff\xa1\xff\xff\xff\xff0000")

    assert reader.feed(frame("Kind", "text")) == [b"Kind\ntext"]
    assert reader.damaged == 10


def test_a_record_that_is_too_large_is_refused() -> None:
    """The message names the bound."""
    with pytest.raises(ValueError, match=str(MAX_PAYLOAD)):
        frame("Kind", "x" * MAX_PAYLOAD)


@pytest.mark.parametrize(
    ("head", "version"),
    [
        (HEADER, VERSION),
        (HEADER[:-1] + b"\x07", 7),
        (HEADER[:-1], None),
        (b"something else", None),
        (b"", None),
    ],
)
def test_the_header_names_the_version(head: bytes, version: int | None) -> None:
    """Null where there is no header."""
    assert version_of(head) == version
