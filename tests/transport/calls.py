"""Calls WSGI apps through urllib3 and the transport, with the standard library's validator around every legal one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias
from wsgiref.validate import validator

from urllib3 import BaseHTTPResponse

import flask_aibridge
from flask_aibridge.transport import WSGIPoolManager

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

URL = "http://app.test"
DEADLINE = 20.0
"""Seconds to wait for what must happen: far beyond a slow machine's need, well below a hang."""

TEXT = ("Content-Type", "text/plain")

Step: TypeAlias = "bytes | BaseException | Callable[[], object]"


def pool_for(app: WSGIApplication, *, legal: bool = True, **options: Any) -> WSGIPoolManager:
    """A pool whose every request reaches ``app``; ``legal=False`` where it breaks WSGI, or its very types matter."""
    return WSGIPoolManager(validator(app) if legal else app, **options)


def call(
    app: WSGIApplication,
    target: str = "/",
    *,
    method: str = "GET",
    legal: bool = True,
    options: dict[str, Any] | None = None,
    **request: Any,
) -> BaseHTTPResponse:
    """One request to ``app``, never retried or redirected; its response, read unless ``preload_content=False``."""
    request.setdefault("retries", False)
    return pool_for(app, legal=legal, **(options or {})).request(method, URL + target, **request)


def seen_environ(target: str = "/", **request: Any) -> dict[str, Any]:
    """The environ that the request gives an app."""
    seen: list[dict[str, Any]] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ)
        start_response("200 OK", [TEXT])
        return []

    response = call(app, target, **request)
    assert response.status == 200
    (environ,) = seen
    return environ


def answering(
    body: Iterable[bytes], status: str = "200 OK", headers: list[tuple[str, str]] | None = None
) -> WSGIApplication:
    """An app that always gives this answer; ``body`` is returned as it is."""

    def app(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, [TEXT] if headers is None else headers)
        return body

    return app


def wait_for(event: threading.Event) -> None:
    """Wait for what must happen; usable as a step of a :class:`Scripted` app."""
    assert event.wait(DEADLINE), "what the test waits for did not happen"


def eventually(is_so: Callable[[], object], what: str) -> None:
    """Wait for what announces nothing when it happens."""
    give_up, pause = monotonic() + DEADLINE, threading.Event()
    while not is_so():
        assert monotonic() < give_up, f"still not: {what}"
        pause.wait(0.005)


Place: TypeAlias = tuple[int, object]
_mark: ContextVar[object] = ContextVar("_mark", default=None)


def here() -> Place:
    """The thread, and the context by a mark that the app's call left in it."""
    return threading.get_ident(), _mark.get()


class Scripted:
    """An app whose body is its ``steps``: bytes are sent, exceptions raised, functions called.

    It notes where it was called, iterated and closed: the thread and the context. ``close()`` calls ``on_close``.
    """

    def __init__(
        self,
        *steps: Step,
        status: str = "200 OK",
        headers: list[tuple[str, str]] | None = None,
        on_close: Callable[[], object] | None = None,
    ) -> None:
        self._steps = steps
        self._status = status
        self._headers = [TEXT] if headers is None else headers
        self._on_close = on_close
        self.calls: list[Place] = []
        self.iterations: list[Place] = []
        self.closes: list[Place] = []
        self.closed = threading.Event()
        self.environ: dict[str, Any] = {}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        _mark.set(object())
        self.calls.append(here())
        self.environ = environ
        start_response(self._status, list(self._headers))
        return _Body(self, self._steps)

    def note_close(self) -> None:
        self.closes.append(here())
        self.closed.set()
        if self._on_close is not None:
            self._on_close()

    def assert_closed_once(self) -> None:
        """Once, and where it was called and iterated."""
        wait_for(self.closed)
        assert len(self.closes) == 1
        assert set(self.calls + self.iterations + self.closes) == set(self.calls)
        assert self.calls[0][1] is not None


class _Body:
    def __init__(self, script: Scripted, steps: tuple[Step, ...]) -> None:
        self._script = script
        self._steps = iter(steps)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._script.iterations.append(here())
        while True:
            step = next(self._steps)
            if isinstance(step, bytes):
                return step
            if isinstance(step, BaseException):
                raise step
            step()

    def close(self) -> None:
        self._script.note_close()


def raising(error: BaseException) -> Callable[[], object]:
    """A function that raises it."""

    def fail() -> object:
        raise error

    return fail


def quoted(path: bytes) -> str:
    """Every byte percent-encoded, so that no library on the way sees anything to normalise."""
    return "".join(f"%{byte:02X}" for byte in path)


def unquoted(path: str) -> bytes:
    return urllib.parse.unquote_to_bytes(path)


def run_script(script: str, scenario: str, *arguments: str, beside: str = __file__) -> None:
    """Run one scenario of a script beside a file, this one by default, in a process of its own; it must end well,
    silently and soon."""
    here = Path(beside).resolve()
    installed = Path(flask_aibridge.__file__).resolve().parents[1]
    command = [
        sys.executable,
        "-P",
        "-X",
        "dev",
        "-W",
        "error::ResourceWarning",
        str(here.with_name(script)),
        scenario,
        *arguments,
    ]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join((str(installed), str(here.parents[2])))}
    environ.pop("PYTHONWARNINGS", None)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, f"{scenario} failed ({done.returncode}):\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr


def read_until_error(response: BaseHTTPResponse) -> tuple[bytes, BaseException | None]:
    """Every byte that can be read, and what then ended the body other than its end."""
    got = bytearray()
    try:
        while chunk := response.read1():
            got.extend(chunk)
    except Exception as error:
        return bytes(got), error
    return bytes(got), None
