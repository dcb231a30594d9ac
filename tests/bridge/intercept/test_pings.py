"""What the bridge says itself within a stream: between two events, whatever the pieces in which they come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.intercept.chat_completions import ChatCompletions
from flask_aibridge.bridge.intercept.messages import Messages
from flask_aibridge.bridge.intercept.streaming import Manner, StreamedBody
from flask_aibridge.bridge.intercept.turn import StreamingTurn
from flask_aibridge.bridge.intercept.wire_format import WireFormat
from flask_aibridge.bridge.interception import Interception
from flask_aibridge.bridge.sse import Event, SSEParser, ends_event
from flask_aibridge.bridge.switch import UpstreamSilent
from tests.bridge.intercept.test_drivers import FakeAnswer

PING = Messages.ping
SILENCE = UpstreamSilent()


def relayed(wire_format: WireFormat, *pieces: bytes | BaseException) -> list[bytes]:
    answer = FakeAnswer(*pieces)
    interception = Interception([])
    interception.status = 200
    body = StreamedBody(
        answer,  # type: ignore[arg-type]
        StreamingTurn(wire_format),
        interception,
        manner=Manner(wire_format, ping_seconds=7.0),
    )
    received = list(body)
    body.close()
    assert answer.patience == 7.0
    return received


def events_in(data: bytes) -> list[Event]:
    parser = SSEParser()
    return [event for event in [*parser.feed(data), *parser.finish()] if event.name != "ping"]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\r\n\n", b"\r\n\r"])
def test_a_blank_line_ends_an_event(end: bytes) -> None:
    """By any of the three line ends; and nothing less does."""
    assert ends_event(b"data: 1" + end)
    assert not ends_event(b"data: 1" + end + b"d")
    assert not ends_event(b"data: 1" + end[: -len(end) // 2])


def test_pings_come_between_events() -> None:
    """Before the first one too; after half of one there is nothing but waiting."""
    half, rest = b"event: x\ndata: 1\n", b"\n"
    received = relayed(Messages(), SILENCE, half, SILENCE, SILENCE, rest, SILENCE, SILENCE)
    assert received == [PING, half, rest, PING, PING]


def test_an_event_that_ends_in_small_pieces() -> None:
    """Is seen to end."""
    received = relayed(Messages(), b"data: 1", b"\r", b"\n", SILENCE, b"\r", b"\n", SILENCE)
    assert b"".join(received) == b"data: 1\r\n\r\n" + PING


def test_what_is_held_back_is_no_half_event_for_the_caller() -> None:
    """They have seen nothing of it."""
    wire_format = ChatCompletions({"stream": True})
    wire_format.edit_request(b'{"stream":true}')
    pieces = (b"data: 1\n\n", b"data: 2", SILENCE, b"\n\n")
    assert relayed(wire_format, *pieces) == [b"data: 1\n\n", ChatCompletions.ping, b"data: 2\n\n"]


LINES = st.sampled_from([b"data: 1", b"data: 22", b"event: x", b": comment", b""])
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(
    st.lists(st.tuples(LINES, ENDS), max_size=12),
    st.lists(st.integers(1, 6), max_size=30),
    st.booleans(),
)
def test_no_event_is_changed_by_a_ping(lines: list[tuple[bytes, bytes]], cuts: list[int], held: bool) -> None:
    """Whatever the stream, and wherever its silences: the same bytes apart from pings, and the same events."""
    wire_format = ChatCompletions({"stream": True})
    if held:
        wire_format.edit_request(b'{"stream":true}')
    stream = rest = b"".join(line + end for line, end in lines)
    pieces: list[bytes | BaseException] = [SILENCE]
    for cut in cuts:
        pieces += [rest[:cut], SILENCE] if rest else []
        rest = rest[cut:]
    received = relayed(wire_format, *pieces, *([rest] if rest else []), SILENCE)
    assert b"".join(piece for piece in received if piece != ChatCompletions.ping) == stream
    assert events_in(b"".join(received)) == events_in(stream)
    assert received[0] == ChatCompletions.ping
