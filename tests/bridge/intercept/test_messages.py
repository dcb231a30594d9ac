"""What answers of the Messages API mean."""

from __future__ import annotations

from typing import Any

from flask_aibridge.bridge.intercept.messages import Messages
from flask_aibridge.bridge.intercept.vocabulary import Ended, Failed, Usage
from flask_aibridge.observability import TokenUsage
from tests.bridge.intercept.following import answered, sse, streamed

START: dict[str, Any] = {
    "type": "message_start",
    "message": {"usage": {"input_tokens": 25, "output_tokens": 1}},
}
DELTA = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}}
STOP = {"type": "message_stop"}


def test_usage_is_merged_over_the_events_of_a_stream() -> None:
    """The counts of ``message_delta`` are cumulative: they replace those of ``message_start``, field by field."""
    items = streamed(Messages(), sse(START, {"type": "ping"}, DELTA, END, STOP))
    assert items == [Usage(TokenUsage(25, 1)), Usage(TokenUsage(25, 15)), Ended()]


def test_usage_may_be_in_the_last_event_alone() -> None:
    """Some servers report everything at the end, corrected."""
    start = {"type": "message_start", "message": {"usage": None}}
    end = END | {"usage": {"input_tokens": 5, "cache_read_input_tokens": 20, "output_tokens": 2}}
    assert streamed(Messages(), sse(start, end, STOP)) == [Usage(TokenUsage(5, 2, 20, 0)), Ended()]


def test_events_may_come_without_names() -> None:
    """The type in the data says the same."""
    items = streamed(Messages(), sse(START, DELTA, END, STOP, named=False))
    assert items[-2:] == [Usage(TokenUsage(25, 15)), Ended()]


def test_an_error_in_the_stream() -> None:
    """An error may come after the head, and ends the answer without its last word."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    assert streamed(Messages(), sse(START, error)) == [
        Usage(TokenUsage(25, 1)),
        Failed("overloaded_error", "Overloaded"),
    ]


def test_a_stream_that_stops_has_not_ended() -> None:
    """Without ``message_stop`` nothing says that the answer is whole."""
    assert Ended() not in streamed(Messages(), sse(START, DELTA, END))


def test_a_blocking_answer() -> None:
    """One document holds the usage."""
    usage = {"input_tokens": 1, "output_tokens": 0}
    assert answered(Messages(), {"type": "message", "usage": usage}) == [Usage(TokenUsage(1, 0)), Ended()]


def test_a_blocking_error() -> None:
    """The error document names its kind."""
    document = {"type": "error", "error": {"type": "not_found_error", "message": "model: x"}}
    assert answered(Messages(), document) == [Failed("not_found_error", "model: x"), Ended()]


def test_what_is_unknown_says_nothing() -> None:
    """New events, data that is no JSON and wrong types are relayed and mean nothing."""
    stream = sse(
        {"type": "novelty", "usage": {"input_tokens": 5}}, "no json", {"type": "message_start", "message": 7}
    )
    assert streamed(Messages(), stream) == []
