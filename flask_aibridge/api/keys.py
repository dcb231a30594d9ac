"""``/keys``: API keys, for administrators; users see and revoke their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, request
from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from flask_aibridge.api import key_changes
from flask_aibridge.api.bodies import read_body
from flask_aibridge.api.problems import Problem
from flask_aibridge.api.reading import with_cursor
from flask_aibridge.api.schemas import DEFAULT_LIMIT, read_query
from flask_aibridge.services.api_keys import standing
from flask_aibridge.services.cursors import MAX_CURSOR
from flask_aibridge.services.interfaces import APIKey, Scopes
from flask_aibridge.services.schemas.fields import MAX_NAME, Limit, Moment, Name
from flask_aibridge.services.storage import MAX_LIMIT

if TYPE_CHECKING:
    from flask_aibridge.api.management import Management

__all__ = ["PATHS", "add_routes"]

MAX_PATTERNS: Final = 100
"""Providers or models that one key may be limited to: more belong in a pattern."""

_PROVIDER: Final = re.compile(r"[a-z0-9-]+\*?|\*")


def _printable(value: str) -> None:
    if not value.isprintable():
        raise ValidationError("Must have no control characters.")


def _pattern(value: str) -> None:
    _printable(value)
    if "*" in value[:-1]:
        raise ValidationError("May have one '*', at its end.")


def _provider_pattern(value: str) -> None:
    if not _PROVIDER.fullmatch(value):
        raise ValidationError("Must be a provider's name (a-z, 0-9, '-'), or its beginning and a '*'.")


_COUNT: Final = validate.Length(1, MAX_PATTERNS)


class ScopesSchema(Schema):
    """What a key is limited to; null or absent: to nothing. A pattern that ends in ``*`` stands for every name that
    begins so."""

    providers = fields.List(
        fields.String(validate=_provider_pattern), allow_none=True, load_default=None, validate=_COUNT
    )
    models = fields.List(
        fields.String(validate=[validate.Length(1, MAX_NAME), _pattern]),
        allow_none=True,
        load_default=None,
        validate=_COUNT,
    )


_RATE_LIMIT: Final = {"type": "string", "description": "Such as 60/minute, or 60/minute burst=20."}


class NewKeySchema(Schema):
    """A key to be made. ``expires_in`` is in seconds; without either expiry the key lives until it is revoked."""

    owner = Name(required=True)
    display_name = fields.String(load_default="", validate=[validate.Length(max=MAX_NAME), _printable])
    expires_at = Moment(allow_none=True, load_default=None)
    expires_in = fields.Integer(
        strict=True,
        allow_none=True,
        load_default=None,
        validate=validate.Range(1, int(key_changes.MAX_LIFETIME.total_seconds())),
    )
    scopes = fields.Nested(ScopesSchema, allow_none=True, load_default=None)
    rate_limit = Limit(allow_none=True, load_default=None, metadata=_RATE_LIMIT)

    @validates_schema
    def _check(self, data: Mapping[str, Any], **_options: Any) -> None:
        _check_owner(data["owner"])
        if data["expires_at"] is not None and data["expires_in"] is not None:
            raise ValidationError("Give expires_at or expires_in, not both.", "expires_in")
        if data["expires_at"] is not None:
            _check_expiry(data["expires_at"])


class RotationSchema(Schema):
    """How long, in seconds, the old secret goes on being accepted."""

    overlap_seconds = fields.Integer(
        strict=True,
        load_default=0,
        validate=validate.Range(0, int(key_changes.MAX_OVERLAP.total_seconds())),
    )


class KeySchema(Schema):
    """A key as it is listed: everything but its secret."""

    id = fields.String()
    owner = fields.String()
    display_name = fields.String()
    scopes = fields.Nested(ScopesSchema)
    status = fields.String(validate=validate.OneOf(["active", "expired", "revoked"]))
    created_at = Moment()
    expires_at = Moment(allow_none=True)
    revoked_at = Moment(allow_none=True)
    last_used_at = Moment(allow_none=True)
    rate_limit = Limit(allow_none=True, metadata=_RATE_LIMIT)


_LISTED: Final = KeySchema()


class IssuedKeySchema(KeySchema):
    """A key with its secret, as it is answered once."""

    key = fields.String(metadata={"description": "aib_<id>_<secret>: shown now and never again."})


class KeyListSchema(Schema):
    """Keys, newest first. ``count`` is the number of all that match, when the first page was made."""

    count = fields.Integer()
    keys = fields.List(fields.Nested(KeySchema))
    next = fields.String(allow_none=True)


class KeysQuery(Schema):
    """Which keys."""

    owner = fields.String(validate=validate.Length(1, MAX_NAME), metadata={"description": "Whose."})
    limit = fields.Integer(
        load_default=DEFAULT_LIMIT,
        validate=validate.Range(1, MAX_LIMIT),
        metadata={"description": "Keys of a page."},
    )
    cursor = fields.String(
        validate=validate.Length(1, MAX_CURSOR),
        metadata={"description": "'next' of the page before, with the same filters."},
    )


def add_routes(blueprint: Blueprint, management: Management) -> None:
    """Add ``/keys`` and what is below it."""
    access, store = management.access, management.store

    @blueprint.get("/keys")
    def list_keys() -> dict[str, Any]:
        viewer, asked = access.viewer(), read_query(KeysQuery())
        owner = asked.get("owner", None if viewer.administrator else viewer.name)
        if not viewer.may_see(owner):
            return {"count": 0, "keys": [], "next": None}
        limit, cursor = asked["limit"], asked.get("cursor")
        page = with_cursor(lambda: store().api_keys(owner, limit=limit, cursor=cursor))
        return {"count": page.count, "keys": [document(row.key) for row in page.rows], "next": page.next}

    @blueprint.post("/keys")
    def create_key() -> tuple[dict[str, Any], int, dict[str, str]]:
        viewer = access.require_administrator()
        issued = key_changes.create_key(store(), by=viewer.name, **_wanted(read_body(NewKeySchema())))
        return _once(issued), 201, {"Location": f"{request.base_url.rstrip('/')}/{issued.key.id}"}

    @blueprint.get("/keys/<key_id>")
    def show_key(key_id: str) -> dict[str, Any]:
        return document(_visible(management, key_id)[1])

    @blueprint.post("/keys/<key_id>/rotate")
    def rotate_key(key_id: str) -> dict[str, Any]:
        viewer = access.require_administrator()
        overlap = timedelta(seconds=read_body(RotationSchema())["overlap_seconds"])
        return _once(key_changes.rotate_key(store(), key_id, by=viewer.name, overlap=overlap))

    @blueprint.delete("/keys/<key_id>")
    def revoke_key(key_id: str) -> dict[str, Any]:
        by, key = _visible(management, key_id)
        return document(key_changes.revoke_key(store(), key.id, by=by))


def document(key: APIKey) -> dict[str, Any]:
    """A key as JSON shows it."""
    values = {name: getattr(key, name) for name in _LISTED.fields if name != "status"}
    shown: dict[str, Any] = _LISTED.dump({**values, "status": standing(key, key_changes.now())})
    return shown


def validated(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``create_key``, from what a form or a command says.

    :raises Problem: 400 ``invalid``, with a sentence about each field that is missing or wrong.
    """
    try:
        return _wanted(NewKeySchema().load(wanted))
    except ValidationError as error:
        detail = "; ".join(f"{name}: {_sentence(what)}" for name, what in sorted(error.messages_dict.items()))
        raise Problem(400, "invalid", detail, more={"errors": error.messages}) from None


def _sentence(messages: Any) -> str:
    if isinstance(messages, Mapping):
        return " ".join(f"{name}: {_sentence(what)}" for name, what in messages.items())
    return " ".join(map(str, messages)) if isinstance(messages, list) else str(messages)


def _once(issued: key_changes.IssuedKey) -> dict[str, Any]:
    return {**document(issued.key), "key": issued.text}


def _visible(management: Management, key_id: str) -> tuple[str, APIKey]:
    """Who asks, and the key, where they may see it. Other people's keys are as unknown as those that are not there."""
    viewer = management.access.viewer()
    row = management.store().api_key(key_id)
    if row is None or not viewer.may_see(row.key.owner):
        raise Problem(404, "unknown_key", "There is no API key with this id.")
    return viewer.name, row.key


def _wanted(body: Mapping[str, Any]) -> dict[str, Any]:
    expires_at: datetime | None = body["expires_at"]
    if body["expires_in"] is not None:
        expires_at = key_changes.now() + timedelta(seconds=body["expires_in"])
    scopes = body["scopes"] or {}
    limits = {name: None if names is None else tuple(names) for name, names in scopes.items()}
    return {
        "owner": body["owner"],
        "display_name": body["display_name"],
        "expires_at": expires_at,
        "scopes": Scopes(**limits),
        "rate_limit": body["rate_limit"],
    }


def _check_owner(owner: str) -> None:
    if not owner.strip() or not owner.isprintable():
        raise ValidationError("Must be a name without control characters.", "owner")


def _check_expiry(expires_at: datetime) -> None:
    if not timedelta() < expires_at - key_changes.now() <= key_changes.MAX_LIFETIME:
        raise ValidationError("Must be in the future, and not more than ten years from now.", "expires_at")


def _json(schema: type[Schema]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _answer(description: str, schema: type[Schema]) -> dict[str, Any]:
    return {"description": description, "content": _json(schema)}


_KEY_ID: Final = {"in": "path", "name": "key_id", "required": True, "schema": {"type": "string"}}

PATHS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "/keys": {
            "get": {
                "summary": "API keys, newest first: all of them for an administrator, else one's own.",
                "parameters": [{"in": "query", "schema": KeysQuery}],
                "responses": {"200": _answer("The keys, without their secrets.", KeyListSchema)},
            },
            "post": {
                "summary": "Make an API key. Administrators only.",
                "requestBody": {"required": True, "content": _json(NewKeySchema)},
                "responses": {"201": _answer("The key; its secret is shown this once.", IssuedKeySchema)},
            },
        },
        "/keys/{key_id}": {
            "parameters": [_KEY_ID],
            "get": {
                "summary": "One API key.",
                "responses": {"200": _answer("The key, without its secret.", KeySchema)},
            },
            "delete": {
                "summary": "Revoke an API key, for good. It stays in the lists.",
                "responses": {"200": _answer("The key, revoked now or before.", KeySchema)},
            },
        },
        "/keys/{key_id}/rotate": {
            "parameters": [_KEY_ID],
            "post": {
                "summary": "Give an API key another secret. Administrators only.",
                "requestBody": {"content": _json(RotationSchema)},
                "responses": {"200": _answer("The key; its new secret is shown this once.", IssuedKeySchema)},
            },
        },
    }
)
"""The routes of this module, below the prefix, as OpenAPI operations; schemas stand for themselves."""
