"""The SDKs' own conveniences at both doors: tool runners, parsing, retries, leaving early; and what is recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from flask_aibridge.services.records import PromptUsage
from tests.integration.replaying import RECORDINGS, Endless, Told
from tests.recordings import Recording
from tests.services.servers import wait_until

pydantic = pytest.importorskip("pydantic")
pytest.importorskip("httpx2")
openai = pytest.importorskip("openai", minversion="3")
anthropic = pytest.importorskip("anthropic", minversion="2")

from tests.integration.sdks import DOORS, SDKs, sdks_at_a_host  # noqa: E402
from tests.integration.test_sdks import each, entered, settled  # noqa: E402

pytestmark = pytest.mark.slow

USER = [{"role": "user", "content": "How are you?"}]
MESSAGE: dict[str, Any] = {"model": "claude-sonnet-5", "max_tokens": 99, "messages": USER}
CHAT: dict[str, Any] = {"model": "gpt-5", "messages": USER}

both_doors = pytest.mark.parametrize("door", DOORS)


class Mood(pydantic.BaseModel):  # type: ignore[misc, name-defined]
    mood: str


@pytest.fixture(scope="module")
def shared() -> Iterator[SDKs]:
    with sdks_at_a_host() as sdks:
        yield sdks


@pytest.fixture
def sdks(shared: SDKs) -> SDKs:
    shared.host.forget()
    return shared


def saying(name: str, old: str, new: str) -> Recording:
    """A recording in which something else is said."""
    recording = RECORDINGS[name]
    assert old.encode() in recording.body
    return replace(recording, body=recording.body.replace(old.encode(), new.encode()))


def refusing(status: int, **headers: str) -> Recording:
    fields = [("Content-Type", "application/json"), *((k.replace("_", "-"), v) for k, v in headers.items())]
    return replace(RECORDINGS["messages_error_529"], status=status, headers=fields)


def prompts(told: Told) -> list[str]:
    return [record.prompt for record in told.records if isinstance(record, PromptUsage)]


def ends(told: list[Told]) -> list[str]:
    return [each.end.status for each in told]


@both_doors
@pytest.mark.parametrize("stream", [False, True], ids=["blocking", "streaming"])
def test_anthropics_tool_runner(sdks: SDKs, door: str, stream: bool) -> None:
    """Runs the tool in between: two interceptions, of which the first has the prompt and the call."""
    sdks.host.provider.play("messages_tool_no_preamble" if stream else "messages_tool_blocking")
    read: list[tuple[str, int]] = []

    def read_file(path: str, n: int = 0) -> str:
        """Read a file."""
        read.append((path, n))
        return "its text"

    async def read_file_async(path: str, n: int = 0) -> str:
        """Read a file."""
        return read_file(path, n)

    async def main() -> Any:
        is_sync = door == "public"
        tool = (
            anthropic.beta_tool(read_file)
            if is_sync
            else anthropic.beta_async_tool(read_file_async, name="read_file")
        )
        client = sdks.client("anthropic", door)
        return await settled(
            client.beta.messages.tool_runner(**MESSAGE, tools=[tool], stream=stream).until_done()
        )

    message = sdks.run(main())
    assert message.content[0].text == "Hello"
    assert read == [("a.py", 0) if stream else ("ä.py", 1)]
    first, second = sdks.host.witness.ended(2)
    assert ends([first, second]) == ["completed", "completed"]
    assert [(name, json.loads(text)["path"], call) for name, text, call in first.tools] == [
        ("read_file", read[0][0], "toolu_01")
    ]
    assert (prompts(first), prompts(second), second.tools) == (["How are you?"], [], [])
    asked = sdks.host.provider.requests[1].json["messages"]
    assert asked[-1]["content"][0]["tool_use_id"] == second.start.correlating_tool_call_id == "toolu_01"


@both_doors
def test_a_loop_of_chat_completions(sdks: SDKs, door: str) -> None:
    """As every agent that is built on them runs it."""
    sdks.host.provider.play("chat_tool_blocking")
    tool = {"type": "function", "function": {"name": "a", "parameters": {"type": "object", "properties": {}}}}

    async def main() -> Any:
        create = sdks.client("openai", door).chat.completions.create
        called = (await settled(create(**CHAT, tools=[tool]))).choices[0].message
        (call,) = called.tool_calls
        done = {"role": "tool", "tool_call_id": call.id, "content": "done"}
        return await settled(create(model="gpt-5", messages=[*USER, called, done], tools=[tool]))

    assert sdks.run(main()).choices[0].message.content == "Hello"
    first, second = sdks.host.witness.ended(2)
    assert (first.tools, second.tools) == ([("a", "{ }", "call_01")], [])
    assert (first.tokens, second.tokens) == ((20, 9), (3, 2))
    assert second.start.correlating_tool_call_id == "call_01"
    assert (prompts(first), prompts(second)) == (["How are you?"], [])
    store = sdks.host.app.extensions["aibridge"].store()

    def parent() -> str | None:
        view = store.interception(second.start.id)
        return None if view is None else view.thread_parent_id

    wait_until(lambda: parent() == first.start.id, "the second turn's parent")
    session = store.session(second.start.id)
    assert (session.id, session.interceptions) == (first.start.id, 2)


@both_doors
def test_a_loop_of_responses(sdks: SDKs, door: str) -> None:
    """The output goes back as input, with what the tool said."""
    sdks.host.provider.play("responses_tool_blocking")
    tool = {"type": "function", "name": "read_file", "parameters": {"type": "object", "properties": {}}}

    async def main() -> Any:
        create = sdks.client("openai", door).responses.create
        first = await settled(create(model="gpt-5", input=USER, tools=[tool]))
        (call,) = first.output
        done = {"type": "function_call_output", "call_id": call.call_id, "output": "its text"}
        return await settled(create(model="gpt-5", input=[*USER, call, done], tools=[tool]))

    assert sdks.run(main()).output_text == "Hello"
    first, second = sdks.host.witness.ended(2)
    assert (first.tools, second.tools) == ([("read_file", '{"path": "a.py"}', "call_01")], [])
    assert (prompts(first), prompts(second)) == (["How are you?"], [])


@both_doors
def test_answers_that_are_parsed(sdks: SDKs, door: str) -> None:
    """``parse`` of both of OpenAI's APIs, and of a stream."""
    answer = json.dumps({"mood": "fine"})
    escaped = json.dumps(answer)[1:-1]
    sdks.host.provider.play(
        saying("chat_simple_blocking", "I am fine.", escaped),
        saying("responses_simple_blocking", "I am fine.", escaped),
    )

    async def main() -> Any:
        client = sdks.client("openai", door)
        completion = await settled(client.chat.completions.parse(**CHAT, response_format=Mood))
        response = await settled(client.responses.parse(model="gpt-5", input=USER, text_format=Mood))
        return completion.choices[0].message.parsed, response.output_parsed

    assert sdks.run(main()) == (Mood(mood="fine"), Mood(mood="fine"))
    assert ends(sdks.host.witness.ended(2)) == ["completed", "completed"]


@both_doors
def test_what_is_only_passed_on(sdks: SDKs, door: str) -> None:
    """Counting tokens and listing models are no interceptions."""

    async def main() -> Any:
        client = sdks.client("anthropic", door)
        counted = await settled(client.messages.count_tokens(model="m", messages=USER))
        models = [model.id async for model in each(await settled(client.models.list()))]
        of_openai = await settled(sdks.client("openai", door).models.retrieve("stand-in-large"))
        return counted.input_tokens > 0, models, of_openai.id

    assert sdks.run(main()) == (True, ["stand-in-large", "stand-in-small"], "stand-in-large")
    assert sdks.host.witness.ended(0) == []


@both_doors
@pytest.mark.parametrize("status", [503, 529])
def test_an_sdk_tries_again(sdks: SDKs, door: str, status: int) -> None:
    """When it was told to; each try is one request to the provider, and one record."""
    sdks.host.provider.play(*[refusing(status, retry_after_ms="1")] * 4)

    async def tries() -> None:
        client = sdks.client("anthropic", door).with_options(max_retries=2)
        with pytest.raises(anthropic.APIStatusError) as raised:
            await settled(client.messages.create(**MESSAGE))
        assert raised.value.status_code == status
        assert (await settled(client.messages.create(**MESSAGE))).content[0].text == "Hello"

    sdks.run(tries())
    told = sdks.host.witness.ended(5)
    assert ends(told) == ["upstream_error"] * 4 + ["completed"]
    counts = [request.headers["x-stainless-retry-count"] for request in sdks.host.provider.requests]
    assert counts == ["0", "1", "2", "0", "1"]


@both_doors
def test_a_rate_limit(door: str) -> None:
    """Is the SDK's ``RateLimitError``, with what the provider said of when to come again."""
    with sdks_at_a_host() as sdks:
        sdks.host.provider.play(refusing(429, retry_after="7"))
        with pytest.raises(anthropic.RateLimitError) as raised:
            sdks.run(settled(sdks.client("anthropic", door).messages.create(**MESSAGE)))
        (told,) = sdks.host.witness.ended(1)
    assert raised.value.response.headers["retry-after"] == "7"
    assert (told.end.status, told.end.http_status) == ("upstream_error", 429)


LEAVERS: dict[str, tuple[str, str, Callable[[Any], Any]]] = {
    "messages": (
        "anthropic",
        "messages_simple_streaming",
        lambda client: client.messages.create(**MESSAGE, stream=True),
    ),
    "chat": (
        "openai",
        "chat_simple_streaming",
        lambda client: client.chat.completions.create(**CHAT, stream=True),
    ),
    "responses": (
        "openai",
        "responses_simple_streaming",
        lambda client: client.responses.create(model="gpt-5", input="How are you?", stream=True),
    ),
}


@both_doors
@pytest.mark.parametrize("api", LEAVERS)
def test_who_leaves_early(sdks: SDKs, door: str, api: str) -> None:
    """Is recorded as having left, and the provider does not talk on."""
    provider, recording, ask = LEAVERS[api]
    answer = Endless(RECORDINGS[recording], 3)
    sdks.host.provider.play(answer)

    async def main() -> None:
        async with entered(await settled(ask(sdks.client(provider, door)))) as stream:
            assert await anext(each(stream))

    sdks.run(main())
    (told,) = sdks.host.witness.ended(1)
    assert (told.end.status, prompts(told)) == ("client_closed", ["How are you?"])
    assert answer.left.wait(20)


@both_doors
def test_who_says_what_it_is(sdks: SDKs, door: str) -> None:
    """By an SDK's own means: program and session are recorded, and the beta flag arrives."""

    async def main() -> None:
        names = {"User-Agent": "claude-cli/2.1.0", "X-Claude-Code-Session-Id": "s-1", "anthropic-beta": "b-1"}
        await settled(sdks.client("anthropic", door).messages.create(**MESSAGE, extra_headers=names))

    sdks.run(main())
    (told,) = sdks.host.witness.ended(1)
    assert (told.start.client, told.start.session_id) == ("Claude Code", "s-1")
    assert told.start.in_process == (door == "in process")
    assert sdks.host.provider.requests[0].headers["anthropic-beta"] == "b-1"
