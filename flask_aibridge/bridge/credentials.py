"""With whose key a provider is asked: the host's, or one that the caller brings (BYOK).

A caller brings one by sending the gateway's key in ``X-AIBridge-Token``: what stands where the provider's SDK puts a
key is then for the provider. Without that header it never is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flask_aibridge.bridge.caller import IN_PROCESS, brings_own, is_gateway_key, token_of
from flask_aibridge.bridge.providers.base import Provider
from flask_aibridge.bridge.providers.cool_downs import Lane
from flask_aibridge.bridge.request import Refused
from flask_aibridge.services.masking import masked
from flask_aibridge.services.records import CredentialKind

_VISIBLE = re.compile(r"[\x21-\x7e]+")
_ENVIRON = {"Authorization": "HTTP_AUTHORIZATION", "X-Api-Key": "HTTP_X_API_KEY"}


@dataclass(frozen=True, slots=True)
class OwnCredential:
    """A credential of the caller's own, as it was sent."""

    headers: Mapping[str, str] = field(repr=False)
    secret: str = field(repr=False)

    @property
    def hint(self) -> str:
        """What may be shown of it."""
        return masked(self.secret)


def own_credential(environ: Mapping[str, Any], provider: Provider, *, allowed: bool) -> OwnCredential | None:
    """Return what the caller brings; null where the provider is to be asked with the host's key, if there is one.

    :param allowed: whether callers over HTTP may. In process it is the host's own code that brings it.
    :raises Refused: where they may not, and for a credential that the provider would not take: one who brings their own
        does not want to use the host's.
    """
    if not brings_own(environ):
        return None
    if not allowed and IN_PROCESS not in environ:
        raise Refused(
            403,
            "Bring Your Own Key (BYOK) mode is not enabled: send the AI Bridge API key as a bearer token or in "
            "X-Api-Key, and no X-AIBridge-Token.",
            ("X-Should-Retry", "false"),
        )
    presented = _presented(environ)
    for name in provider.credential_headers:
        secret = _secret(name, presented.get(name, ""))
        if secret is not None:
            return OwnCredential({name: presented[name]}, secret)
    if not presented and not provider.lacks_key:
        return None
    forms = " or ".join(map(_form, provider.credential_headers))
    raise Refused(
        401,
        f"Provider {provider.name!r} takes a key of your own as {forms}; there is none.",
        # RFC 9110 section 15.5.2 wants one; the name is of lower-case letters, digits and hyphens.
        ("WWW-Authenticate", f'Bearer realm="{provider.name}"'),
    )


def planned(environ: Mapping[str, Any], provider: Provider, lane: Lane) -> tuple[CredentialKind, str | None]:
    """Return whose credential a request will use, and a hint at it, as far as that is known before it goes out."""
    try:
        own = own_credential(environ, provider, allowed=True)
    except Refused:
        return "byok", None
    if own is not None:
        return "byok", own.hint
    key = provider.keys.best(lane)
    return "centralized", None if key is None else key.hint


def _presented(environ: Mapping[str, Any]) -> dict[str, str]:
    """The headers that carry a credential, without those that carry one of the gateway's."""
    found = {name: str(environ.get(key, "")).strip() for name, key in _ENVIRON.items()}
    token = token_of(environ)
    return {
        name: value
        for name, value in found.items()
        if value and not any(word == token or is_gateway_key(word) for word in re.split(r"[\s,]+", value))
    }


def _secret(name: str, value: str) -> str | None:
    """The credential in a header; null for one of another form than the provider takes."""
    if name == "Authorization":
        scheme, _, value = value.partition(" ")
        if scheme.lower() != "bearer":
            return None
    value = value.strip()
    return value if _VISIBLE.fullmatch(value) else None


def _form(name: str) -> str:
    return "'Authorization: Bearer …'" if name == "Authorization" else f"{name!r}"
