"""One answer out of several rounds of the Messages API."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.injection import blocks, messages, messages_stream
from flask_aibridge.bridge.injection.messages import MessagesWeaver
from flask_aibridge.bridge.injection.tools import InjectedCall, InjectedTool, ToolResult
from flask_aibridge.bridge.intercept.content import MAX_OPEN
from flask_aibridge.bridge.intercept.messages import Messages
from flask_aibridge.bridge.intercept.turn import BlockingTurn, StreamingTurn
from flask_aibridge.bridge.intercept.vocabulary import Ended, Failed, Item, Prompt, Thought, ToolCall, Usage
from flask_aibridge.observability import TokenUsage
from tests.bridge.intercept.following import said, sse

Json = dict[str, Any]

SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
FIND = InjectedTool("bmcp_wiki_find", "wiki", "http://wiki/mcp", "find", "Find a page", SCHEMA)
READ = InjectedTool("bmcp_wiki_read", "wiki", "http://wiki/mcp", "read", "Read a page", {"type": "object"})
TOOLS = (FIND, READ)
MINE = {"name": "get", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}
ASKED: Json = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Where?"}]}
RESULT = ToolResult("on page 3")

ONE_AT_A_TIME = {"type": "auto", "disable_parallel_tool_use": True}
THOUGHT = {"type": "thinking", "thinking": "I look it up", "signature": "c2ln"}
REDACTED = {"type": "redacted_thinking", "data": "eA=="}
SEARCH = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "x"}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srv_1",
    "content": [{"url": "http://a", "score": 1.50}],
}
CITED = {"type": "text", "text": "as they say", "citations": [{"cited_text": "b"}, {"cited_text": "c"}]}


def text(words: str) -> Json:
    return {"type": "text", "text": words}


def call(number: int = 1, tool: str = FIND.id, arguments: object = None) -> Json:
    return {
        "type": "tool_use",
        "id": f"toolu_{number}",
        "name": tool,
        "input": {"q": "x"} if arguments is None else arguments,
    }


def message(*content: Any, number: int = 1, reason: str | None = None, **usage: Any) -> Json:
    """A round's answer, by default with as many tokens as its number says."""
    calls = any(block["type"] == "tool_use" for block in content)
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": list(content),
        "stop_reason": reason or ("tool_use" if calls else "end_turn"),
        "stop_sequence": None,
        "usage": {"input_tokens": 10**number, "output_tokens": number} | usage,
    }


def encoded(document: object) -> bytes:
    return json.dumps(document, indent=1).encode()


def deltas(block: Json) -> tuple[Json, list[Json]]:
    """A block as it starts, and what follows."""
    match block["type"]:
        case "text":
            pieces = [{"type": "text_delta", "text": letter} for letter in block["text"]]
            quoted = [{"type": "citations_delta", "citation": each} for each in block.get("citations", ())]
            return {"type": "text", "text": ""}, quoted + pieces
        case "thinking":
            pieces = [
                {"type": "thinking_delta", "thinking": word} for word in block["thinking"].split("look")
            ]
            pieces.insert(1, {"type": "thinking_delta", "thinking": "look"})
            signed = {"type": "signature_delta", "signature": block["signature"]}
            return {"type": "thinking", "thinking": "", "signature": ""}, [*pieces, signed]
        case "tool_use" | "server_tool_use":
            given = block["input"]
            written = given if isinstance(given, str) else json.dumps(given) if given else ""
            pieces = [
                {"type": "input_json_delta", "partial_json": each} for each in ("", written[:3], written[3:])
            ]
            return block | {"input": {}}, pieces
    return block, []


def events(document: Json, *, stops: bool = True) -> list[Json]:
    """A round's answer as the events of a stream."""
    usage = document["usage"]
    begun = document | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    found: list[Json] = [{"type": "message_start", "message": begun}]
    for index, block in enumerate(document["content"]):
        start, pieces = deltas(block)
        found.append({"type": "content_block_start", "index": index, "content_block": start})
        if not index:
            found.append({"type": "ping"})
        found += [{"type": "content_block_delta", "index": index, "delta": each} for each in pieces]
        if stops or index + 1 < len(document["content"]):
            found.append({"type": "content_block_stop", "index": index})
    ending = {"stop_reason": document["stop_reason"], "stop_sequence": None}
    found.append(
        {"type": "message_delta", "delta": ending, "usage": {"output_tokens": usage["output_tokens"]}}
    )
    return [*found, {"type": "message_stop"}]


def stream(document: Json) -> bytes:
    return sse(*events(document))


def weaver(**request: Any) -> MessagesWeaver:
    asked = ASKED | request
    made = MessagesWeaver(asked, TOOLS)
    made.first_request(encoded(asked))
    return made


def fed(weaving: MessagesWeaver, data: bytes, size: int = 0) -> bytes:
    pieces = [data[at : at + size] for at in range(0, len(data), size)] if size else [data]
    return b"".join(map(weaving.feed, pieces)) + weaving.finish()


def read(data: bytes) -> list[Json]:
    """The data of a stream's events."""
    assert data.endswith(b"\n\n")
    lines = [block.split(b"data: ")[1] for block in data.split(b"\n\n") if block]
    return [json.loads(line) for line in lines]


def shown(documents: list[Json]) -> Json:
    """The message that a caller puts together from a stream, as the SDKs do it: by the order of the blocks."""
    (start,) = [each["message"] for each in documents if each["type"] == "message_start"]
    snapshot: Json = dict(start, content=[])
    for each in documents:
        match each["type"]:
            case "content_block_start":
                assert each["index"] == len(snapshot["content"])
                snapshot["content"].append(dict(each["content_block"], json=""))
            case "content_block_delta":
                block, delta = snapshot["content"][each["index"]], each["delta"]
                for name in ("text", "thinking"):
                    if name in delta:
                        block[name] += delta[name]
                block["json"] += delta.get("partial_json", "")
                block["signature"] = delta.get("signature", block.get("signature"))
            case "message_delta":
                snapshot |= each["delta"]
                snapshot["usage"] = snapshot["usage"] | each["usage"]
    return snapshot


def meaning(pieces: bytes, *, streams: bool = True) -> list[Item]:
    """What the bridge's own reading of what the caller gets says."""
    wire_format = Messages(ASKED)
    return said(StreamingTurn(wire_format) if streams else BlockingTurn(wire_format), [pieces])


# The request of the first round.


def test_tools_stand_before_the_callers() -> None:
    made = MessagesWeaver(ASKED, TOOLS).first_request(encoded(ASKED))
    read_tool, find_tool = (
        {"name": tool.id, "description": tool.description, "input_schema": tool.input_schema}
        for tool in (READ, FIND)
    )
    assert json.loads(made)["tools"] == [find_tool, read_tool]
    body = b'{"messages": [], "tools" : [ {"name":"get",  "x":1.0} ] ,"max_tokens":1}'
    made = MessagesWeaver(json.loads(body), [READ]).first_request(body)
    ours = b'{"name":"bmcp_wiki_read","description":"Read a page","input_schema":{"type":"object"}}'
    assert made == (
        b'{"messages": [], "tools" : [%s, {"name":"get",  "x":1.0} ] ,"max_tokens":1,"tool_choice":%s}'
        % (ours, b'{"type":"auto","disable_parallel_tool_use":true}')
    )


@pytest.mark.parametrize("has_tools", [True, False])
@pytest.mark.parametrize(
    ("kind", "disabled"), [(None, None), *product(["auto", "any", "tool", "none"], [None, True, False])]
)
def test_parallel_calls_are_off(kind: str | None, disabled: bool | None, has_tools: bool) -> None:
    """For then the answer cannot call a tool of the bridge's and one of the caller's at once."""
    choice: Json = {"type": kind} | ({"name": "get"} if kind == "tool" else {})
    choice |= {} if disabled is None else {"disable_parallel_tool_use": disabled}
    request = ASKED | ({"tool_choice": choice} if kind else {}) | ({"tools": [MINE]} if has_tools else {})
    edited = json.loads(MessagesWeaver(request, TOOLS).first_request(encoded(request)))
    if kind is None:
        assert edited["tool_choice"] == ONE_AT_A_TIME
    elif kind == "none":
        assert edited["tool_choice"] == choice
    else:
        assert edited["tool_choice"] == choice | {"disable_parallel_tool_use": True}
    assert edited["tools"][2:] == ([MINE] if has_tools else [])
    assert edited.keys() == request.keys() | {"tools", "tool_choice"}


@pytest.mark.parametrize(
    "request_",
    [
        ASKED | {"tools": [{"name": FIND.id}, {"name": READ.id}]},
        ASKED | {"tools": None},
        ASKED | {"tools": {"name": "get"}},
        {"messages": "Where?"},
        {},
    ],
)
def test_where_nothing_can_be_injected_nothing_changes(request_: Json) -> None:
    body = encoded(request_)
    made = MessagesWeaver(request_, TOOLS)
    assert made.first_request(body) == body
    answer = stream(message(call()))
    assert fed(made, answer) == answer, "the tool is the caller's own"
    assert (made.pending, made.dropped) == ((), ())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_what_cannot_be_edited_stays(encoding: str) -> None:
    body = json.dumps(ASKED).encode(encoding)
    assert MessagesWeaver(ASKED, TOOLS).first_request(body) == body


def test_a_tool_that_the_caller_has_already_is_left_out() -> None:
    request = ASKED | {"tools": [{"name": FIND.id}, 1, {"name": []}]}
    made = MessagesWeaver(request, TOOLS)
    edited = json.loads(made.first_request(encoded(request)))
    assert [tool["name"] for tool in edited["tools"] if isinstance(tool, dict)] == [READ.id, FIND.id, []]
    answer = stream(message(call()))
    assert fed(made, answer) == answer


@pytest.mark.parametrize(
    "choice", [None, {"type": "auto"}, {"type": "none"}, "auto", {"type": "new"}, {"type": []}]
)
def test_stable_encoding(choice: object) -> None:
    """Not a byte differs but for the two members."""
    body = b'{ "b" : 1.0, "tools":[], "messages":[{"role":"user","content":"\\u00e9"}],"b":2, "z":1e5 }'
    if choice is not None:
        body = body.replace(b' "z"', b' "tool_choice" : %s , "z"' % json.dumps(choice).encode())
    made = MessagesWeaver(json.loads(body), [READ]).first_request(body)
    ours = b'{"name":"bmcp_wiki_read","description":"Read a page","input_schema":{"type":"object"}}'
    expected = body.replace(b"[]", b"[%s]" % ours, 1)
    if choice is None:
        expected = expected[:-1] + b',"tool_choice":{"type":"auto","disable_parallel_tool_use":true}}'
    elif choice == {"type": "auto"}:
        expected = expected.replace(b'"auto"}', b'"auto","disable_parallel_tool_use":true}')
    assert made == expected


# The next rounds' requests.


@pytest.mark.parametrize("streams", [True, False])
def test_the_model_is_given_back_all_that_it_said(streams: bool) -> None:
    content = [THOUGHT, REDACTED, SEARCH, FOUND, CITED, text("Let me see"), call()]
    body = b'{"messages": [ {"role":"user","content":"Where?"} ], "max_tokens":1, "tools":[],"n":1.0}'
    made = MessagesWeaver(json.loads(body), [FIND])
    sent = made.first_request(body)
    take(made, message(*content), streams)
    again = made.next_request([RESULT], last=False)
    start = sent.index(b" ]")
    assert again.startswith(sent[: start + 1])
    assert again.endswith(sent[start + 1 :])
    turns = json.loads(again)["messages"]
    assert turns == [
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": content},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "on page 3"}],
        },
    ]
    assert made.pending == ()


def test_a_block_of_a_document_is_given_back_as_it_was_written() -> None:
    made = weaver()
    answer = json.dumps(message(THOUGHT, FOUND, call())).replace("1.5}", "1.500e0}").encode()
    assert made.take_document(answer) is None
    assert b'"score": 1.500e0}]},{"type": "tool_use"' in made.next_request([RESULT], last=False)


def test_a_blank_text_is_not_given_back() -> None:
    """The provider sends some, and refuses them: `text content blocks must contain non-whitespace text`."""
    for streams in (True, False):
        made = weaver()
        take(made, message(text(""), text(" "), text("a"), call()), streams)
        (_, assistant, _) = json.loads(made.next_request([RESULT], last=False))["messages"]
        assert assistant["content"] == [text("a"), call()]


def test_an_error_is_marked_as_one() -> None:
    """single_injected_tool_error"""
    made = weaver()
    take(made, message(call()), True)
    (*_, answered) = json.loads(made.next_request([ToolResult("no such page", True)], last=False))["messages"]
    (result,) = answered["content"]
    assert result == {
        "type": "tool_result",
        "tool_use_id": "toolu_1",
        "content": "no such page",
        "is_error": True,
    }


@pytest.mark.parametrize(
    ("choice", "next_one"),
    [
        (None, ONE_AT_A_TIME),
        ({"type": "auto", "disable_parallel_tool_use": True}, ONE_AT_A_TIME),
        ({"type": "any"}, ONE_AT_A_TIME),
        ({"type": "tool", "name": FIND.id}, ONE_AT_A_TIME),
        ({"type": "none"}, {"type": "none"}),
    ],
)
def test_a_model_is_forced_to_call_once(choice: Json | None, next_one: Json) -> None:
    made = weaver(tool_choice=choice)
    for number in (1, 2):
        take(made, message(call(number)), True)
        assert json.loads(made.next_request([RESULT], last=False))["tool_choice"] == next_one


def test_the_last_round_has_the_tools_and_may_call_none() -> None:
    made = weaver(thinking={"type": "enabled", "budget_tokens": 1024})
    got = take(made, message(call()), True)
    body = json.loads(made.next_request([RESULT], last=True))
    assert body["tool_choice"] == {"type": "none"}
    assert [tool["name"] for tool in body["tools"]] == [FIND.id, READ.id]
    seen = shown(read(got + fed(made, stream(message(call(2), number=2)))))
    assert (made.pending, len(made.dropped), seen["content"], seen["stop_reason"]) == ((), 1, [], "end_turn")


def test_results_are_for_calls() -> None:
    made = weaver()
    take(made, message(call()), True)
    with pytest.raises(ValueError):
        made.next_request([], last=False)


# Answers, whichever way they come.


def take(made: MessagesWeaver, answer: Json, streams: bool) -> bytes:
    """Take a round's answer; return what the caller gets of it."""
    return fed(made, stream(answer)) if streams else (made.take_document(encoded(answer)) or b"")


def woven(rounds: list[Json], streams: bool, **request: Any) -> tuple[MessagesWeaver, bytes]:
    """Go through rounds of which each but the last has calls; return all that the caller gets."""
    made = weaver(**request)
    got = b""
    for answer in rounds[:-1]:
        got += take(made, answer, streams)
        assert made.pending
        made.next_request([RESULT] * len(made.pending), last=False)
    got += take(made, rounds[-1], streams)
    assert not made.pending
    return made, got


def caller_sees(got: bytes, streams: bool) -> Json:
    """The caller's message; in that of a stream no more is compared than the text of blocks."""
    return shown(read(got)) if streams else dict(json.loads(got))


def words(answer: Json) -> list[str]:
    return [block.get("text") or block.get("thinking") or block.get("name") for block in answer["content"]]


@pytest.mark.parametrize("streams", [True, False])
def test_single_injected_tool(streams: bool) -> None:
    first = message(THOUGHT, text("Let me see"), call(), cache_read_input_tokens=7)
    second = message(text("Page 3"), number=2, cache_creation={"ephemeral_5m_input_tokens": 4})
    made = weaver()
    begun = take(made, first, streams)
    written = '{"q": "x"}' if streams else '{\n    "q": "x"\n   }'
    assert made.pending == (InjectedCall("toolu_1", FIND.id, written, "msg_1"),)
    made.next_request([RESULT], last=False)
    got = begun + take(made, second, streams)
    assert b"bmcp_" not in got
    assert b"toolu_" not in got
    answer = caller_sees(got, streams)
    assert words(answer) == ["I look it up", "Let me see", "Page 3"]
    assert (answer["id"], answer["stop_reason"], made.dropped) == ("msg_1", "end_turn", ())
    assert answer["usage"] == {
        "input_tokens": 110,
        "output_tokens": 3,
        "cache_read_input_tokens": 7,
        "cache_creation": {"ephemeral_5m_input_tokens": 4},
    }
    tokens = TokenUsage(110, 3, 7, 0, {"cache_ephemeral_5m_input": 4})
    assert meaning(got, streams=streams) == [
        Prompt("Where?", "msg_1"),
        Thought("I look it up", "thinking"),
        Usage(tokens, "msg_1", "end_turn"),
        Ended(),
    ]


@pytest.mark.parametrize("streams", [True, False])
def test_streaming_cumulative_usage_injected_tool(streams: bool) -> None:
    """Over three rounds every whole number is added up; what is none is the last round's."""
    details: Json = {"server_tool_use": {"web_search_requests": 1}, "service_tier": "priority", "x": None}
    rounds = [
        message(call(1), number=1, **details),
        message(call(2, READ.id), number=2, server_tool_use=None, service_tier="batch"),
        message(
            text("Page 3"), number=3, server_tool_use={"web_search_requests": 2, "web_fetch_requests": 5}
        ),
    ]
    _, got = woven(rounds, streams)
    usage = caller_sees(got, streams)["usage"]
    assert usage["input_tokens"] == 1110
    assert usage["output_tokens"] == 6
    assert usage["server_tool_use"] == {"web_search_requests": 3, "web_fetch_requests": 5}
    *_, said_usage, _ = meaning(got, streams=streams)
    assert said_usage == Usage(
        TokenUsage(1110, 6, extra={"web_search_requests": 3, "server_tool_use.web_fetch_requests": 5}),
        "msg_1",
        "end_turn",
    )


@pytest.mark.parametrize("streams", [True, False])
def test_two_rounds_with_thoughts(streams: bool) -> None:
    """Each thought reaches the caller, and each is given back with its call."""
    other = THOUGHT | {"thinking": "I look again"}
    made, got = woven(
        [
            message(THOUGHT, call(1)),
            message(other, text("hm"), call(2, READ.id), number=2),
            message(text("3"), number=3),
        ],
        streams,
    )
    assert words(caller_sees(got, streams)) == ["I look it up", "I look again", "hm", "3"]
    thoughts = [item for item in meaning(got, streams=streams) if isinstance(item, Thought)]
    assert [thought.text for thought in thoughts] == ["I look it up", "I look again"]
    sent = json.loads(made._body)["messages"]
    assert [turn["role"] for turn in sent] == ["user", "assistant", "user", "assistant", "user"]
    assert sent[3]["content"] == [other, text("hm"), call(2, READ.id)]


@pytest.mark.parametrize("streams", [True, False])
def test_parallel(streams: bool) -> None:
    """Models that call several tools at once, though they are asked not to, are answered all of them."""
    made = weaver()
    got = take(made, message(call(1), call(2), call(3, READ.id)), streams)
    assert [(each.call_id, each.tool) for each in made.pending] == [
        ("toolu_1", FIND.id),
        ("toolu_2", FIND.id),
        ("toolu_3", READ.id),
    ]
    results = [ToolResult("a"), ToolResult("b", True), ToolResult("c")]
    answered = json.loads(made.next_request(results, last=False))["messages"][-1]["content"]
    assert [(each["tool_use_id"], each["content"]) for each in answered] == [
        ("toolu_1", "a"),
        ("toolu_2", "b"),
        ("toolu_3", "c"),
    ]
    got += take(made, message(text("x"), number=2), streams)
    assert words(caller_sees(got, streams)) == ["x"]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("streams", [True, False])
def test_mixed_with_callers_tool(streams: bool, number: int) -> None:
    """Only the caller can say what came of its tool, so the answer is over."""
    mixed = message(text("a"), call(7), call(8, "get"), call(9, READ.id), number=number)
    made, got = woven([message(call(1)), mixed] if number == 2 else [mixed], streams, tools=[MINE])
    assert [each.call_id for each in made.dropped] == ["toolu_7", "toolu_9"]
    answer = caller_sees(got, streams)
    assert (words(answer), answer["stop_reason"]) == (["a", "get"], "tool_use")
    assert b"bmcp_" not in got
    items = meaning(got, streams=streams)
    assert [item for item in items if isinstance(item, ToolCall)] == [
        ToolCall("get", '{"q": "x"}' if streams else '{"q":"x"}', "toolu_8", message_id="msg_1")
    ]
    assert [item.tokens.input for item in items if isinstance(item, Usage)] == [10 if number == 1 else 110]


@pytest.mark.parametrize(
    "written", ["", '{"q": 1', "[1]", "NaN", '{"q":NaN}', '{"q":1e999}', "\ud800", '{"q": 1} x']
)
def test_injected_tool_invalid_input(written: str) -> None:
    """The tool is told what the model wrote; the provider takes nothing but an object."""
    made = weaver()
    take(made, message(call(arguments=written)), True)
    (pending,) = made.pending
    assert pending.arguments == (written or "{}")
    (_, assistant, _) = json.loads(made.next_request([RESULT], last=False))["messages"]
    assert assistant["content"] == [call(arguments={})]


@pytest.mark.parametrize("written", ["q", [1], 5])
def test_injected_tool_invalid_input_in_a_document(written: object) -> None:
    made = weaver()
    assert take(made, message(call(arguments=written)), False) == b""
    (pending,) = made.pending
    assert json.loads(pending.arguments) == written
    (_, assistant, _) = json.loads(made.next_request([RESULT], last=False))["messages"]
    assert assistant["content"] == [call(arguments={})]


def test_input_may_come_with_the_start() -> None:
    started = {"type": "content_block_start", "index": 0, "content_block": call(2, arguments={"q": "y"})}
    made = weaver()
    ended = events(message(call()))
    fed(made, sse(ended[0], started, *ended[-3:]))
    assert made.pending[0].arguments == '{"q": "y"}'
    (_, assistant, _) = json.loads(made.next_request([RESULT], last=False))["messages"]
    assert assistant["content"] == [call(2, arguments={"q": "y"})]


@pytest.mark.parametrize(
    "reason", ["max_tokens", "refusal", "pause_turn", "stop_sequence", "end_turn", "new"]
)
@pytest.mark.parametrize("stops", [True, False])
def test_max_tokens_truncated_injected_tool(reason: str, stops: bool) -> None:
    """What the model did not finish is not run, and not seen."""
    answer = message(text("a"), call(arguments='{"q'), reason=reason)
    made = weaver()
    got = fed(made, sse(*events(answer, stops=stops)))
    assert (made.pending, [each.arguments for each in made.dropped]) == ((), ['{"q'])
    seen = shown(read(got))
    assert (words(seen), seen["stop_reason"]) == (["a"], reason)
    made = weaver()
    told = made.take_document(encoded(message(call(), reason=reason)))
    assert (made.pending, len(made.dropped)) == ((), 1)
    assert json.loads(told or b"") == message(reason=reason)


def test_a_call_without_its_end_is_not_run() -> None:
    made = weaver()
    seen = shown(read(fed(made, sse(*events(message(text("a"), call()), stops=False)))))
    assert (made.pending, len(made.dropped), seen["stop_reason"]) == ((), 1, "end_turn")


@pytest.mark.parametrize("ids", [["", "b"], ["a", "a"], [None], [5]])
@pytest.mark.parametrize("streams", [True, False])
def test_a_call_that_could_not_be_answered_is_not_run(streams: bool, ids: list[object]) -> None:
    made, got = woven([message(*[call() | {"id": each} for each in ids])], streams)
    assert (len(made.dropped), caller_sees(got, streams)["stop_reason"]) == (len(ids), "end_turn")


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("at", [0, 1])
def test_a_long_answer_has_its_calls_dropped(monkeypatch: pytest.MonkeyPatch, streams: bool, at: int) -> None:
    for module in (messages, messages_stream):
        monkeypatch.setattr(module, "MAX_ROUND", 1000)
    content = [call(1), call(2)]
    content.insert(at, text("x" * 2000))
    _, got = woven([message(*content)], streams)
    answer = caller_sees(got, streams)
    assert (words(answer), answer["stop_reason"]) == (["x" * 2000], "end_turn")


# Documents.


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"<html>",
        b'{"content": "x"}',
        b'{"type":"error","error":{"type":"api_error"},"content":[]}',
        encoded({"type": "message", "content": [call()]}).decode().encode("utf-16"),
        json.dumps(message(text("a"))).encode(),
        json.dumps(message(text("a"), call(1, "get")), indent=3).encode(),
    ],
)
@pytest.mark.parametrize("number", [1, 2])
def test_what_is_no_message_and_what_has_no_injected_call_is_returned_as_it_came(
    body: bytes, number: int
) -> None:
    made = weaver()
    if number == 2:
        if b"msg_1" in body:
            return
        take(made, message(call()), False)
        made.next_request([RESULT], last=False)
    assert made.take_document(body) == body
    assert (made.pending, made.dropped) == ((), ())


def test_a_document_keeps_what_is_not_merged() -> None:
    """The last round's, byte for byte but for three members."""
    made = weaver()
    take(made, message(text("a"), call()), False)
    made.next_request([RESULT], last=False)
    last = b'{"n":1.0, "id" : "msg_2","content":[ {"text":"b", "type":"text"} ],"usage":{"output_tokens":5,"t":"x"} }'
    seen = json.dumps(text("a"), indent=1)
    got = made.take_document(last)
    assert got is not None
    content = got[got.index(b"[") : got.index(b"]") + 1]
    assert content.startswith(b"[{")
    assert json.loads(content) == [json.loads(seen), text("b")]
    assert got.replace(content, b"[]") == (
        b'{"n":1.0, "id" : "msg_1","content":[],"usage":{"output_tokens": 6, "t": "x", "input_tokens": 10} }'
    )


# Streams.


@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_stream_without_injected_calls_is_relayed_as_it_came(size: int) -> None:
    answer = stream(message(THOUGHT, REDACTED, SEARCH, FOUND, CITED, call(1, "get")))
    odd = answer.replace(b"\n", b"\r\n").replace(b'"index": ', b'"index":  1')
    for data in (answer, odd, b"\xef\xbb\xbf" + answer, answer[:-9], answer + b"data: [DONE]\n\n: x\n\nrest"):
        made = weaver()
        assert fed(made, data, size) == data
        assert (made.pending, made.dropped) == ((), ())


def test_content_passes_at_once() -> None:
    """In every round, though what is before it was withheld."""
    made = weaver()
    for number in (1, 2):
        *before, end, stop = events(message(text("ab"), call(number), text("cd"), number=number))
        passed = [made.feed(sse(each)) for each in before]
        kinds = [
            (each["type"], each.get("index")) for each, got in zip(before, passed, strict=True) if not got
        ]
        withheld = (
            [("content_block_start", 1)] + [("content_block_delta", 1)] * 3 + [("content_block_stop", 1)]
        )
        assert kinds == ([("message_start", None)] if number == 2 else []) + withheld
        assert made.feed(sse(end, stop)) == made.finish() == b""
        made.next_request([RESULT], last=False)
    assert b"".join(map(made.feed, [sse(*events(message(text("e"), number=3)))])).endswith(
        b'message_stop"}\n\n'
    )


def test_blocks_are_counted_on() -> None:
    made, got = woven(
        [
            message(text("a"), call(1), text("b")),
            message(call(2), number=2),
            message(THOUGHT, text("c"), call(3), text("d"), number=3),
            message(text("e"), number=4),
        ],
        True,
    )
    documents = read(got)
    starts = [each["index"] for each in documents if each["type"] == "content_block_start"]
    assert starts == list(range(6))
    assert words(shown(documents)) == ["a", "b", "I look it up", "c", "d", "e"]
    assert [each["type"] for each in documents].count("ping") == 4
    assert made.dropped == ()


def test_an_edited_event_differs_in_its_index_alone() -> None:
    made = weaver()
    take(made, message(call(), text("a")), True)
    made.next_request([RESULT], last=False)
    odd = b"event: content_block_start\r\ndata: %s\r\ndata: %s\r\n\r\n"
    rest = b'"type":"content_block_start","x":"\\u00e9"}'
    # One block was seen, with the index 0, so this one is the eighth after it.
    edited = made.feed(odd % (b'{"index" : 7,"n":1.0,', rest))
    assert edited == odd.replace(b"\r", b"") % (b'{"index" : 8,"n":1.0,', rest)
    unnamed = b'data: {"type":"content_block_stop","index":7}\n\n'
    assert made.feed(unnamed) == unnamed.replace(b"7", b"8")
    assert made.feed(b": x\n\n") == b": x\n\n"
    assert made.feed(b"data: {\n\n") == b"data: {\n\n"
    assert made.feed(b'data: {"type":"new","index":7}\n\n') == b'data: {"type":"new","index":7}\n\n'


ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


@pytest.mark.parametrize("at", range(3, 10))
def test_an_error_ends_the_answer(at: int) -> None:
    made = weaver()
    documents = events(message(call()))
    documents.insert(at, ERROR)
    got = fed(made, sse(*documents))
    assert made.pending == ()
    assert read(got).count(ERROR) == 1
    assert b"bmcp_" not in got


def test_an_error_in_a_later_round_comes_with_the_sums() -> None:
    """The rounds before have cost something, whatever became of this one."""
    made = weaver()
    got = take(made, message(text("a"), call()), True)
    made.next_request([RESULT], last=False)
    got += fed(made, sse(events(message(number=2))[0], ERROR))
    assert [each["type"] for each in read(got)][-2:] == ["message_delta", "error"]
    assert meaning(got)[1:] == [
        Failed("overloaded_error", "Overloaded"),
        Usage(TokenUsage(110, 2), "msg_1"),
    ]


@pytest.mark.parametrize(
    "data", [b"", b'event: content_block_delta\ndata: {"type', b'data: {"type":"ping"}\n']
)
def test_a_round_that_did_not_come_leaves_the_sums(data: bytes) -> None:
    made = weaver()
    got = take(made, message(text("a"), call()), True)
    made.next_request([RESULT], last=False)
    got += fed(made, data)
    assert made.pending == ()
    assert read(got)[-1]["usage"] == {"output_tokens": 1, "input_tokens": 10}
    assert meaning(got)[-1] == Usage(TokenUsage(10, 1), "msg_1")


def test_a_stream_that_breaks_off_has_nothing_pending() -> None:
    """Wherever it does: the last event is needed."""
    documents = events(message(text("a"), call(arguments={"q": "bmcp_"})))
    data = sse(*documents)
    complete = len(sse(*documents[:-2]))
    for at in range(len(data) - 2):
        made = weaver()
        got = fed(made, data[:at])
        assert (made.pending, len(made.dropped)) == ((), int(at >= complete - 2))
        assert b"bmcp_" not in got
        assert b"toolu" not in got


def test_an_end_without_its_blank_line_is_one() -> None:
    made = weaver()
    assert b"message_stop" not in fed(made, stream(message(call()))[:-2])
    assert made.pending


def test_what_follows_the_end_is_not_relayed_where_the_answer_goes_on() -> None:
    made = weaver()
    ended = stream(message(text("a"), call()))
    got = fed(made, ended + b": x\n\ndata: [DONE]\n\n" + sse({"type": "ping"}))
    assert made.pending
    assert got == fed(weaver(), ended)


def test_an_event_that_is_too_long_to_be_read_is_relayed_and_nothing_is_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks, "MAX_BLOCK", 500)
    first, *others = events(message(FOUND | {"content": "x" * 2000}, call()))
    data = sse(first, *others)
    made = weaver()
    got = fed(made, data, 50)
    assert (made.pending, len(made.dropped)) == ((), 1)
    assert b"x" * 2000 in got
    assert b'"stop_reason": "tool_use"' not in got
    made = weaver()
    assert b"xx" not in fed(
        made, stream(message(call(arguments='"' + "x" * 2000))).replace(b'"xx', b'"x', 1), 50
    )


def test_a_mark_at_the_start_of_a_stream() -> None:
    """It is no part of the first name; in the midst of the caller's stream it would be."""
    mark = b"\xef\xbb\xbf"
    made = weaver()
    got = fed(made, mark + stream(message(text("a"), call())).replace(b"event: message_start\n", b""))
    assert made.pending[0].message_id == "msg_1"
    assert got.startswith(mark)
    made.next_request([RESULT], last=False)
    ping = sse({"type": "ping"})
    assert made.feed(mark + ping) == ping


def test_the_sums_are_an_event_of_their_own() -> None:
    """Though the stream before them ended without a blank line."""
    made = weaver()
    take(made, message(call()), True)
    made.next_request([RESULT], last=False)
    got = fed(made, sse({"type": "ping"})[:-2])
    assert [each["type"] for each in read(got)] == ["ping", "message_delta"]


def test_a_call_after_the_end_is_not_run() -> None:
    """The caller has been told that the answer is over."""
    start, *block, end, stop = events(message(call()))
    made = weaver()
    got = read(fed(made, sse(start, end, *block, stop)))
    assert (made.pending, len(made.dropped)) == ((), 1)
    assert [each["type"] for each in got] == ["message_start", "message_delta", "ping", "message_stop"]


def test_deltas_of_other_kinds() -> None:
    """What comes whole replaces what the block began with; unknown ones change nothing."""
    start, *others = events(message(call()))
    changes: list[Json] = [
        {"type": "compaction_delta", "content": "short", "encrypted_content": "eA=="},
        {"type": "new_delta", "text": "x", "content": "y"},
        {"type": "text_delta", "text": 5},
        {"type": ["x"]},
    ]
    begun = {"type": "compaction", "content": None, "kept": 1}
    odd = sse(
        {"type": "content_block_start", "index": 9, "content_block": begun},
        *({"type": "content_block_delta", "index": 9, "delta": each} for each in changes),
        {"type": "content_block_stop", "index": 9},
    )
    made = weaver()
    assert odd in fed(made, sse(start) + odd + sse(*others))
    (_, assistant, _) = json.loads(made.next_request([RESULT], last=False))["messages"]
    compacted = {"type": "compaction", "content": "short", "kept": 1, "encrypted_content": "eA=="}
    assert assistant["content"] == [compacted, call()]


def test_more_open_blocks_than_any_model_has() -> None:
    """They are relayed, and no longer kept."""
    opened = [
        {"type": "content_block_start", "index": at, "content_block": text("")} for at in range(2 * MAX_OPEN)
    ]
    start, *others = events(message(call()))
    made = weaver()
    got = read(fed(made, sse(start, *opened) + sse(*others).replace(b'"index": 0', b'"index": 999')))
    assert len([each for each in got if each["type"] == "content_block_start"]) == len(opened)
    assert (made.pending, made._stream._open.keys() <= set(range(MAX_OPEN))) == ((), True)
    assert len(made._stream._seen) <= MAX_OPEN


def test_what_is_held_of_the_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages_stream, "MAX_ROUND", 1000)
    *before, end, stop = events(message(call()))
    made = weaver()
    got = fed(made, sse(*before, *[end] * 20, stop))
    assert (made.pending, len(made.dropped)) == ((), 1)
    assert [each["type"] for each in read(got)].count("message_delta") == 20
    assert b'"stop_reason": "tool_use"' not in got


# Whatever comes.

BLOCKS = st.sampled_from(
    [THOUGHT, REDACTED, SEARCH, FOUND, CITED, text("ab"), text(""), call(1), call(2, READ.id), call(3, "get")]
)
ROUNDS = st.lists(st.lists(BLOCKS, max_size=5), min_size=1, max_size=3)


def run(streams: list[bytes], size: int) -> tuple[bytes, list[object], list[bytes]]:
    """Feed rounds as long as there is something to be run."""
    made = weaver()
    got = b""
    found: list[object] = []
    bodies: list[bytes] = []
    for data in streams:
        got += fed(made, data, size)
        found.append((made.pending, made.dropped))
        if not made.pending:
            break
        bodies.append(made.next_request([RESULT] * len(made.pending), last=False))
    return got, found, bodies


@given(ROUNDS, st.integers(1, 200))
def test_pieces_do_not_matter(rounds: list[list[Json]], size: int) -> None:
    streams = [stream(message(*content, number=at + 1)) for at, content in enumerate(rounds)]
    whole = run(streams, 0)
    assert run(streams, size) == whole
    assert b"bmcp_" not in whole[0]
    starts = [each["index"] for each in read(whole[0]) if each["type"] == "content_block_start"]
    assert starts == list(range(len(starts)))


@given(ROUNDS)
def test_streams_and_documents_tell_the_same(rounds: list[list[Json]]) -> None:
    answers = [message(*content, number=at + 1) for at, content in enumerate(rounds)]
    streaming, blocking = weaver(), weaver()
    got = b""
    for answer in answers:
        got += take(streaming, answer, True)
        document = blocking.take_document(encoded(answer))
        assert [each[:2] for each in streaming.pending] == [each[:2] for each in blocking.pending]
        assert [each[:2] for each in streaming.dropped] == [each[:2] for each in blocking.dropped]
        assert (document is None) == bool(streaming.pending)
        if document is not None:
            seen, told = shown(read(got)), json.loads(document)
            assert words(seen) == words(told)
            assert [seen[name] for name in ("id", "stop_reason", "usage")] == [
                told[name] for name in ("id", "stop_reason", "usage")
            ]
            break
        some, other = (
            made.next_request([RESULT] * len(made.pending), last=False) for made in (streaming, blocking)
        )
        assert json.loads(some) == json.loads(other)


SCRAPS = st.lists(
    st.sampled_from(
        [
            *(sse(each) for each in events(message(text("a"), call(), call(2, "get"), reason="tool_use"))),
            sse(ERROR),
            b"\n\n",
            b"\r",
            b"data:",
            b"data: {}\n\n",
            b"\xef\xbb\xbf",
            b'data: {"type":"content_block_start","index":true}\n\n',
            b'data: {"type":"content_block_delta","index":-1,"delta":[]}\n\n',
            b'data: {"type":"content_block_delta","index":1,"delta":{"type":[]}}\n\n',
            b'data: {"type":"message_start","message":{"id":1,"usage":{"a":{"b":{"c":{"d":{"e":1}}}},"x":[]}}}\n\n',
            b'data: {"type":"message_delta","delta":7,"usage":{"a":1e999,"output_tokens":true}}\n\n',
            b'data: {"type":["x"],"index":0}\n\n',
        ]
    )
    | st.binary(max_size=9),
    max_size=25,
).map(b"".join)


@given(st.lists(SCRAPS, min_size=1, max_size=3), st.integers(1, 99))
def test_any_bytes(streams: list[bytes], size: int) -> None:
    started = [stream(message(call()))] if len(streams) > 1 else []
    whole = run(started + streams, 0)
    assert run(started + streams, size) == whole
    if not started and b"bmcp_" not in streams[0]:
        assert whole[0] == streams[0]


@given(
    st.binary()
    | st.dictionaries(
        st.sampled_from(["id", "usage", "content", "type"]),
        st.none()
        | st.integers()
        | st.lists(st.sampled_from([call(), text("a"), {"type": []}, 1, None, []]))
        | st.just("message")
        | st.just({"a": 1}),
    ).map(encoded)
)
def test_any_document(body: bytes) -> None:
    for number in (1, 2):
        made = weaver()
        if number == 2:
            take(made, message(call()), False)
            made.next_request([RESULT], last=False)
        got = made.take_document(body)
        assert (got is None) == bool(made.pending)
        if number == 1 and b"bmcp_" not in body:
            assert got == body


@pytest.mark.parametrize(
    ("more", "can"),
    [
        ({}, True),
        ({"tool_choice": None}, True),
        ({"tool_choice": {"type": "auto"}}, True),
        ({"tool_choice": {"type": "none"}}, False),
        ({"tool_choice": {"type": "any"}}, False),
        ({"tool_choice": {"type": "tool", "name": "save"}}, False),
        ({"output_config": {"effort": "low"}}, True),
        ({"output_config": {"format": {"type": "json_schema"}}}, False),
        ({"output_format": {"type": "json_schema"}}, False),
    ],
)
def test_what_can_be_woven(more: dict[str, Any], can: bool) -> None:
    """Not what has to be a call of the caller's, and not what has to be one piece of JSON."""
    assert MessagesWeaver.can_weave({"messages": [], **more}) is can
