"""The bridge: a WSGI app that stands between its callers and the providers."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from http.client import responses
from typing import TYPE_CHECKING

from flask_aibridge.bridge.caller import StaticKeys, cancellation_of, identify
from flask_aibridge.bridge.headers import media_type, request_headers, response_headers
from flask_aibridge.bridge.intercept.blocking import held_body
from flask_aibridge.bridge.intercept.streaming import GuardedTurn, StreamedBody
from flask_aibridge.bridge.intercept.turn import BlockingTurn, StreamingTurn, Turn, UnreadTurn, parse_document
from flask_aibridge.bridge.interception import Interception
from flask_aibridge.bridge.providers.base import Provider, Route
from flask_aibridge.bridge.providers.registry import providers_from
from flask_aibridge.bridge.request import (
    Refused,
    forwarded_path,
    is_plain,
    read_body,
    split_path,
    wants_websocket,
)
from flask_aibridge.bridge.upstream import (
    Answer,
    Upstream,
    UpstreamBroken,
    UpstreamCancelled,
    UpstreamFailure,
    UpstreamTimeout,
)
from flask_aibridge.config import ProviderSettings
from flask_aibridge.observability.hooks import Hook, Outcome
from flask_aibridge.observability.logging import LoggingHook

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from urllib3 import PoolManager

logger = logging.getLogger("flask_aibridge.bridge")

INTERCEPTION_ID = "X-AIBridge-Interception-Id"

_SSE = "text/event-stream"

_CLIENT_CLOSED = 499
"""What is recorded for callers who left before the head, as nginx does; nobody receives it."""


class Bridge:
    """Forwards what its callers ask of LLM providers, with the host's keys, and reports each request to
    hooks.

    It answers ``/<provider's name>/v1/…``. Callers by HTTP need one of ``api_keys`` (user → key); without
    any, all of them are refused. Callers through the in-process transport need none. ``hooks`` defaults to
    one log record per request, ``pool`` to an ``UpstreamPool``. Nothing is opened or started before the first
    request.

    Raises ``ConfigError`` for providers that cannot work and for empty keys.
    """

    def __init__(
        self,
        providers: Iterable[ProviderSettings],
        *,
        api_keys: Mapping[str, str] | None = None,
        hooks: Sequence[Hook] | None = None,
        pool: PoolManager | None = None,
    ) -> None:
        self._providers = providers_from(providers)
        self._keys = StaticKeys(api_keys or {})
        self._hooks: Sequence[Hook] = (LoggingHook(),) if hooks is None else tuple(hooks)
        self._upstream = Upstream(pool)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        interception = Interception(self._hooks)
        status, headers, body = self._respond(environ, interception)
        try:
            start_response(status, [*headers, (INTERCEPTION_ID, interception.id)])
        except BaseException:
            if isinstance(body, StreamedBody):
                body.close()
            raise
        # RFC 9110 section 9.3.2: an answer to HEAD has no body, and not every WSGI server sees to that.
        return [] if environ["REQUEST_METHOD"] == "HEAD" and isinstance(body, list) else body

    def close(self) -> None:
        """Close the idle connections to the providers. The bridge can be used again."""
        self._upstream.close()

    def _respond(self, environ: WSGIEnvironment, interception: Interception) -> _Response:
        name, path = split_path(environ)
        provider = self._providers.get(name)
        try:
            if provider is not None:
                interception.provider, interception.provider_type = provider.name, provider.type
            self._admit(environ, interception)
            if provider is None:
                raise self._unknown_provider(name)
            return self._forward(environ, interception, provider, path)
        except Refused as refusal:
            return _refusal(interception, provider, refusal, "refused")
        except UpstreamFailure as failure:
            return _failed(interception, provider, failure)
        except Exception:
            logger.exception("interception %s failed inside the bridge", interception.id)
            refused = Refused(
                500, "The AI bridge failed on this request; its log says why.", error="internal error"
            )
            return _refusal(interception, provider, refused, "interrupted")
        except BaseException as error:
            interception.finish("interrupted", type(error).__name__)
            raise

    def _admit(self, environ: WSGIEnvironment, interception: Interception) -> None:
        caller = identify(environ, self._keys)
        if caller is None:
            challenge = ("WWW-Authenticate", 'Bearer realm="aibridge"')
            raise Refused(
                401, "This needs a valid AI Bridge API key, as a bearer token or in X-Api-Key.", challenge
            )
        interception.caller = caller

    def _unknown_provider(self, name: str) -> Refused:
        known = ", ".join(sorted(self._providers)) or "none; set AIBRIDGE_PROVIDERS"
        return Refused(404, f"There is no provider named {name[:64]!r}. Configured are: {known}.")

    def _forward(
        self, environ: WSGIEnvironment, interception: Interception, provider: Provider, path: str
    ) -> _Response:
        route = _route(environ, provider, path)
        interception.route = route.path
        credentials = _credentials(provider)
        body = read_body(environ)
        if route.wire_format is not None:
            interception.model = (parse_document(body) or {}).get("model")
        headers = request_headers(environ, plain_answer=route.wire_format is not None) | credentials
        url = provider.url(forwarded_path(environ, path), environ.get("QUERY_STRING", ""))
        answer = self._upstream.send(environ["REQUEST_METHOD"], url, headers, body, cancellation_of(environ))
        try:
            return _relay(answer, route, interception)
        except BaseException:
            answer.close()
            raise


_Response = tuple[str, list[tuple[str, str]], Iterable[bytes]]


def _route(environ: WSGIEnvironment, provider: Provider, path: str) -> Route:
    method = environ["REQUEST_METHOD"]
    route = provider.route(path) if is_plain(path) else None
    if route is None:
        raise Refused(
            404, f"The AI bridge does not serve {method} {path[:200]!r} of provider {provider.name!r}."
        )
    if route.websocket and wants_websocket(environ):
        # RFC 9110 wants an Upgrade header with this status; PEP 3333 keeps apps from setting one.
        raise Refused(426, "The AI bridge serves this over HTTP only: turn WebSockets off in the client.")
    if method not in route.methods:
        allowed = ", ".join(route.methods)
        raise Refused(405, f"{method[:32]} is not allowed here; allowed: {allowed}.", ("Allow", allowed))
    return route


def _credentials(provider: Provider) -> dict[str, str]:
    credentials = provider.credentials()
    if credentials is None:
        raise Refused(
            500,
            f"The AI bridge has no key for provider {provider.name!r}: "
            f"set AIBRIDGE_PROVIDERS[{provider.name!r}]['keys'].",
            # The SDKs would ask again and again what only an administrator can change.
            ("X-Should-Retry", "false"),
        )
    return credentials


def _relay(answer: Answer, route: Route, interception: Interception) -> _Response:
    if answer.status < 200:
        raise UpstreamFailure(f"the provider answered with the interim status {answer.status}")
    interception.status = answer.status
    headers = response_headers(answer.headers, answer.status)
    kind = media_type(headers)
    turn = GuardedTurn(_turn(answer, route, kind), interception.id)
    if kind == "application/json" or kind.endswith("+json"):
        return _status_line(answer), headers, held_body(answer, turn, interception)
    if kind == _SSE:
        headers.append(("X-Accel-Buffering", "no"))  # nginx would collect a stream before it passes it on
    return _status_line(answer), headers, StreamedBody(answer, turn, interception)


def _turn(answer: Answer, route: Route, kind: str) -> Turn:
    encoding = next(
        (value for name, value in answer.headers if name.lower() == "content-encoding"), "identity"
    )
    if route.wire_format is None or encoding.strip().lower() != "identity":
        return UnreadTurn()
    wire_format = route.wire_format()
    return StreamingTurn(wire_format) if kind == _SSE else BlockingTurn(wire_format)


def _failed(interception: Interception, provider: Provider | None, failure: UpstreamFailure) -> _Response:
    if isinstance(failure, UpstreamCancelled):
        refused = Refused(_CLIENT_CLOSED, "The caller closed the request.")
        return _refusal(interception, provider, refused, "client_closed")
    name = provider.name if provider is not None else ""
    if isinstance(failure, UpstreamTimeout):
        status, message = 504, f"The provider {name!r} did not answer in time."
    elif isinstance(failure, UpstreamBroken):
        status, message = 502, f"The provider {name!r} broke off its answer."
    else:
        status, message = (
            502,
            f"The provider {name!r} could not be reached, or gave no answer that can be read.",
        )
    outcome: Outcome = "upstream_truncated" if isinstance(failure, UpstreamBroken) else "upstream_error"
    return _refusal(interception, provider, Refused(status, message, error=str(failure)), outcome)


def _refusal(
    interception: Interception, provider: Provider | None, refused: Refused, outcome: Outcome
) -> _Response:
    document: dict[str, object] = {"message": refused.message, "code": _code(refused.status)}
    if provider is not None:
        document = provider.error(refused.status, refused.message, interception.id)
    body = json.dumps(document).encode()
    interception.status = refused.status
    interception.sent(body)
    interception.finish(outcome, refused.error or refused.message)
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *refused.headers]
    return f"{refused.status} {_reason(refused.status)}", headers, [body]


def _code(status: int) -> str:
    return _reason(status).lower().replace(" ", "_").replace("-", "_")


def _reason(status: int) -> str:
    return responses.get(status, "Unknown" if status != _CLIENT_CLOSED else "Client Closed Request")


def _status_line(answer: Answer) -> str:
    # The provider's own words, such as "Overloaded" for 529, unless they cannot stand in a status line.
    reason = answer.reason.strip()
    fits = reason and reason.isascii() and reason.isprintable()
    return f"{answer.status} {reason if fits else _reason(answer.status)}"
