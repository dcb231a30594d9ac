"""A host application for gunicorn: the public door, and views that call the bridge in process. The environment
configures it, and every answer tells which worker gave it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response

from flask_aibridge import AIBridge, Source
from flask_aibridge.services.recording import writer
from flask_aibridge.services.redis.store import RedisStore

ASKED = {
    "model": "claude-x",
    "max_tokens": 99,
    "stream": True,
    "messages": [{"role": "user", "content": "background"}],
}

if "HOST_LEASE" in os.environ:
    # So that a worker that was killed is missed at once, and not after a minute.
    lease = float(os.environ["HOST_LEASE"])
    assert RedisStore.__init__.__kwdefaults__ is not None
    RedisStore.__init__.__kwdefaults__["lease_seconds"] = lease
    writer.RENEW_SECONDS = lease / 4  # type: ignore[misc]
    writer.MAINTAIN_SECONDS = lease / 4  # type: ignore[misc]

bridge = AIBridge()


def create_app() -> Flask:
    app = Flask("host", instance_path=os.environ["HOST_INSTANCE"])
    app.config.from_mapping(json.loads(os.environ["HOST_CONFIG"]))
    bridge.init_app(app)

    @app.get("/worker")
    def worker() -> str:
        return str(os.getpid())

    @app.post("/background")
    def background() -> str:
        # A stream that no request of the server's belongs to.
        threading.Thread(target=lambda: [None for _ in _stream()], daemon=True).start()
        return str(os.getpid())

    @app.post("/agent")
    def agent() -> Response:
        return Response(_stream(), mimetype="text/event-stream")

    @app.after_request
    def sign(response: Response) -> Response:
        response.headers["X-Worker"] = str(os.getpid())
        return response

    return app


def _stream() -> Iterator[bytes]:
    transport = bridge.transport_for("anthropic", Source.AGENTS)
    response: Any = transport.request(
        "POST", "https://api.anthropic.com/v1/messages", json=ASKED, preload_content=False, retries=False
    )
    with response:
        yield from response.stream()


def create_other() -> Flask:
    return app


app = create_app()
