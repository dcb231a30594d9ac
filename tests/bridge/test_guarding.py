"""Circuit breakers, through the bridge."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from flask_aibridge.bridge import Bridge
from flask_aibridge.bridge.options import BridgeOptions
from flask_aibridge.config import CircuitBreaker
from flask_aibridge.testing import AnswerWith, DropAfter, ErrorAfter, StandInProvider, serve_stand_in
from flask_aibridge.testing.stand_in import Failure
from tests.bridge.conftest import MakeBridge, RecordingHook
from tests.bridge.upstreams import Peer, ScriptedUpstream
from tests.bridge.wsgi import FakeCancellation, Reply, call

pytestmark = pytest.mark.usefixtures("no_leaks")

MESSAGES, CHAT = "/anthropic/v1/messages", "/openai/v1/chat/completions"
QUESTION = {"model": "m-1", "max_tokens": 50, "messages": [{"role": "user", "content": "Say hello"}]}
GUARDED = BridgeOptions(circuit_breaker=CircuitBreaker(failure_threshold=2, timeout=600), allow_byok=True)


def ask(bridge: Bridge, path: str = MESSAGES, *, model: str = "m-1", **options: Any) -> Reply:
    options = {"headers": {"X-Api-Key": "aib_1_secret"}, **options}
    return call(bridge, "POST", path, QUESTION | {"model": model}, **options)


def failing(*failures: Failure | None) -> StandInProvider:
    return StandInProvider(failures=failures)


@pytest.mark.parametrize(("path", "kind"), [(MESSAGES, "overloaded_error"), (CHAT, "server_error")])
@pytest.mark.parametrize("status", [429, 503, 504])
def test_an_open_circuit_answers_in_the_providers_place(
    status: int, path: str, kind: str, make_bridge: MakeBridge, hook: RecordingHook
) -> None:
    """503 with the time to wait; other models are asked for as ever, and so are other endpoints."""
    with serve_stand_in(failing(AnswerWith(status), AnswerWith(status))) as served:
        bridge = make_bridge(served.base_url, options=GUARDED)
        assert [ask(bridge, path).status for _ in range(2)] == [status] * 2
        reply = ask(bridge, path)
        assert len(served.stand_in.requests) == 2
        assert (reply.status, reply.json["error"]["type"]) == (503, kind)
        assert reply.headers["retry-after"] == "600"
        assert "circuit breaker is open" in reply.json["error"]["message"]
        assert hook.records[-1].outcome == "refused"
        assert ask(bridge, path, model="m-2").status == 200
        assert call(bridge, "GET", "/openai/v1/models", headers={"X-Api-Key": "aib_1_secret"}).status == 200


@pytest.mark.parametrize(("path", "second"), [(MESSAGES, 503), (CHAT, 529)])
def test_529_counts_for_anthropic(path: str, second: int, make_bridge: MakeBridge) -> None:
    """Whose own status it is."""
    with serve_stand_in(failing(*[AnswerWith(529)] * 3)) as served:
        bridge = make_bridge(served.base_url, options=GUARDED)
        assert [ask(bridge, path).status for _ in range(3)] == [529, 529, second]


def test_what_else_goes_wrong_opens_nothing(make_bridge: MakeBridge) -> None:
    """A bad request, a provider's 500, an error within a stream: as in the model."""
    failures: list[Failure] = [AnswerWith(400), AnswerWith(500), ErrorAfter(1), AnswerWith(404)]
    with serve_stand_in(failing(*failures, *failures)) as served:
        bridge = make_bridge(served.base_url, options=GUARDED)
        for _ in range(8):
            body = QUESTION | {"stream": True}
            assert call(bridge, "POST", MESSAGES, body, headers={"X-Api-Key": "aib_1_secret"}).body
        assert len(served.stand_in.requests) == 8


def test_a_success_begins_the_count_anew(make_bridge: MakeBridge) -> None:
    """Failures have to follow one another."""
    with serve_stand_in(failing(AnswerWith(503), None, AnswerWith(503), None)) as served:
        bridge = make_bridge(served.base_url, options=GUARDED)
        assert [ask(bridge).status for _ in range(4)] == [503, 200, 503, 200]


def test_a_provider_that_cannot_be_reached_is_left_alone(make_bridge: MakeBridge) -> None:
    """Which saves its callers the wait."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    bridge = make_bridge(f"http://127.0.0.1:{port}", options=GUARDED)
    assert [ask(bridge).status for _ in range(3)] == [502, 502, 503]


def test_an_answer_that_breaks_off_counts(make_bridge: MakeBridge) -> None:
    """Where it becomes an error of its own."""
    with serve_stand_in(failing(DropAfter(0), DropAfter(0))) as served:
        bridge = make_bridge(served.base_url, options=GUARDED)
        assert [ask(bridge).status for _ in range(3)] == [502, 502, 503]


def test_callers_who_give_up_open_nothing(make_bridge: MakeBridge) -> None:
    """It says nothing of the provider."""
    cancellations = [FakeCancellation() for _ in range(3)]

    def script(peer: Peer) -> None:
        peer.read_request()
        cancellations[len(server.peers) - 1].cancel()
        peer.is_gone()

    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url, options=GUARDED)
        for cancellation in cancellations:
            environ: dict[str, Any] = {"flask_aibridge.cancellation": cancellation}
            assert ask(bridge, **environ).status == 499
        assert len(server.peers) == 3


def test_nobody_closes_the_circuit_on_others_with_a_key_of_their_own(make_bridge: MakeBridge) -> None:
    """A limit of theirs is theirs alone; an overload is everybody's."""
    headers = {"X-AIBridge-Token": "aib_1_secret", "X-Api-Key": "sk-own"}
    with serve_stand_in(failing(*[AnswerWith(429)] * 3, *[AnswerWith(529)] * 2)) as served:
        bridge = make_bridge(served.base_url, options=GUARDED)
        assert [ask(bridge, headers=headers).status for _ in range(3)] == [429] * 3
        assert [ask(bridge, headers=headers).status for _ in range(3)] == [529, 529, 503]
        assert ask(bridge).status == 503


def test_keys_that_are_all_limited_open_it(make_bridge: MakeBridge) -> None:
    """By the status that the caller sees, as in the model."""
    with serve_stand_in(failing(*[AnswerWith(429)] * 2)) as served:
        bridge = make_bridge(served.base_url, keys=("a", "b"), options=GUARDED)
        assert [ask(bridge).status for _ in range(3)] == [429, 429, 503]


def test_it_is_off_by_default(make_bridge: MakeBridge) -> None:
    """The provider is asked, whatever it says."""
    with serve_stand_in(failing(*[AnswerWith(503)] * 10)) as served:
        bridge = make_bridge(served.base_url)
        assert [ask(bridge).status for _ in range(10)] == [503] * 10
