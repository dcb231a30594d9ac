"""Calling a WSGI app as a server does, with ``wsgiref.validate`` in between."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

DEADLINE = 10.0
"""Seconds that a test waits for what should happen at once."""


class FakeCancellation:
    """A caller who can give up: what the in-process transport puts into the environ."""

    def __init__(self) -> None:
        self.cancelled = False
        self.callbacks: list[Callable[[], None]] = []

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        if self.cancelled:
            callback()
            return lambda: None
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback) if callback in self.callbacks else None

    def cancel(self) -> None:
        self.cancelled = True
        while self.callbacks:
            self.callbacks.pop()()


class Reply:
    """An app's reply; ``body`` reads it to its end and closes it. A body that is complete is read at once."""

    def __init__(self, app: Any, environ: dict[str, Any]) -> None:
        self.head: list[tuple[str, list[tuple[str, str]]]] = []
        self.complete = False
        self._app = app
        self.iterable = validator(self._call)(environ, self._start_response)
        self.iterator: Iterator[bytes] = iter(self.iterable)
        self._body: bytes | None = None
        if self.complete:
            self._body = self.body

    def _call(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body: Iterable[bytes] = self._app(environ, start_response)
        self.complete = isinstance(body, list)
        return body

    def _start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        self.head.append((status, headers))
        return lambda data: None

    @property
    def status(self) -> int:
        return int(self.head[0][0][:3])

    @property
    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.head[0][1]}

    def close(self) -> None:
        self.iterable.close()  # type: ignore[attr-defined]

    @property
    def body(self) -> bytes:
        if self._body is None:
            try:
                self._body = b"".join(self.iterator)
            finally:
                self.close()
        return self._body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def environ_of(
    method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    """Return the environ of a request; a ``body`` that is no bytes is sent as JSON."""
    environ: dict[str, Any] = {"REQUEST_METHOD": method}
    path, _, environ["QUERY_STRING"] = path.partition("?")
    environ["PATH_INFO"], environ["SCRIPT_NAME"] = path, ""
    if body is not None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        environ |= {"CONTENT_LENGTH": str(len(data)), "wsgi.input": io.BytesIO(data)}
        environ["CONTENT_TYPE"] = "application/json"
    for name, value in (headers or {}).items():
        environ["HTTP_" + name.upper().replace("-", "_")] = value
    environ |= more
    setup_testing_defaults(environ)
    return environ


def call(app: Any, method: str, path: str, body: Any = None, **options: Any) -> Reply:
    """Send a request to ``app``; options as of ``environ_of``."""
    return Reply(app, environ_of(method, path, body, **options))
