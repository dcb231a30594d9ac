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
    Whether prompts, tool calls and thoughts are recorded; default ``True``. Tokens always are.
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
"""

from __future__ import annotations

import difflib
import re
import sys
import warnings
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from flask_aibridge.errors import ConfigError, ConfigWarning

__all__ = ["BUILT_IN", "ProviderSettings", "Settings", "check_provider", "read_settings"]

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

DEFAULT_URL_PREFIX: Final = "/api/v2/aibridge"

#: Every key with its default (that of the bridge depends on a constructor argument). A key ``AIBRIDGE_…`` that is not
#: here is warned about.
_DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType(
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
    }
)
KNOWN_KEYS: Final = tuple(_DEFAULTS)

#: The value of ``AIBRIDGE_BRIDGE`` that means ``flask_aibridge.bridge``.
BUILT_IN: Final = "built-in"
RECORDING_MODES: Final = ("required", "best-effort", "off")
#: Forbidden, and Payment Required: what SDKs take for an answer and do not try again.
LICENSE_STATUSES: Final = (403, 402)

#: Characters of a secret that is typed into a config: a shorter one can be guessed.
MIN_SECRET: Final = 32
#: The smallest spool that is worth having: some hundred records.
MIN_SPOOL_BYTES: Final = 1024 * 1024

#: Provider type → base URL, each in the convention of that provider's own SDK: OpenAI's contains ``/v1``,
#: Anthropic's does not.
DEFAULT_BASE_URLS: Final[Mapping[str, str]] = MappingProxyType(
    {"anthropic": "https://api.anthropic.com", "openai": "https://api.openai.com/v1"}
)
PROVIDER_FIELDS: Final = ("type", "base_url", "keys")
MCP_FIELDS: Final = ("url", "tool_allow_regex", "tool_deny_regex")
API_KEY_PREFIX: Final = "aib_"

#: The longest retention in days; it keeps dates that are computed from it within the calendar.
MAX_DAYS: Final = 36_500

_PROVIDER_NAME = re.compile(r"[a-z0-9-]+")
_PREFIX_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+")
_IMPORT_STRING = re.compile(r"[\w.]+:[\w.]+")
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")
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
_NAME_SHOWN = 80
"""How many characters of a wrong value an error shows: enough to recognise it, and still one line."""


@dataclass(frozen=True)
class ProviderSettings:
    """One provider instance.

    :param name: the path segment it is reached under, ``[a-z0-9-]+``.
    :param type: the wire format: ``"anthropic"`` or ``"openai"``.
    :param base_url: ``http(s)://host[:port][/path]`` with no slash at the end, in the convention of the
        provider's own SDK.
    :param keys: the provider's API keys, best first; empty for a server of one's own that asks for none.
    """

    name: str
    type: str
    base_url: str
    keys: tuple[str, ...] = field(default=(), repr=False)


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

    @property
    def mount_bridge(self) -> bool:
        """Whether anything is mounted at all."""
        return self.bridge is not None


def read_settings(
    config: MutableMapping[str, Any], env: Mapping[str, str], *, wsgi_app: object = None
) -> Settings:
    """Settings from a Flask config and an environment; writes the defaults of absent keys into ``config``.

    :param env: read for the providers alone, and only if ``AIBRIDGE_PROVIDERS`` is not set.
    :param wsgi_app: the default of ``AIBRIDGE_BRIDGE``.
    :raises ConfigError: for the first key whose value cannot work.
    :warns ConfigWarning: for every key ``AIBRIDGE_…`` that nothing reads.
    """
    _warn_of_unknown_keys(config)
    _set_defaults(config, wsgi_app)
    return Settings(
        url_prefix=_url_prefix(config[URL_PREFIX]),
        bridge=_bridge(config[BRIDGE], wsgi_app),
        license=_license(config[LICENSE]),
        license_file=_license_file(config[LICENSE_FILE]),
        license_public_keys=_public_keys(config[LICENSE_PUBLIC_KEYS]),
        license_deny_lists=_deny_lists(config[LICENSE_DENY_LISTS]),
        license_status=_license_status(config[LICENSE_STATUS]),
        providers=_providers(config[PROVIDERS], env),
        api_keys=_api_keys(config[API_KEYS]),
        admin_token=_admin_token(config[ADMIN_TOKEN]),
        redis_url=_redis_url(config[REDIS_URL]),
        redis_prefix=_redis_prefix(config[REDIS_PREFIX]),
        recording=_recording(config[RECORDING]),
        record_content=_switch(RECORD_CONTENT, config[RECORD_CONTENT]),
        retention_days=_days(RETENTION_DAYS, config[RETENTION_DAYS]),
        content_retention_days=_content_days(config[CONTENT_RETENTION_DAYS]),
        spool_bytes=_spool_bytes(config[SPOOL_BYTES]),
        secret_keys=_secret_keys(config[SECRET_KEY]),
        mcp_servers=_mcp_servers(config[MCP_SERVERS]),
    )


def _set_defaults(config: MutableMapping[str, Any], wsgi_app: object) -> None:
    config.setdefault(BRIDGE, BUILT_IN if wsgi_app is None else wsgi_app)
    for key, default in _DEFAULTS.items():
        config.setdefault(key, dict(default) if isinstance(default, dict) else default)


def _warn_of_unknown_keys(config: Mapping[str, Any]) -> None:
    for key in config:
        if key.startswith("AIBRIDGE_") and key not in KNOWN_KEYS:
            message = f"{key} is not a configuration key of Flask-AIBridge and has no effect."
            warnings.warn(message + _nearest(key, KNOWN_KEYS), ConfigWarning, stacklevel=_level_outside())


def _level_outside() -> int:
    """The ``stacklevel``, for the caller, of the line outside this package that initialises the extension."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("flask_aibridge."):
        frame, level = frame.f_back, level + 1
    return level


def _nearest(word: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {found[0]}?" if found else ""


def _wrong(key: str, value: object, allowed: str) -> ConfigError:
    """The error for a value that may be shown."""
    shown = repr(value)
    if len(shown) > _NAME_SHOWN:
        shown = shown[:_NAME_SHOWN] + "…"
    return ConfigError(f"{key} is {shown}; it must be {allowed}.")


def _wrong_secret(key: str, value: object, allowed: str) -> ConfigError:
    """The error for a value that may be secret: its type is all that is shown."""
    return ConfigError(
        f"{key} has a value of type {type(value).__name__} that cannot be used; it must be {allowed}."
    )


def _url_prefix(value: object) -> str:
    allowed = (
        "a path of one or more segments such as '/api/v2/aibridge': it starts with '/', does not end with "
        "one, and has no '//', '.', '..', '<', '>', '%', '?', '#', space or non-ASCII character"
    )
    if not isinstance(value, str) or not value.startswith("/"):
        raise _wrong(URL_PREFIX, value, allowed)
    for segment in value[1:].split("/"):
        if segment in (".", "..") or not _PREFIX_SEGMENT.fullmatch(segment):
            raise _wrong(URL_PREFIX, value, allowed)
    return value


def _bridge(value: object, wsgi_app: object) -> object:
    if value is None:
        return wsgi_app
    if callable(value) or value == BUILT_IN:
        return value
    if isinstance(value, str) and _IMPORT_STRING.fullmatch(value):
        return value
    allowed = (
        f"{BUILT_IN!r}, a WSGI app, an import string such as 'package.module:app', or None to mount nothing"
    )
    raise _wrong(BRIDGE, value, allowed)


def _license(value: object) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str):
        return value
    raise _wrong_secret(LICENSE, value, "the licence as a str (a compact JWT), or None")


def _license_file(value: object) -> str | None:
    if value is None or value == "":
        return None
    fspath = getattr(
        value, "__fspath__", None
    )  # what os.fspath() asks, without os: pure modules read this one
    path = value if fspath is None else fspath()
    if isinstance(path, str) and "\0" not in path:
        return path
    raise _wrong(LICENSE_FILE, value, "the path of a file, as a str or os.PathLike, or None")


def _deny_lists(value: object) -> tuple[str, ...]:
    if isinstance(value, tuple | list) and all(isinstance(each, str) and each.strip() for each in value):
        return tuple(value)
    raise _wrong_secret(LICENSE_DENY_LISTS, value, "a list of signed deny lists, each a str (a compact JWT)")


def _license_status(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value in LICENSE_STATUSES:
        return value
    raise _wrong(LICENSE_STATUS, value, " or ".join(map(str, LICENSE_STATUSES)))


def _public_keys(value: object) -> Mapping[str, str]:
    # Public keys are public, but whoever puts a private key here by mistake would see it in a log.
    for kid, key in _items(LICENSE_PUBLIC_KEYS, value, "{kid: public key}"):
        if not isinstance(key, str) or not key.strip():
            allowed = "an Ed25519 public key as a str: PEM, or base64 of its 32 bytes"
            raise _wrong_secret(f"{LICENSE_PUBLIC_KEYS}[{kid!r}]", key, allowed)
    return _frozen(value)


def _api_keys(value: object) -> Mapping[str, str]:
    users: dict[str, str] = {}
    for user, key in _items(API_KEYS, value, f'{{user: "{API_KEY_PREFIX}<id>_<secret>"}}'):
        if not _is_api_key(key):
            allowed = f"a str that starts with {API_KEY_PREFIX!r} and goes on in visible ASCII characters"
            raise _wrong_secret(f"{API_KEYS}[{user!r}]", key, allowed)
        if key in users:
            raise ConfigError(
                f"{API_KEYS} gives {users[key]!r} and {user!r} the same key; give each user one of their own."
            )
        users[key] = user
    return _frozen(value)


def _is_api_key(key: object) -> bool:
    if not isinstance(key, str) or not key.startswith(API_KEY_PREFIX):
        return False
    return _VISIBLE_ASCII.fullmatch(key, len(API_KEY_PREFIX)) is not None


def _items(key: str, value: object, form: str) -> Iterable[tuple[str, Any]]:
    """The items of a mapping whose keys are names: str, not empty, printable."""
    if not isinstance(value, Mapping):
        raise _wrong_secret(key, value, f"a mapping of the form {form}")
    for name in value:
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise _wrong(f"a name in {key}", name, "a str that is not empty and has no control characters")
    return value.items()


def _frozen(value: Any) -> Mapping[str, Any]:
    return MappingProxyType(dict(value))


def _admin_token(value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) and len(value) >= MIN_SECRET and _VISIBLE_ASCII.fullmatch(value):
        return value
    raise _wrong_secret(
        ADMIN_TOKEN, value, f"a str of {MIN_SECRET} or more visible ASCII characters, or None"
    )


def _redis_url(value: object) -> str | None:
    # What the parts of a URL mean is the store's business; here it only has to be one of the kinds there are.
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.partition("://")[0] in _STORE_SCHEMES and "://" in value:
        return value
    kinds = ", ".join(f"{scheme}://" for scheme in _STORE_SCHEMES)
    raise _wrong_secret(
        REDIS_URL, value, f"a URL that begins with one of {kinds}, or None for the embedded server"
    )


def _redis_prefix(value: object) -> str:
    if isinstance(value, str) and _REDIS_PREFIX.fullmatch(value):
        return value
    raise _wrong(REDIS_PREFIX, value, "1 to 64 of the characters A-Z, a-z, 0-9, '.', '_', '-' and ':'")


def _recording(value: object) -> str:
    if isinstance(value, str) and value in RECORDING_MODES:
        return value
    raise _wrong(RECORDING, value, " or ".join(map(repr, RECORDING_MODES)))


def _switch(key: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise _wrong(key, value, "True or False")


def _days(key: str, value: object) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and 0 <= value <= MAX_DAYS:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    raise _wrong(key, value, f"a number of days from 0, which is for ever, to {MAX_DAYS}")


def _content_days(value: object) -> float | None:
    return None if value is None else _days(CONTENT_RETENTION_DAYS, value)


def _spool_bytes(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= MIN_SPOOL_BYTES:
        return value
    raise _wrong(SPOOL_BYTES, value, f"a number of bytes, {MIN_SPOOL_BYTES} or more")


def _secret_keys(value: object) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    keys = (value,) if isinstance(value, str) else value
    if not isinstance(keys, tuple | list) or not all(
        isinstance(key, str) and len(key) >= MIN_SECRET for key in keys
    ):
        raise _wrong_secret(
            SECRET_KEY, value, f"a str of {MIN_SECRET} or more characters, a list of them, or None"
        )
    return tuple(keys)


def _mcp_servers(value: object) -> Mapping[str, Mapping[str, Any]]:
    shape = '{id: {"url": "https://…"}}'
    for name, fields in _items(MCP_SERVERS, value, shape):
        key = f"{MCP_SERVERS}[{name!r}]"
        if not isinstance(fields, Mapping):
            raise _wrong_secret(key, fields, f"a mapping with the fields {', '.join(MCP_FIELDS)}")
        _refuse_unknown_fields(key, fields, MCP_FIELDS)
    return _frozen(value)


def _providers(value: object, env: Mapping[str, str]) -> tuple[ProviderSettings, ...]:
    if value is None:
        return tuple(_providers_from(env))
    form = '{name: {"type": "anthropic" or "openai", "base_url": "https://…", "keys": ["…"]}}'
    return tuple(_provider(name, fields) for name, fields in _items(PROVIDERS, value, form))


def _providers_from(env: Mapping[str, str]) -> Iterable[ProviderSettings]:
    """The providers whose own environment variables are set: a key, a base URL or both."""
    for name, default in DEFAULT_BASE_URLS.items():
        key_variable, url_variable = f"{name.upper()}_API_KEY", f"{name.upper()}_BASE_URL"
        key, url = env.get(key_variable, "").strip(), env.get(url_variable, "").strip()
        if key or url:
            keys = _keys(f"the environment variable {key_variable}", [key] if key else [])
            base_url = _base_url(f"the environment variable {url_variable}", url or default)
            yield ProviderSettings(name, name, base_url, keys)


def _provider(name: str, fields: object) -> ProviderSettings:
    key = f"{PROVIDERS}[{name!r}]"
    if not _PROVIDER_NAME.fullmatch(name):
        raise _wrong(f"a name in {PROVIDERS}", name, "made of a-z, 0-9 and '-' (it is a path segment)")
    if not isinstance(fields, Mapping):
        raise _wrong_secret(key, fields, f"a mapping with the fields {', '.join(PROVIDER_FIELDS)}")
    _refuse_unknown_fields(key, fields, PROVIDER_FIELDS)
    type_ = _provider_type(f"{key}['type']", fields.get("type"))
    base_url = _base_url(f"{key}['base_url']", fields.get("base_url", DEFAULT_BASE_URLS[type_]))
    return ProviderSettings(name, type_, base_url, _keys(f"{key}['keys']", fields.get("keys", ())))


def check_provider(settings: ProviderSettings) -> ProviderSettings:
    """The settings, with no slash at the end of the base URL, if a provider can work with them.

    What a provider may be is said here alone, wherever its settings come from: config, store, API or RPC.

    :raises ConfigError: for the first field that cannot work; keys are not shown.
    """
    if not isinstance(settings.name, str) or not _PROVIDER_NAME.fullmatch(settings.name):
        shown = repr(settings.name)[:_NAME_SHOWN]
        raise ConfigError(
            f"The provider name {shown} must be made of a-z, 0-9 and '-': it is a path segment."
        )
    where = f"provider {settings.name!r}"
    type_ = _provider_type(f"the type of {where}", settings.type)
    base_url = _base_url(f"the base_url of {where}", settings.base_url)
    return ProviderSettings(settings.name, type_, base_url, _keys(where, settings.keys))


def _provider_type(key: str, value: object) -> str:
    if not isinstance(value, str) or value not in DEFAULT_BASE_URLS:
        raise _wrong(key, value, " or ".join(map(repr, DEFAULT_BASE_URLS)))
    return value


def _refuse_unknown_fields(key: str, fields: Mapping[Any, Any], known: Sequence[str]) -> None:
    for name in fields:
        if name not in known:
            nearest = _nearest(str(name), known)
            raise ConfigError(f"{key} has a field {name!r}; the fields are {', '.join(known)}.{nearest}")


def _base_url(key: str, value: object) -> str:
    allowed = "a URL http(s)://host[:port][/path] with no user, password, query or fragment"
    if not isinstance(value, str) or {"@", "?"} & set(value):  # a password or a token may be in there
        raise _wrong_secret(key, value, allowed)
    if not _VISIBLE_ASCII.fullmatch(value) or not _is_plain_url(value):
        raise _wrong(key, value, allowed)
    return value.rstrip("/")


def _is_plain_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return False
    plain = not {"?", "#", "\\"} & set(value)
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0


def _keys(key: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise _wrong_secret(key, value, "a list of keys, each a str")
    keys = tuple(value)
    for each in keys:
        if not isinstance(each, str) or not _VISIBLE_ASCII.fullmatch(each):
            allowed = "a str of visible ASCII characters, with no space or line break in it or around it"
            raise _wrong_secret(f"a key of {key}", each, allowed)
    return keys
