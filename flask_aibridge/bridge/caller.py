"""Who is asking: one of the host application's own agents, or the holder of a key.

What came through the in-process transport carries its ``Cancellation`` under ``flask_aibridge.cancellation``;
an HTTP header can only ever become an ``HTTP_…`` key, so nobody can put it there from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from flask_aibridge.services.interfaces import Credential

CANCELLATION: Final = "flask_aibridge.cancellation"
SOURCE: Final = "flask_aibridge.source"
KEY_ID: Final = "flask_aibridge.key_id"

IN_PROCESS: Final = CANCELLATION
"""The environ key whose presence means: this call came through the in-process door."""

_KEY_PREFIX = "aib_"
_TOKEN = "HTTP_X_AIBRIDGE_TOKEN"  # noqa: S105 - the name of a header


class Cancellation(Protocol):
    """What the bridge uses of the transport's ``Cancellation``."""

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have ``callback`` called when the caller gives up; the function returned takes it off again."""


class Caller(NamedTuple):
    """Who made a request, and by which door. ``source`` only ever comes from the in-process door."""

    in_process: bool
    source: str | None = None
    key_id: str | None = None
    user: str | None = None


def credential_of(environ: Mapping[str, Any]) -> Credential | None:
    """Return by what the caller is to be known; null where there is nothing.

    In process it is the key id alone: what the headers carry there is an SDK's own. From outside it is the key in
    ``X-AIBridge-Token``; where that is not sent, and only then, the one in ``Authorization: Bearer`` or ``X-Api-Key``,
    and of both the one that is a key of this gateway.
    """
    if IN_PROCESS in environ:
        key_id = environ.get(KEY_ID)
        return Credential(key_id=str(key_id)) if key_id else None
    token = token_of(environ)
    if token:
        return Credential(key=token)
    presented = [key for key in _presented(environ) if key]
    ours = [key for key in presented if is_gateway_key(key)]
    return Credential(key=(ours or presented)[0]) if presented else None


def token_of(environ: Mapping[str, Any]) -> str:
    """Return what ``X-AIBridge-Token`` says; empty where it says nothing."""
    return str(environ.get(_TOKEN, "")).strip()


def brings_own(environ: Mapping[str, Any]) -> bool:
    """Tell whether the caller's other credentials are for the provider, not for the gateway.

    In process the header only says so, whatever its value: an SDK sends a key there whether it has a real one or not.
    """
    return bool(token_of(environ))


def is_gateway_key(text: str) -> bool:
    """Tell whether this looks like a key of this gateway."""
    return text.startswith(_KEY_PREFIX)


def source_of(environ: Mapping[str, Any]) -> str | None:
    """Return the call site that an in-process caller named; null for what came over HTTP."""
    source = environ.get(SOURCE) if IN_PROCESS in environ else None
    return None if source is None else str(source)


def key_id_of(credential: Credential | None) -> str | None:
    """Return the id in a credential, without asking whether it is anybody's; null where it has none."""
    if credential is None or credential.key is None:
        return None if credential is None else credential.key_id
    prefix, _, rest = credential.key.partition("_")
    key_id, _, secret = rest.partition("_")
    return key_id if f"{prefix}_" == _KEY_PREFIX and secret else None


def cancellation_of(environ: Mapping[str, Any]) -> Cancellation | None:
    """Return what tells that an in-process caller has given up; null for a request that came over HTTP."""
    return environ.get(CANCELLATION)


def _presented(environ: Mapping[str, Any]) -> list[str]:
    scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").strip().partition(" ")
    bearer = [token.strip()] if scheme.lower() == "bearer" else []
    return [*bearer, environ.get("HTTP_X_API_KEY", "").strip()]
