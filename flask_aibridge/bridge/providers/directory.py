"""The providers that the bridge serves now, kept in step with what the host says."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flask_aibridge.bridge.providers.base import Provider
from flask_aibridge.bridge.providers.registry import provider_from, providers_from
from flask_aibridge.config import ProviderSettings
from flask_aibridge.errors import ConfigError, ServiceError
from flask_aibridge.services.interfaces import ProviderConfigurator, ProviderSet

logger = logging.getLogger("flask_aibridge.bridge")


@dataclass(frozen=True, slots=True)
class Known:
    """Every provider by name, at one version of the configuration."""

    version: int | None
    providers: Mapping[str, Provider] = field(default_factory=dict)
    disabled: frozenset[str] = frozenset()


class FixedProviders:
    """The providers of a bridge without services: those it was made with.

    Raises ``ConfigError`` for providers that cannot work.
    """

    def __init__(self, settings: Iterable[ProviderSettings]) -> None:
        self._known = Known(0, providers_from(settings))

    def at(self, version: int | None) -> Known:
        """All of them, at any version."""
        return self._known


class ProviderDirectory:
    """The providers of the host's configurator, read anew when the version that an admission reports is another.

    Whoever notices a change first reads; others go on with what is known meanwhile. Where the configurator is away
    the last known providers go on serving.
    """

    def __init__(self, configurator: ProviderConfigurator) -> None:
        self._configurator = configurator
        self._known = Known(None)
        self._reading = threading.Lock()

    def at(self, version: int | None) -> Known:
        """What is known at ``version``, or later; null asks for what is known anyway.

        Raises ``ServiceError`` where nothing was ever read and nothing can be.
        """
        known = self._known
        if known.version is None:
            with self._reading:
                return self._known if self._known.version is not None else self._read()
        if version is None or version == known.version or not self._reading.acquire(blocking=False):
            return known
        try:
            return self._read()
        except ServiceError as error:
            logger.warning("the providers could not be read anew, the last known ones go on: %s", error)
            return known
        finally:
            self._reading.release()

    def _read(self) -> Known:
        self._known = _known(self._configurator.providers())
        return self._known


def _known(offered: ProviderSet) -> Known:
    providers = {}
    for one in offered.providers:
        try:
            providers[one.settings.name] = provider_from(one.settings)
        except ConfigError as error:
            # One that cannot work is no reason to serve none of the others.
            logger.error("a provider is left out: %s", error)
    disabled = frozenset(one.settings.name for one in offered.providers if not one.enabled)
    return Known(offered.version, providers, disabled)
