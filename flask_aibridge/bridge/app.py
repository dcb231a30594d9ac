"""The bridge: a WSGI app that stands between its callers and the providers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from flask_aibridge.bridge.admission import Host, Recorded, Recording, Unrecorded, admit, describe
from flask_aibridge.bridge.answers import Response, failed, refusal, relay
from flask_aibridge.bridge.caller import cancellation_of, credential_of
from flask_aibridge.bridge.headers import request_headers
from flask_aibridge.bridge.intercept.documents import Document, parse_document
from flask_aibridge.bridge.intercept.streaming import StreamedBody
from flask_aibridge.bridge.intercept.wire_format import WireFormat
from flask_aibridge.bridge.interception import Interception
from flask_aibridge.bridge.options import BridgeOptions
from flask_aibridge.bridge.providers.base import Provider, Route
from flask_aibridge.bridge.providers.directory import Known
from flask_aibridge.bridge.request import (
    Refused,
    forwarded_path,
    is_plain,
    read_body,
    split_path,
    wants_websocket,
)
from flask_aibridge.bridge.upstream import Upstream, UpstreamFailure
from flask_aibridge.config import ProviderSettings
from flask_aibridge.errors import ConfigError, ServiceError
from flask_aibridge.observability.hooks import Hook
from flask_aibridge.observability.logging import LoggingHook
from flask_aibridge.services.interfaces import Admission
from flask_aibridge.services.records import InterceptionStart

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from urllib3 import PoolManager

logger = logging.getLogger("flask_aibridge.bridge")

INTERCEPTION_ID = "X-AIBridge-Interception-Id"


class Bridge:
    """Forwards what its callers ask of LLM providers, with the host's keys, and reports each request to
    hooks.

    It answers ``/<provider's name>/v1/…``. With ``recording``, called for each request (it opens at the first),
    callers, providers and records are the services' business. Without it nothing is recorded, ``providers`` are all
    there are, and callers by HTTP need one of ``api_keys`` (user → key); without any, all of them are refused.
    Callers through the in-process transport need no key. ``hooks`` defaults to one log record per request, ``pool``
    to an ``UpstreamPool``, ``options`` to ``BridgeOptions()``. Nothing is opened or started before the first request.

    Raises ``ConfigError`` for providers that cannot work and for empty keys, ``TypeError`` for both ``recording`` and
    providers or keys.
    """

    def __init__(
        self,
        providers: Iterable[ProviderSettings] = (),
        *,
        api_keys: Mapping[str, str] | None = None,
        hooks: Sequence[Hook] | None = None,
        pool: PoolManager | None = None,
        recording: Callable[[], Recording] | None = None,
        options: BridgeOptions | None = None,
    ) -> None:
        providers = tuple(providers)
        if recording is not None and (providers or api_keys):
            raise TypeError(
                "Give a Bridge either recording, whose services know the rest, or providers and api_keys."
            )
        self._host: Host = Unrecorded(providers, api_keys or {}) if recording is None else Recorded(recording)
        self._hooks: Sequence[Hook] = (LoggingHook(),) if hooks is None else tuple(hooks)
        self._upstream = Upstream(pool)
        self._options = options or BridgeOptions()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        interception = Interception(self._hooks, environ, credential_of(environ), self._host.record)
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

    def _respond(self, environ: WSGIEnvironment, interception: Interception) -> Response:
        request = _Request(environ, interception)
        try:
            request.find(self._known(None))
            admission = self._admit(request)
            return self._forward(request, admission)
        except Refused as refused:
            return refusal(interception, request.provider, refused, "refused")
        except UpstreamFailure as failure:
            return failed(interception, request.provider, failure)
        except Exception:
            logger.exception("interception %s failed inside the bridge", interception.id)
            inside = Refused(
                500, "The AI bridge failed on this request; its log says why.", error="internal error"
            )
            return refusal(interception, request.provider, inside, "interrupted")
        except BaseException as error:
            interception.finish("interrupted", type(error).__name__)
            raise

    def _admit(self, request: _Request) -> Admission:
        admission = admit(self._host, request.environ, request.interception, request.start)
        request.find(self._known(admission.config_version))
        if request.missed:
            # A provider that this process had not heard of: once for each change of the configuration.
            admission = admit(self._host, request.environ, request.interception, request.start)
        return admission

    def _known(self, version: int | None) -> Known:
        """The providers; none where nobody can say, which admission then puts into words."""
        try:
            return self._host.providers(version)
        except (ConfigError, ServiceError):
            return Known(None)

    def _forward(self, request: _Request, admission: Admission) -> Response:
        environ, interception = request.environ, request.interception
        provider, route = request.allowed(admission)
        credentials = _credentials(provider)
        headers = request_headers(environ, plain_answer=route.wire_format is not None) | credentials
        url = provider.url(forwarded_path(environ, request.path), environ.get("QUERY_STRING", ""))
        wire_format = request.wire_format(route)
        body = request.body()
        if wire_format is not None:
            body = wire_format.edit_request(body)
        answer = self._upstream.send(environ["REQUEST_METHOD"], url, headers, body, cancellation_of(environ))
        try:
            return relay(answer, wire_format, interception)
        except BaseException:
            answer.close()
            raise


class _Request:
    """What one request asks for, and whether that is possible. Nothing is refused before the caller is known."""

    def __init__(self, environ: WSGIEnvironment, interception: Interception) -> None:
        self.environ = environ
        self.interception = interception
        self.name, self.path = split_path(environ)
        self.provider: Provider | None = None
        self._route: Route | None = None
        self._known: Known | None = None
        self._refused: Refused | None = None
        self._unreadable: Refused | None = None
        self._body: bytes | None = None
        self._document: Document = {}

    @property
    def missed(self) -> bool:
        """Whether this is to be recorded and was not, since it was not known what it is."""
        return self._is_recorded_kind() and not self.interception.recorded

    def find(self, known: Known) -> None:
        """Look the provider and the route up among what is known now."""
        if known is self._known:
            return
        self._known, self._route, self._refused = known, None, None
        self.provider = known.providers.get(self.name)
        if self.provider is None:
            self._refused = _unknown(self.name, known)
            return
        interception = self.interception
        interception.provider, interception.provider_type = self.provider.name, self.provider.type
        if self.name in known.disabled:
            self._refused = Refused(503, f"provider_disabled: AI provider {self.name!r} is disabled.")
            return
        try:
            self._route = _route(self.environ, self.provider, self.path)
        except Refused as refused:
            self._refused = refused
        else:
            interception.route = self._route.path

    def start(self) -> InterceptionStart | None:
        """What is to be recorded before the provider is called; null where that is nothing, because the request will
        be refused or is of a kind that is only passed on."""
        if not self._is_recorded_kind():
            return None
        try:
            body = self.body()
        except Refused as refused:
            self._unreadable = refused
            return None
        self._document = parse_document(body) or {}
        self.interception.model = self._document.get("model")
        return describe(self.environ, self.interception, self._document)

    def wire_format(self, route: Route) -> WireFormat | None:
        """What follows this exchange, its content too where that is recorded; null for what is only passed on."""
        if route.wire_format is None:
            return None
        return route.wire_format(self._document, content=self.interception.recorded)

    def body(self) -> bytes:
        """The request's body, read once."""
        if self._body is None:
            self._body = read_body(self.environ)
        return self._body

    def allowed(self, admission: Admission) -> tuple[Provider, Route]:
        """The provider and the route, for a caller who may use them.

        Raises ``Refused`` where they cannot be had.
        """
        refused = self._refused or self._unreadable
        if refused is not None:
            raise refused
        assert self.provider is not None
        assert self._route is not None
        authorization, model = admission.authorization, self.interception.model
        if authorization is not None and not authorization.scopes.allow(self.name, model):
            raise Refused(
                403,
                f"This API key may not be used for model {model!r} of provider {self.name!r}.",
                ("X-Should-Retry", "false"),
            )
        return self.provider, self._route

    def _is_recorded_kind(self) -> bool:
        refused = self._refused or self._unreadable
        return refused is None and self._route is not None and self._route.wire_format is not None


def _unknown(name: str, known: Known) -> Refused:
    names = ", ".join(sorted(known.providers)) or "none; set AIBRIDGE_PROVIDERS"
    return Refused(404, f"There is no provider named {name[:64]!r}. Configured are: {names}.")


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
