"""An agent leaves before the answer has begun, as one does whose time is up: its tokens count all the same."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import urllib3

from flask_aibridge.bridge import Bridge, occupancy
from flask_aibridge.bridge.options import BridgeOptions
from flask_aibridge.observability import TokenUsage
from flask_aibridge.transport import Source, TransportFactory
from tests.bridge.conftest import MakeBridge, RecordingHook, WaitingHook
from tests.bridge.doors import CHAT, DONE, EVENT, QUESTION, USAGE, asked
from tests.bridge.upstreams import JSON_HEAD, SSE_HEAD, Peer, ScriptedUpstream, chunk
from tests.bridge.wsgi import DEADLINE, FakeCancellation, call

READ_ON = BridgeOptions(on_disconnect="drain")
USED = {"prompt_tokens": 3, "completion_tokens": 5}
DOCUMENT = json.dumps({"id": "c1", "choices": [{"message": {"content": "a"}}], "usage": USED}).encode()
BLOCKING = JSON_HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(DOCUMENT), DOCUMENT)
STREAM = SSE_HEAD + chunk(EVENT + USAGE + DONE) + chunk(b"")


class Thinking:
    """A provider that says nothing until it is told to; ``gone`` when the bridge has hung up first."""

    def __init__(self, answer: bytes) -> None:
        self.asked = threading.Event()
        self.go_on = threading.Event()
        self.gone = threading.Event()
        self._answer = answer

    def __call__(self, peer: Peer) -> None:
        while peer.read_request():
            self.asked.set()
            if not self._answer:
                assert peer.is_gone()
                self.gone.set()
                return
            assert self.go_on.wait(DEADLINE)
            peer.send(self._answer)


@contextmanager
def asking(bridge: Bridge, path: str = CHAT, **question: Any) -> Iterator[FakeCancellation]:
    """Ask in process, in a thread, as the transport does. Its caller is there until they leave."""
    caller = FakeCancellation()
    environ: dict[str, Any] = {"flask_aibridge.cancellation": caller}
    thread = threading.Thread(
        target=lambda: call(bridge, "POST", f"/{path}", QUESTION | question, **environ).close()
    )
    thread.start()
    yield caller
    thread.join(DEADLINE)
    assert not thread.is_alive()


@pytest.mark.parametrize("answer", [BLOCKING, STREAM])
def test_an_answer_that_nobody_waits_for_is_waited_for(
    answer: bytes, make_bridge: MakeBridge, waiting: WaitingHook
) -> None:
    """For its usage, whether it streams or not; its interception ends as one whose caller has left."""
    provider = Thinking(answer)
    with ScriptedUpstream(provider) as server:
        bridge = make_bridge(server.base_url, hooks=[waiting], options=READ_ON)
        with asking(bridge, stream=answer is STREAM) as caller:
            assert provider.asked.wait(DEADLINE)
            caller.cancel()
            assert bridge.running == 1
            provider.go_on.set()
        record = waiting.ended()
        assert (record.outcome, record.usage) == ("client_closed", TokenUsage(3, 5))
        assert bridge.drain(DEADLINE)
        bridge.close()


def test_an_agent_whose_time_is_up(make_bridge: MakeBridge, waiting: WaitingHook) -> None:
    """By the transport itself."""
    provider = Thinking(BLOCKING)
    with ScriptedUpstream(provider) as server:
        bridge = make_bridge(server.base_url, hooks=[waiting], options=READ_ON)
        manager = TransportFactory(bridge).transport_for("openai", Source.AGENTS)
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            manager.request(
                "POST",
                "https://provider/v1/chat/completions",
                json=QUESTION | {"stream": False},
                timeout=0.1,
                retries=False,
            )
        provider.go_on.set()
        record = waiting.ended()
        assert (record.outcome, record.usage) == ("client_closed", TokenUsage(3, 5))
        assert bridge.drain(DEADLINE)
        bridge.close()


@pytest.mark.parametrize(
    ("options", "path"),
    [
        (BridgeOptions(on_disconnect="drain", drain_seconds=0.01), CHAT),
        (BridgeOptions(), CHAT),
        (READ_ON, "openai/v1/embeddings"),
    ],
)
def test_it_is_not_waited_for_without_end(
    options: BridgeOptions, path: str, make_bridge: MakeBridge, waiting: WaitingHook
) -> None:
    """Nor where nothing is to be learned from it."""
    provider = Thinking(b"")
    with ScriptedUpstream(provider) as server:
        bridge = make_bridge(server.base_url, hooks=[waiting], options=options)
        with asking(bridge, path) as caller:
            assert provider.asked.wait(DEADLINE)
            caller.cancel()
        assert provider.gone.wait(DEADLINE)
        assert (waiting.ended().outcome, bridge.running) == ("client_closed", 0)
        bridge.close()


@pytest.mark.parametrize("why", ["no room", "no thread"])
def test_it_is_not_waited_for_where_that_cannot_be(
    why: str, make_bridge: MakeBridge, waiting: WaitingHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider is hung up on at once."""

    def no_thread(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    provider = Thinking(b"")
    with ScriptedUpstream(provider) as server:
        bridge = make_bridge(server.base_url, hooks=[waiting], options=READ_ON)
        with asking(bridge) as caller:
            assert provider.asked.wait(DEADLINE)
            if why == "no room":
                monkeypatch.setattr(occupancy, "MAX_DETACHED", 0)
            else:
                monkeypatch.setattr("_thread.start_new_thread", no_thread)
            caller.cancel()
            monkeypatch.undo()
        assert provider.gone.wait(DEADLINE)
        assert waiting.ended().outcome == "client_closed"
        bridge.close()


def test_nothing_is_asked_for_who_has_left_before(make_bridge: MakeBridge, hook: RecordingHook) -> None:
    """There is nothing to be lost yet."""
    provider = Thinking(b"")
    with ScriptedUpstream(provider) as server:
        bridge = make_bridge(server.base_url, options=READ_ON)
        caller = FakeCancellation()
        caller.cancel()
        environ: dict[str, Any] = {"flask_aibridge.cancellation": caller}
        assert call(bridge, "POST", f"/{CHAT}", QUESTION, **environ).status == 499
        bridge.close()
    assert not provider.asked.is_set()
    assert hook.record.outcome == "client_closed"


def test_it_ends_with_the_process(make_bridge: MakeBridge, waiting: WaitingHook) -> None:
    """As everything does."""
    provider = Thinking(b"")
    with ScriptedUpstream(provider) as server:
        bridge = make_bridge(server.base_url, hooks=[waiting], options=READ_ON)
        with asking(bridge) as caller:
            assert provider.asked.wait(DEADLINE)
            caller.cancel()
            assert not bridge.drain(0.0)
        assert (waiting.ended().outcome, bridge.running) == ("client_closed", 0)
        bridge.close()


def test_an_answer_whose_caller_stays_is_complete(make_bridge: MakeBridge, waiting: WaitingHook) -> None:
    """Nothing else is different."""
    provider = Thinking(BLOCKING)
    provider.go_on.set()
    with ScriptedUpstream(provider) as server:
        bridge = make_bridge(server.base_url, hooks=[waiting], options=READ_ON)
        with asked("in process", bridge, CHAT, stream=False) as response:
            assert response.read() == DOCUMENT
        record = waiting.ended()
        assert (record.outcome, record.usage) == ("completed", TokenUsage(3, 5))
        bridge.close()
