"""Turns: every byte is relayed, whatever can be made of it."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.intercept.messages import Messages
from flask_aibridge.bridge.intercept.turn import (
    MAX_WORDS,
    BlockingTurn,
    StreamingTurn,
    UnreadTurn,
    failure,
    parse_document,
)
from flask_aibridge.bridge.intercept.vocabulary import Ended, Failed, Relay, Usage
from flask_aibridge.bridge.sse import SSEParser
from flask_aibridge.observability import TokenUsage
from tests.bridge.intercept.following import said, sse

START = {"type": "message_start", "message": {"usage": {"input_tokens": 1, "output_tokens": 1}}}


def test_bytes_are_relayed_before_they_are_read() -> None:
    """The first thing a turn says is what the caller waits for."""
    turn = StreamingTurn(Messages())
    stream = sse(START)
    items = turn.feed(stream)
    assert next(items) == Relay(stream)
    assert next(items) == Usage(TokenUsage(1, 1))


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=10))
def test_any_bytes_come_through_unchanged(pieces: list[bytes]) -> None:
    """Rubbish is the provider's to send; it is relayed and means nothing (``said`` compares the bytes)."""
    assert said(StreamingTurn(Messages()), pieces) == []
    assert said(UnreadTurn(), pieces) == [Ended()]
    assert said(BlockingTurn(Messages()), pieces) == [Ended()]


def test_a_stream_too_large_to_follow_counts_as_ended() -> None:
    """Nobody looked for its last word, so nobody can say that it is missing."""
    turn = StreamingTurn(Messages(), SSEParser(max_event_bytes=10))
    assert said(turn, [sse(START), sse({"type": "message_stop"})]) == [Ended()]


def test_a_document_larger_than_the_limit_is_relayed_unread() -> None:
    """At the limit it is still read."""
    body = json.dumps({"usage": {"input_tokens": 1}}).encode()
    assert said(BlockingTurn(Messages(), limit=len(body)), [body[:5], body[5:]]) == [
        Usage(TokenUsage(1)),
        Ended(),
    ]
    assert said(BlockingTurn(Messages(), limit=len(body) - 1), [body[:5], body[5:]]) == [Ended()]


def test_documents_that_are_none() -> None:
    """Neither broken JSON, nor JSON of another kind, nor one nested beyond reason is an error here."""
    for data in (b"", b"[]", b"{", b"\xff", b"[" * 100_000, b"1"):
        assert parse_document(data) is None


def test_an_error_message_is_kept_short() -> None:
    """Providers quote the prompt in some errors; records are not the place for it."""
    failed = failure({"type": "x" * 1000, "message": "y" * 1000})
    assert failed == Failed("x" * MAX_WORDS, "y" * MAX_WORDS)
    assert failure(None) == Failed("error", "None")
