"""Which provider types there are, and the instances that a configuration names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flask_aibridge.bridge.providers.anthropic import Anthropic
from flask_aibridge.bridge.providers.base import Provider
from flask_aibridge.bridge.providers.openai import OpenAI
from flask_aibridge.config import ProviderSettings, check_provider
from flask_aibridge.errors import ConfigError

TYPES: Mapping[str, type[Provider]] = {provider.type: provider for provider in (Anthropic, OpenAI)}


def providers_from(settings: Iterable[ProviderSettings]) -> dict[str, Provider]:
    """Return the provider instances by name.

    Raises ``ConfigError`` for one that cannot work, and for a name that is there twice.
    """
    providers: dict[str, Provider] = {}
    for one in settings:
        if one.name in providers:
            raise ConfigError(
                f"There are two providers named {one.name!r}: give each instance a name of its own."
            )
        providers[one.name] = provider_from(one)
    return providers


def provider_from(settings: ProviderSettings) -> Provider:
    """Return one provider instance.

    Raises ``ConfigError`` for settings that cannot work.
    """
    if settings.type not in TYPES:
        known = ", ".join(sorted(TYPES))
        raise ConfigError(
            f"Provider {settings.name!r} has the unknown type {settings.type!r}: the types are {known}."
        )
    return TYPES[settings.type](check_provider(settings))
