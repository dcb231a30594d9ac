"""One MCP endpoint, as one user: a message goes out, its answer comes back.

An answer is JSON, or a stream of events that ends with it. Nothing is tried twice, and no redirect is followed.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final
from urllib.parse import urljoin

from flask_aibridge.bridge.intercept.documents import Document
from flask_aibridge.bridge.mcp import wire
from flask_aibridge.bridge.mcp.operation import Operation
from flask_aibridge.bridge.mcp.wire import (
    Era,
    MCPError,
    MCPStopped,
    MCPTimeout,
    MCPUnauthorized,
    NoAnswer,
    SessionLost,
)
from flask_aibridge.bridge.sse import SSEParser
from flask_aibridge.bridge.upstream import (
    Answer,
    Upstream,
    UpstreamFailure,
    UpstreamSilent,
    UpstreamTimeout,
)

MAX_ANSWER: Final = 4 * 1024 * 1024
"""Bytes of an answer: far above what a model can read."""

MAX_ERROR: Final = 64 * 1024
"""Bytes that are read of an answer with a status that is an error; a JSON-RPC error has a few hundred."""

MAX_ASKED: Final = 8
"""Questions of the server during one request of ours that are answered; others are left open."""

END_SECONDS: Final = 0.1
"""How long the end of a stream is waited for once the answer in it has come, so that its connection is of use again."""

_TOKEN: Final = re.compile(r"[\x21-\x7e]+")


class Endpoint:
    """Where a server is, and the user's token for it, which goes nowhere else."""

    def __init__(self, url: str, token: str, upstream: Upstream) -> None:
        self.url, self.origin = url, wire.origin_of(url)
        self._token = token
        self._upstream = upstream

    def has_token(self, token: str) -> bool:
        """Tell whether this is the token."""
        return hmac.compare_digest(
            self._token.encode("utf-8", "surrogatepass"), token.encode("utf-8", "surrogatepass")
        )

    def ask(self, operation: Operation, era: Era, number: int, request: wire.Request) -> Document:
        """The result of a request."""
        return self.ask_with_session(operation, era, number, request)[0]

    def ask_with_session(
        self, operation: Operation, era: Era, number: int, request: wire.Request
    ) -> tuple[Document, str | None]:
        """The result of a request, and the id of the session that its answer begins, null where it begins none."""
        answer = self.send(operation, "POST", request)
        session = _header(answer, "mcp-session-id")
        return self._result(operation, answer, era, number, request.method), session

    def tell(self, operation: Operation, message: wire.Request) -> None:
        """Send what is not answered; whether it was taken, the next request shows."""
        answer = self.send(operation, "POST", message)
        try:
            with suppress(NoAnswer):
                self._read(operation, answer, MAX_ERROR)
        finally:
            answer.close()

    def send(self, operation: Operation, method: str, message: wire.Request) -> Answer:
        """Send a message and return what it is answered with, to be closed."""
        headers = {**message.headers, "Authorization": f"Bearer {self._token}"}
        if not _TOKEN.fullmatch(self._token):
            raise MCPError(self.origin, "cannot be asked: the user's token is none that a header can have")
        with self._failing(operation):
            return self._upstream.send(method, self.url, headers, message.body, operation)

    def _result(self, operation: Operation, answer: Answer, era: Era, number: int, method: str) -> Document:
        try:
            self._check(operation, answer, era, number, method)
            kind = _media_type(answer)
            if kind == "text/event-stream":
                found = self._in_stream(operation, answer, era, number)
            elif kind == "application/json":
                found = wire.answer_in(self._read(operation, answer, MAX_ANSWER), number)
            else:
                shown = wire.cleaned(kind) or "no media type"
                problem = f"answered {method} with {shown}, which is neither JSON nor an event stream"
                raise NoAnswer(self.origin, problem)
        finally:
            answer.close()
        if found is None:
            raise NoAnswer(self.origin, f"did not answer {method}: what it sent is no answer to it")
        return wire.result_of(self.origin, method, found)

    def _check(self, operation: Operation, answer: Answer, era: Era, number: int, method: str) -> None:
        """Raise what a status says that is not a success."""
        status = answer.status
        coding = _header(answer, "content-encoding")
        if coding is not None and coding.lower() != "identity":
            raise NoAnswer(self.origin, f"answered {method} in a content coding that was not asked for")
        if 200 <= status < 300:
            return
        if status < 400:
            problem = f"answered {method} with a redirect, which is not followed, since the token would go there too"
            where = wire.address_of(urljoin(self.url, _header(answer, "location") or ""))
            raise MCPError(
                self.origin, problem, detail=f"{status}, to {where}: configure that, if it is right"
            )
        if status in (401, 403):
            raise MCPUnauthorized(self.origin, f"does not accept the user's token ({status})")
        if status == 404 and era.session is not None:
            raise SessionLost(self.origin, "has forgotten the session")
        body = self._read(operation, answer, MAX_ERROR)
        found = wire.answer_in(body, number) if _media_type(answer) == "application/json" else None
        if found is not None and "error" in found:
            wire.result_of(self.origin, method, found)
        said = body.decode("utf-8", "replace") if _media_type(answer) == "text/plain" else ""
        raise NoAnswer(self.origin, f"answered {method} with the status {status}", said)

    def _read(self, operation: Operation, answer: Answer, most: int) -> bytes:
        pieces, size = [], 0
        with self._failing(operation):
            while piece := answer.read():
                size += len(piece)
                if size > most:
                    raise NoAnswer(self.origin, f"sent an answer of more than {most} bytes")
                pieces.append(piece)
        return b"".join(pieces)

    def _in_stream(self, operation: Operation, answer: Answer, era: Era, number: int) -> Document | None:
        parser, size, asked = SSEParser(MAX_ANSWER), 0, 0
        while True:
            with self._failing(operation):
                piece = answer.read()
            size += len(piece)
            if size > MAX_ANSWER:
                raise NoAnswer(self.origin, f"sent an answer of more than {MAX_ANSWER} bytes")
            for event in parser.feed(piece) if piece else parser.finish():
                if event.name != "message":
                    continue
                found = wire.answer_in(event.data, number)
                if found is not None:
                    if piece and answer.patient:
                        self._await_end(answer)
                    return found
                for question in () if era.is_modern else wire.questions_in(event.data):
                    asked += 1
                    if asked <= MAX_ASKED:
                        self.tell(operation, wire.reply(era, question))
            if not piece:
                return None

    @staticmethod
    def _await_end(answer: Answer) -> None:
        with suppress(UpstreamSilent, UpstreamFailure):
            answer.read(END_SECONDS)

    @contextmanager
    def _failing(self, operation: Operation) -> Iterator[None]:
        """Turn what goes wrong on the way into what this client raises."""
        try:
            yield
        except UpstreamFailure as error:
            if operation.expired or isinstance(error, UpstreamTimeout):
                raise MCPTimeout(self.origin, f"did not answer within {operation.seconds:g} s") from error
            if operation.stopped:
                raise MCPStopped(self.origin, "was not waited for: the caller has left") from error
            raise MCPError(self.origin, "cannot be reached, or broke off", detail=str(error)) from error
        except ValueError:
            # Without its cause, whose text, and what it holds, are of the request.
            raise MCPError(self.origin, "cannot be asked: its address, or a name, cannot be sent") from None


def _header(answer: Answer, name: str) -> str | None:
    return next((value for key, value in answer.headers if key.lower() == name), None)


def _media_type(answer: Answer) -> str:
    return (_header(answer, "content-type") or "").partition(";")[0].strip().lower()
