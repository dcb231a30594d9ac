"""The providers that the bridge serves now, kept in step with what the host says."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from flask_aibridge.bridge.providers.base import Provider
from flask_aibridge.bridge.providers.registry import provider_from, providers_from
from flask_aibridge.config import ProviderSettings
from flask_aibridge.errors import ConfigError, ServiceError
from flask_aibridge.services.interfaces import ProviderConfig, ProviderConfigurator

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


REREAD_SECONDS: Final = 1.0
"""How often providers are read for a version that the configurator does not tell: one that has them from the config
never will, and one whose store was away will when it is back."""


class ProviderDirectory:
    """The providers of the host's configurator, read anew when the version that an admission reports is another.

    Whoever notices a change first reads; others go on with what is known meanwhile. Where the configurator is away
    the last known providers go on serving, and a provider whose settings are as they were stays the same object.

    :param clock: seconds that never go back.
    """

    def __init__(
        self, configurator: ProviderConfigurator, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._configurator = configurator
        self._clock = clock
        self._known = Known(None)
        self._offered: Mapping[str, ProviderConfig] = {}
        self._asked: int | None = None
        self._read_at = 0.0
        self._reading = threading.Lock()
        _directories.add(self)

    def at(self, version: int | None) -> Known:
        """What is known at ``version``, or later; null asks for what is known anyway.

        Raises ``ServiceError`` where nothing was ever read and nothing can be.
        """
        known = self._known
        if known.version is None:
            with self._reading:
                return self._known if self._known.version is not None else self._read(version)
        if version is None or version == known.version:
            return known
        if version == self._asked and self._clock() - self._read_at < REREAD_SECONDS:
            return known
        if not self._reading.acquire(blocking=False):
            return known
        try:
            return self._read(version)
        except ServiceError as error:
            self._asked = None
            logger.warning("the providers could not be read anew, the last known ones go on: %s", error)
            return known
        finally:
            self._reading.release()

    def _read(self, version: int | None) -> Known:
        self._asked, self._read_at = version, self._clock()
        offered = self._configurator.providers()
        named = {one.settings.name: one for one in offered.providers}
        kept = {
            name: provider
            for name, provider in self._known.providers.items()
            if name in named
            and name in self._offered
            and named[name].settings == self._offered[name].settings
        }
        disabled = frozenset(name for name, one in named.items() if not one.enabled)
        self._known = Known(offered.version, kept | _made(named, kept), disabled)
        self._offered = named
        return self._known


_directories: weakref.WeakSet[ProviderDirectory] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for directory in list(_directories):
        directory._reading = threading.Lock()  # nobody is left here to release the parent's


os.register_at_fork(after_in_child=_after_fork_in_child)


def _made(named: Mapping[str, ProviderConfig], kept: Mapping[str, Provider]) -> dict[str, Provider]:
    made = {}
    for name, one in named.items():
        if name in kept:
            continue
        try:
            made[name] = provider_from(one.settings)
        except ConfigError as error:
            # One that cannot work is no reason to serve none of the others.
            logger.error("a provider is left out: %s", error)
    return made
