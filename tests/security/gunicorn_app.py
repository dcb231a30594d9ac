"""An application for gunicorn: with the Host header ``closed`` one without a licence, else one that is licensed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from flask import Flask

from flask_aibridge import AIBridge

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def _app(license_token: str | None) -> Flask:
    app = Flask("gateway", static_folder=None)
    url = os.environ["SECURITY_PROVIDER"]
    app.config |= {
        "AIBRIDGE_REDIS_URL": "memory://",
        "AIBRIDGE_API_KEYS": {"alice": os.environ["SECURITY_KEY"]},
        "AIBRIDGE_ADMIN_TOKEN": os.environ["SECURITY_ADMIN"],
        "AIBRIDGE_LICENSE": license_token,
        "AIBRIDGE_LICENSE_PUBLIC_KEYS": {"k1": os.environ["SECURITY_PUBLIC_KEY"]},
        "AIBRIDGE_PROVIDERS": {"anthropic": {"type": "anthropic", "base_url": url, "keys": ["sk-provider"]}},
    }
    AIBridge(app)
    return app


_LICENSED = _app(os.environ["SECURITY_LICENSE"])
_CLOSED = _app(None)


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Either of the two."""
    chosen = _CLOSED if environ.get("HTTP_HOST", "") == "closed" else _LICENSED
    return chosen(environ, start_response)
