"""The bridge: a WSGI app that stands between its callers and the providers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import unquote

from flask_aibridge.bridge.admission import (
    Host,
    Recorded,
    Recording,
    Unrecorded,
    admit,
    known_at,
    record_late,
)
from flask_aibridge.bridge.answers import Response, failed, refusal, relay
from flask_aibridge.bridge.asked import Asked, is_probe
from flask_aibridge.bridge.caller import cancellation_of, credential_of
from flask_aibridge.bridge.credentials import own_credential
from flask_aibridge.bridge.failover import KeysExhausted, ask, without_secret
from flask_aibridge.bridge.guarding import guarded
from flask_aibridge.bridge.headers import actor_headers, holds_a_key, request_headers, without_body_bound
from flask_aibridge.bridge.intercept.streaming import StreamedBody
from flask_aibridge.bridge.intercept.wire_format import WireFormat
from flask_aibridge.bridge.interception import Interception
from flask_aibridge.bridge.occupancy import Exchange, Occupancy
from flask_aibridge.bridge.options import BridgeOptions
from flask_aibridge.bridge.providers.base import Provider
from flask_aibridge.bridge.providers.circuits import Circuits
from flask_aibridge.bridge.providers.cool_downs import Lane
from flask_aibridge.bridge.providers.directory import Known
from flask_aibridge.bridge.providers.routes import Route
from flask_aibridge.bridge.request import Refused, forwarded_path
from flask_aibridge.bridge.uploads import Uploads
from flask_aibridge.bridge.upstream import Answer, Upstream, UpstreamFailure
from flask_aibridge.config import ProviderSettings
from flask_aibridge.errors import ConfigError, ServiceError
from flask_aibridge.observability.hooks import Hook
from flask_aibridge.observability.logging import LoggingHook
from flask_aibridge.services.interfaces import Admission, MCPConfigurator

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from urllib3 import PoolManager

    from flask_aibridge.bridge.injection.injector import Injector
    from flask_aibridge.bridge.injection.rounds import Rounds

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
        self._options = options or BridgeOptions()
        self._host: Host = (
            Unrecorded(providers, api_keys or {}, self._options.rate_limit)
            if recording is None
            else Recorded(recording)
        )
        self._uploads = Uploads(self._options.max_uploads)
        self._hooks: Sequence[Hook] = (LoggingHook(),) if hooks is None else tuple(hooks)
        self._upstream = Upstream(pool)
        breaker = self._options.circuit_breaker
        self._circuits = None if breaker is None else Circuits(breaker)
        self._occupancy = Occupancy(self._options.max_public, self._options.max_in_process)
        self._injector: Injector | None = None
        if recording is not None and self._options.inject_mcp_tools:
            self._injector = injector_of(recording)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        interception = Interception(self._hooks, environ, credential_of(environ), self._host.record)
        body: Iterable[bytes] = ()
        try:
            status, headers, body = self._respond(environ, interception)
            start_response(
                status, [*headers, (INTERCEPTION_ID, interception.id), *interception.gateway_headers]
            )
        except BaseException:
            if isinstance(body, StreamedBody):
                body.close()
            raise
        finally:
            if interception.exchange is not None and not isinstance(body, StreamedBody):
                interception.exchange.leave()
        # RFC 9110 section 9.3.2: an answer to HEAD has no body, and not every WSGI server sees to that.
        return [] if environ["REQUEST_METHOD"] == "HEAD" and isinstance(body, list) else body

    @property
    def running(self) -> int:
        """How many requests are under way in this process, answers included that are read on for callers who have
        left."""
        return self._occupancy.running

    @property
    def draining(self) -> bool:
        """Whether new requests are refused in this process, since ``drain`` was called."""
        return self._occupancy.draining

    def drain(self, timeout: float) -> bool:
        """Refuse new requests from now on, and wait for those under way. Returns whether all of them ended by
        themselves.

        After ``timeout`` seconds the rest is ended: streams with an error event in the provider's form, requests that
        wait for a provider with 503. A stream whose reader does not read ends with its next step. This concerns the
        process that calls it, and no child that it forks.
        """
        return self._occupancy.drain(timeout)

    def close(self) -> None:
        """Close the idle connections to the providers, and those that are read on for callers who have left. The
        bridge can be used again."""
        self._occupancy.end_detached()
        self._upstream.close()
        if self._injector is not None:
            self._injector.close()

    def _respond(self, environ: WSGIEnvironment, interception: Interception) -> Response:
        if is_probe(environ):
            return _present(interception)
        request = Asked(environ, interception, self._uploads)
        try:
            request.find(self._known_before())
            interception.exchange = self._occupancy.enter(cancellation_of(environ))
            admission = self._admit(request)
            return self._forward(request, admission)
        except KeysExhausted as exhausted:
            return refusal(interception, request.provider, exhausted, "upstream_error", exhausted.error_type)
        except Refused as refused:
            request.discard()
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

    def _admit(self, request: Asked) -> Admission:
        admission = admit(self._host, request.environ, request.interception, request.start)
        request.find(known_at(self._host, admission.config_version))
        if request.missed:
            # A provider that this process had not heard of: once for each change of the configuration.
            record_late(self._host, request.interception, admission, request.start)
        return admission

    def _known_before(self) -> Known:
        """The providers, before the caller is known; none where nobody can say, which is told to who is admitted."""
        try:
            return self._host.providers(None)
        except (ConfigError, ServiceError):
            return Known(None)

    def _forward(self, request: Asked, admission: Admission) -> Response:
        environ, interception = request.environ, request.interception
        provider, route = request.allowed(admission)
        own = own_credential(environ, provider, allowed=self._options.allow_byok)
        request.check_listing(own_account=own is not None)
        if own is None and provider.lacks_key:
            raise _keyless(provider)
        headers = request_headers(environ, interception.presented_key)
        if self._options.actor_headers and route.wire_format is not None:
            headers |= actor_headers(interception.caller.user)
        url = provider.url(forwarded_path(environ, request.path), _query(environ, interception))
        wire_format = request.wire_format(route)
        body = request.body()
        if wire_format is not None:
            body = wire_format.edit_request(body)
        method, cancellation = environ["REQUEST_METHOD"], interception.exchange
        if wire_format is not None and cancellation is not None:
            self._let_outlive(cancellation)
        lane = Lane(route.path, interception.model)

        def asked(body: bytes) -> Answer:
            def send(headers: Mapping[str, str]) -> Answer:
                return self._upstream.send(method, url, headers, body, cancellation)

            if own is not None:
                return without_secret(send({**headers, **own.headers}), own.secret)
            return ask(send, provider, headers, lane, interception)

        rounds = None
        if self._injector is not None and wire_format is not None and method == "POST":
            rounds = self._injector.rounds(
                request.document(), interception, asked, partial(fresh_format, route)
            )
        if rounds is not None:
            body = rounds.weaver.first_request(body)
            headers = without_body_bound(headers)

        def exchange() -> Response:
            answer = asked(body)
            if rounds is not None:
                answer = self._followed(rounds, answer, wire_format, interception)
            try:
                response = relay(answer, wire_format, interception, self._options)
                if isinstance(response[2], StreamedBody):
                    response[2].begin()
                return response
            except BaseException:
                answer.close()
                raise

        if self._circuits is None or wire_format is None:
            return exchange()
        return guarded(self._circuits, provider, lane, interception, exchange, own=own is not None)

    @staticmethod
    def _followed(
        rounds: Rounds, answer: Answer, wire_format: WireFormat | None, interception: Interception
    ) -> Answer:
        try:
            return rounds.follow(answer)
        except (UpstreamFailure, Refused):
            if wire_format is not None:  # nobody else will say what was asked
                for item in wire_format.cut():
                    interception.note(item)
            raise

    def _let_outlive(self, exchange: Exchange) -> None:
        """Have the head waited for after the caller has left: something is to be learned from the answer."""
        if self._options.on_disconnect == "drain" and self._upstream.can_be_stopped:
            exchange.outlives, exchange.grace = True, self._options.drain_seconds


class _KnowingServers(Protocol):
    """What else ``services.recording.Recording`` has, for bridges that inject tools."""

    @property
    def mcp_configurator(self) -> MCPConfigurator: ...


def injector_of(recording: Callable[[], Recording]) -> Injector:
    """What puts the tools of the host's MCP servers into requests."""
    # Here, because few hosts have any.
    from flask_aibridge.bridge.injection.injector import Injector
    from flask_aibridge.bridge.mcp.toolbox import Toolbox

    return Injector(Toolbox(lambda: cast("_KnowingServers", recording()).mcp_configurator))


def fresh_format(route: Route) -> WireFormat:
    """The wire format of a route, for one round of several."""
    assert route.wire_format is not None
    return route.wire_format(None, content=False)


def _present(interception: Interception) -> Response:
    """Say that somebody is here, as everybody may know, and nothing about any provider."""
    interception.route, interception.status = "/", 200
    interception.finish("completed")
    return "200 OK", [("Content-Type", "application/json"), ("Cache-Control", "no-store")], []


def _query(environ: Mapping[str, Any], interception: Interception) -> str:
    query: str = environ.get("QUERY_STRING", "")
    if query and holds_a_key(unquote(query), interception.presented_key):
        # Not left out: whoever writes it there has to learn that it is in every log on the way.
        raise Refused(
            400,
            "The URL has an AI Bridge API key in it. Send it as a bearer token or in X-Api-Key only, and have a new "
            "one made: URLs are logged.",
        )
    return query


def _keyless(provider: Provider) -> Refused:
    return Refused(
        500,
        f"The AI bridge has no key for provider {provider.name!r}: "
        f"set AIBRIDGE_PROVIDERS[{provider.name!r}]['keys'].",
        # The SDKs would ask again and again what only an administrator can change.
        ("X-Should-Retry", "false"),
    )
