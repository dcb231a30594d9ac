"""A host application for gunicorn: a view of its own, one that needs a licence, and the public door. Every answer tells
which worker gave it."""

from __future__ import annotations

import os

from flask import Flask, Response

from flask_aibridge import AIBridge

app = Flask(__name__)
app.config["AIBRIDGE_REDIS_URL"] = os.environ["LICENSE_REDIS_URL"]
app.config["AIBRIDGE_REDIS_PREFIX"] = "test"
app.config["AIBRIDGE_LICENSE_PUBLIC_KEYS"] = {"k1": os.environ["LICENSE_PUBLIC_KEY"]}
app.config["AIBRIDGE_PROVIDERS"] = {}
bridge = AIBridge(app)


@app.get("/own")
def own() -> str:
    return "the host's own"


@app.get("/licensed")
@bridge.requires("aibridge")
def licensed() -> str:
    return "licensed"


@app.after_request
def sign(response: Response) -> Response:
    response.headers["X-Worker"] = str(os.getpid())
    return response
