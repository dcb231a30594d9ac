"""Which provider types there are, and the instances that a configuration names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from flask_aibridge.bridge.providers.anthropic import Anthropic
from flask_aibridge.bridge.providers.base import Provider
from flask_aibridge.bridge.providers.openai import OpenAI
from flask_aibridge.config import ProviderSettings
from flask_aibridge.errors import ConfigError

TYPES: Mapping[str, type[Provider]] = {provider.type: provider for provider in (Anthropic, OpenAI)}

_NAME = re.compile(r"[a-z0-9-]+", re.ASCII)


def providers_from(settings: Iterable[ProviderSettings]) -> dict[str, Provider]:
    """Return the provider instances by name.

    Raises ``ConfigError`` for a name that is no path segment of ``[a-z0-9-]`` or is there twice, and for an
    unknown type.
    """
    providers: dict[str, Provider] = {}
    for one in settings:
        if not _NAME.fullmatch(one.name):
            raise ConfigError(
                f"The provider name {one.name!r} must consist of a-z, 0-9 and '-': it is part of the URL."
            )
        if one.name in providers:
            raise ConfigError(
                f"There are two providers named {one.name!r}: give each instance a name of its own."
            )
        if one.type not in TYPES:
            known = ", ".join(sorted(TYPES))
            raise ConfigError(
                f"Provider {one.name!r} has the unknown type {one.type!r}: the types are {known}."
            )
        providers[one.name] = TYPES[one.type](one)
    return providers
