"""A host application for gunicorn: the public door, and a route that calls the bridge in process and relays what it
says. The environment configures it, and every answer tells which worker gave it."""

from __future__ import annotations

import ctypes
import gc
import json
import os
from collections.abc import Iterator
from typing import Any

import urllib3
from flask import Flask, Response, request

from flask_aibridge import AIBridge, Source
from flask_aibridge.services.recording import writer
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.store import RedisStore

KEPT = ("content-type", "retry-after", "x-aibridge-interception-id")

# A worker that was killed is missed after seconds and not a minute, and so is what it spooled.
lease = float(os.environ["SOAK_LEASE"])
assert RedisStore.__init__.__kwdefaults__ is not None
RedisStore.__init__.__kwdefaults__["lease_seconds"] = lease
writer.RENEW_SECONDS = lease / 4  # type: ignore[misc]
writer.MAINTAIN_SECONDS = writer.ORPHANS_SECONDS = lease / 2  # type: ignore[misc]

app = Flask("host", instance_path=os.environ["SOAK_INSTANCE"])
app.config.from_mapping(json.loads(os.environ["SOAK_CONFIG"]))
bridge = AIBridge(app)


@app.get("/worker")
def worker() -> str:
    return str(os.getpid())


@app.post("/tidy")
def tidy() -> str:
    """Give back what only waits: the connections that wait for a next request, the collector's garbage and the memory
    that the C library's allocator keeps. What is left is held."""
    for each in gc.get_objects():
        if issubclass(type(each), urllib3.PoolManager):
            each.clear()
        elif type(each) is RedisConnection:
            each.close()
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
    return str(os.getpid())


@app.post("/agent/<provider>/<path:path>")
def agent(provider: str, path: str) -> Response:
    """The answer of the in-process door, as it comes."""
    transport = bridge.transport_for(provider, Source.AGENTS)
    headers = {
        name: value for name, value in request.headers.items() if name.lower() not in ("host", "connection")
    }
    answer: Any = transport.request(
        "POST",
        f"https://provider.invalid/{path}",
        body=request.get_data(),
        headers=headers,
        preload_content=False,
        retries=False,
    )

    def relayed() -> Iterator[bytes]:
        with answer:
            yield from answer.stream()

    kept = {name: value for name, value in answer.headers.items() if name.lower() in KEPT}
    return Response(relayed(), answer.status, kept)


@app.after_request
def sign(response: Response) -> Response:
    response.headers["X-Worker"] = str(os.getpid())
    return response
