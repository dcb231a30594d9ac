"""Whether a request may go on: who asks, whether that is recorded, and which providers there are now."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

from flask_aibridge.bridge.caller import IN_PROCESS, source_of
from flask_aibridge.bridge.client import client_of, session_of
from flask_aibridge.bridge.credentials import planned
from flask_aibridge.bridge.headers import holds_a_key
from flask_aibridge.bridge.interception import Interception
from flask_aibridge.bridge.lineage import correlating_tool_call
from flask_aibridge.bridge.providers.base import Provider
from flask_aibridge.bridge.providers.cool_downs import Lane
from flask_aibridge.bridge.providers.directory import FixedProviders, Known, ProviderDirectory
from flask_aibridge.bridge.rate_limiting import rate_limit_headers, too_many_requests
from flask_aibridge.bridge.request import Refused
from flask_aibridge.config import ProviderSettings, RateLimit
from flask_aibridge.errors import (
    ConfigError,
    NotRecorded,
    RateLimited,
    ServiceError,
    ServicesUnavailable,
    Unauthorized,
)
from flask_aibridge.lingering import awaits_body
from flask_aibridge.services.authorizer import StaticKeys
from flask_aibridge.services.interfaces import Admission, Credential, ProviderConfigurator
from flask_aibridge.services.local_rate_limits import LocalRateLimits
from flask_aibridge.services.records import APPLICATION, InterceptionStart, Record

logger = logging.getLogger("flask_aibridge.bridge")

_CHALLENGE = ("WWW-Authenticate", 'Bearer realm="aibridge"')


class Recording(Protocol):
    """What the bridge needs of ``services.recording.Recording``."""

    @property
    def worker(self) -> str: ...

    @property
    def provider_configurator(self) -> ProviderConfigurator: ...

    def check(self, credential: Credential) -> None: ...

    def admit(self, start: InterceptionStart | None, credential: Credential | None) -> Admission: ...

    def record(self, record: Record) -> None: ...


class Host(Protocol):
    """What stands behind a bridge: services, or nothing but what it was made with."""

    @property
    def worker(self) -> str:
        """The name of this process in what is recorded."""

    def check(self, credential: Credential) -> None:
        """Refuse a credential that would not be admitted, as far as that can be said cheaply."""

    def admit(self, start: InterceptionStart | None, credential: Credential | None) -> Admission:
        """Authorise, count the request, and record the start."""

    def record(self, record: Record) -> None:
        """Record more of an interception that was started."""

    def providers(self, version: int | None) -> Known:
        """The providers, at a version of the configuration or later."""


class Unrecorded:
    """A bridge with keys and providers of its own, and no services: it keeps no records."""

    def __init__(
        self,
        providers: Iterable[ProviderSettings],
        api_keys: Mapping[str, str],
        rate_limit: RateLimit | None = None,
    ) -> None:
        self._providers = FixedProviders(providers)
        self._keys = StaticKeys(api_keys)
        self._rate_limits = LocalRateLimits(rate_limit)

    @property
    def worker(self) -> str:
        """None is needed."""
        return ""

    def check(self, credential: Credential) -> None:
        """Whether it is anybody's key."""
        if self._keys.find(credential) is None and credential.key is not None:
            raise Unauthorized("unknown")

    def admit(self, start: InterceptionStart | None, credential: Credential | None) -> Admission:
        """Whose key it is. An id that no key here has is taken as it is given: nobody else could say."""
        if credential is None:
            return Admission(None)
        authorization = self._keys.find(credential)
        if authorization is None and credential.key is not None:
            raise Unauthorized("unknown")
        return Admission(authorization, rate=self._rate_limits.count(credential, authorization))

    def record(self, record: Record) -> None:
        """Nothing."""

    def providers(self, version: int | None) -> Known:
        """The same ones always."""
        return self._providers.at(version)


class Recorded:
    """A bridge whose host has services. They are opened with the first request.

    Opening raises ``ConfigError`` where there is no store to open.
    """

    def __init__(self, opened: Callable[[], Recording]) -> None:
        self._opened = opened
        self._directory: tuple[Recording, ProviderDirectory] | None = None

    @property
    def worker(self) -> str:
        """That of the recording's lease."""
        return self._opened().worker

    def check(self, credential: Credential) -> None:
        """By the services, where they have not accepted it lately."""
        self._opened().check(credential)

    def admit(self, start: InterceptionStart | None, credential: Credential | None) -> Admission:
        """By the services, in one round trip."""
        return self._opened().admit(start, credential)

    def record(self, record: Record) -> None:
        """By the services, later."""
        self._opened().record(record)

    def providers(self, version: int | None) -> Known:
        """What the services say."""
        recording = self._opened()
        directory = self._directory
        if directory is None or directory[0] is not recording:
            directory = self._directory = (recording, ProviderDirectory(recording.provider_configurator))
        return directory[1].at(version)


Start: TypeAlias = InterceptionStart | None


def admit(
    host: Host, environ: Mapping[str, Any], interception: Interception, start: Callable[[str], Start]
) -> Admission:
    """Have the host authorise the caller, and record the interception that ``start`` describes, if it is one.

    Without any credential nothing is asked of anybody. ``start``, which is told how the host names this process and may
    receive the request's body, is called for callers alone that are known, by now or from before. Raises ``Refused``.
    """
    credential = interception.credential
    try:
        if IN_PROCESS not in environ:
            _check(host, environ, credential)
        started = start(host.worker)
        admission = host.admit(started, credential)
    except Unauthorized as error:
        raise _unauthorized(interception, error) from None
    except RateLimited as error:
        raise too_many_requests(error) from None
    except (ConfigError, ServiceError) as error:
        raise _cannot(error) from error
    if admission.rate is not None:
        interception.gateway_headers = rate_limit_headers(admission.rate)
    interception.admitted(admission.authorization, recorded=started is not None)
    return admission


def record_late(
    host: Host, interception: Interception, admission: Admission, start: Callable[[str], Start]
) -> None:
    """Record the start of a request whose caller was admitted before it was known what it is.

    Nobody is asked for a credential, so nothing is counted again. Raises ``Refused``.
    """
    started, authorization = start(host.worker), admission.authorization
    if started is None:
        return
    if authorization is not None:
        started = replace(started, initiator=authorization.user, key_id=authorization.key_id)
    try:
        host.admit(started, None)
    except (ConfigError, ServiceError) as error:
        raise _cannot(error) from error
    interception.recorded = True


def _check(host: Host, environ: Mapping[str, Any], credential: Credential | None) -> None:
    """Refuse a caller from outside whose body is not to be received."""
    if credential is None:
        raise Unauthorized("missing")
    if awaits_body(environ):
        host.check(credential)


def known_at(host: Host, version: int) -> Known:
    """The providers, for a caller who is admitted. Raises ``Refused`` where nobody can say which there are."""
    try:
        return host.providers(version)
    except (ConfigError, ServiceError) as error:
        raise _cannot(error) from error


def describe(
    environ: Mapping[str, Any],
    interception: Interception,
    document: Mapping[str, Any],
    provider: Provider,
    worker: str,
) -> InterceptionStart:
    """The start of an interception whose route and model are known; ``document`` is the request's body."""
    kind, hint = planned(environ, provider, Lane(interception.route, interception.model))
    interception.planned_hint = interception.key_hint = hint
    agent, session = environ.get("HTTP_USER_AGENT", ""), session_of(environ, document)
    key = interception.presented_key
    return InterceptionStart(
        id=interception.id,
        initiator=APPLICATION if IN_PROCESS in environ else None,
        provider=interception.provider,
        provider_type=interception.provider_type,
        route=interception.route,
        model=interception.model,
        client=client_of(environ),
        correlating_tool_call_id=correlating_tool_call(document),
        session_id=None if session and holds_a_key(session, key) else session,
        user_agent=None if holds_a_key(agent, key) else agent[:MAX_USER_AGENT] or None,
        source=source_of(environ),
        in_process=IN_PROCESS in environ,
        credential_kind=kind,
        credential_hint=hint,
        worker=worker,
        started_at=interception.started_at,
    )


MAX_USER_AGENT = 200
"""Characters of a User-Agent that are recorded; those of real clients have fewer than 150."""


def _unauthorized(interception: Interception, error: Unauthorized) -> Refused:
    # One answer to the outside, whatever was wrong with the credential; the log has the reason.
    logger.info("interception %s: unauthorized, %s", interception.id, error.reason)
    return Refused(
        401,
        "This needs a valid AI Bridge API key, as a bearer token or in X-Api-Key.",
        _CHALLENGE,
        error=f"unauthorized: {error.reason}",
    )


def _cannot(error: Exception) -> Refused:
    """The refusal for services that cannot be had, or do not take the record."""
    if isinstance(error, ServicesUnavailable):
        return _later("The AI bridge cannot reach its services now; try again.", error.retry_after, error)
    if isinstance(error, NotRecorded) and error.retry_after is not None:
        return _later("The AI bridge cannot record requests now; try again.", error.retry_after, error)
    if isinstance(error, NotRecorded):
        return Refused(500, "The AI bridge failed to record the interception.", error=str(error))
    # What only an administrator can change: the SDKs would ask again and again.
    return Refused(
        500,
        "The AI bridge is not set up to record requests; its log says what is missing.",
        ("X-Should-Retry", "false"),
        error=str(error),
    )


def _later(message: str, seconds: float, error: Exception) -> Refused:
    return Refused(503, message, ("Retry-After", str(max(1, round(seconds)))), error=str(error))
