"""What answers of the Chat Completions API mean."""

from __future__ import annotations

from typing import Any

from flask_aibridge.bridge.intercept.chat_completions import ChatCompletions
from flask_aibridge.bridge.intercept.vocabulary import Ended, Failed, Usage
from flask_aibridge.observability import TokenUsage
from tests.bridge.intercept.following import answered, sse, streamed

COUNTS = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


def chunk(content: str = "x", reason: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": reason}
    return {"object": "chat.completion.chunk", "choices": [choice], **more}


def test_the_usage_is_in_the_last_chunk() -> None:
    """A null in the chunks before it says nothing."""
    stream = sse(
        chunk(usage=None), chunk(usage=None), {"choices": [], "usage": COUNTS}, "[DONE]", named=False
    )
    assert streamed(ChatCompletions(), stream) == [Usage(TokenUsage(9, 3)), Ended()]


def test_the_last_usage_that_is_not_null_counts() -> None:
    """Some servers report cumulative usage in every chunk, some a null after it."""
    first = chunk(usage=COUNTS | {"completion_tokens": 1})
    stream = sse(first, chunk(usage=COUNTS), chunk(usage=None), "[DONE]", named=False)
    assert streamed(ChatCompletions(), stream)[-2:] == [Usage(TokenUsage(9, 3)), Ended()]


def test_a_stream_without_usage() -> None:
    """Nobody asked for it, so nothing is known."""
    assert streamed(ChatCompletions(), sse(chunk(), chunk("", "stop"), "[DONE]", named=False))[0] == Ended()


def test_a_finish_reason_stands_in_for_a_missing_done() -> None:
    """Not every server of this format sends the last word; a stream with neither is not whole."""
    assert streamed(ChatCompletions(), sse(chunk(), chunk("", "stop"), named=False)) == [Ended()]
    assert streamed(ChatCompletions(), sse(chunk(), named=False)) == []


def test_a_model_that_writes_of_usage_is_not_believed() -> None:
    """Quotes within a text are escaped, so the words of the answer are no report."""
    stream = sse(chunk('"usage": {"prompt_tokens": 5} "error": {}'), named=False)
    assert streamed(ChatCompletions(), stream) == []


def test_an_error_in_the_stream() -> None:
    """It comes as data with an error object, or as an event of that name."""
    error = {"error": {"type": "server_error", "message": "failed", "code": None}}
    assert streamed(ChatCompletions(), sse(chunk(), error, named=False)) == [Failed("server_error", "failed")]
    named = b'event: error\ndata: {"message": "failed", "code": "rate_limit"}\n\n'
    assert streamed(ChatCompletions(), named) == [Failed("rate_limit", "failed")]


def test_a_blocking_answer() -> None:
    """One document holds the usage, or the error."""
    assert answered(ChatCompletions(), {"choices": [], "usage": COUNTS}) == [Usage(TokenUsage(9, 3)), Ended()]
    assert answered(ChatCompletions(), {"error": "nope"}) == [Failed("error", "nope"), Ended()]
    assert answered(ChatCompletions(), ["no object"]) == [Ended()]
