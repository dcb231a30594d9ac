"""Callers who stop reading: each holds one thread and one pipe, and what waits for it is bounded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from flask_aibridge.transport import TransportFactory
from flask_aibridge.transport.pipe import HIGH_WATER
from tests.bridge.conftest import MakeBridge
from tests.bridge.upstreams import SSE_HEAD, Peer, ScriptedUpstream, chunk
from tests.bridge.wsgi import DEADLINE

pytestmark = pytest.mark.usefixtures("no_leaks")

READERS = 8
EVENT = b"data: " + b"x" * 4000 + b"\n\n"
EVENTS = 250
"""A megabyte of each stream: far more than may wait."""

URL = "https://api.openai.com/v1/chat/completions"
QUESTION = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}


def pour(peer: Peer) -> None:
    """Send all of it, as fast as it is taken."""
    peer.connection.settimeout(None)
    peer.read_request()
    with suppress(OSError):
        peer.send(SSE_HEAD)
        for _ in range(EVENTS):
            peer.send(chunk(EVENT))
        peer.send(chunk(b""))


class Poured:
    """A bridge of which is counted what it hands to the transport."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.bytes: list[int] = []
        self.largest = 0
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = self._app(environ, start_response)
        with self._lock:
            index = len(self.bytes)
            self.bytes.append(0)
        return self._counted(body, index)

    def _counted(self, body: Any, index: int) -> Iterator[bytes]:
        try:
            for each in body:
                self.bytes[index] += len(each)
                self.largest = max(self.largest, len(each))
                yield each
        finally:
            body.close()

    def settled(self) -> list[int]:
        """The counts, when they have stood still for a while."""
        pause, give_up = threading.Event(), 100
        before: list[int] = []
        while before != self.bytes or not all(before):
            before = list(self.bytes)
            pause.wait(DEADLINE / 50)
            give_up -= 1
            assert give_up, "the counts do not stand still"
        return before


def test_readers_who_stop_hold_a_thread_each_and_no_memory(make_bridge: MakeBridge) -> None:
    """At most 64 KiB and one chunk wait for each; when they go on, nothing is missing."""
    with ScriptedUpstream(pour) as upstream, ExitStack() as stack:
        poured = Poured(make_bridge(upstream.base_url, hooks=[]))
        manager = TransportFactory(poured).transport_for("openai", "tests")
        threads = threading.active_count()
        responses = []
        for _ in range(READERS):
            response = manager.request("POST", URL, json=QUESTION, preload_content=False)
            stack.callback(response.close)
            responses.append(response)
        first = [len(response.read1()) for response in responses]
        waiting = sum(poured.settled()) - sum(first)
        assert waiting <= READERS * (HIGH_WATER + poured.largest)
        assert max(poured.bytes) <= max(first) + HIGH_WATER + poured.largest
        serving_upstream = READERS
        assert threading.active_count() <= threads + READERS + serving_upstream
        for response, begun in zip(responses, first, strict=True):
            received = begun + sum(len(part) for part in response.stream(64 * 1024))
            assert received == EVENTS * len(EVENT)
