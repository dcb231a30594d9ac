"""Gateways to attack: whole applications, with the built-in bridge and records in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flask import Flask

from flask_aibridge import AIBridge
from flask_aibridge.license.issuing import SigningKey, issue_license

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PREFIX = "/api/v2/aibridge"
SIGNING = SigningKey.generate("k1")
LICENSE = issue_license(SIGNING)
ADMIN = "an-administrators-token-of-these-tests"
AS_ADMIN = {"Authorization": f"Bearer {ADMIN}"}
KEY = "aib_alice0000000_" + "S" * 43
PROVIDER_KEY = "sk-the-providers-own-key"


def make_app(base_url: str, *, licensed: bool = True, **config: Any) -> Flask:
    """An app whose providers ``anthropic`` and ``openai`` are at one base URL, and whose user alice has ``KEY``."""
    app = Flask("gateway", static_folder=None)
    app.config |= {
        "AIBRIDGE_REDIS_URL": "memory://",
        "AIBRIDGE_ADMIN_TOKEN": ADMIN,
        "AIBRIDGE_API_KEYS": {"alice": KEY},
        "AIBRIDGE_LICENSE": LICENSE if licensed else None,
        "AIBRIDGE_LICENSE_PUBLIC_KEYS": {SIGNING.kid: SIGNING.public_pem},
        "AIBRIDGE_PROVIDERS": {
            "anthropic": {"type": "anthropic", "base_url": base_url, "keys": [PROVIDER_KEY]},
            "openai": {"type": "openai", "base_url": f"{base_url}/v1", "keys": [PROVIDER_KEY]},
            "bare": {"type": "openai", "base_url": base_url, "keys": [PROVIDER_KEY]},
        },
        **config,
    }
    AIBridge(app, config.get("AIBRIDGE_BRIDGE"))
    return app


@contextmanager
def gateway(base_url: str, **config: Any) -> Iterator[Flask]:
    """Such an app, closed in the end."""
    app = make_app(base_url, **config)
    try:
        yield app
    finally:
        app.extensions["aibridge"].close()


class Tripwire:
    """A bridge that must not be called, and keeps what it is called with."""

    def __init__(self) -> None:
        self.calls: list[WSGIEnvironment] = []

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.calls.append(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"the bridge was reached"]
