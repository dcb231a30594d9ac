"""The life of a stream by both doors: its head, its silences, and what becomes of it when its caller leaves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import urllib3

from flask_aibridge.bridge import Bridge, occupancy
from flask_aibridge.bridge.options import BridgeOptions
from flask_aibridge.observability import TokenUsage
from tests.bridge.conftest import MakeBridge, WaitingHook
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
from tests.bridge.upstreams import SSE_HEAD, Peer, ScriptedUpstream, chunk
from tests.bridge.wsgi import DEADLINE, FakeCancellation, Reply, call

PINGS = {MESSAGES: b'event: ping\ndata: {"type": "ping"}\n\n', CHAT: b": ping\n\n", RESPONSES: b": ping\n\n"}
OFTEN = BridgeOptions(ping_seconds=0.01)
READ_ON = BridgeOptions(on_disconnect="drain", ping_seconds=0.01)


def streaming(*pieces: bytes, head: bytes = SSE_HEAD) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(head)
        for piece in pieces:
            peer.send(chunk(piece))
        peer.send(chunk(b""))
        peer.is_gone()

    return script


def head_with(*lines: bytes) -> bytes:
    return SSE_HEAD.removesuffix(b"\r\n") + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


@LEAVES_NOTHING
@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (SSE_HEAD, "no-cache"),
        (head_with(b"cache-control: no-store", b"X-Accel-Buffering: yes"), "no-store"),
    ],
)
@pytest.mark.parametrize("path", [MESSAGES, "openai/v1/embeddings"])
def test_no_one_keeps_a_stream_or_collects_it(
    head: bytes, kept: str, path: str, make_bridge: MakeBridge
) -> None:
    """Followed or not; what the provider says of caching stands."""
    with ScriptedUpstream(streaming(DONE, head=head)) as server:
        bridge = make_bridge(server.base_url)
        reply = call(bridge, "POST", f"/{path}", QUESTION, headers=KEY)
        assert reply.body == DONE
        names = [name.lower() for name, _ in reply.head[0][1]]
        assert (names.count("cache-control"), names.count("x-accel-buffering")) == (1, 1)
        assert (reply.headers["cache-control"], reply.headers["x-accel-buffering"]) == (kept, "no")
        bridge.close()


@pytest.mark.parametrize(
    "head", [SSE_HEAD, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\n"]
)
@DOORS
def test_a_stream_that_breaks_off_before_it_begins(
    door: str, head: bytes, make_bridge: MakeBridge, waiting: WaitingHook
) -> None:
    """Is an error in the provider's form: nothing has gone out yet."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(head)

    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url, hooks=[waiting])
        with asked(door, bridge, MESSAGES) as response:
            assert response.status == 502
            assert b"broke off" in response.read()
            assert response.headers["X-AIBridge-Interception-Id"] == waiting.ended().interception_id
        assert bridge.running == 0
        bridge.close()
    assert (waiting.record.outcome, waiting.record.status) == ("upstream_truncated", 502)


@DOORS
@pytest.mark.parametrize("path", PINGS)
def test_a_silent_stream_is_pinged(
    door: str, path: str, make_bridge: MakeBridge, waiting: WaitingHook
) -> None:
    """Before its first event and between two, in the API's own way, and no byte of the provider's is lost by it."""
    heard = threading.Semaphore(0)

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(SSE_HEAD)
        for piece in (EVENT, USAGE + DONE):
            assert heard.acquire(timeout=DEADLINE)
            peer.send(chunk(piece))
        peer.send(chunk(b""))
        peer.is_gone()

    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url, hooks=[waiting], options=OFTEN)
        body, due = b"", 2
        with asked(door, bridge, path) as response:
            while data := response.read1():
                body += data
                if due and body.endswith(PINGS[path]):
                    due -= 1
                    body = body.replace(PINGS[path], b"")
                    heard.release()
        bridge.close()
    assert body.replace(PINGS[path], b"") == EVENT + USAGE + DONE
    assert waiting.ended().bytes_sent == len(EVENT + USAGE + DONE)
    assert waiting.record.outcome == ("completed" if path == CHAT else "upstream_truncated")


def test_a_caller_who_vanished_is_missed_in_silence(make_bridge: MakeBridge, waiting: WaitingHook) -> None:
    """By the public door nobody says so, but the next ping cannot be written."""
    gone = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(SSE_HEAD + chunk(EVENT))
        assert peer.is_gone()
        gone.set()

    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url, hooks=[waiting], options=OFTEN)
        with asked("public", bridge, CHAT) as response:
            assert response.read1().startswith(EVENT)
            response.close()
            assert gone.wait(DEADLINE)
        bridge.close()
    assert waiting.ended().outcome == "client_closed"
    assert bridge.running == 0


@LEAVES_NOTHING
@pytest.mark.parametrize(
    ("head", "pool"),
    [
        (head_with(b"Content-Encoding: gzip"), None),
        (head_with(b"Content-Encoding: unheard-of"), None),
        (SSE_HEAD.replace(b"Transfer-Encoding: chunked", b"Content-Length: 99999"), None),
        (SSE_HEAD.replace(b"text/event-stream", b"text/plain"), None),
        (SSE_HEAD, urllib3.PoolManager()),
    ],
)
def test_where_there_are_no_pings(head: bytes, pool: Any, make_bridge: MakeBridge) -> None:
    """In what is compressed, of a length that was told, or no stream; and with a pool of the host's own."""
    with ScriptedUpstream(streaming(EVENT, head=head)) as server:
        bridge = make_bridge(server.base_url, options=OFTEN, pool=pool)
        reply = call(
            bridge, "POST", f"/{MESSAGES}", QUESTION, **{"flask_aibridge.cancellation": FakeCancellation()}
        )
        assert EVENT in next(reply.iterator)
        body: Any = reply.iterable.iterator  # type: ignore[attr-defined]
        assert body._words is None or not body._answer.patient
        reply.close()
        bridge.close()


class Leaving:
    """A provider that sends one event, and the rest when it is told that the caller has left."""

    def __init__(self, *rest: bytes) -> None:
        self.left = threading.Event()
        self.gone: list[bool] = []
        self._rest = rest

    def __call__(self, peer: Peer) -> None:
        peer.read_request()
        peer.send(SSE_HEAD + chunk(EVENT))
        if not self._rest:
            self.gone.append(peer.is_gone())
            return
        assert self.left.wait(DEADLINE)
        for piece in self._rest:
            peer.send(chunk(piece))
        self.gone.append(peer.is_gone())


def public_reply(bridge: Bridge) -> Reply:
    return call(bridge, "POST", f"/{CHAT}", QUESTION, headers=KEY)


@LEAVES_NOTHING
def test_an_answer_is_read_on_for_its_usage(make_bridge: MakeBridge, waiting: WaitingHook) -> None:
    """When the server closes it, which is how a caller leaves by the public door; it is theirs all the same."""
    script = Leaving(EVENT, USAGE, DONE + b"", b"")
    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url, hooks=[waiting], options=READ_ON)
        reply = public_reply(bridge)
        assert next(reply.iterator) == EVENT
        reply.close()
        assert bridge.running == 1
        script.left.set()
        record = waiting.ended()
        assert (record.outcome, record.usage) == ("client_closed", TokenUsage(3, 5))
        assert record.bytes_sent == len(EVENT)
        assert bridge.drain(DEADLINE)
        bridge.close()
    assert len(waiting.records) == 1


def test_an_answer_is_read_on_after_an_agent_has_left(make_bridge: MakeBridge, waiting: WaitingHook) -> None:
    """Their cancellation does not reach the provider."""
    script = Leaving(EVENT, USAGE + DONE, b"")
    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url, hooks=[waiting], options=READ_ON)
        with asked("in process", bridge, CHAT) as response:
            assert response.read1().startswith(EVENT)
            response.close()
            script.left.set()
            record = waiting.ended()
        assert (record.outcome, record.usage) == ("client_closed", TokenUsage(3, 5))
        assert bridge.drain(DEADLINE)
        bridge.close()


@DOORS
@pytest.mark.parametrize("options", [OFTEN, READ_ON])
def test_leaving_after_the_last_word_is_no_leaving(
    door: str, options: BridgeOptions, make_bridge: MakeBridge, waiting: WaitingHook
) -> None:
    """SDKs close at it, whatever the connection to the provider does."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(SSE_HEAD + chunk(EVENT + USAGE + DONE))
        peer.is_gone()

    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url, hooks=[waiting], options=options)
        with asked(door, bridge, CHAT) as response:
            assert response.read1().startswith(EVENT + USAGE + DONE)
            response.close()
            record = waiting.ended()
        bridge.close()
    assert (record.outcome, record.usage) == ("completed", TokenUsage(3, 5))


@pytest.mark.parametrize("door", ["public", "in process"])
def test_more_are_not_read_on_than_there_is_room_for(
    door: str, make_bridge: MakeBridge, waiting: WaitingHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider is hung up on at once."""
    monkeypatch.setattr(occupancy, "MAX_DETACHED", 0)
    script = Leaving()
    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url, hooks=[waiting], options=READ_ON)
        with asked(door, bridge, CHAT) as response:
            assert response.read1().startswith(EVENT)
            response.close()
            assert waiting.ended().outcome == "client_closed"
        bridge.close()
    assert script.gone == [True]


@LEAVES_NOTHING
@pytest.mark.parametrize(
    ("options", "pool"),
    [
        (BridgeOptions(on_disconnect="drain", drain_seconds=0.01), None),
        (BridgeOptions(on_disconnect="drain"), urllib3.PoolManager()),
        (BridgeOptions(on_disconnect="cancel"), None),
    ],
)
def test_reading_on_has_an_end(
    options: BridgeOptions, pool: Any, make_bridge: MakeBridge, waiting: WaitingHook
) -> None:
    """After its time; and there is none with a pool of the host's own, which could not be left in time."""
    script = Leaving()
    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url, hooks=[waiting], options=options, pool=pool)
        reply = public_reply(bridge)
        assert next(reply.iterator) == EVENT
        reply.close()
        assert waiting.ended().outcome == "client_closed"
        assert bridge.drain(DEADLINE)
        bridge.close()
    assert script.gone == [True]


@LEAVES_NOTHING
@pytest.mark.parametrize("end", [Bridge.close, lambda bridge: bridge.drain(0)])
def test_what_is_read_on_ends_with_the_bridge(
    end: Callable[[Bridge], object], make_bridge: MakeBridge, waiting: WaitingHook
) -> None:
    """Its usage is what had been seen, and it is recorded before the process goes."""
    script = Leaving()
    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url, hooks=[waiting], options=READ_ON)
        reply = public_reply(bridge)
        assert next(reply.iterator) == EVENT
        reply.close()
        end(bridge)
        assert bridge.running == 0
        assert waiting.record.outcome == "client_closed"
        bridge.close()
    assert script.gone == [True]


@LEAVES_NOTHING
@pytest.mark.parametrize("path", ["openai/v1/embeddings", MESSAGES])
def test_what_says_nothing_is_not_read_on(path: str, make_bridge: MakeBridge, waiting: WaitingHook) -> None:
    """A stream that is only passed on, and one whose coding nobody can read."""
    script = Leaving()
    head = head_with(b"Content-Encoding: unheard-of") if path == MESSAGES else SSE_HEAD

    def opaque(peer: Peer) -> None:
        peer.read_request()
        peer.send(head + chunk(EVENT))
        script.gone.append(peer.is_gone())

    with ScriptedUpstream(opaque) as server:
        bridge = make_bridge(server.base_url, hooks=[waiting], options=READ_ON)
        reply = call(bridge, "POST", f"/{path}", QUESTION, headers=KEY)
        assert next(reply.iterator) == EVENT
        reply.close()
        assert bridge.running == 0
        assert waiting.record.outcome == "client_closed"
        bridge.close()
    assert script.gone == [True]
