"""WSGI apps that the tests of the faces talk to."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

DEADLINE = 20.0
"""Seconds that an app waits for the test: beyond it the test has failed anyway."""

_END = object()
_CANCELLED = object()


class Seen:
    """One request as an app saw it."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.environ = dict(environ)
        self.method: str = environ["REQUEST_METHOD"]
        self.path: str = environ["PATH_INFO"]
        self.query: str = environ["QUERY_STRING"]
        self.headers = {
            key.removeprefix("HTTP_"): value
            for key, value in environ.items()
            if key.startswith("HTTP_") or key in ("CONTENT_TYPE", "CONTENT_LENGTH")
        }
        self.body: bytes = read_body(environ)


def read_body(environ: WSGIEnvironment) -> bytes:
    """The whole request body: as long as it says, or else to its end."""
    stream = environ["wsgi.input"]
    length = environ.get("CONTENT_LENGTH")
    if length:
        return bytes(stream.read(int(length)))
    if not environ.get("wsgi.input_terminated"):
        return b""
    return b"".join(iter(lambda: stream.read(8192), b""))


class Answers:
    """An app that answers by path: ``answers[path]`` is (status, headers, chunks) or a callable ``(seen) ->`` that.

    It keeps what it saw. Other paths get 200 and ``ok``.
    """

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {f"/{name}": answer for name, answer in answers.items()}
        self.seen: list[Seen] = []

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        seen = Seen(environ)
        self.seen.append(seen)
        answer = self.answers.get(seen.path, ("200 OK", [("Content-Type", "text/plain")], [b"ok"]))
        if callable(answer):
            answer = answer(seen)
        status, headers, chunks = answer
        start_response(status, list(headers))
        body: Iterable[bytes] = chunks() if callable(chunks) else chunks
        return body

    @property
    def last(self) -> Seen:
        return self.seen[-1]


class Faucet:
    """An app that sends each chunk when the test says so, and tells what became of it.

    ``started`` is set when it was called, ``closed`` when its iterable was closed, ``cancelled`` when it learnt by its
    ``Cancellation`` that the caller had left. It sends ``first`` by itself, since a head goes out with the first bytes.
    """

    def __init__(
        self,
        first: bytes = b"first",
        *,
        status: str = "200 OK",
        headers: Iterable[tuple[str, str]] = (("Content-Type", "text/plain"),),
    ) -> None:
        self.started = threading.Event()
        self.closed = threading.Event()
        self.cancelled = threading.Event()
        self.calls = 0
        self.closes = 0
        self.taken = 0
        self._head = (status, list(headers))
        self._first = first
        self._ended = False
        self._steps: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def send(self, *chunks: bytes) -> None:
        """Let it send these."""
        for chunk in chunks:
            self._steps.put(chunk)

    def end(self) -> None:
        """Let it finish."""
        self._steps.put(_END)

    def fail(self, error: BaseException | None = None) -> None:
        """Let it raise."""
        self._steps.put(error or RuntimeError("the app broke, as it was told to"))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        self.calls += 1
        self._ended = False
        environ["flask_aibridge.cancellation"].on_cancel(self._cancel)
        start_response(self._head[0], list(self._head[1]))
        self.started.set()
        return self._body()

    def _cancel(self) -> None:
        if not self._ended:
            self.cancelled.set()
            self._steps.put(_CANCELLED)

    def _body(self) -> Iterator[bytes]:
        try:
            if self._first:
                yield self._first
            while (step := self._steps.get(timeout=DEADLINE)) is not _CANCELLED:
                self._ended = step is _END or isinstance(step, BaseException)
                if step is _END:
                    return
                if isinstance(step, BaseException):
                    raise step
                self.taken += 1
                yield step
        finally:
            self.closes += 1
            self.closed.set()


def silent(gave_up: threading.Event) -> WSGIApplication:
    """An app that never answers; it waits for its cancellation, and then sets ``gave_up``."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        environ["flask_aibridge.cancellation"].wait(DEADLINE)
        gave_up.set()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"too late"]

    return app


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Answers with what it saw, as JSON."""
    seen = Seen(environ)
    document = {
        "method": seen.method,
        "path": seen.path,
        "query": seen.query,
        "headers": seen.headers,
        "body": seen.body.decode("latin-1"),
        "scheme": environ["wsgi.url_scheme"],
        "server": [environ["SERVER_NAME"], environ["SERVER_PORT"]],
    }
    data = json.dumps(document).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(data)))])
    return [data]


def raising(error: BaseException, *chunks: bytes) -> Callable[[], Iterator[bytes]]:
    """A body that raises after its chunks."""

    def body() -> Iterator[bytes]:
        yield from chunks
        raise error

    return body
