"""Pure: which headers pass the bridge, in either direction.

Everything passes that is not known to be meant for one hop (RFC 9110 section 7.6.1), to be a credential of
the caller, or to be about the connection that the bridge itself makes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    }
)

CREDENTIALS = frozenset(
    {
        "authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "x-auth-token",
        "x-amz-security-token",
        "x-csrf-token",
        "x-csrftoken",
        "x-xsrf-token",
        "x-goog-iap-jwt-assertion",
        "cookie",
        "cookie2",
    }
)
"""Headers that may hold a secret of the caller: the provider gets the host's key and nothing else."""

_CREDENTIAL_FAMILIES = ("cf-access-", "x-amzn-oidc-", "x-auth-request-", "x-ms-client-", "x-ms-token-")
"""How the headers begin in which the proxies that sign users in (Cloudflare Access, AWS load balancers,
oauth2-proxy, Azure App Service) tell the application who they are, tokens included."""

_OVERRIDES = frozenset(
    {
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
        "proxy",
    }
)
"""Headers that some servers obey in place of the method or the path, which the bridge has compared with what
it allows."""

_ABOUT_THE_CALLER = frozenset({"forwarded", "via", "x-real-ip", "true-client-ip", "cf-connecting-ip"})
_OWN_OF_A_REQUEST = frozenset(
    {"host", "content-length", "content-type", "content-encoding", "expect", "accept-encoding"}
)
"""Bodies go on without the codings that they came in (``content_coding``)."""

_OWN_OF_A_RESPONSE = frozenset(
    {"set-cookie", "set-cookie2", "strict-transport-security", "alt-svc", "date", "server", "status"}
    | {"location", "content-location", "refresh"}
    | {"clear-site-data", "nel", "report-to", "reporting-endpoints", "service-worker-allowed"}
    | {"x-sendfile", "x-lighttpd-send-file", "x-lighttpd-send-tempfile", "x-reproxy-url"}
    | {"x-aibridge-interception-id"}
)
"""Cookies are the provider's with us, not with the caller; HSTS, Alt-Svc, where browsers report to and what they are to
forget speak of the provider's host and would be taken for the bridge's; the WSGI server writes its own Date and Server;
``Status`` is no header in WSGI. A client that followed a redirect would take its key of this gateway along. Proxies in
front of the application (nginx, Apache, lighttpd, H2O) obey the ``X-Sendfile`` kind, and ``X-Accel-…``: with a file of
theirs, or another URL, in place of the answer."""

_NOT_FOR_THE_CALLER = HOP_BY_HOP | CREDENTIALS | _OWN_OF_A_RESPONSE

_FAMILIES_OF_A_RESPONSE = ("x-accel-", "access-control-")
"""Who may read an answer across origins is for the application to say, not for the provider."""

MIN_KEY = 8
"""Characters of the shortest key that is looked for: a shorter one would be found in any text."""

_GATEWAY_KEY = re.compile(r"aib_[A-Za-z0-9]+_[A-Za-z0-9]{16}")

_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

ACTOR_ID = "X-AIBridge-Actor-ID"
ACTOR_USERNAME = "X-AIBridge-Actor-Metadata-Username"
"""No caller can send them: nothing that begins with ``X-AIBridge-`` passes."""

MAX_ACTOR = 256
"""Characters of a user's name that a provider is told; with all of them encoded there is room in a header still."""

_ACTOR_SAFE = "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"

USER_AGENT = "flask-aibridge"
"""For callers that name none: urllib3 would put its own name."""


def request_headers(environ: Mapping[str, Any], presented: str | None = None) -> dict[str, str]:
    """Return what goes on to the provider of the headers in ``environ``; the provider's own credentials are
    still missing. ``presented`` is the key by which the caller is known here.

    The provider is asked for an answer that is not compressed, because the bridge reads along, in errors at least: a
    compressed stream would also be held back by the compressor until it has enough to press.
    """
    dropped = _named_in(environ["HTTP_CONNECTION"]) if "HTTP_CONNECTION" in environ else ()
    headers = {"User-Agent": USER_AGENT}
    for key in [key for key in environ if key.startswith("HTTP_")]:
        name = _forwarded_name(key)
        if name is not None and not (dropped and name.lower() in dropped):
            headers[name] = environ[key]
    if holds_a_key("\n".join(headers.values()), presented):
        clean = {name: value for name, value in headers.items() if not holds_a_key(value, presented)}
        headers = {"User-Agent": USER_AGENT} | clean
    if environ.get("CONTENT_TYPE"):
        headers["Content-Type"] = environ["CONTENT_TYPE"]
    headers["Accept-Encoding"] = "identity"
    return headers


def actor_headers(user: str | None) -> dict[str, str]:
    """Return the headers that tell a provider on whose behalf it is asked; none for nobody's.

    What is not visible ASCII in a name is percent-encoded (RFC 3986, section 2.1), as UTF-8.
    """
    if not user:
        return {}
    name = quote(user[:MAX_ACTOR].encode("utf-8", "replace"), safe=_ACTOR_SAFE)
    return {ACTOR_ID: name, ACTOR_USERNAME: name}


def response_headers(headers: Iterable[tuple[str, str]], status: int) -> list[tuple[str, str]]:
    """Return what goes back to the caller of the provider's headers, fit for WSGI."""
    pairs = [(*_of_a_response(name), name, value) for name, value in headers]
    dropped: set[str] = set()
    for lower, _, _, value in pairs:
        if lower == "connection":
            dropped |= _named_in(value)
    if status in (204, 304):
        dropped |= {"content-type", "content-length"}
    if not _length_holds(pairs):
        dropped.add("content-length")
    passing, has_type = [], status in (204, 304)
    for lower, passes, name, value in pairs:
        if passes and lower not in dropped and _CONTROL.search(value) is None:
            passing.append((name, value))
            has_type = has_type or lower == "content-type"
    if not has_type:
        # RFC 9110 section 8.3: what has no media type may be taken for octets. WSGI servers want one.
        passing.append(("Content-Type", "application/octet-stream"))
    return passing


def media_type(headers: Iterable[tuple[str, str]]) -> str:
    """Return the lower-case media type of a message, without its parameters; empty where there is none."""
    for name, value in headers:
        if name.lower() == "content-type":
            return value.partition(";")[0].strip().lower()
    return ""


@lru_cache(512)
def _forwarded_name(key: str) -> str | None:
    """The name of the header under ``key``; null for one that does not pass. Clients send the same few all day."""
    name = key[5:].replace("_", "-").title()
    return name if _passes_on(name.lower()) else None


def _passes_on(name: str) -> bool:
    if name in HOP_BY_HOP or name in CREDENTIALS or name in _OVERRIDES:
        return False
    if name in _OWN_OF_A_REQUEST or name in _ABOUT_THE_CALLER:
        return False
    return not name.startswith(("x-forwarded-", "x-aibridge-", *_CREDENTIAL_FAMILIES))


def holds_a_key(value: str, presented: str | None = None) -> bool:
    """Tell whether somebody has put a key of this gateway where none belongs: ``presented``, or one by its form."""
    if presented is not None and len(presented) >= MIN_KEY and presented in value:
        return True
    return "aib_" in value and _GATEWAY_KEY.search(value) is not None


def _length_holds(headers: Iterable[tuple[str, bool, str, str]]) -> bool:
    """Tell whether a ``Content-Length`` says how long the body is (RFC 9112 section 6.3): one beside a transfer
    coding does not, nor one that is no number, nor one of two."""
    lengths = []
    for lower, _, _, value in headers:
        if lower == "transfer-encoding":
            return False
        if lower == "content-length":
            lengths.append(value.strip())
    return len(lengths) <= 1 and all(length.isascii() and length.isdigit() for length in lengths)


def _named_in(connection: str) -> set[str]:
    return {name.strip().lower() for name in connection.split(",") if name.strip()}


@lru_cache(512)
def _of_a_response(name: str) -> tuple[str, bool]:
    """A header's name in lower case, and whether it passes. Providers send the same few all day."""
    lower = name.lower()
    passes = lower not in _NOT_FOR_THE_CALLER and not lower.startswith(_FAMILIES_OF_A_RESPONSE)
    return lower, passes and _NAME.fullmatch(name) is not None


_BOUND: Final = frozenset({"idempotency-key", "content-digest", "digest", "content-md5", "repr-digest"})
"""What says something of one body, and is wrong with another."""


def without_body_bound(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of a request whose body is not the caller's, or of which there are several with other bodies."""
    return {name: value for name, value in headers.items() if name.lower() not in _BOUND}
