"""What exchanges of the Messages API mean."""

from __future__ import annotations

from typing import Any

import pytest

from flask_aibridge.bridge.intercept.content import MAX_OPEN, MAX_TEXT
from flask_aibridge.bridge.intercept.messages import Messages
from flask_aibridge.bridge.intercept.vocabulary import Ended, Failed, Prompt, Thought, ToolCall, Usage
from flask_aibridge.observability import TokenUsage
from tests.bridge.intercept.following import answered, cut_off, sse, streamed

Event = dict[str, Any]

START: Event = {
    "type": "message_start",
    "message": {"id": "msg_1", "usage": {"input_tokens": 25, "output_tokens": 1}},
}
TEXT: Event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}}
END: Event = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}}
STOP: Event = {"type": "message_stop"}
USAGE = Usage(TokenUsage(25, 15), "msg_1", "end_turn")
ASKED: Event = {"messages": [{"role": "user", "content": "Say hi"}]}


def begin(index: int, **block: Any) -> Event:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, **fields: str) -> Event:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def stop(index: int) -> Event:
    return {"type": "content_block_stop", "index": index}


def tool(index: int, *pieces: str, kind: str = "tool_use", close: bool = True) -> list[Event]:
    start = begin(index, type=kind, id=f"toolu_{index}", name="get", input={})
    deltas = [delta(index, "input_json_delta", partial_json=piece) for piece in pieces]
    return [start, *deltas, *([stop(index)] if close else [])]


def test_usage_is_merged_over_the_events_of_a_stream_and_said_once() -> None:
    """The counts of ``message_delta`` are cumulative: they replace those of ``message_start``, field by field."""
    assert streamed(Messages(), sse(START, {"type": "ping"}, TEXT, END, STOP)) == [USAGE, Ended()]


def test_usage_may_be_in_the_last_event_alone() -> None:
    """Some servers report everything at the end, corrected."""
    start = {"type": "message_start", "message": {"usage": None}}
    end = END | {"usage": {"input_tokens": 5, "cache_read_input_tokens": 20, "output_tokens": 2}}
    usage = Usage(TokenUsage(5, 2, 20, 0), "", "end_turn")
    assert streamed(Messages(), sse(start, end, STOP)) == [usage, Ended()]


@pytest.mark.parametrize("content", [True, False])
def test_events_may_come_without_names(content: bool) -> None:
    """The type in the data says the same."""
    stream = sse(START, *tool(0, "{}"), TEXT, END, STOP, named=False)
    items = streamed(Messages(content=content), stream)
    assert items[-2:] == [USAGE, Ended()]
    assert len(items) == (3 if content else 2)


def test_an_error_in_the_stream() -> None:
    """An error may come after the head, and ends the answer without its last word."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    usage = Usage(TokenUsage(25, 1), "msg_1")
    assert streamed(Messages(), sse(START, error)) == [Failed("overloaded_error", "Overloaded"), usage]
    untyped = b'event: error\ndata: {"error": {"type": "api_error"}}\n\n'
    assert streamed(Messages(), untyped) == [Failed("api_error", "")]


def test_a_stream_that_stops_has_not_ended() -> None:
    """Without ``message_stop`` nothing says that the answer is whole; the usage counts all the same."""
    assert streamed(Messages(), sse(START, TEXT, END)) == [USAGE]
    assert cut_off(Messages(), sse(START, TEXT)) == [Usage(TokenUsage(25, 1), "msg_1")]


def test_what_follows_the_last_word_is_padding() -> None:
    """Nothing is counted twice."""
    assert streamed(Messages(), sse(START, END, STOP, START, END, STOP)) == [USAGE, Ended()]


def test_the_prompt_is_said_with_the_answers_first_word() -> None:
    """It belongs to the message that answers it."""
    assert streamed(Messages(ASKED), sse(START, END, STOP)) == [Prompt("Say hi", "msg_1"), USAGE, Ended()]
    assert cut_off(Messages(ASKED), b"") == [Prompt("Say hi")]
    assert streamed(Messages(ASKED, content=False), sse(START, END, STOP)) == [USAGE, Ended()]


@pytest.mark.parametrize(
    ("messages", "prompt"),
    [
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], None),
        (
            [{"role": "user", "content": [{"type": "text", "text": "sys"}, {"type": "text", "text": "a"}]}],
            "a",
        ),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}], "a"),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "tool_result"}]}], None),
        ([{"role": "user", "content": [{"type": "text", "text": 7}]}], None),
        ([{"role": "user", "content": " \n"}], None),
        ([{"role": "user"}], None),
        (["a"], None),
        ([], None),
        ("a", None),
        (None, None),
        ([{"role": "user", "content": "x" * (MAX_TEXT + 1)}], "x" * (MAX_TEXT - 1) + "…"),
    ],
)
def test_the_prompt_is_what_the_user_said_last(messages: object, prompt: str | None) -> None:
    """Not the results of tools, and not what agents put before it."""
    said = [item.text for item in cut_off(Messages({"messages": messages}), b"") if isinstance(item, Prompt)]
    assert said == ([] if prompt is None else [prompt])


def test_a_tool_call_is_assembled_from_its_pieces() -> None:
    """As JSON text, the way the model wrote it; it is said with the block's end."""
    stream = sse(START, *tool(1, "", '{"a": ', "1.0 }"), TEXT)
    assert streamed(Messages(), stream)[0] == ToolCall("get", '{"a": 1.0 }', "toolu_1", message_id="msg_1")


def test_blocks_may_interleave() -> None:
    """Each piece belongs to its index."""
    one, two = tool(0, '{"a":', "1}"), tool(1, '{"b":', "2}")
    mixed = [event for pair in zip(one, two, strict=True) for event in pair]
    calls = [item for item in streamed(Messages(), sse(*mixed)) if isinstance(item, ToolCall)]
    assert [(call.call_id, call.arguments) for call in calls] == [
        ("toolu_0", '{"a":1}'),
        ("toolu_1", '{"b":2}'),
    ]


@pytest.mark.parametrize(
    ("pieces", "arguments"), [((), "{}"), (("",), "{}"), (('{"a"',), '{"a"'), (("oops",), "oops")]
)
def test_arguments_may_be_missing_or_broken(pieces: tuple[str, ...], arguments: str) -> None:
    """What the model wrote is what is said."""
    (call,) = streamed(Messages(), sse(*tool(0, *pieces)))
    assert call == ToolCall("get", arguments, "toolu_0")


@pytest.mark.parametrize("kind", ["server_tool_use", "mcp_tool_use"])
def test_the_providers_own_tools_are_told_apart(kind: str) -> None:
    """Nobody but the provider runs them; their results mean nothing here."""
    result = begin(1, type="web_search_tool_result", tool_use_id="x", content=[])
    stream = sse(*tool(0, '{"q":1}', kind=kind), result, stop(1))
    assert streamed(Messages(), stream) == [ToolCall("get", '{"q":1}', "toolu_0", kind="server")]


def test_a_call_without_a_stop_counts_if_the_answer_is_whole() -> None:
    """A model that ran out of tokens leaves it open; one in a stream that broke off will never be run."""
    stream = sse(START, *tool(0, '{"a":', close=False), END, STOP)
    assert streamed(Messages(), stream)[0] == ToolCall("get", '{"a":', "toolu_0", message_id="msg_1")
    assert not any(isinstance(item, ToolCall) for item in cut_off(Messages(), stream[:-40]))


def test_thinking_is_a_thought() -> None:
    """Signatures and what is redacted are not; a piece that was shown counts though the stream broke off."""
    events = [
        START,
        begin(0, type="thinking", thinking="", signature=""),
        delta(0, "thinking_delta", thinking="Let me "),
        delta(0, "thinking_delta", thinking="think."),
        delta(0, "signature_delta", signature="c2ln"),
        stop(0),
        begin(1, type="redacted_thinking", data="aGlkZGVu"),
        stop(1),
    ]
    assert streamed(Messages(), sse(*events))[0] == Thought("Let me think.", "thinking")
    assert len(streamed(Messages(), sse(*events))) == 2
    assert cut_off(Messages(), sse(*events[:3]))[0] == Thought("Let me ", "thinking")


def test_thinking_that_is_not_shown_is_none() -> None:
    """Some models send the block and the signature alone."""
    events = [begin(0, type="thinking", thinking=""), delta(0, "signature_delta", signature="s"), stop(0)]
    assert streamed(Messages(), sse(*events)) == []


def test_what_is_gathered_is_bounded() -> None:
    """A text at its limit ends with an ellipsis; blocks beyond the number that may be open are not followed."""
    piece = "x" * (MAX_TEXT // 2 + 1)
    (call,) = streamed(Messages(), sse(*tool(0, piece, piece, piece)), size=10**6)
    assert isinstance(call, ToolCall)
    assert (len(call.arguments), call.arguments[-1]) == (MAX_TEXT, "…")
    opened = [event for index in range(MAX_OPEN + 5) for event in tool(index, "{}", close=False)]
    assert len(streamed(Messages(), sse(*opened, STOP), size=10**6)) == MAX_OPEN + 1


def test_a_blocking_answer() -> None:
    """One document holds everything."""
    message = {
        "type": "message",
        "id": "msg_1",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "s"},
            {"type": "text", "text": "hi"},
            {"type": "tool_use", "id": "toolu_1", "name": "get", "input": {"ü": 1}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 1, "output_tokens": 0},
    }
    assert answered(Messages(ASKED), message) == [
        Prompt("Say hi", "msg_1"),
        Thought("Hm.", "thinking"),
        ToolCall("get", '{"ü":1}', "toolu_1", message_id="msg_1"),
        Usage(TokenUsage(1, 0), "msg_1", "tool_use"),
        Ended(),
    ]
    assert answered(Messages(ASKED, content=False), message)[1:] == [Ended()]


def test_a_blocking_error() -> None:
    """The error document names its kind; what was asked has been sent all the same."""
    document = {"type": "error", "error": {"type": "not_found_error", "message": "model: x"}}
    failed = Failed("not_found_error", "model: x")
    assert answered(Messages(), document) == [failed, Ended()]
    assert Prompt("Say hi") in answered(Messages(ASKED), document)


def test_what_is_unknown_says_nothing() -> None:
    """New events, data that is no JSON and wrong types are relayed and mean nothing."""
    stream = sse(
        {"type": "novelty", "usage": {"input_tokens": 5}},
        "no json",
        {"type": "message_start", "message": 7},
        {"type": "content_block_start", "index": "x", "content_block": {"type": "tool_use"}},
        {"type": "content_block_start", "index": 0, "content_block": "thinking"},
        {"type": "content_block_delta", "index": None, "delta": {"type": "thinking_delta"}},
        {"type": "content_block_delta", "index": 9, "delta": {"type": "input_json_delta"}},
        {"type": ["message_stop"]},
    )
    assert streamed(Messages(), stream) == []
