"""Several rounds of the Responses API, woven into one answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.injection import responses as module
from flask_aibridge.bridge.injection.responses import ResponsesWeaver
from flask_aibridge.bridge.injection.tools import InjectedCall, InjectedTool, ToolResult
from flask_aibridge.bridge.intercept.responses import Responses
from flask_aibridge.bridge.intercept.turn import BlockingTurn
from flask_aibridge.bridge.intercept.vocabulary import Ended, Failed, Prompt, ToolCall, Usage
from flask_aibridge.observability import TokenUsage
from tests.bridge.intercept.following import said, sse, streamed

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = InjectedTool("bmcp_sky_weather", "sky", "https://sky.test/mcp", "weather", "It.", SCHEMA)
TIME = InjectedTool("bmcp_sky_time", "sky", "https://sky.test/mcp", "time", "", {"type": "object"})
WOVEN = (
    b'{"type":"function","name":"bmcp_sky_weather","description":"It.","parameters":'
    b'{"type":"object","properties":{"city":{"type":"string"}}},"strict":false}'
)
COUNTS = {"input_tokens": 10, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}}
SUMS = {"input_tokens": 20, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 8}}
TOKENS = TokenUsage(12, 4, 8, 0)
SUNNY = ToolResult("sunny")


def weaver(body: bytes, *tools: InjectedTool) -> ResponsesWeaver:
    return ResponsesWeaver(json.loads(body), tools or (WEATHER,))


def asked(text: bytes = b'{"input":"hi"}') -> ResponsesWeaver:
    made = weaver(text)
    made.first_request(text)
    return made


def call(number: int = 1, name: object = WEATHER.id, **more: Any) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{number}",
        "call_id": f"call_{number}",
        "name": name,
        "arguments": '{"city":"X"}',
        "status": "completed",
        **more,
    }


def message(text: str = "hello") -> dict[str, Any]:
    return {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "content": [{"type": "output_text", "text": text}],
    }


def response(name: str, *output: object, status: str = "completed", **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "object": "response",
        "store": True,
        "status": status,
        "output": [*output],
        "usage": COUNTS,
        "error": None,
    } | more


def document(name: str, *output: object, **more: Any) -> bytes:
    return json.dumps(response(name, *output, **more), indent=1).encode()


def stream(
    name: str, *output: dict[str, Any], status: str = "completed", repeated: bool = True, **more: Any
) -> bytes:
    """All events of an answer, as the API sends them."""
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response(name, status="in_progress")}
    ]
    for index, item in enumerate(output):
        place = {"output_index": index}
        events.append({"type": "response.output_item.added", **place, "item": {**item, "arguments": ""}})
        if item["type"] == "function_call":
            arguments = {"item_id": item["id"], **place, "arguments": item["arguments"]}
            events.append({"type": "response.function_call_arguments.done", **arguments})
        else:
            events.append({"type": "response.output_text.delta", **place, "delta": "error"})
        events.append({"type": "response.output_item.done", **place, "item": item})
    whole = response(name, *(output if repeated else ()), status=status, **more)
    events.append({"type": f"response.{status}", "response": whole})
    return sse(*({**event, "sequence_number": number} for number, event in enumerate(events)))


def fed(made: ResponsesWeaver, data: bytes, size: int = 0) -> bytes:
    size = size or max(len(data), 1)
    pieces = [made.feed(data[at : at + size]) for at in range(0, len(data), size)]
    return b"".join(pieces) + made.finish()


def next_request(made: ResponsesWeaver, *results: ToolResult, last: bool = False) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(made.next_request(results or (SUNNY,), last=last))
    return body


def output(number: int = 1, text: str = "sunny") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": f"call_{number}", "output": text}


def followed(answer: bytes, *, streams: bool) -> list[Any]:
    """What the bridge notes of it."""
    if streams:
        return streamed(Responses({"input": "hi"}), answer)
    return said(BlockingTurn(Responses({"input": "hi"})), [answer])


def terminal(answer: bytes) -> dict[str, Any]:
    """The response object that a stream ends with."""
    event: dict[str, Any] = json.loads(answer.split(b"data: ")[-1])
    inner: dict[str, Any] = event["response"]
    return inner


# Requests


@pytest.mark.parametrize(
    ("body", "woven"),
    [
        (b'{"input": "h\\u0069" }', b'{"input": "h\\u0069" ,"tools":[%s],"parallel_tool_calls":false}'),
        (
            b'{ "tools": [ {"type":"web_search"} ], "parallel_tool_calls" : true, "x": 1e2}',
            b'{ "tools": [ {"type":"web_search"} ,%s], "parallel_tool_calls" : false, "x": 1e2}',
        ),
        (b'{"tools":[],"a":[1 , 2]}', b'{"tools":[%s],"a":[1 , 2],"parallel_tool_calls":false}'),
        (b'{"tools":null}', b'{"tools":[%s],"parallel_tool_calls":false}'),
    ],
)
def test_the_tools_are_appended_and_nothing_else_is_touched(body: bytes, woven: bytes) -> None:
    assert weaver(body).first_request(body) == woven % WOVEN


@pytest.mark.parametrize(
    "body",
    [
        b'{"input": "hi", "tools": "none"}',
        b'{"input": "hi", "tools": {"a": 1}}',
        b'{"tools": [{"type": "function", "name": "bmcp_sky_weather"}]}',
        '{"input": "hi"}'.encode("utf-16"),
    ],
)
def test_nothing_is_injected(body: bytes) -> None:
    """Neither is anything of the answer looked at then."""
    made = weaver(body)
    assert made.first_request(body) == body
    assert made.take_document(document("resp_1", call())) == document("resp_1", call())
    assert made.feed(b"data: half") == b"data: half"
    assert made.finish() == b""
    assert (made.pending, made.dropped) == ((), ())


def test_a_tool_of_the_callers_wins() -> None:
    body = b'{"tools":[{"type":"function","name":"bmcp_sky_weather"},{"name":[]},7]}'
    made = weaver(body, WEATHER, TIME)
    names = [tool.get("name") for tool in json.loads(made.first_request(body))["tools"] if tool != 7]
    assert names == [WEATHER.id, [], TIME.id]
    theirs = document("resp_1", call())
    assert made.take_document(theirs) == theirs


@pytest.mark.parametrize(
    ("request_", "can"),
    [
        ({"input": "hi"}, True),
        ({"input": []}, True),
        ({"prompt": {"id": "pmpt_1"}}, True),
        ({"prompt": {"id": "pmpt_1"}, "store": False}, False),
        ({"input": {}}, False),
        ({"input": 7}, False),
        ({"input": "hi", "background": True}, False),
        ({"input": "hi", "background": False}, True),
        ({"input": "hi", "tool_choice": "none"}, False),
        ({"input": "hi", "tool_choice": "auto"}, True),
        ({"input": "hi", "tool_choice": "required"}, False),
        ({"input": "hi", "tool_choice": {"type": "function", "name": "x"}}, False),
    ],
)
def test_what_can_be_woven(request_: dict[str, Any], can: bool) -> None:
    assert ResponsesWeaver.can_weave(request_) is can


# Rounds


@pytest.mark.parametrize("streams", [True, False])
def test_a_call_is_run_and_answered(streams: bool) -> None:
    body = b'{"input": "hi","previous_response_id" : "resp_0", "x": 1.0}'
    made = asked(body)
    answer = (stream if streams else document)("resp_1", call())
    assert (fed(made, answer) if streams else made.take_document(answer)) == (b"" if streams else None)
    assert made.pending == (InjectedCall("call_1", WEATHER.id, '{"city":"X"}', "resp_1", "fc_1"),)
    after = made.next_request([SUNNY], last=False)
    assert after == (
        b'{"input": [{"type":"function_call_output","call_id":"call_1","output":"sunny"}],'
        b'"previous_response_id" : "resp_1", "x": 1.0,"tools":[%s],"parallel_tool_calls":false}' % WOVEN
    )
    assert not made.pending
    last = (stream if streams else document)("resp_2", message())
    whole = fed(made, last) if streams else made.take_document(last)
    expected = (stream if streams else document)("resp_2", message(), usage=SUMS)
    assert whole is not None
    if streams:
        *before, terminal, _ = expected.split(b"\n\n")
        assert whole.split(b"\n\n")[:-2] == before
        assert json.loads(whole.split(b"data: ")[-1]) == json.loads(terminal.split(b"data: ")[-1])
    else:
        assert json.loads(whole) == json.loads(expected)
    driver = followed(whole, streams=streams)
    assert driver == [Prompt("hi", "resp_2"), Usage(TOKENS, "resp_2", "completed"), Ended()]


def test_an_error_is_said_in_json() -> None:
    made = asked()
    made.take_document(document("resp_1", call()))
    sent = next_request(made, ToolResult('no "luck"', is_error=True))["input"]
    assert [json.loads(item["output"]) for item in sent] == [{"error": True, "message": 'no "luck"'}]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [("{not", "{not"), (None, ""), ({"a": 1}, '{"a":1}'), ("", ""), ("ü\\ud800", "ü\\ud800")],
)
def test_arguments_are_as_the_model_wrote_them(arguments: object, text: str) -> None:
    made = asked()
    assert made.take_document(document("resp_1", call(arguments=arguments))) is None
    assert made.pending[0].arguments == text


def test_several_calls_at_once_are_all_run() -> None:
    """Some models do not mind that they may make one."""
    made = asked()
    assert fed(made, stream("resp_1", call(1), call(2))) == b""
    assert [each.call_id for each in made.pending] == ["call_1", "call_2"]
    assert next_request(made, SUNNY, ToolResult("rain"))["input"] == [output(1), output(2, "rain")]


def test_a_server_that_says_no_status_has_answered() -> None:
    made = asked()
    assert made.take_document(document("resp_1", call(), status=None)) is None
    assert len(made.pending) == 1


def test_a_result_for_each_call() -> None:
    made = asked()
    made.take_document(document("resp_1", call()))
    with pytest.raises(ValueError, match="zip"):
        made.next_request([], last=False)


def test_three_rounds() -> None:
    """Each follows on the one before it, and all are counted."""
    made = asked()
    for number in (1, 2):
        assert fed(made, stream(f"resp_{number}", call(number))) == b""
        sent = next_request(made)
        assert (sent["previous_response_id"], sent["input"]) == (f"resp_{number}", [output(number)])
    whole = fed(made, stream("resp_3", message()))
    assert terminal(whole) == response(
        "resp_3",
        message(),
        usage={"input_tokens": 30, "output_tokens": 6, "input_tokens_details": {"cached_tokens": 12}},
    )


REASONING: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": None}
SEALED = b'{"id" : "rs_2", "type":"reasoning","encrypted_content":"gA\\u003d","summary":[ ], "x":1.0}'


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        (b'"h\\u0069"', b'{"role":"user","content":"h\\u0069"},'),
        (b'[ {"role": "user" ,"content":"hi"}\n]', b' {"role": "user" ,"content":"hi"}\n,'),
        (b"[ ]", b""),
        (b'""', b'{"role":"user","content":""},'),
    ],
)
def test_where_nothing_is_stored_everything_is_said_again(given_: bytes, kept: bytes, streams: bool) -> None:
    """As it was said, but for reasoning of which there is only the name."""
    made = asked(b'{"store":false,"previous_response_id":"resp_0","input":%s}' % given_)
    first, told = json.dumps(call()).encode(), json.dumps(output(), separators=(",", ":")).encode()
    for number in (1, 2):
        written = b'{"id":"resp_%d","status":"completed","output":[%s , %s,\n%s] }' % (
            number,
            json.dumps(REASONING).encode(),
            SEALED,
            first,
        )
        if streams:
            data = b'{"type":"response.completed","response":%s}' % written
            assert fed(made, b"".join(b"data: %s\n" % line for line in data.split(b"\n")) + b"\n") == b""
        else:
            assert made.take_document(written) is None
        body = made.next_request([SUNNY], last=False)
        said_again = b",".join([b"%s,%s,%s" % (SEALED, first, told)] * number)
        assert b'"previous_response_id":"resp_0","input":[%s%s],"tools"' % (kept, said_again) in body
        json.loads(body)


def test_a_provider_that_keeps_nothing_says_so() -> None:
    """Whatever the request asks for."""
    made = asked()
    made.take_document(document("resp_1", call(), store=False))
    sent = next_request(made)
    assert "previous_response_id" not in sent
    assert sent["input"] == [{"role": "user", "content": "hi"}, call(), output()]
    made = asked()
    made.take_document(document("", call()))
    assert next_request(made)["input"] == [{"role": "user", "content": "hi"}, call(), output()]


@pytest.mark.parametrize("stores", [b"true", b"false"])
def test_a_conversation_has_the_items(stores: bytes) -> None:
    made = asked(b'{"conversation":"conv_1","input":"hi","store":%s}' % stores)
    made.take_document(document("resp_1", call()))
    sent = next_request(made)
    assert sent["input"] == [output()]
    assert "previous_response_id" not in sent


def test_a_stored_prompt_needs_no_input() -> None:
    made = asked(b'{"prompt":{"id":"pmpt_1"}}')
    made.take_document(document("resp_1", call()))
    assert next_request(made)["input"] == [output()]


@pytest.mark.parametrize(
    ("choice", "after"),
    [
        (b'"required"', b'"auto"'),
        (b'"auto"', b'"auto"'),
        (b"null", b"null"),
        (b'{"type":"function","name":"bmcp_sky_weather"}', b'"auto"'),
        (
            b'{"type": "allowed_tools","mode":"required", "tools":[]}',
            b'{"type": "allowed_tools","mode":"auto", "tools":[]}',
        ),
        (
            b'{"type": "allowed_tools","mode":"auto", "tools":[]}',
            b'{"type": "allowed_tools","mode":"auto", "tools":[]}',
        ),
    ],
)
def test_the_model_is_free_to_answer_after_the_first_round(choice: bytes, after: bytes) -> None:
    body = b'{"tool_choice": %s ,"input":"hi"}'
    made = weaver(body % choice)
    assert made.first_request(body % choice).startswith((body % choice)[:-1])
    made.take_document(document("resp_1", call()))
    assert made.next_request([SUNNY], last=False).startswith(b'{"tool_choice": %s ,' % after)
    made.take_document(document("resp_2", call()))
    assert made.next_request([SUNNY], last=True).startswith(b'{"tool_choice": "none" ,')


@pytest.mark.parametrize("streams", [True, False])
def test_in_the_last_round_nothing_is_run(streams: bool) -> None:
    """So a stream need not be held, and a model that calls all the same has called for nothing."""
    made = asked()
    made.take_document(document("resp_1", call()))
    assert next_request(made, last=True)["tool_choice"] == "none"
    if streams:
        text = stream("resp_2", message(), call(2))
        assert made.feed(text[:700]) != b""
        made = asked()
        made.take_document(document("resp_1", call()))
        made.next_request([SUNNY], last=True)
        assert terminal(fed(made, text)) == response("resp_2", message(), usage=SUMS)
    else:
        whole = made.take_document(document("resp_2", message(), call(2)))
        assert json.loads(whole or b"") == response("resp_2", message(), usage=SUMS)
    assert [each.call_id for each in made.dropped] == ["call_2"]
    assert not made.pending


# What nobody runs

THEIRS = call(2, "get")
OWN = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_3", "name": "sql", "input": "x"}


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("repeated", [True, False])
@pytest.mark.parametrize(
    ("items", "kept", "more"),
    [
        ([call(), THEIRS], [THEIRS], {}),
        ([THEIRS, call()], [THEIRS], {}),
        ([message(), call(), OWN], [message(), OWN], {}),
        ([message(), call()], [message()], {"status": "incomplete"}),
        ([message(), call(status="incomplete", arguments='{"ci')], [message()], {"status": "incomplete"}),
        ([call(), message()], [message()], {"status": "failed"}),
        ([call(status="incomplete")], [], {}),
        ([call(call_id=None)], [], {}),
        (
            [call(), {"type": "shell_call", "call_id": "call_4"}],
            [{"type": "shell_call", "call_id": "call_4"}],
            {},
        ),
    ],
)
def test_calls_that_nobody_runs_are_taken_out(
    items: list[dict[str, Any]],
    kept: list[dict[str, Any]],
    more: dict[str, Any],
    streams: bool,
    repeated: bool,
) -> None:
    made = asked()
    if streams:
        whole = fed(made, stream("resp_1", *items, repeated=repeated, **more))
        kept_stream = stream("resp_1", *kept, repeated=repeated, **more)
        assert events(whole) == events(kept_stream)
    else:
        body = made.take_document(document("resp_1", *items, **more))
        assert body is not None
        whole = body
        assert json.loads(whole) == response("resp_1", *kept, **more)
    assert not made.pending
    (call_,) = made.dropped
    assert (call_.tool, call_.message_id, call_.item_id) == (WEATHER.id, "resp_1", "fc_1")
    found = followed(whole, streams=streams)
    assert [each.name for each in found if isinstance(each, ToolCall)] == [
        item.get("name", "shell") for item in kept if item["type"] != "message"
    ]
    assert next(each for each in found if isinstance(each, Usage)).tokens == TokenUsage(6, 2, 4, 0)


def events(text: bytes) -> list[dict[str, Any]]:
    """The events of a stream, but for their numbers."""
    found = [json.loads(line[6:]) for line in text.splitlines() if line.startswith(b"data: ")]
    numbers = [event.pop("sequence_number") for event in found]
    assert numbers == sorted(set(numbers))
    return found


def test_a_shell_that_the_provider_runs_waits_for_nobody() -> None:
    made = asked()
    shell = [{"type": "shell_call", "call_id": "s"}, {"type": "shell_call_output", "call_id": "s"}]
    assert made.take_document(document("resp_1", *shell, call())) is None
    assert len(made.pending) == 1


# Single rounds, and what is no round


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"<html>",
        b'{"error": {"message": "no"}}',
        document("resp_1", message()),
        document("resp_1", THEIRS),
        document("resp_1", call(name="bmcp_sky_other")),
        document("resp_1", call(name=["x"]), {"type": ["y"], "call_id": {}}, 7, None),
        document("resp_1").decode().encode("utf-16"),
    ],
)
def test_a_document_that_is_the_answer_passes_as_it_came(body: bytes) -> None:
    assert asked().take_document(body) == body
    later = asked()
    later.take_document(document("resp_0", call(), usage=None))
    later.next_request([SUNNY], last=False)
    assert later.take_document(body) == body


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("repeated", [True, False])
def test_a_single_round_passes_as_it_came(size: int, end: bytes, repeated: bool) -> None:
    text = (stream("resp_1", message(), repeated=repeated) + b": bye\n\n").replace(b"\n", end)
    assert fed(asked(), text, size) == text


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("repeated", [True, False])
def test_calls_are_found_however_the_stream_is_written(size: int, end: bytes, repeated: bool) -> None:
    made = asked()
    text = stream("resp_1", message(), call(), repeated=repeated).replace(b"\n", end)
    assert fed(made, text, size) == b""
    assert [each.call_id for each in made.pending] == ["call_1"]
    made.next_request([SUNNY], last=False)
    text = stream("resp_2", message(), repeated=repeated).replace(b"\n", end)
    whole = fed(made, text, size)
    assert terminal(whole)["usage"] == SUMS
    before = text.rsplit(b"data: ", 1)[0]
    assert whole.startswith(before)
    assert whole.endswith(end * 2)


def test_nothing_goes_out_before_it_is_known_what_the_round_is() -> None:
    made = asked()
    text = stream("resp_1", message())
    at = text.index(b"event: response.completed")
    assert made.feed(text[:at]) == b""
    assert made.feed(text[at:]) == text
    assert made.feed(b": late\n\n") == b": late\n\n"
    assert made.finish() == b""


def test_a_call_of_the_callers_lets_the_round_go() -> None:
    """Whatever follows, nothing will be run."""
    made = asked()
    text = stream("resp_1", message(), THEIRS)
    at = text.index(b"event: response.function_call_arguments")
    assert made.feed(text[:at]) == text[:at]
    assert made.feed(text[at:]) + made.finish() == text[at:]


@pytest.mark.parametrize("more", [b"", b'data: {"type":"error","code":"x","message":"no"}\n\n'])
def test_a_stream_that_breaks_off(more: bytes) -> None:
    """What was held goes out; what was called is not run, and nobody sees that it was."""
    text = stream("resp_1", message(), call())
    text = text[: text.index(b"event: response.completed")]
    made = asked()
    whole = fed(made, text + more + b"data: ha")
    assert events(whole.removesuffix(more + b"data: ha")) == events(stream("resp_1", message()))[:-1]
    assert whole.endswith(more + b"data: ha")
    assert not made.pending
    assert [each.call_id for each in made.dropped] == ["call_1"]


def test_an_error_event_lets_the_round_go() -> None:
    made = asked()
    text = b'event: error\ndata: {"type":"error","code":"x","message":"no"}\n\n'
    assert made.feed(text) == text


def test_a_last_event_without_its_blank_line() -> None:
    made = asked()
    assert fed(made, stream("resp_1", call())[:-1]) == b""
    assert len(made.pending) == 1


def test_a_round_that_is_too_long_goes_out_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HELD", 1000)
    made = asked()
    text = stream("resp_1", message("x" * 1000), call())
    assert made.feed(text[:1800]) != b""
    made = asked()
    assert events(fed(made, text, 50)) == events(stream("resp_1", message("x" * 1000)))
    assert [each.call_id for each in made.dropped] == ["call_1"]
    made = asked()
    text = stream("resp_1", message("x" * 1000))
    assert fed(made, text, 50) == text


# Usage


@pytest.mark.parametrize(
    ("one", "other", "total"),
    [
        (None, None, None),
        (COUNTS, None, COUNTS),
        (None, COUNTS, COUNTS),
        (
            {"a": 1, "d": {"b": 2, "c": None}},
            {"a": 2, "d": {"c": 1, "b": 3}},
            {"a": 3, "d": {"b": 5, "c": 1}},
        ),
        (
            {"cost": 0.5, "is": True, "tier": "x"},
            {"cost": 1, "is": True, "tier": "y"},
            {"cost": 1.5, "is": True, "tier": "y"},
        ),
        ({"a": 1}, {"a": None, "b": {"c": 1}}, {"a": 1, "b": {"c": 1}}),
        ({"a": 10**4299}, {"a": 10**4299}, {"a": 10**4299}),
        ({"a": {"b": 1}}, {"a": 7}, {"a": 7}),
    ],
)
def test_what_is_counted_in_all_rounds_is_summed_up(one: object, other: object, total: object) -> None:
    made = asked()
    made.take_document(document("resp_1", call(), usage=one))
    made.next_request([SUNNY], last=False)
    whole = made.take_document(document("resp_2", message(), usage=other))
    assert json.loads(whole or b"")["usage"] == total


def test_a_response_without_usage_gets_one() -> None:
    made = asked()
    made.take_document(document("resp_1", call()))
    made.next_request([SUNNY], last=False)
    assert made.take_document(
        b'{"id":"resp_2","status":"failed"}'
    ) == b'{"id":"resp_2","status":"failed","usage":%s}' % (
        json.dumps(COUNTS, separators=(",", ":")).encode()
    )


@pytest.mark.parametrize("usage", [b'{"cost":1e999}', b'{"a":%s%s}' % (b"[" * 900, b"]" * 900)])
def test_a_usage_that_cannot_be_written_stays(usage: bytes) -> None:
    made = asked()
    made.take_document(document("resp_1", call()))
    made.next_request([SUNNY], last=False)
    whole = made.take_document(b'{"status":"completed","usage":%s}' % usage) or b""
    assert usage in whole or json.loads(whole)["usage"]["input_tokens"] == 10


# When there is no next round


def test_giving_up_says_what_was_used() -> None:
    made = asked()
    assert fed(made, stream("resp_1", call())) == b""
    made.next_request([SUNNY], last=False)
    event = Responses().error_event("The provider is gone.", "id", b"")
    whole = made.give_up(event)
    assert followed(whole, streams=True) == [
        Prompt("hi", "resp_1"),
        Failed("server_error", "The provider is gone."),
        Usage(TokenUsage(6, 2, 4, 0), "resp_1", "failed"),
        Ended(),
    ]
    assert [event["type"] for event in events(whole)] == ["response.created", "response.failed"]
    assert terminal(whole)["output"] == []
    assert asked().give_up(event) == event


# Any bytes

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "completed", WEATHER.id, "get", "call_1"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "a"]), inner, max_size=3)
    ),
    max_leaves=4,
)
ITEMS = VALUES | st.fixed_dictionaries(
    {"type": st.sampled_from(["function_call", "message", "reasoning", "custom_tool_call", "shell_call"])},
    optional={"name": VALUES, "call_id": VALUES, "id": VALUES, "arguments": VALUES, "status": VALUES},
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "id": VALUES,
        "status": VALUES,
        "output": st.lists(ITEMS, max_size=3) | VALUES,
        "usage": VALUES,
        "error": VALUES,
        "store": VALUES,
    },
)
KINDS = [
    "response.created",
    "response.completed",
    "response.incomplete",
    "response.output_item.added",
    "response.output_item.done",
    "response.output_text.delta",
    "error",
]
EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS) | VALUES},
    optional={"response": BODIES | VALUES, "item": ITEMS, "output_index": st.integers(-1, 3) | VALUES},
).map(lambda event: b"data: %s" % json.dumps(event).encode())
LINES = st.sampled_from(
    [b"\n", b"\n\n", b"\r\n\r\n", b"\r", b": c", b"event: error", b"data: x", b"data", b"{"]
)
STREAMS = st.lists(
    EVENTS.map(lambda data: data + b"\n\n") | EVENTS | LINES | st.binary(max_size=5), max_size=8
)


def later(body: bytes = b'{"input":"hi","store":false}') -> ResponsesWeaver:
    made = asked(body)
    made.take_document(document("resp_0", call()))
    made.next_request([SUNNY], last=False)
    return made


@given(STREAMS.map(b"".join), st.integers(1, 40), st.booleans())
def test_any_stream_in_any_pieces(text: bytes, size: int, is_later: bool) -> None:
    """No exception, and the same however it is cut; what has nothing injected passes as it came."""
    make = later if is_later else asked
    once, cut = make(), make()
    whole = fed(once, text)
    assert whole == fed(cut, text, size)
    assert (once.pending, once.dropped) == (cut.pending, cut.dropped)
    if once.pending:
        assert whole == b""
        json.loads(once.next_request([SUNNY] * len(once.pending), last=False))
    elif WEATHER.id.encode() not in text and not is_later:
        assert whole == text


@given(BODIES | VALUES)
def test_any_document(body: object) -> None:
    text = json.dumps(body).encode()
    for made in (asked(), later()):
        whole = made.take_document(text)
        assert (whole is None) == bool(made.pending)
        if whole is None:
            json.loads(made.next_request([SUNNY] * len(made.pending), last=False))
        else:
            after = json.loads(whole)
            if isinstance(after, dict) and isinstance(body, dict):
                assert {
                    name: repr(value) for name, value in after.items() if name not in ("usage", "output")
                } == {name: repr(value) for name, value in body.items() if name not in ("usage", "output")}


@given(st.binary(max_size=40))
def test_any_bytes_pass(data: bytes) -> None:
    assert asked().take_document(data) == data
    assert fed(asked(), data) == data


@given(
    st.dictionaries(
        st.sampled_from(
            ["input", "tools", "tool_choice", "store", "conversation", "previous_response_id", "x"]
        ),
        VALUES | st.lists(VALUES, max_size=2),
    )
)
def test_any_request(request_: dict[str, Any]) -> None:
    """What is not ours to change stays as it is."""
    text = json.dumps(request_).encode()
    made = weaver(text)
    first = json.loads(made.first_request(text))
    ResponsesWeaver.can_weave(request_)
    if made.take_document(document("resp_1", call())) is None:
        after = json.loads(made.next_request([SUNNY], last=False))
        for name in ("store", "conversation", "x"):
            assert repr(after.get(name)) == repr(first.get(name)) == repr(request_.get(name))
        assert after["parallel_tool_calls"] is first["parallel_tool_calls"] is False
        assert after["tools"][-1]["name"] == WEATHER.id
