"""Withholding single events: they are taken out whole, and no other byte is touched or kept waiting for long."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.intercept.withholding import MAX_HELD, Withholder
from flask_aibridge.bridge.sse import Event

SUSPICIOUS = re.compile(rb"no")


def withholder() -> Withholder:
    """Withholds events whose data is ``no``."""
    return Withholder(SUSPICIOUS, lambda event: event.data == b"no")


def passed(stream: bytes, cuts: list[int] | None = None) -> bytes:
    places = sorted({0, len(stream), *(cut for cut in cuts or () if cut < len(stream))})
    taking = withholder()
    out = b"".join(taking.feed(stream[start:end]) for start, end in itertools.pairwise(places))
    return out + taking.rest()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_an_event_is_taken_out_whole(end: bytes, size: int) -> None:
    """Its lines and the blank line after it, by any line end, in any pieces."""
    events = [
        [b"data: yes"],
        [b"event: x", b"data: no", b"id: 1"],
        [b": no"],
        [b"data: no"],
        [b"data: no no"],
    ]
    blocks = [end.join(lines) + end + end for lines in events]
    stream = b"".join(blocks)
    assert passed(stream, list(range(0, len(stream), size))) == blocks[0] + blocks[2] + blocks[4]


PIECES = st.sampled_from(
    [b"data: no", b"data: yes", b"data: no ", b":no", b"\n", b"\n", b"\r", b"\r\n", b"x"]
)


@given(st.lists(PIECES, max_size=30).map(b"".join), st.lists(st.integers(0, 200), max_size=20))
def test_where_a_read_ends_makes_no_difference(stream: bytes, cuts: list[int]) -> None:
    """The same bytes pass."""
    assert passed(stream, cuts) == passed(stream)
    assert passed(stream, list(range(len(stream)))) == passed(stream)


@given(st.lists(PIECES, max_size=30).map(b"".join), st.lists(st.integers(0, 200), max_size=20))
def test_what_nobody_withholds_passes_unchanged(stream: bytes, cuts: list[int]) -> None:
    """Every byte, in its place."""
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    taking = Withholder(SUSPICIOUS, lambda event: False)
    out = b"".join(taking.feed(stream[start:end]) for start, end in itertools.pairwise(places))
    assert out + taking.rest() == stream


def test_whole_events_pass_at_once() -> None:
    """Only the beginning of an event waits, for its end."""
    taking = withholder()
    assert taking.feed(b"data: a\n\n") == b"data: a\n\n"
    assert taking.feed(b"data: a\n\ndata: ") == b"data: a\n\n"
    assert taking.feed(b"b") == b""
    assert taking.feed(b"\n\n") == b"data: b\n\n"
    assert taking.rest() == b""


def test_an_event_that_is_too_long_passes_as_it_comes() -> None:
    """It can be none of those that are withheld; but for its last bytes, in which its end may begin."""
    taking = withholder()
    start = b"data: no" + b" " * MAX_HELD
    out = taking.feed(start)
    assert start.startswith(out)
    assert len(start) - len(out) == 3
    assert taking.feed(b"x") == b" "
    out += b" " + taking.feed(b"\n\ndata: no\n\ndata: yes\n\n")
    assert out == start + b"x\n\ndata: yes\n\n"


def test_the_judge_sees_the_event() -> None:
    """As a reader of the stream would, and only where the pattern is found."""
    seen: list[Event] = []

    def judge(event: Event) -> bool:
        seen.append(event)
        return True

    taking = Withholder(SUSPICIOUS, judge)
    assert (
        taking.feed(b"data: yes\n\nevent: e\r\ndata: n\r\ndata: no\r\n\r\n: no\n\n")
        == b"data: yes\n\n: no\n\n"
    )
    assert seen == [Event("e", b"n\nno")]
