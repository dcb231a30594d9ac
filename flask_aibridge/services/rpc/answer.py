"""An answer as the client of the services' RPC reads it: in time, within bounds, and only from such a server."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from time import monotonic
from typing import Any, Final, NoReturn

from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError
from urllib3.response import BaseHTTPResponse

from flask_aibridge.errors import ProtocolMismatch, ServicesUnavailable
from flask_aibridge.services.rpc.protocol import (
    MAX_BODY_BYTES,
    MAX_LINE_BYTES,
    VERSION,
    VERSION_HEADER,
    Call,
    check_versions,
    error_from,
    parse_version,
)
from flask_aibridge.services.schemas.fields import MAX_VERSION

_CHUNK_BYTES: Final = 64 * 1024
"""What is asked for at once: as much as the in-process transport and most sockets hold."""

BROKEN: Final = (HTTPError, OSError, ValueError)
"""What reading may raise: ``ValueError`` is that of a file that another thread has closed."""


def unavailable(call: Call, error: Exception) -> ServicesUnavailable:
    """What a failure below the protocol is. Its own text is left out: it may quote the URL."""
    reason = getattr(error, "reason", None)
    cause = reason if isinstance(reason, Exception) else error
    return ServicesUnavailable(
        f"{call.name}: the services cannot be reached ({type(cause).__name__}).",
        not_asked=isinstance(cause, NewConnectionError | ConnectTimeoutError),
    )


def read_answer(call: Call, response: BaseHTTPResponse, deadline: float) -> Any:
    """The result of a call.

    :param deadline: by ``monotonic()``.
    :raises ServiceError: as ``Client.call``.
    """
    check_sender(call, response)
    document = _parsed(call, _body(call, response, deadline))
    if response.status == 200 and "result" in document:
        return document["result"]
    raise error_from(document.get("error"))


def check_sender(call: Call, response: BaseHTTPResponse) -> None:
    """Return where an RPC server of a fitting version has answered."""
    server = response.headers.get(VERSION_HEADER)
    if server is not None:
        check_versions(VERSION, parse_version(server))
        return
    status = response.status
    if status >= 500 or status in (408, 429):
        raise ServicesUnavailable(f"{call.name}: something before the services answered with {status}.")
    if 300 <= status < 400:
        raise ProtocolMismatch(
            f"{call.name}: the answer is a redirect ({status}), which is never followed. Give Client the final URL."
        )
    raise ProtocolMismatch(
        f"{call.name}: what answers ({status}) is no server of this RPC; check the base URL and what is before it."
    )


def _body(call: Call, response: BaseHTTPResponse, deadline: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := _part(call, response):
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise ProtocolMismatch(f"{call.name}: the answer has more than {MAX_BODY_BYTES} bytes.")
        if monotonic() > deadline:
            raise ServicesUnavailable(f"{call.name}: the answer did not come in time.")
        parts.append(part)
    response.release_conn()
    return b"".join(parts)


def _part(call: Call, response: BaseHTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK_BYTES)
    except BROKEN as error:
        raise unavailable(call, error) from None


def _parsed(call: Call, text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text.decode())
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ProtocolMismatch(
            f"{call.name}: the answer is not a JSON object; check what is before the server."
        )
    return document


class ClientWatch:
    """The versions of a watch, subscribed in its context.

    Iterating waits for the next version. It ends when the context is left, also from another thread, and raises
    ``ServicesUnavailable`` where the server ends it or has been silent for too long.
    """

    def __init__(
        self,
        call: Call,
        subscribe: Callable[[ClientWatch], BaseHTTPResponse],
        observe: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.call = call
        self._subscribe = subscribe
        self._observe = observe
        self._response: BaseHTTPResponse | None = None
        self._buffer = b""
        self._closed = False
        self._lock = threading.Lock()
        self._contexts = contextlib.ExitStack()

    def __enter__(self) -> ClientWatch:
        with contextlib.ExitStack() as contexts:
            contexts.enter_context(self._observe())
            contexts.callback(self.close)
            response = self._subscribe(self)
            with self._lock:
                self._response = response
                closed = self._closed
            if closed:
                response.close()
            elif response.status != 200:
                self._refused(response)
            else:
                check_sender(self.call, response)
            self._contexts = contexts.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._contexts.__exit__(*error)

    def _refused(self, response: BaseHTTPResponse) -> NoReturn:
        read_answer(self.call, response, monotonic() + self.call.timeout)
        raise ProtocolMismatch(f"{self.call.name}: the answer is no stream of versions.")

    def __iter__(self) -> ClientWatch:
        return self

    def __next__(self) -> int:
        while not self._closed:
            line, found, rest = self._buffer.partition(b"\n")
            if found:
                self._buffer = rest
                version = self._version(line)
                if version is not None:
                    return version
            else:
                self._buffer += self._more()
        raise StopIteration

    def _more(self) -> bytes:
        """What has arrived; nothing once the context was left."""
        response = self._response
        if response is None:
            if self._closed:
                return b""
            raise RuntimeError("Iterate over a watch within its context: with … as versions.")
        if len(self._buffer) > MAX_LINE_BYTES:
            raise ProtocolMismatch(f"{self.call.name}: a line has more than {MAX_LINE_BYTES} bytes.")
        try:
            part = response.read1(_CHUNK_BYTES)
        except Exception as error:
            if self._closed:
                return b""
            raise unavailable(self.call, error) from None
        if not part and not self._closed:
            raise ServicesUnavailable(f"{self.call.name}: the server has ended the watch.")
        return part

    def _version(self, line: bytes) -> int | None:
        """The version of a line; null for one that only says that the server is alive."""
        document = _parsed(self.call, line)
        if "error" in document:
            raise error_from(document["error"])
        version = document.get("version")
        if version is None:
            return None
        if not isinstance(version, int) or isinstance(version, bool) or not 0 <= version <= MAX_VERSION:
            raise ProtocolMismatch(f"{self.call.name}: a version is not a number.")
        return version

    def close(self) -> None:
        """End it, at once, whoever waits; any thread, any number of times."""
        with self._lock:
            self._closed = True
            response, self._response = self._response, None
        if response is None:
            return
        with contextlib.suppress(ValueError, RuntimeError, OSError, AttributeError):
            response.shutdown()
        response.close()
