"""``Settings``, and how they are read."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flask_aibridge.config import values
from flask_aibridge.config.circuit_breaker import CircuitBreaker, read_circuit_breaker
from flask_aibridge.config.complaints import nearest
from flask_aibridge.config.keys import (
    ACTOR_HEADERS,
    ADMIN_TOKEN,
    ALLOW_BYOK,
    API_KEYS,
    BRIDGE,
    BUILT_IN,
    CIRCUIT_BREAKER,
    CONTENT_RETENTION_DAYS,
    DEFAULT_URL_PREFIX,
    DEFAULTS,
    INJECT_MCP_TOOLS,
    KNOWN_KEYS,
    LICENSE,
    LICENSE_DENY_LISTS,
    LICENSE_FILE,
    LICENSE_PUBLIC_KEYS,
    LICENSE_STATUS,
    MAX_CONCURRENCY,
    MAX_IN_PROCESS,
    MAX_UPLOADS,
    MCP_SERVERS,
    ON_DISCONNECT,
    PROVIDERS,
    RATE_LIMIT,
    RECORD_CONTENT,
    RECORDING,
    REDIS_PREFIX,
    REDIS_URL,
    RETENTION_DAYS,
    SECRET_KEY,
    SPOOL_BYTES,
    URL_PREFIX,
)
from flask_aibridge.config.providers import ProviderSettings, read_providers
from flask_aibridge.config.rate_limits import RateLimit
from flask_aibridge.errors import ConfigWarning


@dataclass(frozen=True)
class Settings:
    """Everything ``AIBRIDGE_*`` says, checked; see the table in the module's docstring.

    :param bridge: :data:`BUILT_IN`, an import string, a WSGI app, or ``None``.
    """

    url_prefix: str = DEFAULT_URL_PREFIX
    bridge: Any = BUILT_IN
    license: str | None = field(default=None, repr=False)
    license_file: str | None = None
    license_public_keys: Mapping[str, str] = field(default_factory=dict)
    license_deny_lists: tuple[str, ...] = field(default=(), repr=False)
    license_status: int = 403
    providers: tuple[ProviderSettings, ...] = ()
    api_keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    admin_token: str | None = field(default=None, repr=False)
    redis_url: str | None = field(default=None, repr=False)
    redis_prefix: str = "aibridge"
    recording: str = "required"
    record_content: bool = True
    retention_days: float = 60
    content_retention_days: float | None = None
    spool_bytes: int = 64 * 1024 * 1024
    secret_keys: tuple[str, ...] = field(default=(), repr=False)
    mcp_servers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    inject_mcp_tools: bool = False
    on_disconnect: Literal["cancel", "drain"] = "cancel"
    max_concurrency: int = 1000
    max_in_process: int = 1000
    allow_byok: bool = False
    actor_headers: bool = False
    circuit_breaker: CircuitBreaker | None = None
    rate_limit: RateLimit | None = None
    max_uploads: int = 32


def read_settings(
    config: MutableMapping[str, Any], env: Mapping[str, str], *, wsgi_app: object = None
) -> Settings:
    """Settings from a Flask config and an environment; writes the defaults of absent keys into ``config``.

    :param env: read for the providers alone, and only if ``AIBRIDGE_PROVIDERS`` is not set.
    :param wsgi_app: the default of ``AIBRIDGE_BRIDGE``.
    :raises ConfigError: for the first key whose value cannot work.
    :warns ConfigWarning: for every key ``AIBRIDGE_…`` that nothing reads.
    """
    warn_of_unknown_keys(config)
    _set_defaults(config, wsgi_app)
    return Settings(
        url_prefix=values.url_prefix(config[URL_PREFIX]),
        bridge=values.bridge(config[BRIDGE], wsgi_app),
        license=values.license_text(config[LICENSE]),
        license_file=values.license_file(config[LICENSE_FILE]),
        license_public_keys=values.public_keys(config[LICENSE_PUBLIC_KEYS]),
        license_deny_lists=values.deny_lists(config[LICENSE_DENY_LISTS]),
        license_status=values.license_status(config[LICENSE_STATUS]),
        providers=read_providers(config[PROVIDERS], env),
        api_keys=values.api_keys(config[API_KEYS]),
        admin_token=values.admin_token(config[ADMIN_TOKEN]),
        redis_url=values.redis_url(config[REDIS_URL]),
        redis_prefix=values.redis_prefix(config[REDIS_PREFIX]),
        recording=values.recording(config[RECORDING]),
        record_content=values.switch(RECORD_CONTENT, config[RECORD_CONTENT]),
        retention_days=values.days(RETENTION_DAYS, config[RETENTION_DAYS]),
        content_retention_days=values.content_days(config[CONTENT_RETENTION_DAYS]),
        spool_bytes=values.spool_bytes(config[SPOOL_BYTES]),
        secret_keys=values.secret_keys(config[SECRET_KEY]),
        mcp_servers=values.mcp_servers(config[MCP_SERVERS]),
        inject_mcp_tools=values.switch(INJECT_MCP_TOOLS, config[INJECT_MCP_TOOLS]),
        on_disconnect=values.on_disconnect(config[ON_DISCONNECT]),
        max_concurrency=values.concurrency(MAX_CONCURRENCY, config[MAX_CONCURRENCY]),
        max_in_process=values.concurrency(MAX_IN_PROCESS, config[MAX_IN_PROCESS]),
        allow_byok=values.switch(ALLOW_BYOK, config[ALLOW_BYOK]),
        actor_headers=values.switch(ACTOR_HEADERS, config[ACTOR_HEADERS]),
        circuit_breaker=read_circuit_breaker(config[CIRCUIT_BREAKER]),
        rate_limit=values.rate_limit(config[RATE_LIMIT]),
        max_uploads=values.max_uploads(config[MAX_UPLOADS]),
    )


def _set_defaults(config: MutableMapping[str, Any], wsgi_app: object) -> None:
    config.setdefault(BRIDGE, BUILT_IN if wsgi_app is None else wsgi_app)
    for key, default in DEFAULTS.items():
        config.setdefault(key, dict(default) if isinstance(default, dict) else default)


def warn_of_unknown_keys(config: Mapping[str, Any]) -> None:
    for key in config:
        if key.startswith("AIBRIDGE_") and key not in KNOWN_KEYS:
            message = f"{key} is not a configuration key of Flask-AIBridge and has no effect."
            warnings.warn(message + nearest(key, KNOWN_KEYS), ConfigWarning, stacklevel=_level_outside())


def _level_outside() -> int:
    """The ``stacklevel``, for the caller, of the line outside this package that initialises the extension."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("flask_aibridge."):
        frame, level = frame.f_back, level + 1
    return level
