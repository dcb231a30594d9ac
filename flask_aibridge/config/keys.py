"""Pure: how every ``AIBRIDGE_…`` key is spelled, its default, and the bounds of its value."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

URL_PREFIX: Final = "AIBRIDGE_URL_PREFIX"
BRIDGE: Final = "AIBRIDGE_BRIDGE"
LICENSE: Final = "AIBRIDGE_LICENSE"
LICENSE_FILE: Final = "AIBRIDGE_LICENSE_FILE"
LICENSE_PUBLIC_KEYS: Final = "AIBRIDGE_LICENSE_PUBLIC_KEYS"
LICENSE_DENY_LISTS: Final = "AIBRIDGE_LICENSE_DENY_LISTS"
LICENSE_STATUS: Final = "AIBRIDGE_LICENSE_STATUS"
PROVIDERS: Final = "AIBRIDGE_PROVIDERS"
API_KEYS: Final = "AIBRIDGE_API_KEYS"
ADMIN_TOKEN: Final = "AIBRIDGE_ADMIN_TOKEN"  # noqa: S105 - the name of a key
REDIS_URL: Final = "AIBRIDGE_REDIS_URL"
REDIS_PREFIX: Final = "AIBRIDGE_REDIS_PREFIX"
RECORDING: Final = "AIBRIDGE_RECORDING"
RECORD_CONTENT: Final = "AIBRIDGE_RECORD_CONTENT"
RETENTION_DAYS: Final = "AIBRIDGE_RETENTION_DAYS"
CONTENT_RETENTION_DAYS: Final = "AIBRIDGE_CONTENT_RETENTION_DAYS"
SPOOL_BYTES: Final = "AIBRIDGE_SPOOL_BYTES"
SECRET_KEY: Final = "AIBRIDGE_SECRET_KEY"  # noqa: S105 - the name of a key
MCP_SERVERS: Final = "AIBRIDGE_MCP_SERVERS"
INJECT_MCP_TOOLS: Final = "AIBRIDGE_INJECT_MCP_TOOLS"
ON_DISCONNECT: Final = "AIBRIDGE_ON_DISCONNECT"
MAX_CONCURRENCY: Final = "AIBRIDGE_MAX_CONCURRENCY"
MAX_IN_PROCESS: Final = "AIBRIDGE_MAX_IN_PROCESS"
ALLOW_BYOK: Final = "AIBRIDGE_ALLOW_BYOK"
ACTOR_HEADERS: Final = "AIBRIDGE_ACTOR_HEADERS"
CIRCUIT_BREAKER: Final = "AIBRIDGE_CIRCUIT_BREAKER"
RATE_LIMIT: Final = "AIBRIDGE_RATE_LIMIT"
MAX_UPLOADS: Final = "AIBRIDGE_MAX_UPLOADS"
DEFAULT_URL_PREFIX: Final = "/api/v2/aibridge"

#: Every key with its default (that of the bridge depends on a constructor argument). A key ``AIBRIDGE_…`` that is not
#: here is warned about.
DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        URL_PREFIX: DEFAULT_URL_PREFIX,
        BRIDGE: None,
        LICENSE: None,
        LICENSE_FILE: None,
        LICENSE_PUBLIC_KEYS: {},
        LICENSE_DENY_LISTS: (),
        LICENSE_STATUS: 403,
        PROVIDERS: None,
        API_KEYS: {},
        ADMIN_TOKEN: None,
        REDIS_URL: None,
        REDIS_PREFIX: "aibridge",
        RECORDING: "required",
        RECORD_CONTENT: True,
        RETENTION_DAYS: 60,
        CONTENT_RETENTION_DAYS: None,
        SPOOL_BYTES: 64 * 1024 * 1024,
        SECRET_KEY: None,
        MCP_SERVERS: {},
        INJECT_MCP_TOOLS: False,
        ON_DISCONNECT: "cancel",
        MAX_CONCURRENCY: 1000,
        MAX_IN_PROCESS: 1000,
        ALLOW_BYOK: False,
        ACTOR_HEADERS: False,
        CIRCUIT_BREAKER: None,
        RATE_LIMIT: None,
        MAX_UPLOADS: 32,
    }
)
KNOWN_KEYS: Final = tuple(DEFAULTS)

#: The value of ``AIBRIDGE_BRIDGE`` that means ``flask_aibridge.bridge``.
BUILT_IN: Final = "built-in"
RECORDING_MODES: Final = ("required", "best-effort", "off")

#: The provider is hung up on when the caller leaves, or read on to its last word.
DISCONNECT_MODES: Final = ("cancel", "drain")

#: Forbidden, and Payment Required: what SDKs take for an answer and do not try again.
LICENSE_STATUSES: Final = (403, 402)

#: Characters of a secret that is typed into a config: a shorter one can be guessed.
MIN_SECRET: Final = 32

#: The smallest spool that is worth having: some hundred records.
MIN_SPOOL_BYTES: Final = 1024 * 1024
MCP_FIELDS: Final = ("url", "tool_allow_regex", "tool_deny_regex")
API_KEY_PREFIX: Final = "aib_"

#: More request bodies than any server has threads for.
MOST_UPLOADS: Final = 100_000

#: The longest retention in days; it keeps dates that are computed from it within the calendar.
MAX_DAYS: Final = 36_500
