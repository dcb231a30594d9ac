"""Stopping: what is under way may end, what will not is ended in its own form, and nothing new begins."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flask_aibridge.bridge import Bridge, occupancy
from flask_aibridge.bridge.options import BridgeOptions
from flask_aibridge.testing import Served, StandInProvider
from tests.bridge.conftest import MakeBridge, RecordingHook, WaitingHook
from tests.bridge.doors import (
    CHAT,
    DONE,
    DOORS,
    EVENT,
    KEY,
    LEAVES_NOTHING,
    MESSAGES,
    QUESTION,
    RESPONSES,
    USAGE,
    asked,
)
from tests.bridge.upstreams import JSON_HEAD, SSE_HEAD, Peer, ScriptedUpstream, chunk
from tests.bridge.wsgi import DEADLINE, FakeCancellation, Reply, call, environ_of

GOODBYE = "The AI bridge is shutting down; try again."
PIECE = b'event: response.x\ndata: {"type": "response.x", "sequence_number": 41}\n\n'


class Holding:
    """A provider that sends what it has, and then nothing; ``asked`` is set when it was."""

    def __init__(self, *sent: bytes) -> None:
        self.asked = threading.Event()
        self.more = threading.Event()
        self.gone = threading.Event()
        self._sent = sent

    def __call__(self, peer: Peer) -> None:
        peer.read_request()
        for each in self._sent:
            peer.send(each)
        self.asked.set()
        if peer.is_gone():
            self.gone.set()


@contextmanager
def draining(bridge: Bridge, seconds: float) -> Iterator[list[bool]]:
    """Drain in another thread, as a server's main thread does."""
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(bridge.drain(seconds)))
    thread.start()
    yield results
    thread.join(DEADLINE)
    assert not thread.is_alive()


def ask(bridge: Bridge, path: str, headers: dict[str, str] = KEY) -> Reply:
    return call(bridge, "POST", f"/{path}", QUESTION, headers=headers)


@LEAVES_NOTHING
@pytest.mark.parametrize("path", [MESSAGES, CHAT, "openai/v1/embeddings"])
def test_a_bridge_that_is_full(path: str, make_bridge: MakeBridge, hook: RecordingHook) -> None:
    """Says so in the provider's form, to whoever asks, before it is asked who that is; what is passed on counts too."""
    script = Holding(SSE_HEAD, chunk(EVENT))
    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url, options=BridgeOptions(max_public=1))
        first = ask(bridge, path)
        assert next(first.iterator) == EVENT
        assert bridge.running == 1
        for headers in (KEY, {}):
            reply = ask(bridge, path, headers)
            assert (reply.status, reply.headers["retry-after"]) == (503, "5")
            assert "at capacity" in reply.json["error"]["message"]
            assert hook.records[-1].outcome == "refused"
        inside = call(bridge, "GET", "/nobody/v1/x", **{"flask_aibridge.cancellation": FakeCancellation()})
        assert inside.status == 404
        first.close()
        assert bridge.running == 0
        assert ask(bridge, path, {}).status == 401
        bridge.close()


@LEAVES_NOTHING
@pytest.mark.parametrize("path", ["/openai/v1/chat/completions", "/openai/v1/models", "/nobody/v1/x"])
def test_what_is_over_is_not_counted(path: str, bridge: Bridge, stand_in: Served[StandInProvider]) -> None:
    """Answers, refusals, and a server that fails to begin."""
    method, body = (
        ("GET", None) if path.endswith("models") else ("POST", QUESTION | {"messages": [{"role": "user"}]})
    )
    assert call(bridge, method, path, body, headers=KEY).body
    assert bridge.running == 0
    assert call(bridge, method, path, body).status in (401, 404)
    assert bridge.running == 0


@LEAVES_NOTHING
def test_a_server_that_fails_to_begin(make_bridge: MakeBridge, hook: RecordingHook) -> None:
    """Has left, and the provider is hung up on."""
    script = Holding(SSE_HEAD, chunk(EVENT))

    def broken(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        raise ZeroDivisionError

    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url)
        with pytest.raises(ZeroDivisionError):
            bridge(environ_of("POST", f"/{CHAT}", QUESTION, headers=KEY), broken)
        assert script.gone.wait(DEADLINE)
        bridge.close()
    assert (bridge.running, hook.record.outcome) == (0, "client_closed")


@LEAVES_NOTHING
def test_a_stream_that_was_read_to_its_end_is_over(make_bridge: MakeBridge, hook: RecordingHook) -> None:
    """Though nobody has closed it yet: some middleware forgets."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(SSE_HEAD + chunk(EVENT) + chunk(DONE) + chunk(b""))
        peer.is_gone()

    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url)
        reply = ask(bridge, CHAT)
        assert b"".join(reply.iterator) == EVENT + DONE
        assert (bridge.running, hook.record.outcome) == (0, "completed")
        reply.close()
        bridge.close()


@DOORS
def test_streams_may_end(door: str, make_bridge: MakeBridge, waiting: WaitingHook) -> None:
    """All of it arrives, while new requests are refused by either door."""
    more = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(SSE_HEAD + chunk(EVENT))
        assert more.wait(DEADLINE)
        peer.send(chunk(USAGE + DONE) + chunk(b""))
        peer.is_gone()

    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url, hooks=[waiting])
        with asked(door, bridge, CHAT) as response:
            assert response.read1() == EVENT
            with draining(bridge, DEADLINE) as results:
                while not bridge.draining:
                    threading.Event().wait(0.001)
                for environ in ({}, {"flask_aibridge.cancellation": FakeCancellation()}):
                    reply = call(bridge, "POST", f"/{MESSAGES}", QUESTION, headers=KEY, **environ)
                    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
                    assert reply.json["error"]["message"] == GOODBYE
                    assert waiting.records.pop().outcome == "refused"
                waiting.told.clear()
                more.set()
                assert response.read1() == USAGE + DONE
                assert response.read1() == b""
            assert results == [True]
        bridge.close()
    assert waiting.ended().outcome == "completed"
    assert len(waiting.records) == 1


@DOORS
@pytest.mark.parametrize("path", [MESSAGES, CHAT, RESPONSES])
def test_streams_that_do_not_end(door: str, path: str, make_bridge: MakeBridge, waiting: WaitingHook) -> None:
    """Are told so in an error event of their API, and their providers are hung up on."""
    script = Holding(SSE_HEAD, chunk(PIECE))
    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url, hooks=[waiting])
        with asked(door, bridge, path) as response:
            assert response.read1() == PIECE
            assert not bridge.drain(0)
            said = b""
            while data := response.read1():
                said += data
        assert script.gone.wait(DEADLINE)
        bridge.close()
    name, _, data = said.rpartition(b"data: ")
    assert data.endswith(b"\n\n")
    document = json.loads(data)
    error: dict[str, Any]
    expected: tuple[bytes, dict[str, Any]]
    if path == MESSAGES:
        error = {"type": "overloaded_error", "message": GOODBYE}
        request_id = waiting.ended().interception_id
        expected = (b"event: error\n", {"type": "error", "error": error, "request_id": request_id})
    elif path == CHAT:
        error = {"message": GOODBYE, "type": "server_error", "param": None, "code": "service_unavailable"}
        expected = (b"", {"error": error})
    else:
        error = {"code": "server_error", "message": GOODBYE, "param": None, "sequence_number": 42}
        expected = (b"event: error\n", {"type": "error", **error})
    assert (name, document) == expected
    record = waiting.ended()
    assert (record.outcome, record.bytes_sent) == ("interrupted", len(PIECE))
    assert bridge.running == 0


@LEAVES_NOTHING
@pytest.mark.parametrize(
    ("head", "sent"),
    [
        (SSE_HEAD, [EVENT + b"data: {"]),
        (SSE_HEAD.replace(b"text/event-stream", b"text/plain"), [EVENT]),
        (SSE_HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: br\r\n\r\n"), [EVENT]),
    ],
)
def test_streams_that_cannot_be_told(
    head: bytes, sent: list[bytes], make_bridge: MakeBridge, hook: RecordingHook
) -> None:
    """Half an event is never ended by another; what is cut off there does not look whole."""
    with ScriptedUpstream(Holding(head, *map(chunk, sent))) as server:
        bridge = make_bridge(server.base_url)
        reply = ask(bridge, MESSAGES)
        assert next(reply.iterator) == b"".join(sent)
        assert not drained_at_once(bridge)
        with pytest.raises(Exception, match="gave up"):
            next(reply.iterator)
        reply.close()
        assert hook.record.outcome == "interrupted"
        bridge.close()


def drained_at_once(bridge: Bridge) -> bool:
    """Drain without waiting for readers who are in this thread."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(occupancy, "ENDING_SECONDS", 0.001)
        return bridge.drain(0)


@LEAVES_NOTHING
def test_what_was_held_back_is_not_sent(make_bridge: MakeBridge, hook: RecordingHook) -> None:
    """It is half an event, which would swallow the last one."""
    with ScriptedUpstream(Holding(SSE_HEAD, chunk(EVENT), chunk(b"data: {"))) as server:
        bridge = make_bridge(server.base_url, options=BridgeOptions(ping_seconds=0.01))
        question = QUESTION | {"stream_options": None}
        reply = call(bridge, "POST", f"/{CHAT}", question, headers=KEY)
        assert next(reply.iterator) == EVENT
        assert next(reply.iterator) == b": ping\n\n"
        assert not drained_at_once(bridge)
        rest = reply.body
        assert rest.startswith(b'data: {"error"')
        assert hook.record.outcome == "interrupted"
        bridge.close()


@LEAVES_NOTHING
def test_a_stream_whose_reader_does_not_read(make_bridge: MakeBridge, hook: RecordingHook) -> None:
    """Ends at its next step, or when it is closed; nobody waits for that."""
    with ScriptedUpstream(Holding(SSE_HEAD, chunk(EVENT))) as server:
        bridge = make_bridge(server.base_url)
        replies = [ask(bridge, CHAT), ask(bridge, CHAT)]
        for reply in replies:
            assert next(reply.iterator) == EVENT
        assert not drained_at_once(bridge)
        assert bridge.running == 2
        assert b"error" in replies[0].body
        replies[1].close()
        assert [record.outcome for record in hook.records] == ["interrupted", "interrupted"]
        assert bridge.running == 0
        assert bridge.drain(0)
        bridge.close()


@pytest.mark.parametrize("sent", [b"", SSE_HEAD, JSON_HEAD + b'Content-Length: 99\r\n\r\n{"id":'])
@DOORS
def test_requests_that_wait_for_the_provider(
    door: str, sent: bytes, make_bridge: MakeBridge, waiting: WaitingHook
) -> None:
    """Get a 503 in its form, also while a stream has not begun: nothing has gone out yet."""
    script = Holding(sent)
    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url, hooks=[waiting])

        def drain() -> None:
            assert script.asked.wait(DEADLINE)
            assert not bridge.drain(0)

        thread = threading.Thread(target=drain)
        thread.start()
        with asked(door, bridge, MESSAGES, stream=False) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "1")
            assert json.loads(response.read()) == {
                "type": "error",
                "error": {"type": "overloaded_error", "message": GOODBYE},
                "request_id": waiting.ended().interception_id,
            }
        thread.join(DEADLINE)
        assert script.gone.wait(DEADLINE)
        bridge.close()
    assert (waiting.record.outcome, waiting.record.status) == ("interrupted", 503)


@LEAVES_NOTHING
def test_a_stream_that_had_its_last_word(make_bridge: MakeBridge, hook: RecordingHook) -> None:
    """Is complete, though its provider keeps the connection."""
    with ScriptedUpstream(Holding(SSE_HEAD, chunk(EVENT + DONE))) as server:
        bridge = make_bridge(server.base_url, options=BridgeOptions(ping_seconds=0.01))
        reply = ask(bridge, CHAT)
        assert next(reply.iterator) == EVENT + DONE
        assert next(reply.iterator) == b": ping\n\n"
        assert not drained_at_once(bridge)
        assert reply.body == b""
        assert hook.record.outcome == "completed"
        bridge.close()
