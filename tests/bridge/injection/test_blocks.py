"""Blocks: the same bytes, cut at blank lines, whatever pieces they came in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.injection import blocks as module
from flask_aibridge.bridge.injection.blocks import Blocks, event_of
from flask_aibridge.bridge.sse import Event

TEXT = b"event: a\ndata: 1\n\ndata: 2\r\n\r\n: ping\n\ndata: 3\r\rdata: 4\n\n"


@given(
    st.lists(st.sampled_from([b"data: x", b"\r", b"\n", b"\r\n", b": c", b"event: e"]), max_size=30),
    st.integers(1, 9),
)
def test_pieces_do_not_matter(parts: list[bytes], size: int) -> None:
    text = b"".join(parts)
    once, pieces = Blocks(), Blocks()
    whole = [*once.feed(text)]
    cut = [block for at in range(0, len(text), size) for block in pieces.feed(text[at : at + size])]
    assert whole == cut
    assert b"".join(cut) + pieces.rest() == text
    assert once.rest() == text[len(b"".join(whole)) :]


def test_each_block_is_an_event() -> None:
    blocks = list(Blocks().feed(TEXT))
    assert [event_of(block) for block in blocks] == [
        Event("a", b"1"),
        Event("message", b"2"),
        None,
        Event("message", b"3"),
        Event("message", b"4"),
    ]


def test_what_is_too_long_passes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BLOCK", 100)
    blocks = Blocks()
    passed = b"".join(b"".join(blocks.feed(b"x" * 60)) for _ in range(10))
    assert len(passed) >= 600 - 100
    assert list(blocks.feed(b"\n\ndata: 1\n\n"))[-1] == b"data: 1\n\n"
