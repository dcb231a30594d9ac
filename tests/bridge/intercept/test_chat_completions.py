"""What exchanges of the Chat Completions API mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.intercept.chat_completions import ChatCompletions
from flask_aibridge.bridge.intercept.turn import StreamingTurn
from flask_aibridge.bridge.intercept.vocabulary import (
    Ended,
    Failed,
    Item,
    Prompt,
    Thought,
    ToolCall,
    Usage,
)
from flask_aibridge.observability import TokenUsage
from tests.bridge.intercept.following import answered, cut_off, fed, relayed, sse, streamed

COUNTS = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
USAGE = Usage(TokenUsage(9, 3), "c-1")
STOPPED = Usage(TokenUsage(9, 3), "c-1", "stop")


def chunk(content: str | None = "x", reason: str | None = None, **more: Any) -> dict[str, Any]:
    return of({"content": content}, reason, **more)


def of(delta: dict[str, Any], reason: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": reason}
    return {"id": "c-1", "object": "chat.completion.chunk", "choices": [choice], **more}


def fragment(
    index: int, arguments: str | None, call_id: str | None = None, name: str | None = None
) -> dict[str, Any]:
    head = {} if call_id is None else {"id": call_id, "type": "function"}
    function = {"arguments": arguments} | ({} if name is None else {"name": name})
    return {"index": index, **head, "function": function}


def chat(*events: Any) -> bytes:
    return sse(*events, named=False)


def calls(items: list[Item]) -> list[tuple[str, str, str | None]]:
    return [(item.name, item.arguments, item.call_id) for item in items if isinstance(item, ToolCall)]


def test_the_usage_is_in_the_last_chunk() -> None:
    """A null in the chunks before it says nothing."""
    stream = chat(chunk(usage=None), chunk(usage=None), {"choices": [], "usage": COUNTS}, "[DONE]")
    assert streamed(ChatCompletions(), stream) == [USAGE, Ended()]


def test_the_last_usage_that_is_not_null_counts() -> None:
    """Some servers report cumulative usage in every chunk, some a null after it."""
    first = chunk(usage=COUNTS | {"completion_tokens": 1})
    stream = chat(first, chunk(usage=COUNTS), chunk(usage=None), "[DONE]")
    assert streamed(ChatCompletions(), stream) == [USAGE, Ended()]


def test_a_finish_reason_stands_in_for_a_missing_done() -> None:
    """Not every server of this format sends the last word; a stream with neither is not whole."""
    assert streamed(ChatCompletions(), chat(chunk(), chunk("", "stop"))) == [Ended()]
    assert streamed(ChatCompletions(), chat(chunk(), chunk("", "stop", usage=COUNTS))) == [STOPPED, Ended()]
    assert streamed(ChatCompletions(), chat(chunk())) == []
    assert cut_off(ChatCompletions(), chat(chunk(), chunk("", "stop", usage=COUNTS))) == [STOPPED]


def test_a_model_that_writes_of_usage_is_not_believed() -> None:
    """Quotes within a text are escaped, so the words of the answer are no report."""
    stream = chat(chunk(), chunk('"usage": {"prompt_tokens": 5} "error": {} "tool_calls": ['))
    assert streamed(ChatCompletions(), stream) == []


def test_an_error_in_the_stream() -> None:
    """It comes as data with an error object, or as an event of that name."""
    error = {"error": {"type": "server_error", "message": "failed", "code": None}}
    assert streamed(ChatCompletions(), chat(chunk(), error)) == [Failed("server_error", "failed")]
    named = b'event: error\ndata: {"message": "failed", "code": "rate_limit"}\n\n'
    assert streamed(ChatCompletions(), named) == [Failed("rate_limit", "failed")]
    vllm = {"object": "error", "message": "failed", "type": "BadRequestError"}
    assert streamed(ChatCompletions(), chat(vllm)) == [Failed("BadRequestError", "failed")]


def test_a_blocking_answer() -> None:
    """One document holds the usage, or the error."""
    message = {
        "content": "hi",
        "tool_calls": [fragment(0, "{}", "call_1", "get")],
        "reasoning_content": "Hm.",
    }
    document = {
        "id": "c-1",
        "choices": [{"message": message, "finish_reason": "tool_calls"}],
        "usage": COUNTS,
    }
    assert answered(ChatCompletions(), document) == [
        Thought("Hm.", "thinking"),
        ToolCall("get", "{}", "call_1", message_id="c-1"),
        Usage(TokenUsage(9, 3), "c-1", "tool_calls"),
        Ended(),
    ]
    assert answered(ChatCompletions(), {"error": "nope"}) == [Failed("error", "nope"), Ended()]


def test_parallel_calls_interleave() -> None:
    """By their index; the first fragment alone has name and id; they are said when the choice has ended."""
    stream = chat(
        of({"role": "assistant", "content": None}),
        of({"tool_calls": [fragment(0, "", "call_0", "get"), fragment(1, '{"b', "call_1", "put")]}),
        of({"tool_calls": [fragment(1, '":2}')]}),
        of({"tool_calls": [fragment(0, '{"a":1}')]}),
        of({}, "tool_calls"),
    )
    items = streamed(ChatCompletions(), stream)
    assert calls(items) == [("get", '{"a":1}', "call_0"), ("put", '{"b":2}', "call_1")]
    assert calls(streamed(ChatCompletions(content=False), stream)) == []


def test_indexes_may_begin_anywhere_or_all_be_the_same() -> None:
    """A new id begins a new call, whatever its number."""
    stream = chat(
        chunk(),
        of({"tool_calls": [fragment(0, '{"a":1}', "x", "get")]}),
        of({"tool_calls": [fragment(0, '{"b":2}', "y", "get")]}),
        of({"tool_calls": [fragment(7, "{}", "z", "put")]}),
        of({}, "tool_calls"),
    )
    items = streamed(ChatCompletions(), stream)
    assert calls(items) == [("get", '{"a":1}', "x"), ("get", '{"b":2}', "y"), ("put", "{}", "z")]


def test_an_id_that_is_repeated_goes_on_with_its_call() -> None:
    """Some servers send it with every fragment."""
    stream = chat(
        of({"tool_calls": [fragment(0, '{"a":', "x", "get")]}),
        of({"tool_calls": [fragment(0, "1}", "x")]}),
        "[DONE]",
    )
    assert calls(streamed(ChatCompletions(), stream)) == [("get", '{"a":1}', "x")]


def test_several_choices_keep_their_calls_apart() -> None:
    """With ``n`` above 1 their chunks interleave."""
    stream = chat(
        of({"tool_calls": [fragment(0, '{"a":', "x", "get")]}, index=0),
        of({"tool_calls": [fragment(0, '{"b":', "y", "get")]}, index=1),
        of({"tool_calls": [fragment(0, "1}")]}, index=0),
        of({"tool_calls": [fragment(0, "2}")]}, index=1),
        of({}, "tool_calls", index=1),
        of({}, "tool_calls", index=0),
    )
    assert calls(streamed(ChatCompletions(), stream)) == [("get", '{"b":2}', "y"), ("get", '{"a":1}', "x")]


def test_the_older_and_the_newer_kind_of_call() -> None:
    """``function_call`` has no id; a custom tool's input is any text."""
    old = chat(
        of({"function_call": {"name": "get", "arguments": ""}}),
        of({"function_call": {"arguments": "{}"}}),
        of({}, "function_call"),
    )
    assert calls(streamed(ChatCompletions(), old)) == [("get", "{}", None)]
    call = {"index": 0, "id": "x", "type": "custom", "custom": {"name": "sql", "input": "SELECT"}}
    assert calls(streamed(ChatCompletions(), chat(of({"tool_calls": [call]}, "tool_calls")))) == [
        ("sql", "SELECT", "x")
    ]


def test_a_call_in_a_stream_that_broke_off_is_none() -> None:
    """Nobody has it whole, so nobody runs it; one that ran out of tokens is said as far as it came."""
    head = chat(of({"tool_calls": [fragment(0, '{"a":', "x", "get")]}))
    assert calls(cut_off(ChatCompletions(), head)) == []
    assert calls(streamed(ChatCompletions(), head + chat(of({}, "length")))) == [("get", '{"a":', "x")]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_of_servers_that_show_it(field: str) -> None:
    """It comes beside the content, under either of two names."""
    stream = chat(
        of({field: "Let me "}), of({field: "think."}), of({field: "", "content": "hi"}), of({}, "stop")
    )
    assert streamed(ChatCompletions(), stream)[0] == Thought("Let me think.", "thinking")
    assert cut_off(ChatCompletions(), stream[:-60])[0] == Thought("Let me think.", "thinking")


@pytest.mark.parametrize(
    ("content", "prompt"),
    [
        ("hi", "hi"),
        ([{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}], "b"),
        ([{"type": "image_url"}], None),
    ],
)
def test_the_prompt(content: object, prompt: str | None) -> None:
    """What the user said last, if they spoke last."""
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": content}]
    items = streamed(ChatCompletions({"messages": messages}), chat(chunk()))
    assert items == ([] if prompt is None else [Prompt(prompt, "c-1")])
    tool = {"messages": [*messages, {"role": "tool", "content": "42"}]}
    assert streamed(ChatCompletions(tool), chat(chunk())) == []


EDITED = [
    (b'{"stream":true}', b'{"stream":true,"stream_options":{"include_usage":true}}'),
    (b' { "stream" : true } \n', b' { "stream" : true ,"stream_options":{"include_usage":true}} \n'),
    (b'{"stream_options":null,"stream":true}', b'{"stream_options":{"include_usage":true},"stream":true}'),
    (b'{"stream":true,"stream_options":{}}', b'{"stream":true,"stream_options":{"include_usage":true}}'),
    (
        b'{"stream":true,"stream_options":{ "a" : 1 }, "z": 1}',
        b'{"stream":true,"stream_options":{ "a" : 1 ,"include_usage":true}, "z": 1}',
    ),
    (
        b'{"stream_options": { "include_usage" : false, "a": 2 }, "stream": true}',
        b'{"stream_options": { "include_usage" : true, "a": 2 }, "stream": true}',
    ),
    (
        b'{"metadata":{"stream_options":{}},"stream":true}',
        b'{"metadata":{"stream_options":{}},"stream":true,"stream_options":{"include_usage":true}}',
    ),
    (
        b'{"stream_options":1,"stream":true,"stream_options":{}}',
        b'{"stream_options":1,"stream":true,"stream_options":{"include_usage":true}}',
    ),
]
UNTOUCHED = [
    b'{"stream":true,"stream_options":{"include_usage":true}}',
    b'{"stream":true,"stream_options":"odd"}',
    b'{"stream":false}',
    b'{"stream":1}',
    b"{}",
    '{"stream":true}'.encode("utf-16"),
    '{"stream":true}'.encode("utf-16-le"),
    b'\xef\xbb\xbf{"stream":true}',
]


@pytest.mark.parametrize(("body", "edited"), EDITED)
def test_usage_is_asked_for_where_the_caller_did_not(body: bytes, edited: bytes) -> None:
    """That field alone changes."""
    wire_format = ChatCompletions(json.loads(body))
    assert wire_format.edit_request(body) == edited
    assert wire_format.withholder() is not None


@pytest.mark.parametrize("body", UNTOUCHED)
def test_other_requests_go_as_they_came(body: bytes) -> None:
    """Callers who ask, do not stream, or say what nobody understands; nothing is kept from them."""
    wire_format = ChatCompletions(json.loads(body))
    assert wire_format.edit_request(body) is body
    assert wire_format.withholder() is None


def asked_for_by_the_bridge() -> ChatCompletions:
    wire_format = ChatCompletions({"stream": True})
    wire_format.edit_request(b'{"stream":true}')
    return wire_format


def test_the_chunk_that_was_not_asked_for_is_withheld_and_counted() -> None:
    """Only that one: other chunks without choices, and usage beside a choice, are the provider's idea."""
    before = chat(chunk(), {"choices": [], "prompt_filter_results": []}, chunk("", "stop", usage=COUNTS))
    extra = chat({"id": "c-1", "choices": [], "usage": COUNTS})
    done = chat("[DONE]")
    for size in (1, 7, 100, 10_000):
        stream = before + extra + done
        pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
        items = fed(StreamingTurn(asked_for_by_the_bridge()), pieces)
        assert relayed(items) == before + done
        assert items[-2:] == [STOPPED, Ended()]


def test_what_is_held_back_goes_out_with_the_end() -> None:
    """A stream that breaks off within an event loses nothing."""
    turn = StreamingTurn(asked_for_by_the_bridge())
    half = b'data: {"choices": [], "us'
    assert relayed(turn.feed(half)) == b""
    assert relayed(turn.cut()) == half


def test_wrong_types_say_nothing() -> None:
    """Whatever a server puts where something else belongs."""
    stream = chat(
        {"id": 7, "choices": "none", "usage": "many"},
        {"choices": [7, {"index": "x", "finish_reason": 3, "delta": 1}], "usage": {}},
        of({"tool_calls": "x", "function_call": "y", "reasoning": 1}),
        of({"tool_calls": [{"index": "x"}, {"index": 0, "function": "f"}, 3]}),
        "[]",
        '{"usage": {',
    )
    assert calls(streamed(ChatCompletions(), stream)) == []


EVENTS = [
    chunk(),
    chunk("[DONE]"),
    chunk('"usage": {'),
    chunk(None, "stop"),
    chunk(usage=COUNTS),
    of({"reasoning": "Hm."}),
    of({"tool_calls": [fragment(0, "{}", "call-1", "look")]}),
    {"error": {"message": "Overloaded"}},
    {"choices": []},
    "[DONE]",
    "no JSON",
]


@given(st.lists(st.sampled_from(EVENTS)), st.sampled_from([b"", b": hello\n\n", b"event: error\n", b"\r\n"]))
def test_events_that_arrive_together_say_what_they_say_one_by_one(events: list[Any], before: bytes) -> None:
    """They are looked at together first."""
    stream = before + chat(*events)
    one_by_one = streamed(ChatCompletions(), stream)
    assert streamed(ChatCompletions(), stream, size=max(1, len(stream))) == one_by_one
    assert streamed(ChatCompletions(content=False), stream, size=max(1, len(stream))) == streamed(
        ChatCompletions(content=False), stream
    )
