"""Pure: what each key may say, but for the providers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from flask_aibridge.config.complaints import (
    VISIBLE_ASCII,
    frozen,
    items,
    refuse_unknown_fields,
    wrong,
    wrong_secret,
)
from flask_aibridge.config.keys import (
    ADMIN_TOKEN,
    API_KEY_PREFIX,
    API_KEYS,
    BRIDGE,
    BUILT_IN,
    CONTENT_RETENTION_DAYS,
    DISCONNECT_MODES,
    LICENSE,
    LICENSE_DENY_LISTS,
    LICENSE_FILE,
    LICENSE_PUBLIC_KEYS,
    LICENSE_STATUS,
    LICENSE_STATUSES,
    MAX_DAYS,
    MAX_UPLOADS,
    MCP_FIELDS,
    MCP_SERVERS,
    MIN_SECRET,
    MIN_SPOOL_BYTES,
    MOST_UPLOADS,
    ON_DISCONNECT,
    RATE_LIMIT,
    RECORDING,
    RECORDING_MODES,
    REDIS_PREFIX,
    REDIS_URL,
    SECRET_KEY,
    SPOOL_BYTES,
    URL_PREFIX,
)
from flask_aibridge.config.rate_limits import FORM, RateLimit, parse_rate_limit
from flask_aibridge.errors import ConfigError

_PREFIX_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+")
_IMPORT_STRING = re.compile(r"[\w.]+:[\w.]+")
_REDIS_PREFIX = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_STORE_SCHEMES = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
    "memory",
)


def url_prefix(value: object) -> str:
    allowed = (
        "a path of one or more segments such as '/api/v2/aibridge': it starts with '/', does not end with "
        "one, and has no '//', '.', '..', '<', '>', '%', '?', '#', space or non-ASCII character"
    )
    if not isinstance(value, str) or not value.startswith("/"):
        raise wrong(URL_PREFIX, value, allowed)
    for segment in value[1:].split("/"):
        if segment in (".", "..") or not _PREFIX_SEGMENT.fullmatch(segment):
            raise wrong(URL_PREFIX, value, allowed)
    return value


def bridge(value: object, wsgi_app: object) -> object:
    if value is None:
        return wsgi_app
    if callable(value) or value == BUILT_IN:
        return value
    if isinstance(value, str) and _IMPORT_STRING.fullmatch(value):
        return value
    allowed = (
        f"{BUILT_IN!r}, a WSGI app, an import string such as 'package.module:app', or None to mount nothing"
    )
    raise wrong(BRIDGE, value, allowed)


def license_text(value: object) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str):
        return value
    raise wrong_secret(LICENSE, value, "the licence as a str (a compact JWT), or None")


def license_file(value: object) -> str | None:
    if value is None or value == "":
        return None
    fspath = getattr(
        value, "__fspath__", None
    )  # what os.fspath() asks, without os: pure modules read this one
    path = value if fspath is None else fspath()
    if isinstance(path, str) and "\0" not in path:
        return path
    raise wrong(LICENSE_FILE, value, "the path of a file, as a str or os.PathLike, or None")


def deny_lists(value: object) -> tuple[str, ...]:
    if isinstance(value, tuple | list) and all(isinstance(each, str) and each.strip() for each in value):
        return tuple(value)
    raise wrong_secret(LICENSE_DENY_LISTS, value, "a list of signed deny lists, each a str (a compact JWT)")


def license_status(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value in LICENSE_STATUSES:
        return value
    raise wrong(LICENSE_STATUS, value, " or ".join(map(str, LICENSE_STATUSES)))


def public_keys(value: object) -> Mapping[str, str]:
    # Public keys are public, but whoever puts a private key here by mistake would see it in a log.
    for kid, key in items(LICENSE_PUBLIC_KEYS, value, "{kid: public key}"):
        if not isinstance(key, str) or not key.strip():
            allowed = "an Ed25519 public key as a str: PEM, or base64 of its 32 bytes"
            raise wrong_secret(f"{LICENSE_PUBLIC_KEYS}[{kid!r}]", key, allowed)
    return frozen(value)


def api_keys(value: object) -> Mapping[str, str]:
    users: dict[str, str] = {}
    for user, key in items(API_KEYS, value, f'{{user: "{API_KEY_PREFIX}<id>_<secret>"}}'):
        if not is_api_key(key):
            allowed = f"a str that starts with {API_KEY_PREFIX!r} and goes on in visible ASCII characters"
            raise wrong_secret(f"{API_KEYS}[{user!r}]", key, allowed)
        if key in users:
            raise ConfigError(
                f"{API_KEYS} gives {users[key]!r} and {user!r} the same key; give each user one of their own."
            )
        users[key] = user
    return frozen(value)


def is_api_key(key: object) -> bool:
    if not isinstance(key, str) or not key.startswith(API_KEY_PREFIX):
        return False
    return VISIBLE_ASCII.fullmatch(key, len(API_KEY_PREFIX)) is not None


def admin_token(value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) and len(value) >= MIN_SECRET and VISIBLE_ASCII.fullmatch(value):
        return value
    raise wrong_secret(ADMIN_TOKEN, value, f"a str of {MIN_SECRET} or more visible ASCII characters, or None")


def redis_url(value: object) -> str | None:
    # What the parts of a URL mean is the store's business; here it only has to be one of the kinds there are.
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.partition("://")[0] in _STORE_SCHEMES and "://" in value:
        return value
    kinds = ", ".join(f"{scheme}://" for scheme in _STORE_SCHEMES)
    raise wrong_secret(
        REDIS_URL, value, f"a URL that begins with one of {kinds}, or None for the embedded server"
    )


def redis_prefix(value: object) -> str:
    if isinstance(value, str) and _REDIS_PREFIX.fullmatch(value):
        return value
    raise wrong(REDIS_PREFIX, value, "1 to 64 of the characters A-Z, a-z, 0-9, '.', '_', '-' and ':'")


def recording(value: object) -> str:
    if isinstance(value, str) and value in RECORDING_MODES:
        return value
    raise wrong(RECORDING, value, " or ".join(map(repr, RECORDING_MODES)))


def on_disconnect(value: object) -> Literal["cancel", "drain"]:
    if value == "cancel":
        return "cancel"
    if value == "drain":
        return "drain"
    raise wrong(ON_DISCONNECT, value, " or ".join(map(repr, DISCONNECT_MODES)))


def concurrency(key: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise wrong(key, value, "a number of requests, 1 or more")


def switch(key: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise wrong(key, value, "True or False")


def days(key: str, value: object) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and 0 <= value <= MAX_DAYS:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    raise wrong(key, value, f"a number of days from 0, which is for ever, to {MAX_DAYS}")


def content_days(value: object) -> float | None:
    return None if value is None else days(CONTENT_RETENTION_DAYS, value)


def spool_bytes(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= MIN_SPOOL_BYTES:
        return value
    raise wrong(SPOOL_BYTES, value, f"a number of bytes, {MIN_SPOOL_BYTES} or more")


def rate_limit(value: object) -> RateLimit | None:
    if value is None or value == "":
        return None
    try:
        return parse_rate_limit(value)
    except (AttributeError, TypeError, ValueError):
        raise wrong(RATE_LIMIT, value, f"{FORM}; or None for no limit") from None


def max_uploads(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_UPLOADS:
        return value
    raise wrong(MAX_UPLOADS, value, f"a number of requests, 1 to {MOST_UPLOADS}")


def secret_keys(value: object) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    keys = (value,) if isinstance(value, str) else value
    if not isinstance(keys, tuple | list) or not all(
        isinstance(key, str) and len(key) >= MIN_SECRET for key in keys
    ):
        raise wrong_secret(
            SECRET_KEY, value, f"a str of {MIN_SECRET} or more characters, a list of them, or None"
        )
    return tuple(keys)


def mcp_servers(value: object) -> Mapping[str, Mapping[str, Any]]:
    shape = '{id: {"url": "https://…"}}'
    for name, fields in items(MCP_SERVERS, value, shape):
        key = f"{MCP_SERVERS}[{name!r}]"
        if not isinstance(fields, Mapping):
            raise wrong_secret(key, fields, f"a mapping with the fields {', '.join(MCP_FIELDS)}")
        refuse_unknown_fields(key, fields, MCP_FIELDS)
    return frozen(value)
