"""The drivers: what a server gets for a body, and what is said of it afterwards."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress

import pytest

from flask_aibridge.bridge.intercept.blocking import held_body
from flask_aibridge.bridge.intercept.chat_completions import ChatCompletions
from flask_aibridge.bridge.intercept.streaming import GuardedTurn, StreamedBody
from flask_aibridge.bridge.intercept.turn import BlockingTurn, StreamingTurn, Turn
from flask_aibridge.bridge.intercept.vocabulary import Item, Prompt, Relay, Usage
from flask_aibridge.bridge.interception import Interception
from flask_aibridge.bridge.upstream import UpstreamBroken, UpstreamCancelled
from flask_aibridge.observability import TokenUsage
from tests.bridge.conftest import RecordingHook

LAST = b'data: {"usage": {"prompt_tokens": 1}}\n\ndata: [DONE]\n\n'


class FakeAnswer:
    """Gives pieces; an exception among them is raised."""

    def __init__(self, *pieces: bytes | BaseException) -> None:
        self.pieces = list(pieces)
        self.closed = 0
        self.patient = True
        self.patience: float | None = None

    def read(self, patience: float | None = None) -> bytes:
        self.patience = patience
        piece = self.pieces.pop(0) if self.pieces else b""
        if isinstance(piece, BaseException):
            raise piece
        return piece

    def unsaid(self, turn: Turn) -> Iterator[Item]:
        return iter(())

    def close(self) -> None:
        self.closed += 1


class FailingTurn:
    def feed(self, data: bytes) -> Iterator[Item]:
        yield Relay(data)
        if data == b"fail":
            raise ZeroDivisionError

    def finish(self) -> Iterator[Item]:
        yield Usage(TokenUsage(1))
        raise ZeroDivisionError

    def cut(self) -> Iterator[Item]:
        yield Prompt("secret words")
        raise ZeroDivisionError("secret words")


@pytest.fixture
def interception(hook: RecordingHook) -> Interception:
    interception = Interception([hook])
    interception.status = 200
    return interception


def streamed(answer: FakeAnswer, interception: Interception, turn: Turn | None = None) -> StreamedBody:
    return StreamedBody(answer, turn or StreamingTurn(ChatCompletions()), interception)  # type: ignore[arg-type]


def held(answer: FakeAnswer, interception: Interception, limit: int) -> list[bytes] | StreamedBody:
    body = held_body(answer, BlockingTurn(ChatCompletions()), interception, limit)  # type: ignore[arg-type]
    assert isinstance(body, list | StreamedBody)
    return body


def test_a_whole_stream(interception: Interception, hook: RecordingHook) -> None:
    """Pieces are handed over as they came, and the account is settled at the end, once."""
    answer = FakeAnswer(b"data: 1\n", b"\n", LAST)
    body = streamed(answer, interception)
    assert list(body) == [b"data: 1\n", b"\n", LAST]
    assert hook.record.outcome == "completed"
    assert hook.record.usage is not None
    body.close()
    assert (len(hook.records), answer.closed) == (1, 1)


def test_nothing_is_read_ahead(interception: Interception) -> None:
    """A provider is asked for more only when the caller has what there was."""
    answer = FakeAnswer(b"1", b"2")
    body = streamed(answer, interception)
    assert next(body) == b"1"
    assert answer.pieces == [b"2"]
    body.close()


def test_a_caller_who_leaves(interception: Interception, hook: RecordingHook) -> None:
    """In the middle, or before the first byte."""
    answer = FakeAnswer(b"data: 1\n\n", LAST)
    body = streamed(answer, interception)
    next(body)
    body.close()
    assert (hook.record.outcome, answer.closed, hook.record.usage) == ("client_closed", 1, None)


def test_a_caller_who_leaves_before_the_first_byte(interception: Interception, hook: RecordingHook) -> None:
    """The iterable is closed though nobody ever iterated it."""
    answer = FakeAnswer(LAST)
    streamed(answer, interception).close()
    assert (hook.record.outcome, answer.closed, hook.record.time_to_first_byte) == ("client_closed", 1, None)


def test_a_caller_who_leaves_after_the_last_word(interception: Interception, hook: RecordingHook) -> None:
    """SDKs do not wait for the end of the body: that is an answer received in full, with its usage."""
    body = streamed(FakeAnswer(LAST), interception)
    next(body)
    body.close()
    assert hook.record.outcome == "completed"
    assert hook.record.usage is not None


def test_a_stream_that_breaks_off(interception: Interception, hook: RecordingHook) -> None:
    """The server gets an exception, after every byte before it: the caller must not see an end."""
    body = streamed(FakeAnswer(b"1", UpstreamBroken("reset")), interception)
    assert next(body) == b"1"
    with pytest.raises(UpstreamBroken):
        next(body)
    body.close()
    assert (hook.record.outcome, hook.record.error) == ("upstream_truncated", "reset")


def test_what_is_known_of_a_broken_stream_is_recorded(
    interception: Interception, hook: RecordingHook
) -> None:
    """The usage as last seen, whoever broke it off."""
    half = b'data: {"choices": [{}], "usage": {"prompt_tokens": 1}}\n\n'
    for end in (UpstreamBroken("reset"), UpstreamCancelled("gone"), SystemExit(1)):
        hook.records.clear()
        interception = Interception([hook])
        interception.status = 200
        with suppress(UpstreamBroken, SystemExit):
            list(streamed(FakeAnswer(half, end), interception))
        assert hook.record.usage == TokenUsage(1)
    hook.records.clear()
    body = streamed(FakeAnswer(half, LAST), Interception([hook]))
    next(body)
    body.close()
    assert (hook.record.usage, hook.record.outcome) == (TokenUsage(1), "client_closed")


def test_what_was_held_back_goes_out_before_a_stream_breaks(interception: Interception) -> None:
    """Every byte before the break reaches the caller."""
    wire_format = ChatCompletions({"stream": True})
    wire_format.edit_request(b'{"stream":true}')
    body = streamed(FakeAnswer(b"data: 1", UpstreamBroken("reset")), interception, StreamingTurn(wire_format))
    assert next(body) == b"data: 1"
    with pytest.raises(UpstreamBroken):
        next(body)
    body.close()


def test_a_stream_that_ends_without_its_last_word(interception: Interception, hook: RecordingHook) -> None:
    """The bytes are relayed as they are; the record knows better."""
    assert list(streamed(FakeAnswer(b"data: 1\n\n"), interception)) == [b"data: 1\n\n"]
    assert hook.record.outcome == "upstream_truncated"


def test_a_cancelled_stream(interception: Interception, hook: RecordingHook) -> None:
    """Nobody is left to be told."""
    assert list(streamed(FakeAnswer(b"1", UpstreamCancelled("gone")), interception)) == [b"1"]
    assert hook.record.outcome == "client_closed"


def test_a_server_that_goes_down(interception: Interception, hook: RecordingHook) -> None:
    """What stops the thread is no error of the provider, and goes on."""
    with pytest.raises(SystemExit):
        next(streamed(FakeAnswer(SystemExit(1)), interception))
    assert hook.record.outcome == "interrupted"


@pytest.mark.parametrize("pieces", [(b"1", b"fail", b"fail"), (b"1", b"2")])
def test_a_turn_that_fails_is_given_up_and_the_bytes_go_on(
    pieces: tuple[bytes, ...],
    interception: Interception,
    hook: RecordingHook,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A mistake of the bridge's own, in the middle or at the end, is logged once and costs the caller nothing."""
    turn = GuardedTurn(FailingTurn(), interception.id)
    with caplog.at_level(logging.ERROR):
        assert list(streamed(FakeAnswer(*pieces), interception, turn)) == list(pieces)
    assert len(caplog.records) == 1
    assert "ZeroDivisionError" in caplog.text
    assert "secret words" not in caplog.text
    assert hook.record.outcome == "completed"


BODY = b'{"usage": {"prompt_tokens": 1}}'


def test_a_short_answer_is_held_and_handed_over_whole(
    interception: Interception, hook: RecordingHook
) -> None:
    """A list, complete before the head: the connection has been given back by then."""
    answer = FakeAnswer(BODY[:9], BODY[9:])
    assert held(answer, interception, limit=len(BODY)) == [BODY]
    assert (hook.record.outcome, answer.closed, hook.record.bytes_sent) == ("completed", 1, len(BODY))
    assert hook.record.usage is not None


def test_a_long_answer_is_streamed(interception: Interception, hook: RecordingHook) -> None:
    """It begins with what was held, and is followed to its end."""
    body = held(FakeAnswer(BODY[:9], BODY[9:20], BODY[20:]), interception, limit=10)
    assert list(body) == [BODY[:9], BODY[9:20], BODY[20:]]
    assert hook.record.outcome == "completed"
    assert hook.record.usage is not None


def test_a_held_answer_that_breaks_off_raises(interception: Interception, hook: RecordingHook) -> None:
    """Nothing has gone out yet, so the bridge can still answer properly."""
    with pytest.raises(UpstreamBroken):
        held(FakeAnswer(BODY[:9], UpstreamBroken("reset")), interception, limit=100)
    assert hook.records == []


def test_a_held_answer_that_is_half_a_document(interception: Interception, hook: RecordingHook) -> None:
    """Without a length the connection's end looks like the answer's; the document knows better."""
    assert held(FakeAnswer(BODY[:-1]), interception, limit=100) == [BODY[:-1]]
    assert hook.record.outcome == "upstream_truncated"


def test_an_answer_that_cannot_say_what_was_used_is_ended_all_the_same(
    interception: Interception, hook: RecordingHook, caplog: pytest.LogCaptureFixture
) -> None:
    """And its words, which may be the user's, are in no log."""

    class Failing(FakeAnswer):
        def unsaid(self, turn: Turn) -> Iterator[Item]:
            raise ZeroDivisionError("secret words")

    body = StreamedBody(Failing(b"data: 1\n\n"), StreamingTurn(ChatCompletions()), interception)  # type: ignore[arg-type]
    next(body)
    body.close()
    assert [record.outcome for record in hook.records] == ["client_closed"]
    assert "ZeroDivisionError" in caplog.text
    assert "secret words" not in caplog.text
