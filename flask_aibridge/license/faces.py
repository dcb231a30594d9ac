"""The gate for what is not behind the public door: a decorator for the host's own views, and a WSGI middleware.

Both answer as the management routes do, with a problem document (RFC 9457) whose ``code`` says why; and both tell in a
header that a licence is in its grace period.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, ParamSpec
from weakref import WeakKeyDictionary

from flask import Response, after_this_request, current_app

from flask_aibridge.license.gate import Gate

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from flask_aibridge.license.holder import LicenseHolder
    from flask_aibridge.license.schedule import Decision

__all__ = ["WARNING_HEADER", "LicenseMiddleware", "requires"]

WARNING_HEADER: Final = "X-AIBridge-Warning"
"""In every response while a licence is in its grace period: what is the matter, and until when it goes on."""

_HEADERS: Final = (("Content-Type", "application/problem+json"), ("Cache-Control", "no-store"))
_STATUS: Final = 403

P = ParamSpec("P")


def requires(
    feature: str,
    holder: Callable[[], LicenseHolder],
    *,
    status: Callable[[], int] = lambda: _STATUS,
) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
    """A decorator for Flask views, also ``async`` ones: they are called only while the feature is entitled.

    :param feature: its name in the licences; also one of the host's own.
    :param holder: finds, in a request, whom to ask.
    :param status: the status of a refusal.
    :raises ValueError: for a feature without a name.
    """
    _check_name(feature)
    gates: WeakKeyDictionary[LicenseHolder, Gate] = WeakKeyDictionary()

    def decorate(view: Callable[P, Any]) -> Callable[P, Any]:
        @functools.wraps(view)
        def asking(*args: P.args, **kwargs: P.kwargs) -> Any:
            found = holder()
            gate = gates.get(found) or gates.setdefault(found, Gate(holder=found, feature=feature))
            decision = gate.check()
            if not decision.open:
                return Response(_document(decision, status()), status(), headers=list(_HEADERS))
            if decision.grace:
                _warn_in_response(gate.notice())
            return current_app.ensure_sync(view)(*args, **kwargs)

        return asking

    return decorate


def _warn_in_response(notice: str | None) -> None:
    @after_this_request
    def warn(response: Response) -> Response:
        if notice is not None:
            response.headers[WARNING_HEADER] = notice
        return response


class LicenseMiddleware:
    """A WSGI app that passes requests on to another while a feature is entitled, and refuses them otherwise.

    :param wsgi_app: what needs the feature. :param holder: whom to ask. :param status: the status of a refusal.
    :raises ValueError: for a feature without a name.
    """

    def __init__(
        self, wsgi_app: WSGIApplication, holder: LicenseHolder, feature: str, *, status: int = _STATUS
    ) -> None:
        _check_name(feature)
        holder.declare(feature)  # now, and not for the first request, which could wait for a refresh
        self.wsgi_app = wsgi_app
        self._gate = Gate(holder=holder, feature=feature)
        self._status = status

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._gate.feature}: {self.wsgi_app!r}>"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        decision = self._gate.check()
        if not decision.open:
            return self._refuse(decision, environ, start_response)
        notice = self._gate.notice() if decision.grace else None
        return self.wsgi_app(environ, start_response if notice is None else _warning(start_response, notice))

    def _refuse(
        self, decision: Decision, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        body = _document(decision, self._status).encode()
        length = ("Content-Length", str(len(body)))
        start_response(f"{self._status} {HTTPStatus(self._status).phrase}", [*_HEADERS, length])
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]


def _warning(start_response: StartResponse, notice: str) -> StartResponse:
    def start_with_warning(
        status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        with_warning = [*headers, (WARNING_HEADER, notice)]
        # A server may take two arguments only, where there is no error to report (PEP 3333).
        if exc_info is None:
            return start_response(status, with_warning)
        return start_response(status, with_warning, exc_info)

    return start_with_warning


def _document(decision: Decision, status: int) -> str:
    return json.dumps(
        {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": decision.message,
            "code": decision.code,
        }
    )


def _check_name(feature: object) -> None:
    if not isinstance(feature, str) or not feature.strip():
        raise ValueError(f"A feature is named as it is in the licences, such as 'aibridge'; got {feature!r}.")
