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
from flask_aibridge.draining import drain
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
    assert not drain(bridge, 0.0)
    assert not drain(bridge, 0.1)
    threading.Timer(0.1, bridge.go_on.set).start()
    assert drain(bridge, DEADLINE)
    assert response.read() == b"firstlast"
    assert drain(None, 0.0)


def test_a_bridge_that_drains_is_asked_to() -> None:
    bridge = Own()
    assert not drain(bridge, 7.5)
    assert bridge.asked == 7.5


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
