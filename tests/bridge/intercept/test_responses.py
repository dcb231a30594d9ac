"""What answers of the Responses API mean."""

from __future__ import annotations

from typing import Any

import pytest

from flask_aibridge.bridge.intercept.responses import Responses
from flask_aibridge.bridge.intercept.vocabulary import Ended, Failed, Usage
from flask_aibridge.observability import TokenUsage
from tests.bridge.intercept.following import answered, sse, streamed

COUNTS = {"input_tokens": 9, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 4}}
CREATED = {"type": "response.created", "response": {"status": "in_progress", "usage": None}}
DELTA = {"type": "response.output_text.delta", "delta": '"response.completed"'}


def ended(status: str, **more: Any) -> dict[str, Any]:
    return {
        "type": f"response.{status}",
        "response": {"status": status, "usage": COUNTS, "error": None, **more},
    }


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("status", ["completed", "incomplete"])
def test_the_terminal_event_holds_the_usage(status: str, named: bool) -> None:
    """It is the last word as well, with or without event names."""
    items = streamed(Responses(), sse(CREATED, DELTA, ended(status), named=named))
    assert items == [Usage(TokenUsage(5, 3, 4, 0)), Ended()]


def test_a_response_that_failed() -> None:
    """Its usage counts all the same."""
    failed = ended("failed", error={"code": "server_error", "message": "no luck"})
    assert streamed(Responses(), sse(CREATED, failed)) == [
        Failed("server_error", "no luck"),
        Usage(TokenUsage(5, 3, 4, 0)),
        Ended(),
    ]


@pytest.mark.parametrize("named", [True, False])
def test_a_bare_error_event(named: bool) -> None:
    """Code and message are at its top, or in an error object."""
    bare = {"type": "error", "code": "rate_limit", "message": "slow down"}
    assert streamed(Responses(), sse(CREATED, bare, named=named)) == [Failed("rate_limit", "slow down")]
    wrapped = {"type": "error", "error": {"type": "rate_limit", "message": "slow down"}}
    assert streamed(Responses(), sse(CREATED, wrapped, named=named)) == [Failed("rate_limit", "slow down")]


def test_a_blocking_answer() -> None:
    """The response object is the whole document."""
    assert answered(Responses(), ended("completed")["response"]) == [Usage(TokenUsage(5, 3, 4, 0)), Ended()]
