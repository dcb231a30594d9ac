"""Pure: what a host decides about its bridge, beyond providers, keys and records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from flask_aibridge.config import CircuitBreaker, RateLimit

OnDisconnect: TypeAlias = Literal["cancel", "drain"]
"""What becomes of an answer whose caller has left: the provider is hung up on, or its last word is waited for."""


PING_SECONDS: Final = 10.0
"""Seconds of silence after which a stream is pinged. Proxies give up on silent connections after 30 to 100 seconds,
and it is how soon a caller who has left is missed."""

MAX_CONCURRENCY: Final = 1000
"""Requests under way in one process, of each door. It is as many connections as a worker of gunicorn takes
(``worker_connections``), and as many calls as the in-process transport runs at once, so whoever wants more has said so
elsewhere too. Each stream holds two descriptors and, but for gevent, a thread."""

DRAIN_SECONDS: Final = 30.0
"""Seconds that an answer is read on after its caller has left. Most are over by then; what is not may go on for
minutes, at the host's cost, and nobody will read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeOptions:
    """How a bridge goes about its work.

    :param on_disconnect: what becomes of an answer whose caller has left.
    :param allow_byok: whether callers over HTTP may bring their own provider credentials, with the gateway's key in
        ``X-AIBridge-Token``.
    :param rate_limit: of each key from outside, null for none, where the bridge keeps no records; else its services
        know.
    :param inject_mcp_tools: whether the tools of the host's MCP servers are put into requests, and run.
    :param max_uploads: how many request bodies are received at once from outside.
    :param actor_headers: whether providers are told, in ``X-AIBridge-Actor-…`` headers, on whose behalf they are asked.
    :param circuit_breaker: when a provider that keeps failing is left alone; null for never.
    :param max_public: requests by the public door that may be under way in one process; more are refused with 503.
    :param max_in_process: the same for callers in process.
    :param ping_seconds: seconds of silence after which a followed stream is pinged.
    :param drain_seconds: seconds that an answer is read on at most when ``on_disconnect`` is ``"drain"``.
    """

    on_disconnect: OnDisconnect = "cancel"
    allow_byok: bool = False
    actor_headers: bool = False
    circuit_breaker: CircuitBreaker | None = None
    max_public: int = MAX_CONCURRENCY
    max_in_process: int = MAX_CONCURRENCY
    ping_seconds: float = PING_SECONDS
    drain_seconds: float = DRAIN_SECONDS
    rate_limit: RateLimit | None = None
    max_uploads: int = 32
    inject_mcp_tools: bool = False
