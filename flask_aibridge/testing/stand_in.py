"""A stand-in for the LLM providers: a WSGI app that speaks their wire formats and makes its answers up."""

from __future__ import annotations

import hmac
import json
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import responses
from typing import TYPE_CHECKING, Any, TypeAlias

from flask_aibridge.testing import messages, openai
from flask_aibridge.testing.turn import Document, Malformed, Saying, WireFormat

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

MAX_REQUESTS = 1000
"""Requests that are remembered; the oldest are forgotten first."""

MODELS = ["stand-in-large", "stand-in-small"]
"""What the model lists name. Any other model is answered for as well."""

_FORMATS: Mapping[str, Callable[[], WireFormat]] = {
    "/v1/messages": messages.Messages,
    "/v1/chat/completions": openai.ChatCompletions,
    "/v1/responses": openai.Responses,
}


@dataclass(frozen=True, slots=True)
class AnswerWith:
    """A scripted failure: this status and body instead of an answer. Without a body it is the API's own error
    document."""

    status: int
    body: bytes | Document | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DropAfter:
    """A scripted failure: the connection is dropped after so many tokens (or, in a blocking answer, half of
    the body)."""

    tokens: int


@dataclass(frozen=True, slots=True)
class ErrorAfter:
    """A scripted failure: the stream goes on with the API's error event after so many tokens, and ends."""

    tokens: int
    message: str = "Overloaded"


Failure: TypeAlias = AnswerWith | DropAfter | ErrorAfter


class ConnectionDropped(Exception):
    """Raised into the server to have it drop the connection, as a scripted failure wants."""


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived. Header names are in lower case; credentials are there, but not in the
    repr."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class StandInProvider:
    """Answers Anthropic Messages, OpenAI Chat Completions and OpenAI Responses, blocking and streaming, with
    made-up text.

    ``answer`` is what it says: a callable from the user's last words to tokens, a fixed sequence of tokens,
    or a text; by default a sentence that says that it is a stand-in. ``delay`` is the time before each token,
    in seconds. ``keys`` are the credentials it takes (as ``X-Api-Key`` or bearer token); by default it takes
    any and none. ``failures`` are used up one per answer, in the order in which requests come; ``None`` among
    them is an answer as usual.

    A token counts as one token of output, a word of the prompt as one of input.
    """

    def __init__(
        self,
        *,
        answer: Callable[[str], Iterable[str]] | Sequence[str] | None = None,
        delay: float = 0.0,
        keys: Collection[str] | None = None,
        failures: Sequence[Failure | None] = (),
    ) -> None:
        self._answer = _as_callable(answer)
        self._delay = delay
        self._keys = None if keys is None else [key.encode() for key in keys]
        self._failures = deque(failures)
        self._requests: deque[Received] = deque(maxlen=MAX_REQUESTS)
        self._lock = threading.Lock()

    @property
    def requests(self) -> list[Received]:
        """What has arrived, oldest first."""
        with self._lock:
            return list(self._requests)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        received = _receive(environ)
        with self._lock:
            self._requests.append(received)
        exchange = _Exchange(received, start_response)
        if not self._admits(received.headers):
            return exchange.fail(401, "invalid x-api-key")
        if received.method in ("GET", "HEAD") and (received.path + "/").startswith("/v1/models/"):
            return _models(exchange)
        if received.method != "POST":
            return exchange.fail(404, f"Not found: {received.method} {received.path}")
        if received.path == "/v1/messages/count_tokens":
            return exchange.reply(200, {"input_tokens": max(len(received.body.split()), 1)})
        return self._say(exchange)

    def _say(self, exchange: _Exchange) -> Iterable[bytes]:
        if exchange.received.path not in _FORMATS:
            return exchange.fail(404, f"Not found: POST {exchange.received.path}")
        failure = self._next_failure()
        if isinstance(failure, AnswerWith):
            return exchange.answer_with(failure)
        try:
            request = exchange.received.json
            question = exchange.format.question(request if isinstance(request, dict) else {})
        except (ValueError, RecursionError, Malformed) as error:
            return exchange.fail(400, str(error))
        tokens = _paced(self._answer(question.prompt), self._delay)
        saying = Saying(question, uuid.uuid4().hex, int(time.time()), tokens)
        if request.get("stream") is True:
            return exchange.stream(saying, request, failure)
        return exchange.whole(saying, failure)

    def _next_failure(self) -> Failure | None:
        with self._lock:
            return self._failures.popleft() if self._failures else None

    def _admits(self, headers: Mapping[str, str]) -> bool:
        if self._keys is None:
            return True
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        presented = [headers.get("x-api-key", "").encode(), bearer.encode()]
        return any(hmac.compare_digest(key, one) for key in self._keys for one in presented)


class _Exchange:
    """One request and the way to answer it."""

    def __init__(self, received: Received, start_response: StartResponse) -> None:
        self.received = received
        self.request_id = f"req_{uuid.uuid4().hex}"
        self._start_response = start_response
        self.anthropic = "anthropic-version" in received.headers or received.path.startswith("/v1/messages")
        default = messages.Messages if self.anthropic else openai.ChatCompletions
        self.format: WireFormat = _FORMATS.get(received.path, default)()

    def reply(self, status: int, document: Document) -> list[bytes]:
        return self._send(status, json.dumps(document).encode(), {})

    def fail(self, status: int, message: str) -> list[bytes]:
        return self.reply(status, self.format.error(status, message, self.request_id))

    def answer_with(self, failure: AnswerWith) -> list[bytes]:
        body = failure.body
        if body is None:
            message = responses.get(failure.status, "Overloaded")
            body = self.format.error(failure.status, message, self.request_id)
        return self._send(
            failure.status, body if isinstance(body, bytes) else json.dumps(body).encode(), failure.headers
        )

    def whole(self, saying: Saying, failure: Failure | None) -> Iterable[bytes]:
        for _ in saying:
            pass
        body = self.reply(200, self.format.document(saying))
        return _half(body[0]) if failure is not None else body

    def stream(self, saying: Saying, request: Document, failure: Failure | None) -> Iterator[bytes]:
        if failure is not None:
            saying.tokens = _failing(saying.tokens, failure)
        self._begin(200, {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"})
        return self._events(saying, request)

    def _events(self, saying: Saying, request: Document) -> Iterator[bytes]:
        try:
            yield from self.format.sse(saying, request)
        except _ScriptedError as error:
            yield self.format.error_event(str(error), self.request_id)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> list[bytes]:
        self._begin(status, {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers})
        return [] if self.received.method == "HEAD" else [body]

    def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        name = "request-id" if self.anthropic else "x-request-id"
        reason = responses.get(status, "Overloaded")
        self._start_response(f"{status} {reason}", [*headers.items(), (name, self.request_id)])


class _ScriptedError(Exception):
    """Carries an ``ErrorAfter`` out of the tokens."""


def introduce(prompt: str) -> list[str]:
    """Return the default answer: a sentence or two that nobody can take for a model's."""
    heard = " ".join(prompt.split())
    quoted = f" You wrote: “{heard[:80]}{'…' if len(heard) > 80 else ''}”." if heard else ""
    disclaimer = "This is the stand-in provider of Flask-AIBridge, not a language model."
    return tokens_of(f"{disclaimer} Nobody has thought about this answer.{quoted}")


def tokens_of(text: str) -> list[str]:
    """Cut a text into words, each with the space before it."""
    return re.findall(r"\s*\S+|\s+$", text)


def _as_callable(
    answer: Callable[[str], Iterable[str]] | Sequence[str] | None,
) -> Callable[[str], Iterable[str]]:
    if answer is None:
        return introduce
    if callable(answer):
        return answer
    tokens = tokens_of(answer) if isinstance(answer, str) else list(answer)
    return lambda prompt: tokens


def _paced(tokens: Iterable[str], delay: float) -> Iterator[str]:
    for token in tokens:
        if delay > 0:
            time.sleep(delay)
        yield token


def _failing(tokens: Iterable[str], failure: Failure) -> Iterator[str]:
    left = failure.tokens if isinstance(failure, (DropAfter, ErrorAfter)) else 0
    for token in tokens:
        if left == 0:
            break
        left -= 1
        yield token
    if isinstance(failure, ErrorAfter):
        raise _ScriptedError(failure.message)
    raise ConnectionDropped


def _half(body: bytes) -> Iterator[bytes]:
    yield body[: len(body) // 2]
    raise ConnectionDropped


def _models(exchange: _Exchange) -> list[bytes]:
    name = exchange.received.path.removeprefix("/v1/models").strip("/")
    api: Any = messages if exchange.anthropic else openai
    return exchange.reply(200, api.model_entry(name) if name else api.model_list(MODELS))


def _receive(environ: WSGIEnvironment) -> Received:
    headers = {
        key[5:].replace("_", "-").lower(): value for key, value in environ.items() if key.startswith("HTTP_")
    }
    for key, name in (("CONTENT_TYPE", "content-type"), ("CONTENT_LENGTH", "content-length")):
        if environ.get(key):
            headers[name] = environ[key]
    path, query = environ.get("PATH_INFO", ""), environ.get("QUERY_STRING", "")
    return Received(environ["REQUEST_METHOD"], path, query, headers, _read_body(environ))


def _read_body(environ: WSGIEnvironment) -> bytes:
    stream = environ["wsgi.input"]
    length = environ.get("CONTENT_LENGTH")
    if length:
        return bytes(stream.read(int(length)))
    if not environ.get("wsgi.input_terminated"):
        return b""
    pieces = iter(lambda: stream.read(65536), b"")
    return b"".join(pieces)
