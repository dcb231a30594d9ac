"""Tools of the bridge's in exchanges of the Chat Completions API."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.injection import chat_calls, chat_stream
from flask_aibridge.bridge.injection.chat_completions import ChatCompletionsWeaver
from flask_aibridge.bridge.injection.tools import InjectedCall, InjectedTool, ToolResult
from flask_aibridge.bridge.intercept.chat_completions import ChatCompletions
from flask_aibridge.bridge.intercept.turn import BlockingTurn, StreamingTurn
from flask_aibridge.bridge.intercept.vocabulary import Ended, Item, Prompt, ToolCall, Usage
from flask_aibridge.observability import TokenUsage
from tests.bridge.intercept.following import said
from tests.recordings import ALL

MINE = "bmcp_wiki_search"
SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}}
TOOL = InjectedTool(MINE, "wiki", "https://wiki.test/mcp", "search", "Finds pages.", SCHEMA)
OTHER = InjectedTool(
    "bmcp_wiki_read", "wiki", "https://wiki.test/mcp", "read", "Reads one.", {"type": "object"}
)
DECLARED: dict[str, Any] = {
    "type": "function",
    "function": {"name": MINE, "description": "Finds pages.", "parameters": SCHEMA},
}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
ASKED: dict[str, Any] = {"model": "gpt-5", "messages": [{"role": "user", "content": "Grüße?"}]}
COUNTS = {
    "prompt_tokens": 10,
    "completion_tokens": 2,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 4},
}
TWICE = {
    "prompt_tokens": 20,
    "completion_tokens": 4,
    "total_tokens": 24,
    "prompt_tokens_details": {"cached_tokens": 8},
}
FOUND = ToolResult("Three pages.")


def weaver(*tools: InjectedTool, **request: Any) -> ChatCompletionsWeaver:
    asked = ASKED | request
    made = ChatCompletionsWeaver(asked, tools or (TOOL,))
    made.first_request(json.dumps(asked, ensure_ascii=False).encode())
    return made


def delta(message: dict[str, Any], reason: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": message, "logprobs": None, "finish_reason": reason}
    head = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-5"}
    return head | {"choices": [choice]} | more


def text(content: str, **more: Any) -> dict[str, Any]:
    return delta({"content": content}, **more)


def call(
    name: str | None = MINE, arguments: str = "", call_id: str | None = "call_1", index: int | None = 0
) -> dict[str, Any]:
    made: dict[str, Any] = {} if index is None else {"index": index}
    if call_id is not None:
        made |= {"id": call_id, "type": "function"}
    return made | {"function": ({} if name is None else {"name": name}) | {"arguments": arguments}}


def calling(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return delta({"tool_calls": list(calls)}, **more)


ROLE = delta({"role": "assistant", "content": "", "refusal": None})
CALLED = delta({}, "tool_calls")
STOPPED = delta({}, "stop")
USAGE = delta({}) | {"choices": [], "usage": COUNTS}
DONE = "[DONE]"
CALL = (calling(call()), calling(call(None, '{"q":', None)), calling(call(None, '"x"}', None)))
SAYING = (ROLE, text("Three."), STOPPED, USAGE, DONE)


def of_round(number: int, *events: Any) -> list[Any]:
    """Chunks as the provider numbers those of another round."""
    return [
        each | {"id": f"c-{number}", "created": number} if isinstance(each, dict) else each for each in events
    ]


def stream(*events: Any) -> bytes:
    written = [each if isinstance(each, str) else json.dumps(each) for each in events]
    return "".join(f"data: {each}\n\n" for each in written).encode()


def fed(made: ChatCompletionsWeaver, data: bytes, size: int = 0) -> bytes:
    size = size or max(len(data), 1)
    given = b"".join(made.feed(data[at : at + size]) for at in range(0, len(data), size))
    return given + made.finish()


def streamed(made: ChatCompletionsWeaver, *rounds: Iterable[Any], size: int = 0) -> bytes:
    """What the caller gets of ``rounds``, in all but the last of which something is to be run."""
    given, left = b"", len(rounds)
    for events in rounds:
        given += fed(made, stream(*events), size)
        left -= 1
        assert bool(made.pending) is bool(left)
        if left:
            made.next_request([FOUND] * len(made.pending), last=False)
    return given


def read(data: bytes) -> list[Any]:
    events = [block.removeprefix("data: ") for block in data.decode().split("\n\n") if block]
    return [event if event == DONE else json.loads(event) for event in events]


def message(content: str | None, *calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content} | ({"tool_calls": list(calls)} if calls else {}) | more


def completion(
    said: dict[str, Any], reason: str | None = None, number: int = 1, **more: Any
) -> dict[str, Any]:
    reason = reason or ("tool_calls" if "tool_calls" in said else "stop")
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": reason}
    head = {"id": f"c-{number}", "object": "chat.completion", "created": number, "model": "gpt-5"}
    return head | {"choices": [choice], "usage": COUNTS} | more


def taken(made: ChatCompletionsWeaver, *documents: dict[str, Any]) -> Any:
    """What the caller gets of ``documents``, in all but the last of which something is to be run."""
    for document in documents[:-1]:
        assert made.take_document(json.dumps(document).encode()) is None
        assert made.pending
        made.next_request([FOUND] * len(made.pending), last=False)
    body = made.take_document(json.dumps(documents[-1]).encode())
    assert body is not None
    assert made.pending == ()
    return json.loads(body)


def whole(call_id: str = "call_1", name: str = MINE, arguments: str = '{"q":"x"}') -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


class TestFirstRequest:
    @pytest.mark.parametrize("given", [None, True, False])
    @pytest.mark.parametrize("tools", [[], [WEATHER]])
    @pytest.mark.parametrize("streams", [False, True])
    def test_no_more_than_one_call_at_a_time(
        self, given: bool | None, tools: list[Any], streams: bool
    ) -> None:
        asked = ASKED | {"stream": streams} | ({"tools": tools} if tools else {})
        asked |= {} if given is None else {"parallel_tool_calls": given}
        sent = ChatCompletionsWeaver(asked, [TOOL]).first_request(json.dumps(asked).encode())
        assert json.loads(sent) == asked | {"tools": [*tools, DECLARED], "parallel_tool_calls": False}

    def test_only_what_is_named_is_changed(self) -> None:
        body = (
            '{ "b": 1.0,"messages" :[{"role":"user","content":"Gr\\u00fc\\u00dfe"}] , "tools":[ {"type":"x"} ],'
            '\n"parallel_tool_calls" : true, "b":2}\n'
        )
        sent = ChatCompletionsWeaver(json.loads(body), [TOOL]).first_request(body.encode()).decode()
        added = json.dumps(DECLARED, separators=(",", ":"))
        assert sent == body.replace('{"type":"x"} ]', '{"type":"x"} ,' + added + "]").replace("true", "false")

    @pytest.mark.parametrize("tools", [None, []])
    def test_nothing_in_the_place_of_tools_is_no_tool(self, tools: Any) -> None:
        asked = ASKED | {"tools": tools}
        sent = ChatCompletionsWeaver(asked, [TOOL]).first_request(json.dumps(asked).encode())
        assert json.loads(sent) == asked | {"tools": [DECLARED], "parallel_tool_calls": False}

    def test_a_tool_of_the_callers_goes_before_one_of_the_same_name(self) -> None:
        own = {"type": "custom", "custom": {"name": MINE}}
        asked = ASKED | {"tools": [own]}
        sent = json.loads(
            ChatCompletionsWeaver(asked, [TOOL, OTHER]).first_request(json.dumps(asked).encode())
        )
        assert [own, OTHER.id] == [sent["tools"][0], sent["tools"][1]["function"]["name"]]
        made = ChatCompletionsWeaver(asked, [TOOL])
        body = json.dumps(asked).encode()
        assert made.first_request(body) == body
        events = stream(ROLE, *CALL, CALLED, DONE)
        assert (fed(made, events), made.pending) == (events, ())

    @pytest.mark.parametrize(
        "more",
        [
            {"n": 2},
            {"n": True},
            {"n": "1"},
            {"tool_choice": "none"},
            {"tool_choice": "required"},
            {"tool_choice": {"type": "function", "function": {"name": "weather"}}},
            {"response_format": {"type": "json_object"}},
            {"response_format": {"type": "json_schema", "json_schema": {}}},
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
            {"tools": {"type": "function"}},
            {"tools": "all"},
            {"functions": [{"name": "f"}]},
            {"messages": "Hello"},
        ],
    )
    def test_what_cannot_be_woven_is_left_alone(self, more: dict[str, Any]) -> None:
        asked = ASKED | more
        body = json.dumps(asked).encode()
        made = ChatCompletionsWeaver(asked, [TOOL])
        assert not made.can_weave(asked)
        assert made.first_request(body) == body
        events = stream(ROLE, *CALL, CALLED, DONE)
        assert (fed(made, events), made.pending) == (events, ())
        answer = json.dumps(completion(message(None, whole()))).encode()
        assert made.take_document(answer) == answer

    def test_a_body_that_is_no_utf_8_is_left_alone(self) -> None:
        body = json.dumps(ASKED).encode("utf-16")
        assert ChatCompletionsWeaver(ASKED, [TOOL]).first_request(body) == body

    @pytest.mark.parametrize(
        "more", [{}, {"n": 1}, {"n": None}, {"response_format": {"type": "text"}}, {"functions": []}]
    )
    def test_what_can_be_woven(self, more: dict[str, Any]) -> None:
        assert ChatCompletionsWeaver.can_weave(ASKED | more)

    @pytest.mark.parametrize(
        ("model", "is_told"),
        [("o3-mini", False), ("openai/o4-mini", False), ("gpt-4o", True), ("olmo-2", True)],
    )
    def test_some_models_are_not_told(self, model: str, is_told: bool) -> None:
        """They refuse the very word; what they call at once is run."""
        asked = ASKED | {"model": model}
        sent = json.loads(ChatCompletionsWeaver(asked, [TOOL]).first_request(json.dumps(asked).encode()))
        assert ("parallel_tool_calls" in sent) is is_told
        assert sent["tools"]

    def test_what_is_off_is_not_switched_off(self) -> None:
        body = b'{"parallel_tool_calls": false, "messages": []}'
        assert b'"parallel_tool_calls": false, ' in ChatCompletionsWeaver(
            json.loads(body), [TOOL]
        ).first_request(body)


class TestNextRequest:
    def asked_next(self, result: ToolResult = FOUND, *, last: bool = False, **request: Any) -> Any:
        made = weaver(**request)
        fed(made, stream(ROLE, text("Look: "), *CALL, CALLED, USAGE, DONE))
        return json.loads(made.next_request([result], last=last))

    def test_the_message_and_its_result_follow_what_was_said(self) -> None:
        asked = self.asked_next(stream=True)
        assert asked["messages"] == [
            *ASKED["messages"],
            message("Look: ", whole()),
            {"role": "tool", "tool_call_id": "call_1", "content": "Three pages."},
        ]
        assert asked["tools"] == [DECLARED]
        assert "tool_choice" not in asked

    def test_what_the_caller_said_stays_byte_for_byte(self) -> None:
        body = '{"messages": [ {"role":"user", "content":"Gr\\u00fc\\u00dfe"}\n] ,"x":1.50}'
        made = ChatCompletionsWeaver(json.loads(body), [TOOL])
        first = made.first_request(body.encode())
        fed(made, stream(*CALL, CALLED))
        second = made.next_request([FOUND], last=False)
        head, _, tail = first.partition(b"\n]")
        assert second.startswith(head + b"\n,{")
        assert second.endswith(b"]" + tail)

    def test_an_error_says_so(self) -> None:
        told = self.asked_next(ToolResult('no "such" Straße', is_error=True))["messages"][-1]["content"]
        assert told == '{"error":true,"message":"no \\"such\\" Straße"}'

    def test_no_tool_is_called_in_the_last_round(self) -> None:
        assert self.asked_next(last=True)["tool_choice"] == "none"
        assert self.asked_next(last=True, tool_choice="auto")["tool_choice"] == "none"
        made = weaver()
        fed(made, stream(*CALL, CALLED))
        made.next_request([FOUND], last=True)
        given = read(fed(made, stream(*of_round(2, ROLE, *CALL, CALLED, DONE))))
        assert made.pending == ()
        assert [each.tool for each in made.dropped] == [MINE]
        assert [each["choices"][0]["finish_reason"] for each in given[:-1]] == [None, "stop"]

    def test_what_a_provider_puts_beside_is_sent_back(self) -> None:
        signed = call() | {"extra_content": {"google": {"thought_signature": "s"}}}
        made = weaver()
        thoughts = [{"type": "reasoning.text", "text": "a"}], [{"type": "reasoning.text", "text": "b"}]
        pieces = (
            delta({"role": "assistant", "content": None, "reasoning_content": "Think"}),
            delta({"reasoning_content": "ing", "reasoning_details": thoughts[0]}),
            delta({"reasoning_details": thoughts[1]}),
            calling(signed),
            calling(call(None, "{}", None)),
        )
        fed(made, stream(*pieces, CALLED))
        sent = json.loads(made.next_request([FOUND], last=False))["messages"][1]
        assert sent == message(
            None,
            whole(arguments="{}") | {"extra_content": {"google": {"thought_signature": "s"}}},
            reasoning_content="Thinking",
            reasoning_details=[*thoughts[0], *thoughts[1]],
        )

    def test_a_document_is_sent_back_as_it_came(self) -> None:
        made = weaver()
        more = {"reasoning_content": "Hm.", "refusal": None, "audio": {"id": "a", "data": "x"}}
        body = json.dumps(completion(message(None, whole(arguments="") | {"x": 1}, **more))).encode()
        assert made.take_document(body) is None
        sent = json.loads(made.next_request([FOUND], last=False))["messages"][1]
        kept = {"reasoning_content": "Hm.", "audio": {"id": "a"}}
        assert sent == message(None, whole(arguments="{}") | {"x": 1}, **kept)

    def test_there_is_a_result_for_every_call(self) -> None:
        made = weaver()
        fed(made, stream(*CALL, CALLED))
        with pytest.raises(ValueError):
            made.next_request([], last=False)


class TestDocument:
    def test_one_round_is_left_alone(self) -> None:
        made = weaver()
        body = json.dumps(completion(message("Hello")), indent=1).encode()
        assert made.take_document(body) == body
        mine = json.dumps(completion(message(None, whole(name="weather"))), indent=1).encode()
        assert weaver().take_document(mine) == mine

    def test_two_rounds_are_one(self) -> None:
        made = weaver()
        first = completion(message("Look. ", whole(), reasoning_content="A"))
        last = completion(message("Three.", reasoning_content="B"), number=2, system_fingerprint="f")
        said = message("Look. Three.", reasoning_content="AB")
        assert taken(made, first, last) == completion(said, usage=TWICE, system_fingerprint="f")

    def test_what_is_to_be_run(self) -> None:
        made = weaver()
        made.take_document(json.dumps(completion(message(None, whole()))).encode())
        assert made.pending == (InjectedCall("call_1", MINE, '{"q":"x"}', "c-1"),)

    def test_three_rounds(self) -> None:
        first, second = (
            completion(message(None, whole())),
            completion(message("B", whole("call_2")), number=2),
        )
        answer = taken(weaver(), first, second, completion(message("C"), number=3))
        assert answer["id"] == "c-1"
        assert answer["choices"][0]["message"]["content"] == "BC"
        assert answer["usage"]["prompt_tokens"] == 30

    def test_a_call_of_the_callers_beside_leaves_nothing_to_run(self) -> None:
        made = weaver()
        own = whole("call_2", "weather", "{}")
        answer = taken(made, completion(message(None, whole(), own)))
        assert answer == completion(message(None, own))
        assert made.dropped == (InjectedCall("call_1", MINE, '{"q":"x"}', "c-1"),)

    @pytest.mark.parametrize("reason", ["length", "content_filter"])
    def test_a_call_that_may_not_be_whole_is_not_run(self, reason: str) -> None:
        made = weaver()
        assert taken(made, completion(message("Look", whole()), reason)) == completion(
            message("Look"), reason
        )
        assert [each.tool for each in made.dropped] == [MINE]

    def test_the_last_round_runs_nothing(self) -> None:
        made = weaver()
        made.take_document(json.dumps(completion(message(None, whole()))).encode())
        made.next_request([FOUND], last=True)
        body = made.take_document(json.dumps(completion(message(None, whole()), number=2)).encode())
        assert json.loads(body or b"") == completion(message(None), usage=TWICE)

    def test_servers_differ(self) -> None:
        """Some leave ids out, give arguments as an object, say ``stop`` of a call, or content as a list of parts."""
        made = weaver()
        odd = {"function": {"name": MINE, "arguments": {"q": "x"}}}
        made.take_document(json.dumps(completion(message(None, odd), "stop")).encode())
        assert made.pending == (InjectedCall("call_0_0", MINE, '{"q": "x"}', "c-1"),)
        parts = [{"type": "text", "text": "B"}]
        first = completion({**message(None, whole()), "content": parts})
        answer = taken(weaver(), first, completion(message("C"), number=2))
        assert answer["choices"][0]["message"]["content"] == [*parts, {"type": "text", "text": "C"}]

    def test_what_was_spent_before_a_round_without_usage_counts(self) -> None:
        last = completion(message("C"), number=2)
        del last["usage"]
        assert taken(weaver(), completion(message(None, whole())), last)["usage"] == COUNTS

    @given(st.binary(max_size=80))
    def test_what_cannot_be_read_is_as_it_came(self, body: bytes) -> None:
        assert weaver().take_document(body) == body

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
    def test_another_encoding(self, encoding: str) -> None:
        made = weaver()
        body = json.dumps(completion(message("A"))).encode(encoding)
        assert made.take_document(body) == body
        answer = made.take_document(json.dumps(completion(message("A", whole()), "length")).encode(encoding))
        assert json.loads(answer or b"") == completion(message("A"), "length")

    def test_an_error_after_a_round_says_what_that_has_cost(self) -> None:
        error = {"error": {"message": "No."}}
        assert taken(weaver(), completion(message(None, whole())), error) == error | {"usage": COUNTS}

    def test_what_is_nested_beyond_reason_is_as_it_came(self) -> None:
        deep = "[" * 900 + "]" * 900
        for at in range(5):
            body = (
                f'{{"id":"c","choices":[{{"message":{{"tool_calls":[{json.dumps(whole())}]}},"x":{deep}}}]}}'
            )
            made = weaver()
            made.take_document(body.replace("[[", "[" * at + "[[").encode())

    def test_a_message_that_is_too_long_is_not_sent_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("flask_aibridge.bridge.injection.chat_completions.MAX_MESSAGE", 100)
        assert taken(weaver(), completion(message("A", whole()))) == completion(message("A"), "stop")

    def test_a_function_of_the_callers_beside_leaves_nothing_to_run(self) -> None:
        own = {"name": "weather", "arguments": "{}"}
        answer = completion(message("A", whole(), function_call=own))
        assert taken(weaver(), answer) == completion(message("A", function_call=own), "stop")


class TestStream:
    def test_a_single_call(self) -> None:
        """single_injected_tool."""
        made = weaver(stream=True)
        first = [ROLE, text("Look. "), *CALL, CALLED, USAGE, DONE]
        given = fed(made, stream(*first))
        assert given == stream(ROLE, text("Look. "))
        assert made.pending == (InjectedCall("call_1", MINE, '{"q":"x"}', "c-1"),)
        made.next_request([FOUND], last=False)
        assert not made.pending
        given = fed(made, stream(*of_round(2, *SAYING)))
        assert read(given) == [text("Three."), STOPPED, USAGE | {"usage": TWICE}, DONE]

    def test_an_error_of_the_tool(self) -> None:
        """single_injected_tool_error."""
        made = weaver(stream=True)
        fed(made, stream(ROLE, *CALL, CALLED, DONE))
        sent = json.loads(made.next_request([ToolResult("it is down", is_error=True)], last=False))
        assert json.loads(sent["messages"][-1]["content"]) == {"error": True, "message": "it is down"}

    def test_arguments_that_are_no_json(self) -> None:
        """injected_tool_invalid_input."""
        made = weaver(stream=True)
        fed(made, stream(ROLE, calling(call(arguments='{"q": ')), CALLED, DONE))
        assert made.pending[0].arguments == '{"q": '

    def test_a_truncated_call(self) -> None:
        """max_tokens_truncated_injected_tool."""
        made = weaver(stream=True)
        cut = delta({}, "length")
        assert read(streamed(made, [ROLE, *CALL[:2], cut, USAGE, DONE])) == [ROLE, cut, USAGE, DONE]
        assert [each.arguments for each in made.dropped] == ['{"q":']

    def test_no_preamble(self) -> None:
        """The role and the call come in one chunk."""
        made = weaver(stream=True)
        begun = delta({"role": "assistant", "content": None, "tool_calls": [call(arguments="{}")]})
        given = read(streamed(made, [begun, CALLED, USAGE, DONE], of_round(2, *SAYING)))
        role = delta({"role": "assistant", "content": None})
        assert given == [role, text("Three."), STOPPED, USAGE | {"usage": TWICE}, DONE]

    def test_cumulative_usage(self) -> None:
        """streaming_cumulative_usage_injected_tool."""

        def so_far(chunk: dict[str, Any], count: int) -> dict[str, Any]:
            return chunk | {"usage": {"prompt_tokens": 10, "completion_tokens": count}}

        first = [so_far(ROLE, 0), so_far(text("A"), 1), so_far(CALL[0], 2), so_far(CALLED, 3), DONE]
        second = of_round(2, so_far(ROLE, 0), so_far(text("B"), 1), so_far(STOPPED, 2), DONE)
        given = read(streamed(weaver(), first, second))
        assert [each["usage"]["completion_tokens"] for each in given[:-1]] == [0, 1, 4, 5]
        assert [each["usage"]["prompt_tokens"] for each in given[:-1]] == [10, 10, 20, 20]

    def test_a_call_of_the_callers_beside(self) -> None:
        own = calling(call("weather", "{}", "call_2", 1))
        made = weaver()
        given = read(streamed(made, [ROLE, *CALL, own, CALLED, USAGE, DONE]))
        assert given == [ROLE, calling(call("weather", "{}", "call_2", 0)), CALLED, USAGE, DONE]
        assert [each.call_id for each in made.dropped] == ["call_1"]

    def test_a_call_of_the_callers_before(self) -> None:
        """The numbers that the caller has seen stay, and others follow them."""
        made = weaver()
        calls = [call("weather", "", "a", 0), call(MINE, "", "b", 1), call("weather", "", "c", 2)]
        more = [call(None, "1", None, 0), call(None, "2", None, 1), call(None, "3", None, 2)]
        given = read(streamed(made, [calling(*calls), calling(*more), CALLED, DONE]))
        third = call("weather", "", "c", 1), call(None, "3", None, 1)
        assert given == [calling(calls[0], third[0]), calling(more[0], third[1]), CALLED, DONE]
        assert [(each.call_id, each.arguments) for each in made.dropped] == [("b", "2")]

    def test_two_calls(self) -> None:
        made = weaver(TOOL, OTHER)
        calls = [call(arguments="{}"), call(OTHER.id, "{}", "call_2", 1)]
        fed(made, stream(ROLE, calling(*calls), CALLED, DONE))
        assert [(each.call_id, each.tool) for each in made.pending] == [
            ("call_1", MINE),
            ("call_2", OTHER.id),
        ]
        sent = json.loads(made.next_request([FOUND, ToolResult("Read.")], last=False))["messages"]
        assert [each.get("tool_call_id") for each in sent[2:]] == ["call_1", "call_2"]

    @pytest.mark.parametrize("index", [0, 1, None])
    @pytest.mark.parametrize("call_ids", [("a", "b"), (None, None)])
    def test_calls_of_one_number(self, index: int | None, call_ids: tuple[str | None, str | None]) -> None:
        made = weaver(TOOL, OTHER)
        calls = [call(MINE, "1", call_ids[0], index), call(OTHER.id, "2", call_ids[1], index)]
        fed(made, stream(*map(calling, calls), CALLED))
        assert [(each.tool, each.arguments) for each in made.pending] == [(MINE, "1"), (OTHER.id, "2")]
        assert len({each.call_id for each in made.pending}) == 2

    def test_three_rounds(self) -> None:
        second = of_round(2, ROLE, text("B"), *CALL, CALLED, USAGE, DONE)
        given = read(streamed(weaver(), [ROLE, *CALL, CALLED, USAGE, DONE], second, of_round(3, *SAYING)))
        assert [each["id"] for each in given[:-1]] == ["c-1"] * 5
        assert [each["created"] for each in given[:-1]] == [1] * 5
        assert given[-2]["usage"]["prompt_tokens"] == 30
        assert [each["choices"][0]["delta"] for each in given[1:3]] == [
            {"content": "B"},
            {"content": "Three."},
        ]

    def test_text_in_the_chunk_of_a_call_passes(self) -> None:
        made = weaver()
        mixed = delta({"content": "A", "tool_calls": [call()]})
        last = delta({"content": "B", "tool_calls": [call(None, "{}", None)]}, "tool_calls")
        assert read(fed(made, stream(mixed, last, DONE))) == [text("A"), text("B")]
        assert made.pending[0].arguments == "{}"
        made.next_request([FOUND], last=False)

    def test_it_is_over_with_the_text_at_once(self) -> None:
        """Nothing is held back for the round's end where nothing was called."""
        made = weaver()
        for event in (ROLE, text("A"), STOPPED, USAGE, DONE):
            assert made.feed(stream(event)) == stream(event)

    def test_a_call_after_the_end_is_not_run(self) -> None:
        made = weaver()
        assert read(streamed(made, [ROLE, STOPPED, *CALL, DONE])) == [ROLE, STOPPED, DONE]
        assert len(made.dropped) == 1

    def test_an_error_ends_it(self) -> None:
        made = weaver()
        error = {"error": {"message": "No."}}
        assert read(streamed(made, [ROLE, *CALL, CALLED, error])) == [ROLE, delta({}, "stop"), error]
        made = weaver()
        given = read(streamed(made, [ROLE, *CALL, CALLED, USAGE, DONE], [error]))
        assert given == [ROLE, USAGE, error], "what the first round has cost is told"

    def test_nothing_is_run_after_an_error(self) -> None:
        made = weaver()
        error = {"error": {"message": "No."}}
        assert read(streamed(made, [*CALL, error, CALLED])) == [error, delta({}, "stop")]

    @pytest.mark.parametrize("end", [(), (DONE,)])
    def test_without_a_reason_nothing_is_run(self, end: tuple[Any, ...]) -> None:
        made = weaver()
        assert read(streamed(made, [ROLE, *CALL, *end])) == [ROLE, *end]
        assert len(made.dropped) == 1

    @pytest.mark.parametrize("cut", [1, 2, 30])
    def test_a_stream_without_its_last_blank_line(self, cut: int) -> None:
        made = weaver()
        fed(made, stream(ROLE, *CALL, CALLED, USAGE)[:-cut])
        assert made.pending
        made.next_request([FOUND], last=False)
        assert read(fed(made, stream(*of_round(2, text("B"), STOPPED))))[0] == text("B")

    def test_text_in_an_unended_last_event(self) -> None:
        made = weaver()
        last = stream(delta({"content": "B"}, "tool_calls"))[:-2]
        assert read(fed(made, stream(*CALL) + last)) == [text("B")]

    @pytest.mark.parametrize(("lf", "mark"), [(b"\r\n", b""), (b"\r", b""), (b"\n", b"\xef\xbb\xbf")])
    def test_other_line_ends_and_marks(self, lf: bytes, mark: bytes) -> None:
        made = weaver()
        first = mark + stream(ROLE, *CALL, CALLED, USAGE, DONE).replace(b"\n", lf)
        assert fed(made, first) == mark + stream(ROLE).replace(b"\n", lf)
        made.next_request([FOUND], last=False)
        second = fed(made, mark + stream(*of_round(2, *SAYING)).replace(b"\n", lf))
        assert read(second.replace(lf, b"\n"))[0] == text("Three.")

    def test_an_event_of_many_lines(self) -> None:
        made = weaver()
        fed(made, stream(*CALL, CALLED))
        made.next_request([FOUND], last=False)
        lines = "".join(f"data: {line}\n" for line in json.dumps(text("B", id="c-2"), indent=1).splitlines())
        given = made.feed(f"{lines}\n".encode()).decode()
        assert json.loads(given.replace("data: ", "")) == text("B")

    def test_comments_and_unknown_events_pass(self) -> None:
        made = weaver()
        odd = b": ping\n\ndata: {nonsense\n\nevent: x\ndata: []\n\n"
        assert fed(made, stream(*CALL) + odd + stream(CALLED)) == odd

    def test_a_message_that_is_too_long_is_not_sent_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chat_calls, "MAX_MESSAGE", 200)
        made = weaver()
        long = text("x" * 201)
        assert read(streamed(made, [long, *CALL, CALLED, DONE])) == [long, delta({}, "stop"), DONE]
        assert len(made.dropped) == 1

    def test_an_end_without_end_is_let_go(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chat_stream, "MAX_END", 2000)
        made = weaver()
        given = read(streamed(made, [*CALL, CALLED, *[USAGE] * 30, DONE]))
        assert given == [delta({}, "stop"), *[USAGE] * 30, DONE]

    def test_more_calls_than_can_be_told_apart(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chat_calls, "MAX_CALLS", 2)
        made = weaver()
        calls = [calling(call("weather", "", str(at), at)) for at in range(4)]
        assert read(streamed(made, [*calls, CALLED, DONE])) == [*calls, CALLED, DONE]


class TestFollowed:
    """What the caller gets is followed as one answer."""

    def test_a_stream(self) -> None:
        made = weaver(stream=True)
        asked = ASKED | {"stream": True, "stream_options": {"include_usage": True}}
        given = streamed(made, [ROLE, *CALL, CALLED, USAGE, DONE], of_round(2, *SAYING))
        assert said(StreamingTurn(ChatCompletions(asked)), [given]) == whole_record()

    def test_a_document(self) -> None:
        answer = taken(weaver(), completion(message(None, whole())), completion(message("C"), number=2))
        assert said(BlockingTurn(ChatCompletions(ASKED)), [json.dumps(answer).encode()]) == whole_record()

    def test_a_round_that_breaks_off(self) -> None:
        given = streamed(weaver(), [ROLE, *CALL, CALLED, USAGE, DONE], of_round(2, ROLE, text("B")))
        items = said(StreamingTurn(ChatCompletions(ASKED)), [given])
        assert [item.tokens for item in items if isinstance(item, Usage)] == [TokenUsage(6, 2, 4)]


def whole_record() -> list[Item]:
    return [Prompt("Grüße?", "c-1"), Usage(TokenUsage(12, 4, 8), "c-1", "stop"), Ended()]


MEMBERS = [
    "id",
    "choices",
    "delta",
    "message",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "index",
    "finish_reason",
    "usage",
    "created",
    "content",
    "error",
    "role",
    "function_call",
]

CHAT = [each for each in ALL if each.name.startswith("chat_")]


class TestProperties:
    @pytest.mark.parametrize("recording", CHAT, ids=str)
    def test_what_calls_no_tool_of_the_bridges_is_byte_for_byte(self, recording: Any) -> None:
        assert fed(weaver(), recording.abridged, 1000) == recording.abridged
        assert weaver().take_document(recording.abridged) == recording.abridged

    @pytest.mark.parametrize("name", ["chat_nonzero_tool_index", "chat_same_tool_index"])
    def test_calls_however_they_are_numbered(self, name: str) -> None:
        body = next(each.body for each in CHAT if each.name == name)
        made = weaver()
        given = fed(made, body.replace(b'"name": "a"', f'"name": "{MINE}"'.encode()))
        expected = ["{}"] if "nonzero" in name else ['{"x":1}', '{"x":2}']
        assert [each.arguments for each in made.pending] == expected
        assert b"tool" not in given

    @given(
        st.lists(
            st.sampled_from(
                [
                    *(stream(each) for each in (ROLE, text("A"), *CALL, CALLED, STOPPED, USAGE, DONE)),
                    *(stream(calling(call("weather", "{}", "call_2", at))) for at in (0, 1)),
                    stream(text("A", usage=COUNTS)),
                    stream({"error": {"message": "x"}}),
                    stream(text("A")).replace(b"\n", b"\r"),
                    stream(*CALL).replace(b"\n", b"\r\n"),
                    b": ping\n\n",
                    b"data: {",
                    b"\n",
                    b"\xef\xbb\xbf",
                ]
            ),
            max_size=14,
        ),
        st.integers(1, 200),
    )
    def test_pieces_do_not_matter(self, parts: list[bytes], size: int) -> None:
        once, pieces = weaver(), weaver()
        for _ in range(2):
            data = b"".join(parts)
            assert fed(once, data) == fed(pieces, data, size)
            assert (once.pending, once.dropped) == (pieces.pending, pieces.dropped)
            if not once.pending:
                break
            results = [FOUND] * len(once.pending)
            assert once.next_request(results, last=False) == pieces.next_request(results, last=False)

    JSON: Any = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.sampled_from(["", "x", MINE, "tool_calls"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(MEMBERS),
                inner,
                max_size=5,
            )
        ),
        max_leaves=20,
    )

    @given(
        st.lists(
            st.fixed_dictionaries({"choices": JSON | st.lists(JSON, min_size=1, max_size=1)}), max_size=4
        )
    )
    def test_nothing_raises(self, documents: list[Any]) -> None:
        made = weaver()
        fed(made, stream(*documents))
        for document in documents:
            if not made.pending:
                made.take_document(json.dumps(document).encode())

    ODD: Any = st.fixed_dictionaries(
        {},
        optional={
            "id": JSON,
            "index": JSON,
            "function": st.fixed_dictionaries({}, optional={"name": st.just(MINE) | JSON, "arguments": JSON}),
        },
    )

    @given(
        st.lists(
            st.fixed_dictionaries({}, optional={"content": JSON, "tool_calls": st.lists(ODD | JSON)}),
            max_size=4,
        ),
        JSON,
    )
    def test_no_call_raises(self, messages: list[Any], usage: Any) -> None:
        made, blocking = weaver(), weaver()
        rounds = [delta(each, usage=usage) for each in messages]
        for _ in range(2):
            fed(made, stream(*rounds, CALLED, USAGE))
            if not made.pending:
                break
            made.next_request([FOUND] * len(made.pending), last=False)
        for each in messages:
            blocking.take_document(json.dumps(completion(each, "tool_calls", usage=usage)).encode())
            if blocking.pending:
                blocking.next_request([FOUND] * len(blocking.pending), last=False)

    @given(st.binary(max_size=60), st.integers(1, 60))
    def test_any_bytes_pass(self, data: bytes, size: int) -> None:
        assert fed(weaver(), data, size) == data


def test_no_call_of_the_bridges_is_said_to_be_the_callers() -> None:
    """The record of the caller's tools is made of what the caller gets."""
    own = calling(call("weather", "{}", "call_2", 1))
    given = streamed(weaver(), [ROLE, *CALL, own, CALLED, DONE])
    items = said(StreamingTurn(ChatCompletions(ASKED)), [given])
    assert [item.name for item in items if isinstance(item, ToolCall)] == ["weather"]


@pytest.mark.parametrize("name", [None, ""])
@pytest.mark.parametrize("index", [None, 0])
def test_whose_a_call_is_may_be_told_late(name: str | None, index: int | None) -> None:
    """Some servers send the id before the name, and no index."""
    first = {"index": index, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}}
    then = {"index": index, "function": {"name": MINE, "arguments": '{"q":"x"}'}}
    made = weaver()
    assert fed(made, stream(ROLE, calling(first), calling(then), CALLED)) == stream(ROLE)
    assert [(each.call_id, each.tool, each.arguments) for each in made.pending] == [
        ("call_1", MINE, '{"q":"x"}')
    ]
    theirs = {**then, "function": {"name": "weather", "arguments": "{}"}}
    given = read(fed(weaver(), stream(ROLE, calling(first), calling(theirs), CALLED, DONE)))
    fragments = [each["choices"][0]["delta"].get("tool_calls") for each in given[1:-2]]
    assert [fragment for found in fragments for fragment in found] == [first, theirs]


def test_the_role_is_said_once() -> None:
    """Accumulators join what is said twice: ``assistantassistant``."""
    made = weaver()
    fed(made, stream(ROLE, *CALL, CALLED))
    made.next_request([FOUND], last=False)
    later = delta({"role": "assistant", "content": "Three."})
    (chunk, *_) = read(fed(made, stream(*of_round(2, later, STOPPED, DONE))))
    assert chunk["choices"][0]["delta"] == {"content": "Three."}
