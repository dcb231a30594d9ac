"""``ProviderConfigurator``: which providers there are, from the app's config or from the store.

With ``AIBRIDGE_SECRET_KEY`` the store is seeded from the config once, and wins from then on. Without it keys cannot be
stored, so providers come from the config alone.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from flask_aibridge.config import DEFAULT_BASE_URLS, PROVIDERS, SECRET_KEY, ProviderSettings, check_provider
from flask_aibridge.errors import ConfigError, Unsealable
from flask_aibridge.services.configuration.rows import CachedRows, Unreadable, shown
from flask_aibridge.services.configuration.sealing import Sealer, secret_key_missing
from flask_aibridge.services.interfaces import ProviderConfig, ProviderConfigurator, ProviderSet
from flask_aibridge.services.masking import masked
from flask_aibridge.services.storage import ConfigStore

logger = logging.getLogger("flask_aibridge.services")

TABLE: Final = "providers"

_FIELDS: Final[Mapping[str, type]] = {"type": str, "base_url": str, "keys": str, "enabled": bool}
"""What a stored row has, by the type it has to have. More is allowed: a later version may have written it."""


@dataclass(frozen=True, slots=True)
class ProviderEntry:
    """A provider as administrators see it. ``key_hints`` has one masked form for each key. With an ``error`` the
    provider is not served, and what could not be read is null."""

    name: str
    type: str | None
    base_url: str | None
    enabled: bool | None
    key_hints: tuple[str, ...] = ()
    error: str | None = None


def entry_of(config: ProviderConfig) -> ProviderEntry:
    """A provider as administrators see it."""
    one = config.settings
    return ProviderEntry(
        one.name, one.type, one.base_url, config.enabled, tuple(masked(key) for key in one.keys)
    )


class ConfiguredProviders:
    """The providers of the app's config, which never change."""

    def __init__(self, settings: Sequence[ProviderSettings]) -> None:
        self._set = ProviderSet(tuple(ProviderConfig(check_provider(one)) for one in settings))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {[one.settings.name for one in self._set.providers]}>"

    def providers(self) -> ProviderSet:
        """All of them, at version 0."""
        return self._set

    @contextmanager
    def watch_providers(self) -> Iterator[Iterator[int]]:
        """One signal, and the end when the context is left, by whatever thread."""
        left = threading.Event()
        try:
            yield _one_signal(left)
        finally:
            left.set()

    def entries(self) -> tuple[ProviderEntry, ...]:
        """Every provider, by name."""
        return tuple(sorted((entry_of(one) for one in self._set.providers), key=lambda entry: entry.name))


def _one_signal(left: threading.Event) -> Iterator[int]:
    yield 0
    left.wait()


class StoredProviders:
    """The providers in the store, their keys sealed, and what administrators do to them.

    A row that cannot be read or opened is left out and logged by its name. While the store is away, the last providers
    that were read go on; where none were read since the process started, those of ``seed`` serve, though the store may
    say otherwise by now: a host's agents must not stop because it was started while Redis was down.

    :param store: opens the store.
    :param seed: the providers of the app's config. They are stored once, for all processes; nothing is, and nothing is
        compared, where there are none.
    """

    def __init__(
        self, store: Callable[[], ConfigStore], sealer: Sealer, seed: Sequence[ProviderSettings]
    ) -> None:
        self._store = store
        self._sealer = sealer
        by_name = sorted(seed, key=lambda one: one.name)
        self._seed = tuple(ProviderConfig(check_provider(one)) for one in by_name)
        self._seeded = False
        self._told = False
        self._rows = CachedRows(store, TABLE, self._meaning, lambda: self._seed or None, self._prepare)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def providers(self) -> ProviderSet:
        """Every provider that can be read, disabled ones without their keys.

        :raises ServicesUnavailable: where the store is away, was never read, and there is no seed.
        """
        version, providers = self._rows.read()
        return ProviderSet(providers, version)

    def watch_providers(self) -> AbstractContextManager[Iterator[int]]:
        """The versions of the configuration: the present one, and one for each change."""
        return self._store().watch_config()

    def entries(self) -> tuple[ProviderEntry, ...]:
        """Every stored provider, by name; those that cannot be read too, with what is wrong with them."""
        _, rows = self._opened().config_rows(TABLE)
        return tuple(self._entry(name, rows[name]) for name in sorted(rows))

    def change(
        self,
        name: str,
        *,
        provider_type: str | None = None,
        base_url: str | None = None,
        keys: Sequence[str] | None = None,
        enabled: bool | None = None,
    ) -> tuple[ProviderEntry, bool]:
        """Store a provider, new or changed: what is null stays as it is stored, or is the default.

        :returns: how it is stored now, and whether it is new.
        :raises ConfigError: for what cannot work: among others, a new one without a type, or another base URL or type
            without keys. Whoever may not read the stored keys could else have them sent wherever they like.
        """
        store = self._opened()
        text = store.config_rows(TABLE)[1].get(name)
        stored = None if text is None else self._stored(name, text)
        settings = check_provider(_changed(name, stored, provider_type, base_url, keys))
        was_enabled = stored.enabled if stored is not None else True
        config = ProviderConfig(settings, was_enabled if enabled is None else enabled)
        store.put_config_row(TABLE, name, _text_of(self._sealer, config))
        return entry_of(config), text is None

    def set_enabled(self, name: str, enabled: bool) -> ProviderEntry | None:
        """Enable or disable a provider; null where there is none.

        :raises ConfigError: for one that is stored damaged.
        """
        store = self._opened()
        text = store.config_rows(TABLE)[1].get(name)
        if text is None:
            return None
        try:
            row = {**_row(text), "enabled": enabled}
        except Unreadable as error:
            raise ConfigError(
                f"Provider {name!r} is stored damaged: {error}. Set it anew, or remove it."
            ) from None
        changed = json.dumps(row)
        store.put_config_row(TABLE, name, changed)
        return self._entry(name, changed)

    def remove(self, name: str) -> bool:
        """Remove a provider; whether there was one. One that the config names does not come back."""
        return self._opened().delete_config_row(TABLE, name) is not None

    def reseal(self) -> tuple[str, ...]:
        """Seal under the first secret key what was sealed under another; the names of those providers."""
        store = self._opened()
        _, rows = store.config_rows(TABLE)
        resealed = []
        for name, text in sorted(rows.items()):
            try:
                row = _row(text)
                if not self._sealer.is_current(row["keys"]):
                    store.put_config_row(TABLE, name, _text_of(self._sealer, self._config(name, text)))
                    resealed.append(name)
            except Unreadable as error:
                _log_skipped(name, error)
        return tuple(resealed)

    def _opened(self) -> ConfigStore:
        """The store, seeded: what an administrator does counts from there."""
        store = self._store()
        self._do_seed(store)
        return store

    def _prepare(self, store: ConfigStore, *, lost: bool) -> None:
        # With nothing to seed from, a config that gets providers later still can be.
        if self._seed and (lost or not self._seeded):
            self._do_seed(store)

    def _do_seed(self, store: ConfigStore) -> None:
        contents = _contents(self._seed)
        rows = {one.settings.name: _text_of(self._sealer, one) for one in self._seed}
        found = store.seed_config(TABLE, rows, self._sealer.digest(contents, "seed"))
        self._seeded = True
        if found is not None and self._seed and not self._told:
            self._told = True
            if not self._sealer.digest_fits(found, contents, "seed"):
                _log_different()

    def _meaning(self, rows: Mapping[str, str]) -> tuple[ProviderConfig, ...]:
        providers = []
        for name in sorted(rows):
            try:
                config = self._config(name, rows[name])
            except Unreadable as error:
                _log_skipped(name, error)
                continue
            providers.append(config if config.enabled else _without_keys(config))
        return tuple(providers)

    def _stored(self, name: str, text: str) -> ProviderConfig | None:
        try:
            return self._config(name, text)
        except Unreadable:
            return None

    def _entry(self, name: str, text: str) -> ProviderEntry:
        try:
            return entry_of(self._config(name, text))
        except Unreadable as error:
            reason = str(error)
        try:
            row = _row(text)
        except Unreadable:
            row = {}
        return ProviderEntry(name, row.get("type"), row.get("base_url"), row.get("enabled"), error=reason)

    def _config(self, name: str, text: str) -> ProviderConfig:
        row = _row(text)
        try:
            keys = json.loads(self._sealer.open(row["keys"], *_purpose(name, row["type"], row["base_url"])))
            settings = check_provider(ProviderSettings(name, row["type"], row["base_url"], keys))
        except Unsealable as error:
            raise Unreadable(f"its keys cannot be opened: {error}") from None
        except ValueError:
            # A ConfigError, mostly. Its message may show what somebody wrote into the wrong field.
            raise Unreadable("its name, type, base_url or keys are none that a provider can have") from None
        return ProviderConfig(settings, row["enabled"])


def administered(configurator: ProviderConfigurator) -> StoredProviders | None:
    """The configurator, if providers can be changed through it; null for one of the host's own.

    :raises SecretKeyMissing: for providers that come from the config because there is no secret key.
    """
    if isinstance(configurator, ConfiguredProviders):
        raise secret_key_missing(
            f"providers cannot be stored, for lack of a key to encrypt theirs with, and those of {PROVIDERS} are served"
        )
    return configurator if isinstance(configurator, StoredProviders) else None


def _changed(
    name: str,
    stored: ProviderConfig | None,
    type_: str | None,
    base_url: str | None,
    keys: Sequence[str] | None,
) -> ProviderSettings:
    """The settings that a change asks for, not checked yet."""
    before = stored.settings if stored is not None else None
    if before is None:
        if type_ is None:
            types = " or ".join(map(repr, DEFAULT_BASE_URLS))
            raise ConfigError(
                f"There is no readable provider {name!r} stored: say which type it is, {types}."
            )
        return ProviderSettings(name, type_, base_url or DEFAULT_BASE_URLS.get(type_, ""), tuple(keys or ()))
    same_type = type_ in (None, before.type)
    default = before.base_url if same_type else DEFAULT_BASE_URLS.get(type_ or "", "")
    after = ProviderSettings(name, type_ or before.type, base_url or default, tuple(keys or ()))
    if keys is not None:
        return after
    moved = not same_type or after.base_url.rstrip("/") != before.base_url
    if moved and before.keys:
        raise ConfigError(
            f"The stored keys of provider {name!r} were given for another base_url or type: give its keys again."
        )
    return replace(after, keys=before.keys)


def _without_keys(config: ProviderConfig) -> ProviderConfig:
    return replace(config, settings=replace(config.settings, keys=()))


def _contents(seed: Sequence[ProviderConfig]) -> str:
    """What a seed's digest is made of, in one spelling."""
    rows = [[one.settings.name, one.settings.type, one.settings.base_url, *one.settings.keys] for one in seed]
    return json.dumps(rows)


def _text_of(sealer: Sealer, config: ProviderConfig) -> str:
    one = config.settings
    keys = sealer.seal(json.dumps(list(one.keys)), *_purpose(one.name, one.type, one.base_url))
    return json.dumps({"type": one.type, "base_url": one.base_url, "keys": keys, "enabled": config.enabled})


def _purpose(name: str, type_: str, base_url: str) -> tuple[str, ...]:
    # With the URL in it: whoever can write to the store, and no more, cannot have the keys sent elsewhere.
    return "provider", name, "keys", type_, base_url


def _row(text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable("it is not JSON") from None
    if not isinstance(row, dict):
        raise Unreadable("it is not a JSON object")
    for name, type_ in _FIELDS.items():
        if not isinstance(row.get(name), type_):
            raise Unreadable(f"its field {name!r} is missing or of another type")
    return row


def _log_skipped(name: str, error: Unreadable) -> None:
    logger.error("the stored provider %s is left out: %s", shown(name), error)


def _log_different() -> None:
    logger.warning(
        "the providers in the app's config (%s, or the environment) are not those that the store was seeded from, or "
        "%s has changed; the stored ones are in force. See them with 'flask aibridge provider list' and change them "
        "with 'flask aibridge provider set'.",
        PROVIDERS,
        SECRET_KEY,
    )
