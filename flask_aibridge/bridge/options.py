"""Pure: what a host decides about its bridge, beyond providers, keys and records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from flask_aibridge.config import CircuitBreaker

OnDisconnect: TypeAlias = Literal["cancel", "drain"]
"""What becomes of an answer whose caller has left: the provider is hung up on, or its last word is waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeOptions:
    """How a bridge goes about its work.

    :param on_disconnect: what becomes of an answer whose caller has left.
    :param allow_byok: whether callers over HTTP may bring their own provider credentials, with the gateway's key in
        ``X-AIBridge-Token``.
    :param actor_headers: whether providers are told, in ``X-AIBridge-Actor-…`` headers, on whose behalf they are asked.
    :param circuit_breaker: when a provider that keeps failing is left alone; null for never.
    """

    on_disconnect: OnDisconnect = "cancel"
    allow_byok: bool = False
    actor_headers: bool = False
    circuit_breaker: CircuitBreaker | None = None
