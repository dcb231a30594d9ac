"""A host application for gunicorn: two views, one of which needs a licence. Every answer tells which worker gave it."""

from __future__ import annotations

import os

from flask import Flask, Response

from flask_aibridge.license.faces import requires
from flask_aibridge.license.holder import LicenseHolder
from flask_aibridge.license.redis_license_store import RedisLicenseStore
from flask_aibridge.services.redis.connection import RedisConnection

app = Flask(__name__)
connection = RedisConnection(os.environ["LICENSE_REDIS_URL"])
holder = LicenseHolder(
    {"k1": os.environ["LICENSE_PUBLIC_KEY"]}, store=lambda: RedisLicenseStore(connection, "test")
)


@app.get("/own")
def own() -> str:
    return "the host's own"


@app.get("/licensed")
@requires("aibridge", lambda: holder)
def licensed() -> str:
    return "licensed"


@app.after_request
def sign(response: Response) -> Response:
    response.headers["X-Worker"] = str(os.getpid())
    return response
