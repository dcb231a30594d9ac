"""``/providers``: which providers there are, for administrators. Keys go in and never come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint
from marshmallow import Schema, fields, validate

from flask_aibridge.api.bodies import read_body
from flask_aibridge.api.problems import Problem
from flask_aibridge.api.signals import announce
from flask_aibridge.config import DEFAULT_BASE_URLS
from flask_aibridge.errors import ConfigError
from flask_aibridge.services.configuration.providers import (
    ConfiguredProviders,
    ProviderEntry,
    StoredProviders,
    administered,
    entry_of,
)
from flask_aibridge.services.interfaces import ProviderConfigurator

if TYPE_CHECKING:
    from flask_aibridge.api.management import Management

__all__ = [
    "PATHS",
    "add_routes",
    "change_provider",
    "document",
    "entries_of",
    "listing",
    "remove_provider",
    "stored_providers",
    "switch_provider",
]

MAX_NAME: Final = 64
"""Characters of a provider's name, which is part of every URL."""

MAX_URL: Final = 2048

MAX_KEYS: Final = 16
"""Keys of one provider: one is used, the others stand by."""

MAX_KEY: Final = 4096
"""Characters of a key: those of providers have some hundred, those that are tokens more."""


def _switch(**options: Any) -> fields.Boolean:
    """``true`` or ``false``, and no text that only looks like it."""
    return fields.Boolean(truthy={True}, falsy={False}, **options)


class ProviderChangeSchema(Schema):
    """What a provider is to be. What is absent stays as it is stored, or is the default for a new one."""

    type = fields.String(load_default=None, validate=validate.OneOf(sorted(DEFAULT_BASE_URLS)))
    base_url = fields.String(load_default=None, validate=validate.Length(1, MAX_URL))
    keys = fields.List(
        fields.String(validate=validate.Length(1, MAX_KEY)),
        load_default=None,
        validate=validate.Length(max=MAX_KEYS),
        metadata={
            "writeOnly": True,
            "description": "Best first. To be given again with another base_url or type.",
        },
    )
    enabled = _switch(load_default=None)


class ProviderSwitchSchema(Schema):
    """Whether a provider is served."""

    enabled = _switch(required=True)


class KeysSchema(Schema):
    """The keys of a provider, as far as they are shown."""

    count = fields.Integer()
    hints = fields.List(
        fields.String(), metadata={"description": "The ends of each key, to recognise it by."}
    )


class ProviderSchema(Schema):
    """A provider. With an ``error`` it is not served, and what could not be read is null."""

    name = fields.String()
    type = fields.String(allow_none=True)
    base_url = fields.String(allow_none=True)
    enabled = fields.Boolean(allow_none=True)
    keys = fields.Nested(KeysSchema)
    error = fields.String(allow_none=True)


class ProviderListSchema(Schema):
    """Providers, by name."""

    count = fields.Integer()
    providers = fields.List(fields.Nested(ProviderSchema))


def add_routes(blueprint: Blueprint, management: Management) -> None:
    """Add ``/providers`` and what is below it."""
    access = management.access

    @blueprint.get("/providers")
    def list_providers() -> dict[str, Any]:
        access.require_administrator()
        return listing(entries_of(_configurator(management)))

    @blueprint.put("/providers/<name>")
    def put_provider(name: str) -> tuple[dict[str, Any], int]:
        viewer = access.require_administrator()
        wanted = read_body(ProviderChangeSchema())
        entry, new = change_provider(_stored(management), name, wanted, by=viewer.name)
        return document(entry), 201 if new else 200

    @blueprint.patch("/providers/<name>")
    def patch_provider(name: str) -> dict[str, Any]:
        viewer = access.require_administrator()
        enabled = read_body(ProviderSwitchSchema())["enabled"]
        return document(switch_provider(_stored(management), name, enabled, by=viewer.name))

    @blueprint.delete("/providers/<name>")
    def delete_provider(name: str) -> tuple[str, int]:
        viewer = access.require_administrator()
        remove_provider(_stored(management), name, by=viewer.name)
        return "", 204


def change_provider(
    providers: StoredProviders, name: str, wanted: Mapping[str, Any], *, by: str
) -> tuple[ProviderEntry, bool]:
    """Store a provider; how it is stored now, and whether it is new.

    :param wanted: as ``ProviderChangeSchema`` loads it.
    :raises Problem: 400 ``invalid`` for what cannot work.
    """
    if len(name) > MAX_NAME:
        raise Problem(400, "invalid", f"A provider's name has at most {MAX_NAME} characters.")
    try:
        entry, new = providers.change(
            name,
            provider_type=wanted["type"],
            base_url=wanted["base_url"],
            keys=wanted["keys"],
            enabled=wanted["enabled"],
        )
    except ConfigError as error:
        raise Problem(400, "invalid", str(error)) from None
    announce("created" if new else "updated", "provider", name, by=by)
    return entry, new


def switch_provider(providers: StoredProviders, name: str, enabled: bool, *, by: str) -> ProviderEntry:
    """Enable or disable a provider; how it is stored now.

    :raises Problem: 404 ``unknown_provider``; 409 ``damaged`` for one that is not stored in full.
    """
    try:
        entry = providers.set_enabled(name, enabled)
    except ConfigError as error:
        raise Problem(409, "damaged", str(error)) from None
    if entry is None:
        raise _unknown(name)
    announce("updated", "provider", name, by=by)
    return entry


def remove_provider(providers: StoredProviders, name: str, *, by: str) -> None:
    """Remove a provider.

    :raises Problem: 404 ``unknown_provider``.
    """
    if not providers.remove(name):
        raise _unknown(name)
    announce("deleted", "provider", name, by=by)


def entries_of(configurator: ProviderConfigurator) -> tuple[ProviderEntry, ...]:
    """Every provider of any configurator, by name."""
    if isinstance(configurator, StoredProviders | ConfiguredProviders):
        return configurator.entries()
    entries = (entry_of(one) for one in configurator.providers().providers)
    return tuple(sorted(entries, key=lambda entry: entry.name))


def stored_providers(configurator: ProviderConfigurator) -> StoredProviders:
    """The configurator, if providers can be changed through it.

    :raises SecretKeyMissing: where they come from the config, for lack of a secret key.
    :raises Problem: 501 ``configured_elsewhere`` for one of the host's own.
    """
    providers = administered(configurator)
    if providers is None:
        raise Problem(
            501,
            "configured_elsewhere",
            "The providers of this gateway come from a ProviderConfigurator of the application's own, or from another "
            "host: change them there.",
        )
    return providers


def document(entry: ProviderEntry) -> dict[str, Any]:
    """A provider as JSON shows it."""
    return {
        "name": entry.name,
        "type": entry.type,
        "base_url": entry.base_url,
        "enabled": entry.enabled,
        "keys": {"count": len(entry.key_hints), "hints": list(entry.key_hints)},
        "error": entry.error,
    }


def listing(entries: Sequence[ProviderEntry]) -> dict[str, Any]:
    """Providers as JSON shows them."""
    return {"count": len(entries), "providers": [document(entry) for entry in entries]}


def _configurator(management: Management) -> ProviderConfigurator:
    if management.provider_configurator is None:
        return management.services().provider_configurator
    return management.provider_configurator()


def _stored(management: Management) -> StoredProviders:
    providers = stored_providers(_configurator(management))
    management.store()  # a missing one is said as such, and not taken for something wrong in the request
    return providers


def _unknown(name: str) -> Problem:
    return Problem(404, "unknown_provider", f"There is no stored provider {name!r:.80}.")


def _json(schema: type[Schema]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _answer(description: str, schema: type[Schema]) -> dict[str, Any]:
    return {"description": description, "content": _json(schema)}


_NAME: Final = {"in": "path", "name": "name", "required": True, "schema": {"type": "string"}}

PATHS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "/providers": {
            "get": {
                "summary": "Providers, by name. Administrators only.",
                "responses": {"200": _answer("The providers, without their keys.", ProviderListSchema)},
            },
        },
        "/providers/{name}": {
            "parameters": [_NAME],
            "put": {
                "summary": "Store a provider, new or changed. Administrators only.",
                "requestBody": {"required": True, "content": _json(ProviderChangeSchema)},
                "responses": {
                    "200": _answer("The provider, changed.", ProviderSchema),
                    "201": _answer("The provider, new.", ProviderSchema),
                },
            },
            "patch": {
                "summary": "Enable or disable a provider. Administrators only.",
                "requestBody": {"required": True, "content": _json(ProviderSwitchSchema)},
                "responses": {"200": _answer("The provider.", ProviderSchema)},
            },
            "delete": {
                "summary": "Remove a provider, for good. Administrators only.",
                "responses": {"204": {"description": "It is gone."}},
            },
        },
    }
)
"""The routes of this module, below the prefix, as OpenAPI operations; schemas stand for themselves."""
