"""The SDKs' clients at both doors of one application."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx2
import openai

from flask_aibridge.transport.httpx2 import AsyncWSGITransport
from tests.integration.replaying import API_KEY, DEADLINE, Host
from tests.recordings import Recording

DOORS = ("public", "in process")


class SDKs:
    """The SDKs' clients at one host: sync by the public door, async in process. Neither tries again by itself."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._runner = asyncio.Runner()
        self._public: dict[str, Any] = {
            name: make(api_key=API_KEY, base_url=host.bridge_at(name), max_retries=0)
            for name, make in (("anthropic", anthropic.Anthropic), ("openai", openai.OpenAI))
        }
        self._in_process: dict[str, Any] = {
            name: make(
                api_key="none is needed",
                http_client=httpx2.AsyncClient(transport=AsyncWSGITransport(host.manager(name))),
                max_retries=0,
            )
            for name, make in (("anthropic", anthropic.AsyncAnthropic), ("openai", openai.AsyncOpenAI))
        }

    def close(self) -> None:
        for client in self._public.values():
            client.close()
        for client in self._in_process.values():
            self._runner.run(client.close())
        self._runner.close()

    def client(self, name: str, door: str) -> Any:
        return (self._public if door == "public" else self._in_process)[name]

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        """Run what may use either client."""
        return self._runner.run(asyncio.wait_for(main, DEADLINE))

    def ask(self, recording: Recording, door: str) -> Any:
        """Make the request of a recording, and return all of the answer."""
        create = method(self.client(recording.path.split("/")[1], door), recording.path)
        known = inspect.signature(create).parameters
        options = {name: value for name, value in recording.document.items() if name in known}
        options["extra_body"] = {
            name: value for name, value in recording.document.items() if name not in known
        }
        if door == "public":
            answer = create(**options)
            return list(answer) if options.get("stream") else answer
        return self.run(_all_of(create, options))


async def _all_of(create: Any, options: dict[str, Any]) -> Any:
    answer = await create(**options)
    return [event async for event in answer] if options.get("stream") else answer


def method(client: Any, path: str) -> Any:
    if path.startswith("/anthropic"):
        return client.messages.create
    if path.endswith("/compact"):
        return client.responses.compact
    return client.chat.completions.create if path.endswith("/completions") else client.responses.create


@contextmanager
def sdks_at_a_host() -> Iterator[SDKs]:
    with Host() as host:
        sdks = SDKs(host)
        try:
            yield sdks
        finally:
            sdks.close()
