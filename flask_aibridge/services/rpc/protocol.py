"""Pure: what client and server of the services' RPC agree on: calls, versions, deadlines, errors, bounds.

A call is ``POST <base URL>/<service>/<method>`` with a JSON object of arguments, and is answered with ``{"result": …}``
or ``{"error": …}``; messages have the form of ``schemas``. A watch is answered with a line of JSON for each version,
and an empty object every few seconds in between, so that both sides notice when the other is gone.

Every request carries the client's version and every answer the server's. The version rises by a minor number with each
new call or argument, by a major one where something old is understood no more. A server serves the clients of its own
major version that are not newer than itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

from flask_aibridge.config import parse_rate_limit
from flask_aibridge.errors import (
    InvalidRecord,
    KeyNotChecked,
    NotRecorded,
    ProtocolMismatch,
    RateLimited,
    ServiceError,
    ServicesUnavailable,
    Unauthorized,
    UnauthorizedReason,
)

VERSION: Final = (1, 0)
"""Of the protocol: major, minor."""

VERSION_HEADER: Final = "AIBridge-RPC-Version"
TIMEOUT_HEADER: Final = "AIBridge-RPC-Timeout"
"""What is left of the call's deadline when it is sent, in seconds. Not a time of day: clocks of two hosts differ."""

JSON: Final = "application/json"
JSON_LINES: Final = "application/x-ndjson"

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""Of a request or an answer: room for two records of the largest content in its longest spelling, so that one always
fits."""

MAX_RECORDS: Final = 10_000
"""Records of one call: each costs the store a few commands, and one call must not keep it busy."""

MAX_LINE_BYTES: Final = 64 * 1024
"""Of a line of a watch: it is a number, or an error with one sentence."""

MAX_WATCHES: Final = 64
"""Watches of one server, each of which keeps two threads: more than a host has bridges."""

KEEP_ALIVE_SECONDS: Final = 5.0
"""Between two lines of a watch where nothing changes."""

SILENCE_SECONDS: Final = 3 * KEEP_ALIVE_SECONDS
"""After which a client takes it that the server of a watch is gone: two lines may be lost or late."""

MAX_RETRY_AFTER: Final = 3600.0
"""The longest wait that an error of the other side may ask for, in seconds."""

MAX_WAIT: Final = 10 * 86400.0
"""The longest wait under a rate limit, in seconds: that of one a day, where the clock was turned back for long."""

_MAX_SENTENCE: Final = 2048
"""Characters of an error's message, as it travels."""

_is_version = re.compile(r"(\d{1,4})\.(\d{1,4})", re.ASCII).fullmatch
_is_timeout = re.compile(r"\d{1,6}(?:\.\d{1,6})?", re.ASCII).fullmatch
_REASONS: Final = frozenset(get_args(UnauthorizedReason))


@dataclass(frozen=True, slots=True)
class Call:
    """One call: ``timeout`` in seconds is its deadline, for a watch what connecting may take. A call that is
    idempotent is sent once more where the connection failed before anything was sent."""

    service: str
    method: str
    timeout: float
    idempotent: bool

    @property
    def name(self) -> str:
        """For logs, errors and ``timeouts``."""
        return f"{self.service}.{self.method}"

    @property
    def path(self) -> str:
        """The path below the base URL."""
        return f"/{self.service}/{self.method}"


ADMIT: Final = Call("services", "admit", 1.0, idempotent=True)
RECORD: Final = Call("recorder", "record", 5.0, idempotent=True)
RENEW: Final = Call("recorder", "renew", 1.0, idempotent=True)
MAINTAIN: Final = Call("recorder", "maintain", 5.0, idempotent=False)
AUTHORIZE: Final = Call("authorizer", "authorize", 1.0, idempotent=True)
MCP_SERVERS: Final = Call("mcp_configurator", "mcp_servers", 1.0, idempotent=True)
MCP_ACCESS_TOKENS: Final = Call("mcp_configurator", "mcp_access_tokens", 10.0, idempotent=False)
PROVIDERS: Final = Call("provider_configurator", "providers", 1.0, idempotent=True)
WATCH_PROVIDERS: Final = Call("provider_configurator", "watch_providers", 5.0, idempotent=True)

CALLS: Final[Mapping[str, Call]] = {
    call.name: call
    for call in (
        ADMIT,
        RECORD,
        RENEW,
        MAINTAIN,
        AUTHORIZE,
        MCP_SERVERS,
        MCP_ACCESS_TOKENS,
        PROVIDERS,
        WATCH_PROVIDERS,
    )
}
"""Every call by name. On a request's path the deadline is a second. Off it, a batch of records or upkeep may take a
few, and tokens may have to be fetched from other hosts. Not idempotent are the call that may renew tokens, which some
servers let be done only once, and upkeep, which comes again by itself."""


def version_text(version: tuple[int, int] = VERSION) -> str:
    """A version as it travels: ``1.0``."""
    return f"{version[0]}.{version[1]}"


def parse_version(text: str | None) -> tuple[int, int] | None:
    """The version of a header, or null where it is none."""
    match = _is_version(text or "")
    return (int(match[1]), int(match[2])) if match else None


def check_versions(client: tuple[int, int] | None, server: tuple[int, int] | None) -> None:
    """Return where the two may speak: majors equal, the client's minor not newer.

    :raises ProtocolMismatch: saying which side has to be upgraded.
    """
    if client is not None and server is not None and client[0] == server[0] and client[1] <= server[1]:
        return
    if client is None or server is None:
        remedy = f"Only requests and answers of this RPC carry its version, in the header {VERSION_HEADER}"
    elif client < server:
        remedy = "Upgrade Flask-AIBridge at the client, the bridge, to the server's version"
    else:
        remedy = "Upgrade Flask-AIBridge at the server, the host, to the client's version or a newer one"
    spoken = [version_text(version) if version else "no known version" for version in (client, server)]
    raise ProtocolMismatch(
        f"The client speaks version {spoken[0]} of the services' RPC and the server {spoken[1]}. {remedy}."
    )


def timeout_text(seconds: float) -> str:
    """A timeout as it travels."""
    return f"{max(seconds, 0.0):.6f}"


def parse_timeout(text: str | None, call: Call) -> float:
    """The seconds of a header; the call's own where there is none.

    :raises InvalidRecord: for what is no number of seconds.
    """
    if text is None:
        return call.timeout
    if not _is_timeout(text):
        raise InvalidRecord(f"{TIMEOUT_HEADER} is not a number of seconds such as 0.5.")
    return float(text)


def error_document(error: ServiceError) -> dict[str, Any]:
    """An error as it travels: its class and what the class keeps."""
    if isinstance(error, Unauthorized):
        return {"class": "Unauthorized", "reason": error.reason}
    if isinstance(error, RateLimited):
        return {
            "class": "RateLimited",
            "retry_after": _bounded(error.retry_after, MAX_WAIT),
            "limit": error.limit,
        }
    document: dict[str, Any] = {"class": _class_of(error), "message": str(error)[:_MAX_SENTENCE]}
    retry_after = getattr(error, "retry_after", None)
    if isinstance(error, (ServicesUnavailable, NotRecorded)) and retry_after is not None:
        document["retry_after"] = _bounded(retry_after)
    if isinstance(error, ServicesUnavailable) and error.not_asked:
        document["not_asked"] = True
    return document


def error_from(document: Any) -> ServiceError:
    """The error that the other side raised. What it does not say in a known form is a ``ServiceError``."""
    if not isinstance(document, dict):
        return ServiceError("The services failed and did not say why; see the server's log.")
    if document.get("class") == "Unauthorized":
        reason = document.get("reason")
        return Unauthorized(reason if isinstance(reason, str) and reason in _REASONS else "unknown")  # type: ignore[arg-type]  # checked
    if document.get("class") == "RateLimited":
        return _rate_limited(document.get("retry_after"), document.get("limit"))
    message = document.get("message")
    sentence = message[:_MAX_SENTENCE] if isinstance(message, str) else "The services did not say why."
    not_asked = document.get("not_asked") is True
    return _made(document.get("class"), sentence, document.get("retry_after"), not_asked)


def _made(name: Any, sentence: str, retry_after: Any, not_asked: bool) -> ServiceError:
    if name in ("ServicesUnavailable", "KeyNotChecked"):
        unavailable = KeyNotChecked if name == "KeyNotChecked" else ServicesUnavailable
        return unavailable(sentence, 1.0 if retry_after is None else _bounded(retry_after), not_asked)
    if name == "NotRecorded":
        return NotRecorded(sentence, None if retry_after is None else _bounded(retry_after))
    if name == "InvalidRecord":
        return InvalidRecord(sentence)
    if name == "ProtocolMismatch":
        return ProtocolMismatch(sentence)
    return ServiceError(sentence)


def _rate_limited(retry_after: Any, limit: Any) -> ServiceError:
    try:
        return RateLimited(_bounded(retry_after, MAX_WAIT), str(parse_rate_limit(limit)))
    except (AttributeError, TypeError, ValueError):
        return ServiceError("A rate limit is reached, which the services did not say in a known form.")


def _class_of(error: ServiceError) -> str:
    """The name of the nearest class that the other side knows too; a host may have classes of its own below them."""
    known = (KeyNotChecked, ServicesUnavailable, NotRecorded, InvalidRecord, ProtocolMismatch)
    return next((cls.__name__ for cls in known if isinstance(error, cls)), "ServiceError")


def _bounded(seconds: Any, most: float = MAX_RETRY_AFTER) -> float:
    """Seconds that can be waited; 1 for what is no number."""
    if not isinstance(seconds, (int, float)) or math.isnan(seconds):
        return 1.0
    return float(min(max(seconds, 0), most))


def batches(
    texts: Iterable[str], limit: int = MAX_BODY_BYTES - 64, count: int = MAX_RECORDS
) -> Iterator[str]:
    """JSON lists of the texts, in order, as few as there can be of at most ``limit`` bytes and ``count`` texts.

    What is kept back of a body is for the name of the list.
    """
    batch: list[str] = []
    size = 2
    for text in texts:
        added = len(text.encode()) + 1
        if batch and (size + added > limit or len(batch) == count):
            yield f"[{','.join(batch)}]"
            batch, size = [], 2
        batch.append(text)
        size += added
    if batch:
        yield f"[{','.join(batch)}]"
