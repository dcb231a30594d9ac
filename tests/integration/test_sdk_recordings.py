"""Every recording, told to the SDKs by both doors: what the provider said is what they say, and what is recorded."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from tests import recordings
from tests.bridge.test_recordings import check
from tests.integration.replaying import API_KEY, Host
from tests.recordings import Recording

httpx2 = pytest.importorskip("httpx2")
openai = pytest.importorskip("openai", minversion="3")
anthropic = pytest.importorskip("anthropic", minversion="2")

from flask_aibridge.transport.httpx2 import AsyncWSGITransport  # noqa: E402

pytestmark = pytest.mark.slow

SENDABLE = [
    recording
    for recording in recordings.ALL
    if "model" in recording.document and not recording.name.startswith("messages_request_")
]
"""Those whose request an SDK can make."""

UNREADABLE = {"messages_unknown_encoding"}
"""Answers that are whole, and that no SDK can read."""

BY_DOOR = [
    *(pytest.param(recording, "public", id=f"{recording}-public") for recording in SENDABLE),
    *(
        pytest.param(recording, "in process", id=f"{recording}-in_process")
        for recording in SENDABLE
        if recording.document.get("stream")
    ),
]


class SDKs:
    """The SDKs' clients at one host: sync by the public door, async in process. Neither tries again by itself."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._runner = asyncio.Runner()
        self._public = {
            name: make(api_key=API_KEY, base_url=host.bridge_at(name), max_retries=0)
            for name, make in (("anthropic", anthropic.Anthropic), ("openai", openai.OpenAI))
        }
        self._in_process = {
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

    def ask(self, recording: Recording, door: str) -> Any:
        """Make the request of a recording, and return all of the answer."""
        clients = self._public if door == "public" else self._in_process
        create = method(clients[recording.path.split("/")[1]], recording.path)
        known = inspect.signature(create).parameters
        options = {name: value for name, value in recording.document.items() if name in known}
        options["extra_body"] = {
            name: value for name, value in recording.document.items() if name not in known
        }
        if door == "public":
            answer = create(**options)
            return list(answer) if options.get("stream") else answer
        return self._runner.run(settled(create, options))


async def settled(create: Any, options: dict[str, Any]) -> Any:
    answer = await create(**options)
    return [event async for event in answer] if options.get("stream") else answer


def method(client: Any, path: str) -> Any:
    if path.startswith("/anthropic"):
        return client.messages.create
    return client.chat.completions.create if path.endswith("/completions") else client.responses.create


@pytest.fixture(scope="module")
def sdks() -> Iterator[SDKs]:
    with Host() as host:
        sdks = SDKs(host)
        yield sdks
        sdks.close()


@pytest.mark.parametrize(("recording", "door"), BY_DOOR)
def test_an_sdk_gets_what_was_recorded(sdks: SDKs, recording: Recording, door: str) -> None:
    """A whole answer is no error; one that breaks off, and one with the status of an error, is."""
    host = sdks.host
    host.forget()
    host.provider.play(recording)
    error = None
    try:
        sdks.ask(recording, door)
    except (openai.APIError, anthropic.APIError, httpx2.HTTPError, ValueError) as raised:
        error = raised

    (told,) = host.witness.ended(1)
    check(recording, told.records)
    if recording.is_cut or recording.status >= 400:
        assert error is not None
    if recording.expected["status"] == "completed" and recording.name not in UNREADABLE:
        assert error is None
    assert told.start.initiator == ("alice" if door == "public" else "application")
    assert told.start.source == (None if door == "public" else "agents")
    assert told.start.model == recording.expected.get("model", recording.document["model"])
    assert len(host.provider.requests) == 1
