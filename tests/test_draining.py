"""``draining``: a bridge that can drain does it itself; for any other, calls in process are waited for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pytest
from flask import Flask

from flask_aibridge import AIBridge, Source
from flask_aibridge.app_state import app_states
from flask_aibridge.draining import MAX_REPLACED, drain
from flask_aibridge.testing import StandInProvider, serve_stand_in
from flask_aibridge.transport import WSGIPoolManager

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

DEADLINE = 30.0


class Slow:
    """A bridge that answers when it is let."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return self._body()

    def _body(self) -> Iterator[bytes]:
        yield b"first"
        assert self.go_on.wait(DEADLINE)
        yield b"last"


class Own(Slow):
    """One that drains."""

    asked: float | None = None

    def drain(self, timeout: float) -> bool:
        self.asked = timeout
        return False


def test_calls_in_process_are_waited_for() -> None:
    bridge = Slow()
    response = WSGIPoolManager(bridge).request("GET", "http://bridge/", preload_content=False)
    assert not drain([bridge], 0.0)
    assert not drain([bridge], 0.1)
    threading.Timer(0.1, bridge.go_on.set).start()
    assert drain([bridge], DEADLINE)
    assert response.read() == b"firstlast"
    assert drain([], 0.0)


def test_a_bridge_that_drains_is_asked_to() -> None:
    bridge = Own()
    assert not drain([bridge], 7.5)
    assert bridge.asked == 7.5


class Together(Own):
    """One whose requests end when those of all others are waited for too."""

    def __init__(self, barrier: threading.Barrier) -> None:
        super().__init__()
        self._barrier = barrier

    def drain(self, timeout: float) -> bool:
        self._barrier.wait(timeout)
        return True


class Failing(Slow):
    """One that cannot drain."""

    def drain(self, timeout: float) -> bool:
        raise RuntimeError("cannot")


def test_bridges_are_drained_at_the_same_time() -> None:
    """None of them uses up the time of the others, or fails for them."""
    barrier = threading.Barrier(3)
    bridges: list[Slow] = [Together(barrier) for _ in range(3)]
    assert drain(bridges, DEADLINE)
    bridges = [Own(), Together(threading.Barrier(1)), Failing()]
    assert not drain(bridges, 7.5)
    assert isinstance(bridges[0], Own)
    assert bridges[0].asked == 7.5


def test_bridges_are_drained_without_a_thread_to_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other."""

    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    bridges = [Own(), Own()]
    assert not drain(bridges, 7.5)
    assert [bridge.asked for bridge in bridges] == [7.5, 7.5]


def test_a_bridge_that_was_replaced_is_drained_too() -> None:
    """Its streams run on, and whoever has its transport may still send it requests."""
    app = Flask("host", static_folder=None)
    app.config.update(AIBRIDGE_REDIS_URL="memory://", AIBRIDGE_PROVIDERS={})
    first, second, slow = Own(), Own(), Slow()
    aibridge = AIBridge(app, first)
    for bridge in (second, slow, first):
        aibridge.register(bridge)
    for _ in range(MAX_REPLACED):
        aibridge.register(slow)
    response = WSGIPoolManager(slow).request("GET", "http://bridge/", preload_content=False)
    threading.Timer(0.1, slow.go_on.set).start()
    assert not aibridge.drain(DEADLINE)
    assert (first.asked, second.asked) == (DEADLINE, DEADLINE)
    assert response.read() == b"firstlast"


def test_the_built_in_bridge_within_a_wrapper_ends_its_streams() -> None:
    """A wrapper has no ``drain`` of its own; what it wraps was mounted before it."""
    go_on = threading.Event()

    def answer(prompt: str) -> Iterator[str]:
        yield "one"
        assert go_on.wait(DEADLINE)

    with serve_stand_in(StandInProvider(answer=answer)) as provider:
        app = Flask("host", static_folder=None)
        settings = {"type": "openai", "base_url": f"{provider.base_url}/v1", "keys": ["k"]}
        app.config.update(AIBRIDGE_RECORDING="off", AIBRIDGE_PROVIDERS={"openai": settings})
        aibridge = AIBridge(app)
        bridge = aibridge.wsgi_app
        assert bridge is not None
        aibridge.register(lambda environ, start_response: bridge(environ, start_response))
        manager = aibridge.transport_for("openai", Source.AGENTS)
        question = {"model": "m", "stream": True, "messages": []}
        response = manager.request(
            "POST", "https://provider/v1/chat/completions", json=question, preload_content=False
        )
        assert not aibridge.drain(0.0)
        assert b"shutting down" in response.read()
        go_on.set()


def test_an_app_drains_for_good_and_its_children_do_not() -> None:
    app = Flask("host", static_folder=None)
    app.config.update(AIBRIDGE_REDIS_URL="memory://", AIBRIDGE_PROVIDERS={})
    aibridge = AIBridge(app, Own())
    state = app.extensions["aibridge"]
    assert state in app_states()
    assert not state.draining
    assert not aibridge.drain(1.5)
    assert state.draining
    state.close(0.5)
    assert state.draining
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        os._exit(state.draining)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_in_process_callers_of_a_bridge_of_the_hosts_own_go_on(no_leaks: None) -> None:
    """What it does with new ones is its own to decide."""
    app = Flask("host", static_folder=None)
    app.config.update(AIBRIDGE_REDIS_URL="memory://", AIBRIDGE_PROVIDERS={})
    bridge = Slow()
    bridge.go_on.set()
    aibridge = AIBridge(app, bridge)
    assert aibridge.drain(0.0)
    answer = aibridge.transport_for("x", Source.AGENTS).request("GET", "http://bridge/")
    assert answer.data == b"firstlast"


@pytest.mark.parametrize("embedded", [None, "redis://127.0.0.1:1"])
def test_who_uses_the_embedded_server(embedded: str | None, tmp_path: object) -> None:
    app = Flask("host", static_folder=None, instance_path=str(tmp_path))
    app.config.update(AIBRIDGE_REDIS_URL=embedded, AIBRIDGE_PROVIDERS={})
    AIBridge(app)
    assert app.extensions["aibridge"].uses_embedded_server is (embedded is None)
