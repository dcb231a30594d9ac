"""``AIBRIDGE_*`` keys → frozen :class:`Settings`. The only place where a key is spelled.

The keys are read once, by ``AIBridge.init_app``; later changes to ``app.config`` have no effect. A key that
is absent is written into the config with its default (``setdefault``), so ``app.config`` shows what is in
force.

``AIBRIDGE_URL_PREFIX``
    Where the public door is; default ``"/api/v2/aibridge"``.
``AIBRIDGE_BRIDGE``
    What is mounted: ``"built-in"`` (default), a WSGI app, an import string ``"package.module:attribute"``, or
    ``None`` for nothing. The ``wsgi_app`` argument of ``AIBridge`` is this key's default, and stands in for
    ``None``.
``AIBRIDGE_LICENSE``
    The licence, a compact JWT; wins over ``AIBRIDGE_LICENSE_FILE``.
``AIBRIDGE_LICENSE_FILE``
    A file with the licence; a relative path starts at ``app.root_path``.
``AIBRIDGE_LICENSE_PUBLIC_KEYS``
    ``{kid: key}``: Ed25519 public keys, in PEM or as base64 of their 32 bytes.
``AIBRIDGE_LICENSE_DENY_LISTS``
    Signed lists of revoked licences, compact JWTs, as the vendor publishes them.
``AIBRIDGE_LICENSE_STATUS``
    The status of the public door's answer without a licence: 403 (default), or 402.
``AIBRIDGE_PROVIDERS``
    ``{name: {"type": "anthropic" or "openai", "base_url": "https://…", "keys": ["…"]}}``, with the provider's
    own base URL and no keys as defaults. A base URL is written as for the provider's own SDK: with ``/v1`` at
    the end for ``openai``, without for ``anthropic``. Unset or ``None``: one provider for each of
    ``ANTHROPIC_API_KEY`` or ``ANTHROPIC_BASE_URL``, and ``OPENAI_API_KEY`` or ``OPENAI_BASE_URL``, in the
    environment.
``AIBRIDGE_API_KEYS``
    ``{user: "aib_<id>_<secret>"}``: who may use the built-in bridge by the public door.
``AIBRIDGE_ADMIN_TOKEN``
    A bearer token for the management routes, 32 characters or more; ``None`` (default) for none.
``AIBRIDGE_REDIS_URL``
    Where records and keys are kept: ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://host:port,…/service``,
    ``redis+cluster://host:port,…``, or ``memory://`` for tests. ``None`` (default): the embedded Valkey, under the
    app's instance folder.
``AIBRIDGE_REDIS_PREFIX``
    What every key in Redis begins with; default ``"aibridge"``.
``AIBRIDGE_RECORDING``
    ``"required"`` (default): no request goes on that cannot be recorded. ``"best-effort"``: it does, and what is lost
    is counted. ``"off"``: nothing is recorded, and no store is needed.
``AIBRIDGE_RECORD_CONTENT``
    Whether prompts, tool calls, thoughts and what providers say about an error in their own words are recorded; default
    ``True``. Tokens, and the kind of an error, always are.
``AIBRIDGE_RETENTION_DAYS``
    How long records are kept; default 60, 0 for ever.
``AIBRIDGE_CONTENT_RETENTION_DAYS``
    How long content is kept; default ``None``: as long as the rest.
``AIBRIDGE_SPOOL_BYTES``
    How large the file may grow that each process keeps records in while Redis is away; default 64 MiB.
``AIBRIDGE_SECRET_KEY``
    What stored provider keys and access tokens are encrypted with: a str of 32 characters or more, or a list of them,
    the newest first. Without it providers come from the config alone.
``AIBRIDGE_MCP_SERVERS``
    ``{id: {"url": "https://…", "tool_allow_regex": "…", "tool_deny_regex": "…"}}``, with no patterns as default.
``AIBRIDGE_INJECT_MCP_TOOLS``
    Whether the built-in bridge puts the tools of those servers into requests, and runs what the model calls of them;
    default ``False``.
``AIBRIDGE_ON_DISCONNECT``
    What becomes of an answer whose caller has left: ``"cancel"`` (default) hangs up on the provider at once,
    ``"drain"`` reads on to the final token counts, for at most 30 seconds, and for 32 answers of a process at a time.
``AIBRIDGE_MAX_CONCURRENCY``
    Requests by the public door that the built-in bridge has under way in one process; default 1000, as many connections
    as a worker of gunicorn takes. More are answered 503, with ``Retry-After``.
``AIBRIDGE_MAX_IN_PROCESS``
    The same for the application's own agents; default 1000, as many calls as the in-process transport runs at once.
``AIBRIDGE_ALLOW_BYOK``
    Whether callers over HTTP may bring provider credentials of their own, with the gateway's key in
    ``X-AIBridge-Token``; default ``False``.
``AIBRIDGE_ACTOR_HEADERS``
    Whether providers are told on whose behalf they are asked, in ``X-AIBridge-Actor-ID`` and
    ``X-AIBridge-Actor-Metadata-Username``; default ``False``.
``AIBRIDGE_CIRCUIT_BREAKER``
    ``None`` (default) for none, or ``{"failure_threshold": 5, "interval": 10, "timeout": 30, "max_requests": 3}``, with
    these as defaults: after so many failures in a row within an interval, a model is not asked at an endpoint of a
    provider for the seconds of the time-out, and then for so many requests, all of which have to succeed.
``AIBRIDGE_RATE_LIMIT``
    How many requests each API key may make by the public door: ``"60/minute"``, or ``"60/minute burst=20"`` where fewer
    may come at once; the periods are ``second``, ``minute``, ``hour`` and ``day``. ``None`` (default): as many as it
    likes. A key may have a limit of its own, which takes the place of this one.
``AIBRIDGE_MAX_UPLOADS``
    How many request bodies a process receives at once by the public door; default 32. Half as many threads as the
    server has keep the others free of slow uploads.
"""

from __future__ import annotations

from flask_aibridge.config.circuit_breaker import CircuitBreaker
from flask_aibridge.config.keys import (
    BRIDGE,
    BUILT_IN,
    INJECT_MCP_TOOLS,
    KNOWN_KEYS,
    LICENSE_FILE,
    MCP_SERVERS,
    MIN_SECRET,
    PROVIDERS,
    RECORDING,
    REDIS_URL,
    SECRET_KEY,
)
from flask_aibridge.config.providers import DEFAULT_BASE_URLS, ProviderSettings, check_provider
from flask_aibridge.config.rate_limits import RateLimit, parse_rate_limit
from flask_aibridge.config.settings import Settings, read_settings

__all__ = [
    "BRIDGE",
    "BUILT_IN",
    "DEFAULT_BASE_URLS",
    "INJECT_MCP_TOOLS",
    "KNOWN_KEYS",
    "LICENSE_FILE",
    "MCP_SERVERS",
    "MIN_SECRET",
    "PROVIDERS",
    "RECORDING",
    "REDIS_URL",
    "SECRET_KEY",
    "CircuitBreaker",
    "ProviderSettings",
    "RateLimit",
    "Settings",
    "check_provider",
    "parse_rate_limit",
    "read_settings",
]
