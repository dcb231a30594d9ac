"""The providers' own SDKs at both doors of an application: blocking and streaming, sync and async."""

from __future__ import annotations

import asyncio
import inspect
import queue
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
from flask import Flask

from flask_aibridge import AIBridge, Source
from flask_aibridge.license.issuing import SigningKey, issue_license
from flask_aibridge.testing import AnswerWith, DropAfter, Failure, StandInProvider, serve_stand_in

httpx2 = pytest.importorskip("httpx2")
openai = pytest.importorskip("openai", minversion="3")
anthropic = pytest.importorskip("anthropic", minversion="2")

from flask_aibridge.transport.httpx2 import AsyncWSGITransport, WSGITransport  # noqa: E402

pytestmark = pytest.mark.slow

DEADLINE = 20.0
API_KEY = "aib_alice_secret"
USER = [{"role": "user", "content": "Hi there"}]
MESSAGE = {"model": "m", "max_tokens": 99, "messages": USER}
CHAT = {"model": "m", "messages": USER}


class Speech:
    """An answer whose tokens the test says, one by one; ``over`` is set when nobody listens any more, or at its end."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self._tokens: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def say(self, token: str | None) -> None:
        self._tokens.put(token)

    def __call__(self, prompt: str) -> Iterator[str]:
        try:
            while (token := self._tokens.get(timeout=DEADLINE)) is not None:
                yield token
        finally:
            self.over.set()

    def is_stopped(self) -> bool:
        """Whether the provider notices that nobody reads: it does when it sends, so it goes on talking."""
        give_up = time.monotonic() + DEADLINE
        while time.monotonic() < give_up:
            self.say("more ")
            if self.over.wait(0.01):
                return True
        return False


class Door:
    """One way into one application, and the SDKs' clients for it, sync or async."""

    def __init__(self, in_process: bool, is_async: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.in_process = in_process
        self.is_async = is_async
        self.api_key = API_KEY
        self.licensed = True
        self.stand_in = StandInProvider()
        self._base_url = ""
        self._bridge: AIBridge | None = None
        for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
            monkeypatch.delenv(name, raising=False)

    def run(
        self,
        main: Callable[[], Awaitable[Any]],
        *,
        answer: Any = ("Hel", "lo"),
        failures: Sequence[Failure | None] = (),
        provider_url: str | None = None,
    ) -> Any:
        """Run a coroutine function with the application in front of a stand-in that gives this answer."""
        self.stand_in = StandInProvider(answer=answer, failures=failures, keys=["sk-provider"])
        with serve_stand_in(self.stand_in) as provider:
            flask = self._application(provider_url or provider.base_url)
            try:
                with serve_stand_in(flask) as served:
                    self._base_url = f"{served.base_url}/api/v2/aibridge"
                    return asyncio.run(self._bounded(main))
            finally:
                assert self._bridge is not None
                bridge: Any = self._bridge.wsgi_app
                bridge.close()

    async def _bounded(self, main: Callable[[], Awaitable[Any]]) -> Any:
        return await asyncio.wait_for(main(), 60)

    def _application(self, provider_url: str) -> Flask:
        app = Flask("host")
        key = SigningKey.generate("test")
        app.config["AIBRIDGE_PROVIDERS"] = {
            "anthropic": {"type": "anthropic", "base_url": provider_url, "keys": ["sk-provider"]},
            "openai": {"type": "openai", "base_url": f"{provider_url}/v1", "keys": ["sk-provider"]},
        }
        app.config["AIBRIDGE_REDIS_URL"] = "memory://"
        app.config["AIBRIDGE_API_KEYS"] = {"alice": API_KEY}
        app.config["AIBRIDGE_LICENSE_PUBLIC_KEYS"] = {key.kid: key.public_pem}
        if self.licensed:
            app.config["AIBRIDGE_LICENSE"] = issue_license(key)
        self._bridge = AIBridge(app)
        return app

    def anthropic(self, **options: Any) -> Any:
        return self._client(anthropic, "Anthropic", "anthropic", options)

    def openai(self, **options: Any) -> Any:
        return self._client(openai, "OpenAI", "openai", options)

    def _client(self, sdk: Any, name: str, provider: str, options: dict[str, Any]) -> Any:
        make = getattr(sdk, f"Async{name}" if self.is_async else name)
        if not self.in_process:
            tail = "/v1" if provider == "openai" else ""
            return make(api_key=self.api_key, base_url=f"{self._base_url}/{provider}{tail}", **options)
        assert self._bridge is not None
        manager = self._bridge.transport_for(provider, Source.AGENTS)
        client = (
            httpx2.AsyncClient(transport=AsyncWSGITransport(manager))
            if self.is_async
            else httpx2.Client(transport=WSGITransport(manager))
        )
        return make(api_key="none is needed", http_client=client, **options)


async def settled(result: Any) -> Any:
    """What a method of a sync or an async client comes to."""
    return await result if inspect.isawaitable(result) else result


async def each(items: Any) -> AsyncIterator[Any]:
    """The items of a sync or an async iterable."""
    if hasattr(items, "__aiter__"):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


class entered:
    """``async with`` for a sync or an async context manager."""

    def __init__(self, own: Any) -> None:
        self._own = own

    async def __aenter__(self) -> Any:
        return await self._own.__aenter__() if hasattr(self._own, "__aenter__") else self._own.__enter__()

    async def __aexit__(self, *error: Any) -> Any:
        return (
            await self._own.__aexit__(*error)
            if hasattr(self._own, "__aexit__")
            else self._own.__exit__(*error)
        )


@pytest.fixture(
    params=[(door, kind) for door in ("in-process", "http") for kind in ("sync", "async")], ids="-".join
)
def door(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Door:
    name, kind = request.param
    return Door(name == "in-process", kind == "async", monkeypatch)


@pytest.fixture(params=["sync", "async"])
def public(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Door:
    return Door(False, request.param == "async", monkeypatch)


def test_anthropic_blocking(door: Door) -> None:
    """The provider gets its own key, whatever the caller's was."""

    async def main() -> Any:
        async with entered(door.anthropic()) as client:
            return await settled(client.messages.create(**MESSAGE))

    message = door.run(main)
    assert (message.content[0].text, message.usage.output_tokens) == ("Hello", 2)
    (received,) = door.stand_in.requests
    credentials = {
        received.headers.get("x-api-key"),
        received.headers.get("authorization", "").removeprefix("Bearer "),
    }
    assert "sk-provider" in credentials
    assert not {API_KEY, "none is needed"} & credentials


def test_anthropic_streaming(door: Door) -> None:
    """Raw events, and the stream helper."""

    async def main() -> None:
        async with entered(door.anthropic()) as client:
            events = await settled(client.messages.create(**MESSAGE, stream=True))
            kinds = [event.type async for event in each(events)]
            assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
            async with entered(client.messages.stream(**MESSAGE)) as stream:
                assert [text async for text in each(stream.text_stream)] == ["Hel", "lo"]
                message = await settled(stream.get_final_message())
            assert message.content[0].text == "Hello"

    door.run(main)


def test_openai_chat_completions(door: Door) -> None:
    """Blocking, streamed, and with the stream helper."""

    async def main() -> None:
        async with entered(door.openai()) as client:
            completion = await settled(client.chat.completions.create(**CHAT))
            assert completion.choices[0].message.content == "Hello"
            chunks = await settled(client.chat.completions.create(**CHAT, stream=True))
            deltas = [chunk.choices[0].delta.content async for chunk in each(chunks) if chunk.choices]
            assert "".join(delta or "" for delta in deltas) == "Hello"
            async with entered(client.chat.completions.stream(**CHAT)) as stream:
                assert [event async for event in each(stream)][-1].type == "content.done"

    door.run(main)


def test_openai_responses(door: Door) -> None:
    """Blocking, streamed, and with the stream helper."""

    async def main() -> None:
        async with entered(door.openai()) as client:
            assert (await settled(client.responses.create(model="m", input="Hi"))).output_text == "Hello"
            events = await settled(client.responses.create(model="m", input="Hi", stream=True))
            deltas = [
                event.delta async for event in each(events) if event.type == "response.output_text.delta"
            ]
            assert deltas == ["Hel", "lo"]
            async with entered(client.responses.stream(model="m", input="Hi")) as stream:
                assert [event async for event in each(stream)]
                assert (await settled(stream.get_final_response())).output_text == "Hello"

    door.run(main)


async def _anthropic_tokens(client: Any) -> tuple[Any, AsyncIterator[str]]:
    events = await settled(client.messages.create(**MESSAGE, stream=True))
    return events, (e.delta.text async for e in each(events) if e.type == "content_block_delta")


async def _openai_tokens(client: Any) -> tuple[Any, AsyncIterator[str]]:
    chunks = await settled(client.chat.completions.create(**CHAT, stream=True))
    return chunks, (c.choices[0].delta.content async for c in each(chunks) if c.choices[0].delta.content)


async def _responses_tokens(client: Any) -> tuple[Any, AsyncIterator[str]]:
    events = await settled(client.responses.create(model="m", input="Hi", stream=True))
    return events, (e.delta async for e in each(events) if e.type == "response.output_text.delta")


APIS = {
    "messages": (Door.anthropic, _anthropic_tokens),
    "chat": (Door.openai, _openai_tokens),
    "responses": (Door.openai, _responses_tokens),
}


@pytest.mark.parametrize("api", APIS)
def test_tokens_arrive_one_by_one(door: Door, api: str) -> None:
    """Each before the provider has the next."""
    speech = Speech()
    make, open_tokens = APIS[api]

    async def main() -> None:
        speech.say("0 ")
        async with entered(make(door)) as client:
            _, tokens = await open_tokens(client)
            for number in range(5):
                assert await anext(tokens) == f"{number} "
                speech.say(f"{number + 1} ")
            speech.say(None)
            assert [token async for token in tokens] == ["5 "]

    door.run(main, answer=speech)


@pytest.mark.parametrize("api", APIS)
def test_closing_a_stream_stops_the_provider(door: Door, api: str) -> None:
    """It does not talk to nobody for long."""
    speech = Speech()
    make, open_tokens = APIS[api]

    async def main() -> None:
        speech.say("0 ")
        async with entered(make(door)) as client:
            stream, tokens = await open_tokens(client)
            assert await anext(tokens) == "0 "
            assert not speech.over.is_set()
            await settled(stream.close())
            assert await asyncio.to_thread(speech.is_stopped)

    door.run(main, answer=speech)


def test_cancelling_a_task_stops_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, for a task that waits for a token."""
    speech = Speech()
    door = Door(True, True, monkeypatch)

    async def main() -> None:
        speech.say("0 ")
        async with door.anthropic() as client:
            _, tokens = await _anthropic_tokens(client)
            assert await anext(tokens) == "0 "
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await anext(tokens)
            assert await asyncio.to_thread(speech.is_stopped)

    door.run(main, answer=speech)


# Errors


async def _both(door: Door, **options: Any) -> tuple[Exception, Exception]:
    """What the SDKs raise for a simple request."""
    async with entered(door.anthropic(**options)) as client:
        with pytest.raises(anthropic.APIError) as by_anthropic:
            await settled(client.messages.create(**MESSAGE))
    async with entered(door.openai(**options)) as client:
        with pytest.raises(openai.APIError) as by_openai:
            await settled(client.chat.completions.create(**CHAT))
    return by_anthropic.value, by_openai.value


def test_a_wrong_key(public: Door) -> None:
    """Is an ``AuthenticationError`` with the bridge's sentence; the provider is not asked."""
    public.api_key = "aib_alice_wrong"
    for error, sdk in zip(public.run(lambda: _both(public)), (anthropic, openai), strict=True):
        assert isinstance(error, sdk.AuthenticationError)
        assert "AI Bridge API key" in str(error)
        assert "aib_alice_wrong" not in str(error)
    assert public.stand_in.requests == []


def test_no_licence(public: Door) -> None:
    """Is a ``PermissionDeniedError`` that says so, not retried; the door in process stays open."""
    public.licensed = False
    for error, sdk in zip(public.run(lambda: _both(public)), (anthropic, openai), strict=True):
        assert isinstance(error, sdk.PermissionDeniedError)
        assert "AI Bridge is a licensed feature" in str(error)
    assert public.stand_in.requests == []


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_no_licence_is_needed_in_process(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Nor a key."""
    door = Door(True, kind == "async", monkeypatch)
    door.licensed = False
    test_anthropic_blocking(door)


@pytest.mark.parametrize("status", [400, 429, 529])
def test_the_providers_errors_pass_through(door: Door, status: int) -> None:
    """With status, headers and words."""
    words = {"error": {"type": "of_its_own", "message": f"words of the provider for {status}"}}
    failure = AnswerWith(status, words, headers={"Retry-After": "7"})
    errors = door.run(lambda: _both(door, max_retries=0), failures=[failure, failure])
    for error, sdk in zip(errors, (anthropic, openai), strict=True):
        assert isinstance(error, sdk.RateLimitError if status == 429 else sdk.APIStatusError)
        assert error.status_code == status
        assert f"words of the provider for {status}" in str(error)
        assert error.response.headers["retry-after"] == "7"


def test_an_overload_is_retried_by_the_sdk(door: Door) -> None:
    """Once for each, not multiplied by retries on the way."""

    async def main() -> None:
        async with entered(door.anthropic(max_retries=1)) as client:
            assert (await settled(client.messages.create(**MESSAGE))).content[0].text == "Hello"

    door.run(main, failures=[AnswerWith(529, headers={"retry-after-ms": "1"})])
    assert len(door.stand_in.requests) == 2


def test_a_provider_that_cannot_be_reached(door: Door) -> None:
    """Is a 502 with a sentence, in the shape that the SDK expects."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    for error, sdk in zip(
        door.run(lambda: _both(door, max_retries=0), provider_url=address), (anthropic, openai), strict=True
    ):
        assert isinstance(error, sdk.APIStatusError)
        assert error.status_code == 502
        assert "could not be reached" in str(error)


async def _listen(tokens: AsyncIterator[str], said: list[str]) -> None:
    async for token in tokens:
        said.append(token)  # noqa: PERF401 - those before an error count


@pytest.mark.parametrize("api", APIS)
def test_a_stream_that_breaks_off(door: Door, api: str) -> None:
    """Is an error after the tokens before it, not a short answer."""
    make, open_tokens = APIS[api]
    said: list[str] = []

    async def main() -> None:
        async with entered(make(door)) as client:
            _, tokens = await open_tokens(client)
            with pytest.raises((anthropic.APIError, openai.APIError, httpx2.RemoteProtocolError)):
                await _listen(tokens, said)

    door.run(main, answer=["a ", "b ", "c "], failures=[DropAfter(2)])
    assert said == ["a ", "b "]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_sdks_timeout(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Is its ``APITimeoutError``; the provider is left alone."""
    speech = Speech()
    door = Door(True, kind == "async", monkeypatch)

    async def main() -> None:
        async with entered(door.anthropic(max_retries=0, timeout=0.1)) as client:
            with pytest.raises(anthropic.APITimeoutError):
                await settled(client.messages.create(**MESSAGE))
        speech.say(None)
        assert await asyncio.to_thread(speech.over.wait, DEADLINE)

    door.run(main, answer=speech)
