"""The server of the services' RPC: a WSGI app over whatever satisfies ``Services``.

It trusts two kinds of callers: those of its own process, which the in-process transport marks in a way no request from
outside can, and those that know the shared key. Whoever knows that key can act for every user and read the providers'
keys: it belongs between hosts of one operator, over TLS.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Iterable
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from flask_aibridge.errors import (
    InvalidRecord,
    NotRecorded,
    ProtocolMismatch,
    RateLimited,
    ServiceError,
    ServicesUnavailable,
    Unauthorized,
)
from flask_aibridge.services.interfaces import CallObserver, Services
from flask_aibridge.services.rpc.methods import METHODS
from flask_aibridge.services.rpc.protocol import (
    JSON,
    JSON_LINES,
    KEEP_ALIVE_SECONDS,
    MAX_BODY_BYTES,
    MAX_WATCHES,
    VERSION_HEADER,
    WATCH_PROVIDERS,
    Call,
    error_document,
    version_text,
)
from flask_aibridge.services.rpc.request import (
    Refused,
    call_of,
    check_caller,
    check_deadline,
    check_version,
    checked_key,
    digest_of,
    drain,
    read_arguments,
)
from flask_aibridge.services.rpc.watch import Watch
from flask_aibridge.services.schemas.metadata import compact

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["Server"]

_log = logging.getLogger("flask_aibridge.services.rpc.client")

CLOSING_SECONDS: Final = 2.0
"""How long ``close`` waits for the threads that answer watches to end them themselves."""

LOGGED_FRAMES: Final = 20
"""The innermost frames of an unexpected error that are logged: enough to find it, where a recursion has thousands."""

_STATUSES: Final[dict[type[ServiceError], HTTPStatus]] = {
    Unauthorized: HTTPStatus.FORBIDDEN,
    RateLimited: HTTPStatus.TOO_MANY_REQUESTS,
    InvalidRecord: HTTPStatus.UNPROCESSABLE_ENTITY,
    ServicesUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    NotRecorded: HTTPStatus.INSUFFICIENT_STORAGE,
    ProtocolMismatch: HTTPStatus.BAD_REQUEST,
}
"""For logs of proxies: what the client goes by is the class in the body."""


class Server:
    """Serves the calls of ``rpc.Client``.

    :param services: what answers, or a callable that gives it, called for every request.
    :param shared_key: what callers over HTTP have to know. Without one only this process is served.
    :param observer: sees every call that is made of the services; a watch is one, for as long as it lasts.
    :param max_watches: above it, watches are refused with 503.
    :param keep_alive: seconds between two lines of a watch where nothing changes.
    :raises ValueError: for an empty key, or one that no header can hold.
    """

    def __init__(
        self,
        services: Services | Callable[[], Services],
        *,
        shared_key: str | None = None,
        observer: CallObserver | None = None,
        max_watches: int = MAX_WATCHES,
        keep_alive: float = KEEP_ALIVE_SECONDS,
    ) -> None:
        self._services = services
        self._key_digest = None if shared_key is None else digest_of(checked_key(shared_key))
        self._observer = observer
        self._max_watches = max_watches
        self._keep_alive = keep_alive
        self._watches: set[Watch] = set()
        self._changed = threading.Condition()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Server {version_text()} of {type(self._services).__name__}>"

    @property
    def watches(self) -> int:
        """How many watches there are now."""
        return len(self._watches)

    def close(self) -> None:
        """End every watch, and take no more; other calls are served on. For the end of the process."""
        with self._changed:
            self._closed = True
            for watch in self._watches:
                watch.end()
            self._changed.wait_for(lambda: not self._watches, CLOSING_SECONDS)
            left = list(self._watches)
        for watch in left:
            watch.close()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        started = monotonic()
        headers: tuple[tuple[str, str], ...] = ()
        try:
            check_caller(environ, self._key_digest)
            call = call_of(environ)
            check_version(environ)
            arguments = read_arguments(environ)
            check_deadline(environ, call, started)
            if call is WATCH_PROVIDERS:
                return self._watch(call, environ, start_response)
            body, status = f'{{"result":{self._result(call, arguments)}}}', HTTPStatus.OK
        except Refused as refused:
            drain(environ)
            body, status, headers = _error_body(refused.error), refused.status, refused.headers
        except ServiceError as error:
            body, status = _error_body(error), _status_of(error)
        return _answer(body, status, headers, start_response)

    # Calls

    def _host(self) -> Services:
        services = self._services
        return services() if callable(services) else services

    def _result(self, call: Call, arguments: dict[str, Any]) -> str:
        method = METHODS[call.name]
        values = method.read(arguments)
        try:
            with observed(self._observer, call):
                result = method.invoke(self._host(), *values)
        except ServiceError:
            raise
        except Exception as error:
            raise _unexpected(call, error) from None
        try:
            return method.write(result)
        except Exception as error:  # InvalidRecord, too: it is not the caller's record that is wrong
            raise _unexpected(call, error) from None

    # Watches

    def _watch(self, call: Call, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        watch = Watch(self._keep_alive, lambda error: _error_body(_known(call, error)), self._forget)
        self._remember(watch)
        try:
            watch.start(observed(self._observer, call), self._host)
        except BaseException as error:
            watch.close()
            if isinstance(error, Exception):
                raise _known(call, error) from None
            raise
        cancellation = environ.get("flask_aibridge.cancellation")
        if cancellation is not None:
            watch.on_close(cancellation.on_cancel(watch.end))
        start_response("200 OK", _headers(JSON_LINES))
        return watch

    def _remember(self, watch: Watch) -> None:
        with self._changed:
            if self._closed:
                raise ServicesUnavailable("The server is closing; watch another, or again when it is back.")
            if len(self._watches) >= self._max_watches:
                raise ServicesUnavailable(
                    f"All {self._max_watches} watches of the server are taken. Raise max_watches?",
                    KEEP_ALIVE_SECONDS,
                )
            self._watches.add(watch)

    def _forget(self, watch: Watch) -> None:
        with self._changed:
            self._watches.discard(watch)
            self._changed.notify_all()


def observed(observer: CallObserver | None, call: Call) -> Any:
    """The observer's context of a call, or one that does nothing."""
    return _UNOBSERVED if observer is None else observer.call(call.service, call.method)


class _Unobserved:
    """A context that does nothing, any number of times."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


_UNOBSERVED: Final = _Unobserved()


def _known(call: Call, error: Exception) -> ServiceError:
    return error if isinstance(error, ServiceError) else _unexpected(call, error)


def _unexpected(call: Call, error: Exception) -> ServiceError:
    """Log where it happened. Not its message: that may quote an argument, and arguments are secrets and prompts. An
    ``InvalidRecord`` here is one of the result, and its message names a field and no value."""
    frames = list(traceback.walk_tb(error.__traceback__))[-LOGGED_FRAMES:]
    where = [f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_name}" for frame, line in frames]
    what = f"{type(error).__name__} ({error})" if isinstance(error, InvalidRecord) else type(error).__name__
    _log.error("%s failed with %s, at %s", call.name, what, ", ".join(where) or "no frame")
    return ServiceError(f"{call.name} failed at the server; its log says where.")


def _status_of(error: ServiceError) -> HTTPStatus:
    return next(
        (status for cls, status in _STATUSES.items() if isinstance(error, cls)),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )


def _error_body(error: ServiceError) -> str:
    return compact({"error": error_document(error)})


def _headers(content_type: str) -> list[tuple[str, str]]:
    return [
        ("Content-Type", content_type),
        ("Cache-Control", "no-store"),
        ("X-Accel-Buffering", "no"),  # nginx would keep the lines of a watch back
        (VERSION_HEADER, version_text()),
    ]


def _answer(
    body: str, status: HTTPStatus, more: tuple[tuple[str, str], ...], start_response: StartResponse
) -> list[bytes]:
    content = body.encode("utf-8", "replace")
    if len(content) > MAX_BODY_BYTES:
        sentence = f"The answer has more than {MAX_BODY_BYTES} bytes, which is the most that a client takes."
        status, content = HTTPStatus.INTERNAL_SERVER_ERROR, _error_body(ServiceError(sentence)).encode()
    headers = [*_headers(JSON), *more, ("Content-Length", str(len(content)))]
    start_response(f"{status.value} {status.phrase}", headers)
    return [content]
