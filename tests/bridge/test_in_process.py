"""The bridge behind the in-process transport: the two agree on environ, cancellation and endings."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import urllib3

from flask_aibridge.testing import DropAfter, Served, StandInProvider, serve_stand_in
from flask_aibridge.transport import Source, TransportFactory, WSGIPoolManager
from tests.bridge.conftest import MakeBridge, WaitingHook
from tests.bridge.upstreams import SSE_HEAD, Peer, ScriptedUpstream, chunk
from tests.bridge.wsgi import DEADLINE

Connect = Callable[[str], WSGIPoolManager]
URL = "https://api.openai.com/v1/chat/completions"
QUESTION = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def connect(make_bridge: MakeBridge, waiting: WaitingHook) -> Connect:
    def connected(base_url: str) -> WSGIPoolManager:
        bridge = make_bridge(base_url, hooks=[waiting])
        return TransportFactory(bridge).transport_for("openai", Source.AGENTS, key_id="k1")

    return connected


def test_an_sdks_own_url_reaches_the_bridge(
    connect: Connect, waiting: WaitingHook, stand_in: Served[StandInProvider]
) -> None:
    """No key is needed, and the record has the call site."""
    response = connect(stand_in.base_url).request("POST", URL, json=QUESTION)
    assert response.status == 200
    assert response.data.endswith(b"data: [DONE]\n\n")
    assert waiting.ended().outcome == "completed"
    record = waiting.record
    assert (record.in_process, record.source, record.key_id, record.user) == (True, "agents", "k1", None)
    assert response.headers["X-AIBridge-Interception-Id"] == record.interception_id
    assert stand_in.stand_in.requests[0].path == "/v1/chat/completions"


def test_a_stream_that_breaks_off_is_an_incomplete_read(connect: Connect, waiting: WaitingHook) -> None:
    """After the bytes that came before it."""
    with serve_stand_in(StandInProvider(answer="a b c", failures=[DropAfter(2)])) as served:
        manager = connect(served.base_url)
        response = manager.request("POST", URL, json=QUESTION, preload_content=False)
        received: list[bytes] = []
        with pytest.raises(urllib3.exceptions.ProtocolError):
            received.extend(response.stream())
        response.close()
    assert b"".join(received).count(b"data: ") == 3
    assert waiting.ended().outcome == "upstream_truncated"


def test_closing_the_response_stops_the_provider(connect: Connect, waiting: WaitingHook) -> None:
    """While the bridge waits for the next token."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(SSE_HEAD + chunk(b"data: 1\n\n"))
        assert peer.is_gone()
        gone.set()

    gone = threading.Event()
    with ScriptedUpstream(script) as server:
        manager = connect(server.base_url)
        response = manager.request("POST", URL, json=QUESTION, preload_content=False)
        assert response.read1() == b"data: 1\n\n"
        response.close()
        assert gone.wait(DEADLINE)
    assert waiting.ended().outcome == "client_closed"


def test_a_callers_timeout_stops_the_provider(connect: Connect, waiting: WaitingHook) -> None:
    """While the bridge waits for the head."""

    def script(peer: Peer) -> None:
        peer.read_request()
        assert peer.is_gone()
        gone.set()

    gone = threading.Event()
    with ScriptedUpstream(script) as server:
        manager = connect(server.base_url)
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            manager.request("POST", URL, json=QUESTION, timeout=0.05, retries=False)
        assert gone.wait(DEADLINE)
    assert waiting.ended().outcome == "client_closed"
