"""What gunicorn serves: the gateway inside a Flask app, and a bare reverse proxy in Flask beside it."""

from __future__ import annotations

import os
from typing import Any

import urllib3
from flask import Flask, Response, request

from flask_aibridge import AIBridge
from flask_aibridge.license.issuing import SigningKey, issue_license

PROVIDER = "GATEWAY_PROVIDER"
"""The variable that names the provider's base URL."""

REDIS = "GATEWAY_REDIS"
"""The variable that names the Redis that is recorded to; without it nothing is recorded."""

PREFIX = "GATEWAY_PREFIX"
INSTANCE = "GATEWAY_INSTANCE"
STATIC_KEY = "aib_a-static-key-of-forty-characters-0123456"
PROVIDER_KEY = "sk-stand-in"
POOL = 64


def make_gateway() -> tuple[Flask, AIBridge]:
    """The gateway, licensed, as its users would configure it."""
    app = Flask(__name__, instance_path=os.environ[INSTANCE])
    key = SigningKey.generate("benchmark")
    redis_url = os.environ.get(REDIS)
    app.config |= {
        "AIBRIDGE_LICENSE": issue_license(key),
        "AIBRIDGE_LICENSE_PUBLIC_KEYS": {key.kid: key.public_pem},
        "AIBRIDGE_PROVIDERS": {
            "openai": {"type": "openai", "base_url": f"{os.environ[PROVIDER]}/v1", "keys": [PROVIDER_KEY]}
        },
        "AIBRIDGE_REDIS_URL": redis_url,
        "AIBRIDGE_REDIS_PREFIX": os.environ.get(PREFIX, "aibridge-benchmark"),
        "AIBRIDGE_RECORDING": "required" if redis_url else "off",
        "AIBRIDGE_API_KEYS": {} if redis_url else {"user": STATIC_KEY},
    }
    return app, AIBridge(app)


def gateway() -> Flask:
    """The gateway, for gunicorn."""
    return make_gateway()[0]


def proxy() -> Flask:
    """The bare proxy: it knows nobody, keeps nothing and reads nothing of what passes."""
    app, pool = Flask(__name__), urllib3.PoolManager(maxsize=POOL)
    base, dropped = os.environ[PROVIDER], {"host", "connection", "authorization", "transfer-encoding"}

    @app.post("/<path:path>")
    def forward(path: str) -> Response:
        headers = {name: value for name, value in request.headers if name.lower() not in dropped}
        headers["Authorization"] = f"Bearer {PROVIDER_KEY}"
        answer: Any = pool.urlopen(
            "POST",
            f"{base}/{path}",
            body=request.get_data(),
            headers=headers,
            retries=False,
            preload_content=False,
            decode_content=False,
        )
        kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in dropped]
        if "Content-Length" in answer.headers:
            body = answer.data
            answer.release_conn()
            return Response(body, answer.status, kept)
        return Response(_pieces(answer), answer.status, kept)

    return app


def _pieces(answer: Any) -> Any:
    try:
        while piece := answer.read1(65536):
            yield piece
    finally:
        answer.release_conn()
