"""The WSGI apps that every contestant calls: the very same objects, in process and in gunicorn.

None of them uses a framework, so that what is measured is the way to the app and back, not the app.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

JSON_PATH = "/v1/json"
SSE_PATH = "/v1/sse"
REQUEST_HEADERS = {"Content-Type": "application/json"}
REQUEST_BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
RESPONSE_BODY = json.dumps(
    {
        "id": "msg_1",
        "content": [{"type": "text", "text": "hello"}],
        "usage": {"input_tokens": 3, "output_tokens": 5},
    }
).encode()

EVENT_SIZE = 94
"""Bytes of one server-sent event, blank line included: about one token of an LLM's answer."""

EVENT_COUNT = 2_000
"""Events of one stream: a long answer."""


def sse_event(number: int) -> bytes:
    """Return one event of exactly EVENT_SIZE bytes, different for every number below 10,000."""
    head = b'data: {"type":"content_block_delta","index":%04d,"delta":{"text":"' % number
    tail = b'"}}\n\n'
    return head + b"x" * (EVENT_SIZE - len(head) - len(tail)) + tail


EVENTS = [sse_event(number) for number in range(EVENT_COUNT)]
SSE_BODY = b"".join(EVENTS)


def json_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Read the whole request and answer with a small JSON document of known length."""
    environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(RESPONSE_BODY)))]
    start_response("200 OK", headers)
    return [RESPONSE_BODY]


def sse_app(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with EVENT_COUNT events, one `yield` each, as fast as they are taken."""
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return (event for event in EVENTS)


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Serve JSON_PATH and SSE_PATH: the app that gunicorn and every in-process client are given."""
    app = json_app if environ["PATH_INFO"] == JSON_PATH else sse_app
    return app(environ, start_response)


class Ball:
    """What a reader throws to an app that waits for it, and the moment at which the app yields its answer.

    The reader calls `throw()` just before it reads. The app then gives up the processor `yields` times before
    it yields: on one core, the reader runs in each of them until it has nothing left to do but wait.
    """

    def __init__(self) -> None:
        self.yields = 0
        self.yielded_at = 0
        self._in_play = True
        self._thrown = threading.Lock()
        self._thrown.acquire()
        self.throw = self._thrown.release

    def drop(self) -> None:
        """End the events: the app's iterable is exhausted."""
        self._in_play = False
        self.throw()

    def events(self) -> Iterator[bytes]:
        """Yield one event at once, so that a response has begun, then one for each throw."""
        event = EVENTS[0]
        yield event
        while True:
            self._thrown.acquire()
            if not self._in_play:
                return
            for _ in range(self.yields):
                os.sched_yield()
            self.yielded_at = time.perf_counter_ns()
            yield event


BALL_KEY = "benchmarks.ball"


def ball_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Stream the events of the Ball under BALL_KEY in the environ."""
    ball: Ball = environ[BALL_KEY]
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return ball.events()
