"""``/healthz`` and ``/readyz``: for everybody, cheap, and in words that a machine can act on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_aibridge import AIBridge
from flask_aibridge.api.readiness import AWAY_SECONDS, LOOK_SECONDS, Readiness, ReadinessCheck
from flask_aibridge.app_state import AppState
from flask_aibridge.errors import ConfigError, ServicesUnavailable
from flask_aibridge.license.issuing import SigningKey, issue_license
from flask_aibridge.services.memory import MemoryStore

PREFIX = "/api/v2/aibridge"
SIGNING = SigningKey.generate("k1")
PROVIDERS = {"anthropic": {"type": "anthropic", "keys": ["sk-not-to-be-shown"]}}


@pytest.fixture
def make_app(tmp_path: Path) -> Any:
    def make(**config: Any) -> Flask:
        app = Flask("host", instance_path=str(tmp_path), static_folder=None)
        app.config.update(
            {
                "AIBRIDGE_REDIS_URL": "memory://",
                "AIBRIDGE_PROVIDERS": PROVIDERS,
                "AIBRIDGE_LICENSE": issue_license(SIGNING),
                "AIBRIDGE_LICENSE_PUBLIC_KEYS": {"k1": SIGNING.public_base64},
            }
            | config
        )
        AIBridge(app)
        return app

    return make


def state_of(app: Flask) -> AppState:
    state = app.extensions["aibridge"]
    assert isinstance(state, AppState)
    return state


def ready(client: FlaskClient) -> tuple[int, list[str]]:
    response = client.get(f"{PREFIX}/readyz")
    assert response.json is not None
    assert response.json["ready"] is (response.status_code == 200)
    assert b"sk-not" not in response.data
    return response.status_code, response.json["reasons"]


def test_health_asks_for_nothing(make_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials, no licence, no store: it answers, also to HEAD."""
    app = make_app(AIBRIDGE_LICENSE=None)
    monkeypatch.setattr(AppState, "store", lambda self: pytest.fail("the store was asked for"))
    client = app.test_client()
    response = client.get(f"{PREFIX}/healthz")
    assert (response.status_code, response.json) == (200, {"live": True})
    assert response.headers["Cache-Control"] == "no-store"
    head = client.head(f"{PREFIX}/healthz")
    assert (head.status_code, head.data) == (200, b"")
    assert client.post(f"{PREFIX}/healthz").status_code == 405


def test_an_app_that_is_well_is_ready(make_app: Any) -> None:
    app = make_app()
    assert ready(app.test_client()) == (200, [])
    assert app.test_client().head(f"{PREFIX}/readyz").status_code == 200


def test_an_app_that_drains_is_not(make_app: Any) -> None:
    """At once, and not when it is looked again; the answer is a problem document."""
    app = make_app()
    client = app.test_client()
    assert ready(client) == (200, [])
    state_of(app).drain(0)
    assert ready(client) == (503, ["draining"])
    response = client.get(f"{PREFIX}/readyz")
    assert response.json is not None
    assert response.json["code"] == "not_ready"
    assert response.mimetype == "application/problem+json"
    assert response.headers["Retry-After"]
    assert client.get(f"{PREFIX}/healthz").status_code == 200


@pytest.mark.parametrize(
    ("config", "status", "reasons"),
    [
        ({"AIBRIDGE_PROVIDERS": {}}, 503, ["no_providers"]),
        ({"AIBRIDGE_PROVIDERS": {}, "AIBRIDGE_RECORDING": "off"}, 503, ["no_providers"]),
        ({"AIBRIDGE_BRIDGE": None}, 503, ["not_mounted"]),
        ({"AIBRIDGE_BRIDGE": lambda environ, start_response: []}, 200, []),
        ({"AIBRIDGE_RECORDING": "off", "AIBRIDGE_REDIS_URL": "redis://127.0.0.1:1"}, 200, []),
        ({"AIBRIDGE_REDIS_URL": "redis://127.0.0.1:1"}, 503, ["store_not_reached"]),
        # A licence that has ended closes the public door of every process; taking all of them away would close more.
        ({"AIBRIDGE_LICENSE": None}, 200, ["license_required"]),
        ({"AIBRIDGE_LICENSE": "x.y.z"}, 200, ["license_malformed"]),
    ],
)
def test_what_is_not_as_it_should_be(
    make_app: Any, config: dict[str, Any], status: int, reasons: list[str]
) -> None:
    app = make_app(**config)
    try:
        assert ready(app.test_client()) == (status, reasons)
    finally:
        state_of(app).close()


class Away(MemoryStore):
    """A store that is there or is not."""

    error: Exception | None = None
    pings = 0

    def ping(self) -> None:
        self.pings += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Away:
    store = Away()
    monkeypatch.setattr(AppState, "store", lambda self: store)
    return store


def test_a_store_that_goes_away_costs_nobody_their_answer_for_a_while(make_app: Any, store: Away) -> None:
    """So long as accepted keys are accepted on; then requests are better sent to another host."""
    now = [0.0]
    check = ReadinessCheck(state_of(make_app()), clock=lambda: now[0])
    assert check() == Readiness()
    store.error = ServicesUnavailable("away")
    now[0] += AWAY_SECONDS - 1
    assert (check().reasons, check().ready) == (("store_away",), True)
    now[0] += LOOK_SECONDS + 1
    assert (check().reasons, check().ready) == (("store_away_too_long",), False)
    store.error = None
    now[0] += LOOK_SECONDS
    assert check() == Readiness()


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ConfigError("none"), "store_missing"), (RuntimeError("of another kind"), "store_not_reached")],
)
def test_a_store_that_cannot_be_asked(make_app: Any, store: Away, error: Exception, reason: str) -> None:
    store.error = error
    assert ready(make_app().test_client()) == (503, [reason])


def test_probes_share_a_look(make_app: Any, store: Away) -> None:
    """Hundreds of them within a second are one question to the store."""
    now = [0.0]
    check = ReadinessCheck(state_of(make_app()), clock=lambda: now[0])
    for _ in range(100):
        assert check().ready
    assert store.pings == 1
    now[0] += LOOK_SECONDS
    assert check().ready
    assert store.pings == 2


def test_who_comes_during_the_first_look_does_not_wait(make_app: Any, store: Away) -> None:
    seen: list[Readiness] = []
    check = ReadinessCheck(state_of(make_app()))
    store.ping = lambda: seen.append(check())  # type: ignore[method-assign]
    assert check().ready
    assert seen == [Readiness(("starting",))]
    assert not seen[0].ready


def test_a_spool_without_room_is_told(make_app: Any) -> None:
    """And so are records that wait or are lost, with which it goes on."""
    app = make_app()
    state = state_of(app)
    recording = state.recording()
    recording._writer.losses.dropped = 1
    assert ready(app.test_client()) == (200, ["records_lost"])
    recording._writer.availability.lost(ServicesUnavailable("away"))
    assert recording.is_full, "there is no spool here"
    assert "spool_full" in ReadinessCheck(state)().reasons
    state.close()
