"""LangChain's client for OpenAI at both doors, and what is recorded of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.integration.replaying import API_KEY, DEADLINE, RECORDINGS, Endless, Host

pytest.importorskip("httpx2")
pytest.importorskip("openai", minversion="3")
langchain_openai = pytest.importorskip("langchain_openai")

import httpx2  # noqa: E402
import openai  # noqa: E402
from langchain_core.messages import HumanMessage, ToolMessage  # noqa: E402

from flask_aibridge.transport.httpx2 import AsyncWSGITransport, WSGITransport  # noqa: E402

pytestmark = pytest.mark.slow

QUESTION = "How are you?"
REFUSED = replace(RECORDINGS["chat_stream_error"], status=400)


@pytest.fixture(scope="module")
def shared() -> Iterator[Host]:
    with Host() as host:
        yield host


@pytest.fixture
def host(shared: Host) -> Host:
    shared.forget()
    return shared


@pytest.fixture(params=["public", "in process"])
def make(request: pytest.FixtureRequest, host: Host) -> Iterator[Any]:
    """Return a function that makes a model at one door."""
    clients: list[httpx2.Client] = []

    def at_door(**options: Any) -> Any:
        options = {"model": "gpt-5", "max_retries": 0, **options}
        if request.param == "public":
            clients.append(httpx2.Client())
            return langchain_openai.ChatOpenAI(
                api_key=API_KEY, base_url=host.bridge_at("openai"), http_client=clients[-1], **options
            )
        manager = host.manager("openai")
        clients.append(httpx2.Client(transport=WSGITransport(manager)))
        http_async_client = httpx2.AsyncClient(transport=AsyncWSGITransport(manager))
        return langchain_openai.ChatOpenAI(
            api_key="unused", http_client=clients[-1], http_async_client=http_async_client, **options
        )

    yield at_door
    for client in clients:
        client.close()


def test_invoke(host: Host, make: Any) -> None:
    """The answer, and its usage, which is recorded too."""
    answer = make().invoke(QUESTION)
    assert (answer.content, answer.usage_metadata["output_tokens"]) == ("Hello", 2)
    (told,) = host.witness.ended(1)
    assert (told.end.status, told.tokens, told.start.model) == ("completed", (3, 2), "gpt-5")


@pytest.mark.parametrize("with_usage", [False, True])
def test_stream(host: Host, make: Any, with_usage: bool) -> None:
    """Chunk by chunk; usage is recorded whether it was asked for or not, and shown where it was."""
    chunks = list(make(stream_usage=with_usage).stream(QUESTION))
    assert [chunk.content for chunk in chunks if chunk.content] == ["Hel", "lo"]
    shown = [chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata]
    assert shown == ([2] if with_usage else [])
    (told,) = host.witness.ended(1)
    assert (told.end.status, told.tokens) == ("completed", (3, 2))


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_bound_tools(host: Host, make: Any, api: str) -> None:
    """Two turns: the call, and the answer with what the tool said."""
    host.provider.play(f"{api}_tool_blocking")

    def read_file(path: str = "") -> str:
        """Read a file."""
        raise AssertionError("the test runs it")

    model = make(use_responses_api=api == "responses").bind_tools([read_file])
    called = model.invoke(QUESTION)
    (call,) = called.tool_calls
    result = ToolMessage("its text", tool_call_id=call["id"])
    assert model.invoke([HumanMessage(QUESTION), called, result]).text == "Hello"
    first, second = host.witness.ended(2)
    assert [call_id for _, _, call_id in first.tools] == ["call_01"]
    assert (first.end.status, second.end.status, second.tools) == ("completed", "completed", [])


def test_async(host: Host, make: Any) -> None:
    """``ainvoke`` and ``astream``, by whichever client they use."""

    async def main() -> tuple[str, list[str]]:
        model = make()
        answer = await asyncio.wait_for(model.ainvoke(QUESTION), DEADLINE)
        chunks = [chunk.content async for chunk in model.astream(QUESTION)]
        await model.root_async_client.close()
        return answer.content, [chunk for chunk in chunks if chunk]

    assert asyncio.run(main()) == ("Hello", ["Hel", "lo"])
    assert [told.end.status for told in host.witness.ended(2)] == ["completed", "completed"]


@pytest.mark.parametrize(
    ("recording", "status"),
    [
        ("chat_cut_mid_stream", "upstream_truncated"),
        ("chat_stream_failure", "upstream_error"),
        ("chat_refused", "upstream_error"),
    ],
)
def test_a_stream_that_fails(host: Host, make: Any, recording: str, status: str) -> None:
    """Is an error, never a short answer."""
    host.provider.play(REFUSED if recording == "chat_refused" else recording)
    with pytest.raises(openai.APIError):
        list(make().stream(QUESTION))
    (told,) = host.witness.ended(1)
    assert told.end.status == status


def test_a_stream_that_is_left(host: Host, make: Any) -> None:
    """The provider does not talk on."""
    answer = Endless(RECORDINGS["chat_simple_streaming"], 3)
    host.provider.play(answer)
    chunks = make().stream(QUESTION)
    assert next(chunks) is not None
    chunks.close()
    (told,) = host.witness.ended(1)
    assert told.end.status == "client_closed"
    assert answer.left.wait(DEADLINE)
