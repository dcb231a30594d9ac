"""A WSGI app for gunicorn that acquires the embedded server when it is loaded, and answers with the server's process id
and its own."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import redis

from flask_aibridge.services.embedded import acquire

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

url = acquire(os.environ["EMBEDDED_INSTANCE"])


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    with redis.Redis.from_url(url) as client:
        body = f"{client.info('server')['process_id']} {os.getpid()}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
