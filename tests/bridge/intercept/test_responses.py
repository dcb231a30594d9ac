"""What exchanges of the Responses API mean."""

from __future__ import annotations

from typing import Any

import pytest

from flask_aibridge.bridge.intercept.responses import Responses
from flask_aibridge.bridge.intercept.vocabulary import (
    Ended,
    Failed,
    Prompt,
    Thought,
    ToolCall,
    Usage,
)
from flask_aibridge.observability import TokenUsage
from tests.bridge.intercept.following import answered, cut_off, sse, streamed

COUNTS = {"input_tokens": 9, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 4}}
CREATED = {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "usage": None}}
DELTA = {"type": "response.output_text.delta", "delta": '"response.completed"'}
TOKENS = TokenUsage(5, 3, 4, 0)


def ended(status: str, **more: Any) -> dict[str, Any]:
    response = {"id": "resp_1", "status": status, "usage": COUNTS, "error": None, **more}
    return {"type": f"response.{status}", "response": response}


def done(index: int, **item: Any) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("status", ["completed", "incomplete"])
def test_the_terminal_event_holds_the_usage(status: str, named: bool) -> None:
    """It is the last word as well, with or without event names."""
    items = streamed(Responses(), sse(CREATED, DELTA, ended(status), named=named))
    assert items == [Usage(TOKENS, "resp_1", status), Ended()]


def test_why_a_response_is_incomplete() -> None:
    """The reason is nearer than the status."""
    stream = sse(ended("incomplete", incomplete_details={"reason": "max_output_tokens"}))
    assert streamed(Responses(), stream)[0] == Usage(TOKENS, "resp_1", "max_output_tokens")


def test_a_response_that_failed() -> None:
    """Its usage counts all the same."""
    failed = ended("failed", error={"code": "server_error", "message": "no luck"})
    assert streamed(Responses(), sse(CREATED, failed)) == [
        Failed("server_error", "no luck"),
        Usage(TOKENS, "resp_1", "failed"),
        Ended(),
    ]


@pytest.mark.parametrize("named", [True, False])
def test_a_bare_error_event(named: bool) -> None:
    """Code and message are at its top, or in an error object."""
    bare = {"type": "error", "code": "rate_limit", "message": "slow down"}
    assert streamed(Responses(), sse(CREATED, bare, named=named)) == [Failed("rate_limit", "slow down")]
    wrapped = {"type": "error", "error": {"type": "rate_limit", "message": "slow down"}}
    assert streamed(Responses(), sse(CREATED, wrapped, named=named)) == [Failed("rate_limit", "slow down")]


def test_a_stream_that_breaks_off() -> None:
    """What was complete by then is known."""
    call = done(0, type="function_call", id="fc_1", call_id="call_1", name="get", arguments="{}")
    items = cut_off(Responses({"input": "hi"}), sse(CREATED, call, DELTA))
    assert items == [Prompt("hi", "resp_1"), ToolCall("get", "{}", "call_1", "fc_1", message_id="resp_1")]


@pytest.mark.parametrize("named", [True, False])
def test_items_are_said_as_they_are_done_and_once(named: bool) -> None:
    """The terminal event repeats them, or leaves them out."""
    item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "get", "arguments": "{ }"}
    call = ToolCall("get", "{ }", "call_1", "fc_1", message_id="resp_1")
    for output in ([item], []):
        stream = sse(CREATED, done(0, **item), ended("completed", output=output), named=named)
        assert streamed(Responses(), stream) == [call, Usage(TOKENS, "resp_1", "completed"), Ended()]
    only = sse(CREATED, ended("completed", output=[item]), named=named)
    assert streamed(Responses(), only)[0] == call
    assert streamed(Responses(content=False), only)[0] == Usage(TOKENS, "resp_1", "completed")


def test_items_without_ids_are_told_apart_by_their_place() -> None:
    """By ``output_index``, and by order where that is missing too."""
    item = {"type": "custom_tool_call", "name": "sql", "input": "SELECT"}
    stream = sse(done(0, **item), done(1, **item), ended("completed", output=[item, item]))
    assert len([each for each in streamed(Responses(), stream) if isinstance(each, ToolCall)]) == 2


@pytest.mark.parametrize(
    ("item", "call"),
    [
        (
            {"type": "custom_tool_call", "call_id": "c", "name": "sql", "input": "SELECT 1"},
            ToolCall("sql", "SELECT 1", "c"),
        ),
        (
            {"type": "local_shell_call", "call_id": "c", "action": {"command": ["ls"]}},
            ToolCall("local_shell", '{"command":["ls"]}', "c"),
        ),
        (
            {"type": "web_search_call", "id": "ws_1", "action": {"query": "x"}},
            ToolCall("web_search", '{"query":"x"}', None, "ws_1", "server"),
        ),
        (
            {"type": "mcp_call", "id": "mcp_1", "name": "roll", "arguments": '{"d":6}', "output": "4"},
            ToolCall("roll", '{"d":6}', None, "mcp_1", "server"),
        ),
        (
            {"type": "code_interpreter_call", "id": "ci_1", "code": None},
            ToolCall("code_interpreter", "", None, "ci_1", "server"),
        ),
        ({"type": "function_call", "id": "fc_1"}, ToolCall("", "", None, "fc_1")),
    ],
)
def test_tools_and_who_runs_them(item: dict[str, Any], call: ToolCall) -> None:
    """What the caller has to run, and what the provider has run."""
    assert streamed(Responses(), sse(done(0, **item))) == [call]


def test_what_an_agent_says_of_its_work_is_a_thought() -> None:
    """Summaries, reasoning that is shown, commentary; not the answer, and nothing encrypted."""
    stream = sse(
        done(
            0,
            type="reasoning",
            summary=[{"type": "summary_text", "text": "One."}, {"type": "summary_text", "text": "Two."}],
            content=[{"type": "reasoning_text", "text": "Raw."}],
            encrypted_content="c2VjcmV0",
        ),
        done(1, type="message", phase="commentary", content=[{"type": "output_text", "text": "Looking."}]),
        done(2, type="message", phase="final_answer", content=[{"type": "output_text", "text": "42"}]),
        done(3, type="message", content=[{"type": "output_text", "text": "43"}]),
        done(4, type="reasoning", summary=[]),
    )
    assert streamed(Responses(), stream) == [
        Thought("One.", "reasoning_summary"),
        Thought("Two.", "reasoning_summary"),
        Thought("Raw.", "thinking"),
        Thought("Looking.", "commentary"),
    ]


USER = {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image"}]}


@pytest.mark.parametrize(
    ("asked", "prompt"),
    [
        ("hi", "hi"),
        ([USER], "a"),
        ([USER | {"content": "b", "type": "message"}], "b"),
        ([{"role": "user", "content": [*USER["content"], {"type": "input_text", "text": "c"}]}], "a\nc"),
        ([USER, {"type": "function_call_output", "call_id": "x", "output": "42"}], None),
        ([USER, {"role": "assistant", "content": "hi"}], None),
        ([{"role": "user", "content": [{"type": "input_image"}]}], None),
        ([{"role": "user"}], None),
        ([], None),
        (None, None),
    ],
)
def test_the_prompt(asked: object, prompt: str | None) -> None:
    """The input, or its last item if that is the user's, all texts of it."""
    items = streamed(Responses({"input": asked}), sse(CREATED))
    assert items == ([] if prompt is None else [Prompt(prompt, "resp_1")])


def test_an_id_that_does_not_come_first_is_known_at_the_end() -> None:
    """The first event repeats the whole request and is not parsed for it."""
    created = {"type": "response.created", "response": {"object": "response", "id": "resp_1"}}
    items = streamed(Responses({"input": "hi"}), sse(created, ended("completed")))
    assert items[0] == Prompt("hi", "resp_1")


def test_a_blocking_answer() -> None:
    """The response object is the whole document."""
    response = ended("completed", output=[{"type": "reasoning", "summary": "x"}])["response"]
    assert answered(Responses(), response) == [Usage(TOKENS, "resp_1", "completed"), Ended()]
    assert answered(Responses(), {"error": {"message": "m", "type": "t"}}) == [Failed("t", "m"), Ended()]


def test_wrong_types_say_nothing() -> None:
    """Whatever a server puts where something else belongs."""
    stream = sse(
        {"type": "response.created", "response": 7},
        {"type": "response.output_item.done", "item": "x", "output_index": "y"},
        done(0, type=["function_call"]),
        done(1, type="reasoning", summary=[7, {"type": "summary_text", "text": 7}], content="x"),
        done(2, type="message", phase="commentary", content={}),
    )
    assert streamed(Responses(), stream) == []
