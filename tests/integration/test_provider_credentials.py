"""What a whole application is configured to do with the credentials of its providers and of its callers."""

from __future__ import annotations

from typing import Any

from flask import Flask

from flask_aibridge import AIBridge
from flask_aibridge.license.issuing import SigningKey, issue_license
from flask_aibridge.testing import AnswerWith, StandInProvider, serve_stand_in

GATEWAY_KEY = "aib_alice_0123456789abcdef"
QUESTION = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}


def make_bridge(base_url: str, **config: Any) -> tuple[Flask, Any]:
    app, key = Flask("host"), SigningKey.generate("test")
    app.config.update(
        AIBRIDGE_PROVIDERS={
            "anthropic": {"type": "anthropic", "base_url": base_url, "keys": ["sk-a", "sk-b"]}
        },
        AIBRIDGE_API_KEYS={"alice": GATEWAY_KEY},
        AIBRIDGE_RECORDING="off",
        AIBRIDGE_LICENSE_PUBLIC_KEYS={key.kid: key.public_pem},
        AIBRIDGE_LICENSE=issue_license(key),
        **config,
    )
    return app, AIBridge(app).wsgi_app


def ask(app: Flask, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = app.test_client().post(
        "/api/v2/aibridge/anthropic/v1/messages", json=QUESTION, headers=named, buffered=True
    )
    response.close()
    return response.status_code


def test_own_keys_actors_and_circuits_are_configured() -> None:
    """By the keys of the config, at the public door."""
    with serve_stand_in(StandInProvider(failures=[None, AnswerWith(429), None, AnswerWith(503)])) as served:
        app, bridge = make_bridge(
            served.base_url,
            AIBRIDGE_ALLOW_BYOK=True,
            AIBRIDGE_ACTOR_HEADERS=True,
            AIBRIDGE_CIRCUIT_BREAKER={"failure_threshold": 1},
        )
        assert ask(app, X_AIBridge_Token=GATEWAY_KEY, X_Api_Key="sk-own") == 200
        assert ask(app, X_Api_Key=GATEWAY_KEY) == 200
        assert [ask(app, X_Api_Key=GATEWAY_KEY) for _ in range(2)] == [503, 503]
        bridge.close()
        received = [request.headers for request in served.stand_in.requests]
    assert [headers["x-api-key"] for headers in received] == ["sk-own", "sk-a", "sk-b", "sk-b"]
    assert {headers["x-aibridge-actor-id"] for headers in received} == {"alice"}
    assert not [headers for headers in received if "x-aibridge-token" in headers]


def test_they_are_off_unless_they_are_set() -> None:
    """A token is refused, nobody is named, and a provider that fails is asked again."""
    with serve_stand_in(StandInProvider(failures=[AnswerWith(503)] * 10)) as served:
        app, bridge = make_bridge(served.base_url)
        assert ask(app, X_AIBridge_Token=GATEWAY_KEY, X_Api_Key="sk-own") == 403
        assert [ask(app, X_Api_Key=GATEWAY_KEY) for _ in range(10)] == [503] * 10
        bridge.close()
        assert len(served.stand_in.requests) == 10
        assert not [r for r in served.stand_in.requests if "x-aibridge-actor-id" in r.headers]
