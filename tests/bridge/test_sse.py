"""The SSE parser: the WHATWG rules, whatever the pieces the bytes arrive in."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.sse import Event, SSEParser


def parse(*pieces: bytes, limit: int = 1000) -> list[Event]:
    parser = SSEParser(limit)
    return [event for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [("message", b"a")]),
        (b"data:a\n\n", [("message", b"a")]),
        (b"data:  a\n\n", [("message", b" a")]),
        (b"event: x\ndata: a\n\n", [("x", b"a")]),
        (b"data: a\nevent: x\n\n", [("x", b"a")]),
        (b"data: a\ndata: b\n\n", [("message", b"a\nb")]),
        (b"data\n\n", [("message", b"")]),
        (b"data:\n\n", [("message", b"")]),
        (b"data\ndata\n\n", [("message", b"\n")]),
        (b"event: x\n\ndata: a\n\n", [("message", b"a")]),
        (b"event: x\nevent\ndata: a\n\n", [("message", b"a")]),
        (b": comment\n\n", []),
        (b": comment\ndata: a\n\n", [("message", b"a")]),
        (b"id: 1\nretry: 5\nnovelty: z\ndata: a\n\n", [("message", b"a")]),
        (b"data : a\nDATA: b\n data: c\n\n", []),
        (b"data: a\r\n\r\ndata: b\r\rdata: c\n\n", [("message", b"a"), ("message", b"b"), ("message", b"c")]),
        (b"\n\n\ndata: a\n\n\n\n", [("message", b"a")]),
        (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [("message", b"a")]),
        (b"data: a\n", []),
        ("event: é\ndata: ü\n\n".encode(), [("é", "ü".encode())]),
        (b"event: \xff\ndata: a\n\n", [("\N{REPLACEMENT CHARACTER}", b"a")]),
    ],
)
def test_the_rules_of_the_standard(stream: bytes, events: list[tuple[str, bytes]]) -> None:
    """Fields, comments, line ends, the byte order mark and blank lines mean what the standard says."""
    assert parse(stream) == events


def reference(stream: bytes) -> list[Event]:
    """Parse line by line, as the standard words it."""
    lines = re.split(rb"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf"))[:-1]
    events, name, data = [], b"", b""
    for line in lines:
        if not line:
            if data:
                events.append(Event(name.decode("utf-8", "replace") or "message", data[:-1]))
            name = data = b""
            continue
        field, colon, value = line.partition(b":")
        value = value.removeprefix(b" ") if colon else b""
        if field == b"event":
            name = value
        elif field == b"data":
            data += value + b"\n"
    return events


PIECES = st.sampled_from(
    [
        b"data: x",
        b"data",
        b"event: e",
        b":c",
        b"\n",
        b"\n",
        b"\r",
        b"\r\n",
        b"\xef\xbb\xbf",
        b"data:\xc3\xa9",
        b" ",
        b"id: 1",
    ]
)


@given(st.lists(PIECES, max_size=40).map(b"".join))
def test_any_stream_reads_as_the_standard_words_it(stream: bytes) -> None:
    """Searching for blank lines finds the events that going through it line by line finds."""
    assert parse(stream) == reference(stream)


@given(
    st.lists(PIECES, max_size=40).map(b"".join),
    st.lists(st.integers(0, 200), max_size=20),
    st.integers(1, 60),
)
def test_any_split_of_the_bytes_gives_the_same_events(stream: bytes, cuts: list[int], limit: int) -> None:
    """Neither where a read ends nor how large the limit is makes a difference between the two."""
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[start:end] for start, end in itertools.pairwise(places)]
    singly = [stream[index : index + 1] for index in range(len(stream))]
    whole = parse(stream, limit=limit)
    assert parse(*pieces, limit=limit) == whole
    assert parse(*singly, limit=limit) == whole


def test_an_event_that_is_too_large_ends_the_parsing() -> None:
    """What came before it is reported; nothing after it is, and nothing is kept."""
    parser = SSEParser(max_event_bytes=10)
    assert parser.feed(b"data: ok\n\ndata: far too long\n\ndata: ok\n\n") == [Event("message", b"ok")]
    assert parser.overflowed
    assert parser.feed(b"data: ok\n\n") == parser.finish() == []


def test_an_event_of_exactly_the_limit_is_parsed() -> None:
    """The limit counts the bytes of the event without the line ends that close it."""
    assert parse(b"data: 1234\n\n", limit=10) == [Event("message", b"1234")]
    assert parse(b"data: 1234\n", b"\n", limit=10) == [Event("message", b"1234")]
    assert parse(b"data: 12345\n\n", limit=10) == []


def test_a_line_that_never_ends_overflows_at_the_limit() -> None:
    """A stream without a single line end holds no more than the limit."""
    parser = SSEParser(max_event_bytes=100)
    fed = 0
    while not parser.overflowed:
        parser.feed(b"x" * 7)
        fed += 7
    assert fed == 105


def test_finish_reports_an_event_whose_blank_line_is_missing() -> None:
    """An account of the stream counts it; once."""
    parser = SSEParser()
    assert parser.feed(b"event: e\ndata: a") == []
    assert parser.finish() == [Event("e", b"a")]
    assert parser.finish() == []


@given(
    st.lists(
        st.sampled_from([b"data: a\n", b"\n", b"\r", b"\n\n", b"event: x\n", b"data: b", b": c", b"\xef"])
    )
)
def test_plain_pieces_are_whole_events_of_one_line(parts: list[bytes]) -> None:
    """So the parser stands between two events behind them, and none of them has a name."""
    data, parser = b"".join(parts), SSEParser()
    if parser.is_plain(data):
        lines = [line for line in data.split(b"\n") if line.startswith(b"data: ")]
        assert parser.feed(data) == [Event("message", line[6:]) for line in lines]
        assert parser.finish() == []


@pytest.mark.parametrize("before", [b"data: a", b"data: a\n", b"data: a\r", b"event: x\n"])
def test_the_rest_of_an_event_is_not_plain(before: bytes) -> None:
    """Nor is what may be the rest of a line end."""
    parser = SSEParser()
    parser.feed(before)
    assert not parser.is_plain(b"data: b\n\n")
    assert not parser.is_plain(b"\n\n")


def test_what_is_too_large_is_not_plain() -> None:
    """It may be one event, which ends the parsing."""
    assert not SSEParser(8).is_plain(b"data: abc\n\n")
