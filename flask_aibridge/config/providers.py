"""Pure: what a provider is, and which the config or the environment names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from flask_aibridge.config.complaints import (
    NAME_SHOWN,
    VISIBLE_ASCII,
    items,
    refuse_unknown_fields,
    wrong,
    wrong_secret,
)
from flask_aibridge.config.keys import PROVIDERS
from flask_aibridge.errors import ConfigError

#: Provider type → base URL, each in the convention of that provider's own SDK: OpenAI's contains ``/v1``,
#: Anthropic's does not.
DEFAULT_BASE_URLS: Final[Mapping[str, str]] = MappingProxyType(
    {"anthropic": "https://api.anthropic.com", "openai": "https://api.openai.com/v1"}
)
PROVIDER_FIELDS: Final = ("type", "base_url", "keys")
_PROVIDER_NAME = re.compile(r"[a-z0-9-]+")


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


def read_providers(value: object, env: Mapping[str, str]) -> tuple[ProviderSettings, ...]:
    if value is None:
        return tuple(_providers_from(env))
    form = '{name: {"type": "anthropic" or "openai", "base_url": "https://…", "keys": ["…"]}}'
    return tuple(_provider(name, fields) for name, fields in items(PROVIDERS, value, form))


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
        raise wrong(f"a name in {PROVIDERS}", name, "made of a-z, 0-9 and '-' (it is a path segment)")
    if not isinstance(fields, Mapping):
        raise wrong_secret(key, fields, f"a mapping with the fields {', '.join(PROVIDER_FIELDS)}")
    refuse_unknown_fields(key, fields, PROVIDER_FIELDS)
    type_ = _provider_type(f"{key}['type']", fields.get("type"))
    base_url = _base_url(f"{key}['base_url']", fields.get("base_url", DEFAULT_BASE_URLS[type_]))
    return ProviderSettings(name, type_, base_url, _keys(f"{key}['keys']", fields.get("keys", ())))


def check_provider(settings: ProviderSettings) -> ProviderSettings:
    """The settings, with no slash at the end of the base URL, if a provider can work with them.

    What a provider may be is said here alone, wherever its settings come from: config, store, API or RPC.

    :raises ConfigError: for the first field that cannot work; keys are not shown.
    """
    if not isinstance(settings.name, str) or not _PROVIDER_NAME.fullmatch(settings.name):
        shown = repr(settings.name)[:NAME_SHOWN]
        raise ConfigError(
            f"The provider name {shown} must be made of a-z, 0-9 and '-': it is a path segment."
        )
    where = f"provider {settings.name!r}"
    type_ = _provider_type(f"the type of {where}", settings.type)
    base_url = _base_url(f"the base_url of {where}", settings.base_url)
    return ProviderSettings(settings.name, type_, base_url, _keys(where, settings.keys))


def _provider_type(key: str, value: object) -> str:
    if not isinstance(value, str) or value not in DEFAULT_BASE_URLS:
        raise wrong(key, value, " or ".join(map(repr, DEFAULT_BASE_URLS)))
    return value


def _base_url(key: str, value: object) -> str:
    allowed = "a URL http(s)://host[:port][/path] with no user, password, query or fragment"
    if not isinstance(value, str) or {"@", "?"} & set(value):  # a password or a token may be in there
        raise wrong_secret(key, value, allowed)
    if not VISIBLE_ASCII.fullmatch(value) or not _is_plain_url(value):
        raise wrong(key, value, allowed)
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
        raise wrong_secret(key, value, "a list of keys, each a str")
    keys = tuple(value)
    for each in keys:
        if not isinstance(each, str) or not VISIBLE_ASCII.fullmatch(each):
            allowed = "a str of visible ASCII characters, with no space or line break in it or around it"
            raise wrong_secret(f"a key of {key}", each, allowed)
    return keys
