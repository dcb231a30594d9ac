"""The circuits of a bridge: one for each provider, endpoint and model."""

from __future__ import annotations

import threading

import pytest

from flask_aibridge.bridge.providers.circuits import CircuitOpen, Circuits
from flask_aibridge.bridge.providers.cool_downs import Lane
from flask_aibridge.bridge.providers.registry import provider_from
from flask_aibridge.config import CircuitBreaker, ProviderSettings

BREAKER = CircuitBreaker(failure_threshold=1)
ONE = provider_from(ProviderSettings("one", "openai", "http://127.0.0.1:1/v1"))
TWO = provider_from(ProviderSettings("one", "openai", "http://127.0.0.1:2/v1"))
LANE = Lane("/v1/responses", "m")


def test_providers_endpoints_and_models_fail_on_their_own(caplog: pytest.LogCaptureFixture) -> None:
    """Also a provider whose settings have changed; the log has what opened and closed."""
    now = [0.0]
    circuits = Circuits(BREAKER, clock=lambda: now[0])
    circuits.enter(ONE, LANE).leave("failure")
    with pytest.raises(CircuitOpen) as caught:
        circuits.enter(ONE, LANE)
    assert caught.value.seconds == 30
    for provider, lane in ((TWO, LANE), (ONE, LANE._replace(model="n")), (ONE, LANE._replace(route="/x"))):
        circuits.enter(provider, lane).leave("success")
    now[0] = 30.0
    for _ in range(3):
        circuits.enter(ONE, LANE).leave("success")
    assert "'one /v1/responses m' was closed and is open" in caplog.text
    assert "'one /v1/responses m' was half_open and is closed" in caplog.text


def test_the_circuits_used_last_are_kept() -> None:
    """The models' names come from callers."""
    circuits = Circuits(BREAKER, max_circuits=3)
    permits = [circuits.enter(ONE, Lane("/", str(number))) for number in range(10)]
    assert len(circuits) == 3
    permits[0].leave("failure")
    circuits.enter(ONE, Lane("/", "0"))


def test_a_forked_child_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread of its parent may have held the lock as it was forked, and is not there to let go of it."""
    circuits = Circuits(BREAKER)
    circuits.enter(ONE, LANE).leave("failure")
    with circuits._lock:
        monkeypatch.setattr("flask_aibridge.bridge.providers.circuits.os.getpid", lambda: -1)
        entering = threading.Thread(target=lambda: circuits.enter(ONE, LANE).leave("success"), daemon=True)
        entering.start()
        entering.join(10)
        assert not entering.is_alive()
    assert len(circuits) == 1
