"""Who is asking: one of the host application's own agents, or the holder of a key.

What came through the in-process transport carries its ``Cancellation`` under ``flask_aibridge.cancellation``;
an HTTP header can only ever become an ``HTTP_…`` key, so nobody can put it there from outside.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from flask_aibridge.errors import ConfigError

CANCELLATION = "flask_aibridge.cancellation"
SOURCE = "flask_aibridge.source"
KEY_ID = "flask_aibridge.key_id"


class Cancellation(Protocol):
    """What the bridge uses of the transport's ``Cancellation``."""

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have ``callback`` called when the caller gives up; the function returned takes it off again."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who made a request, and by which door. ``source`` and ``key_id`` only ever come from the in-process
    door."""

    in_process: bool
    source: str | None = None
    key_id: str | None = None
    user: str | None = None


class StaticKeys:
    """The keys of the public door, user by user. Only digests are kept: nothing that shows the object shows a
    key."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        for user, key in keys.items():
            if not isinstance(key, str) or not key.strip():
                raise ConfigError(
                    f"The API key of {user!r} is empty: an empty key would admit everybody. Set one."
                )
        self._digests = {user: _digest(key) for user, key in keys.items()}

    def user_of(self, environ: Mapping[str, Any]) -> str | None:
        """Return whose key the request carries, in ``Authorization: Bearer`` or ``X-Api-Key``; null for no
        known key.

        Every key is compared with every credential, in constant time, so the wait tells nothing about the
        keys.
        """
        presented = [_digest(credential) for credential in _credentials(environ)]
        found: str | None = None
        for user, known in self._digests.items():
            for digest in presented:
                if hmac.compare_digest(known, digest):
                    found = user
        return found


def identify(environ: Mapping[str, Any], keys: StaticKeys) -> Caller | None:
    """Return who is asking; null for a request from outside that no known key came with."""
    if CANCELLATION in environ:
        source, key_id = environ.get(SOURCE), environ.get(KEY_ID)
        return Caller(True, source=None if source is None else str(source), key_id=key_id)
    user = keys.user_of(environ)
    return None if user is None else Caller(False, user=user)


def cancellation_of(environ: Mapping[str, Any]) -> Cancellation | None:
    """Return what tells that an in-process caller has given up; null for a request that came over HTTP."""
    return environ.get(CANCELLATION)


def _credentials(environ: Mapping[str, Any]) -> list[str]:
    scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").strip().partition(" ")
    presented = [token.strip()] if scheme.lower() == "bearer" else []
    return [*presented, environ.get("HTTP_X_API_KEY", "").strip()]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.strip().encode("utf-8", "surrogatepass")).digest()
