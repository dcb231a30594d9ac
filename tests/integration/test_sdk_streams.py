"""What the bridge itself says within a stream, as the providers' own SDKs take it: pings pass unseen, and the last
event of a bridge that stops is an error like the API's own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from flask_aibridge.bridge import Bridge
from flask_aibridge.bridge.options import BridgeOptions
from flask_aibridge.config import ProviderSettings
from flask_aibridge.testing import StandInProvider, serve_stand_in
from flask_aibridge.transport import Source, TransportFactory

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

httpx2 = pytest.importorskip("httpx2")
openai = pytest.importorskip("openai", minversion="3")
anthropic = pytest.importorskip("anthropic", minversion="2")

from flask_aibridge.transport.httpx2 import WSGITransport  # noqa: E402

pytestmark = pytest.mark.slow

DEADLINE = 20.0
GOODBYE = "shutting down"
USER = [{"role": "user", "content": "Hi"}]


class Silences:
    """A bridge whose pings are counted, before a provider that says two words, and then nothing until it is
    ``over``."""

    def __init__(self) -> None:
        self.bridge: Any = None
        self.pings: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.over = threading.Event()

    def answer(self, prompt: str) -> Iterator[str]:
        yield "Hel"
        self.ping()
        yield "lo"
        assert self.over.wait(DEADLINE)

    def ping(self) -> None:
        """Wait for one that was not there before."""
        while not self.pings.empty():
            self.pings.get()
        self.pings.get(timeout=DEADLINE)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with closing(self.bridge(environ, start_response)) as body:
            for piece in body:
                if b"ping" in piece:
                    self.pings.put(piece)
                yield piece

    def stop(self) -> None:
        self.ping()
        assert not self.bridge.drain(0)


@pytest.fixture
def silences() -> Iterator[Silences]:
    silences = Silences()
    with serve_stand_in(StandInProvider(answer=silences.answer)) as served:
        settings = [
            ProviderSettings("anthropic", "anthropic", served.base_url, ("sk",)),
            ProviderSettings("openai", "openai", f"{served.base_url}/v1", ("sk",)),
        ]
        silences.bridge = Bridge(settings, hooks=[], options=BridgeOptions(ping_seconds=0.02))
        yield silences
        silences.over.set()
        silences.bridge.close()


Connect = Callable[[str], Any]


@pytest.fixture
def connect(silences: Silences) -> Iterator[Connect]:
    clients = []

    def connected(provider: str) -> Any:
        transport = WSGITransport(TransportFactory(silences).transport_for(provider, Source.AGENTS))
        client = httpx2.Client(transport=transport)
        clients.append(client)
        make = anthropic.Anthropic if provider == "anthropic" else openai.OpenAI
        return make(api_key="unused", http_client=client, max_retries=0)

    yield connected
    for client in clients:
        client.close()


def test_messages(silences: Silences, connect: Connect) -> None:
    """Anthropic's SDK drops its own pings, and raises what an overloaded API would have it raise."""
    said = []
    client = connect("anthropic")

    def listen() -> None:
        with client.messages.stream(model="m", max_tokens=9, messages=USER) as stream:
            for text in stream.text_stream:
                said.append(text)
                if text == "lo":
                    silences.stop()

    with pytest.raises(anthropic.APIStatusError, match=GOODBYE) as raised:
        listen()
    assert raised.value.body["error"]["type"] == "overloaded_error"
    assert said == ["Hel", "lo"]


def test_chat_completions(silences: Silences, connect: Connect) -> None:
    """OpenAI's SDK drops comments, and raises for a chunk with an error."""
    said = []
    stream = connect("openai").chat.completions.create(model="m", messages=USER, stream=True)

    def listen() -> None:
        for chunk in stream:
            text = chunk.choices[0].delta.content
            said.append(text)
            if text == "lo":
                silences.stop()

    with stream, pytest.raises(openai.APIError, match=GOODBYE):
        listen()
    assert said == ["", "Hel", "lo"]


def test_responses(silences: Silences, connect: Connect) -> None:
    """The API's error event is an event like any other, in its place."""
    events = []
    with connect("openai").responses.create(model="m", input="Hi", stream=True) as stream:
        for event in stream:
            events.append(event)
            if getattr(event, "delta", "") == "lo":
                silences.stop()
    assert events[-1].type == "error"
    assert GOODBYE in events[-1].message
    assert [event.sequence_number for event in events] == list(range(len(events)))
