"""``/api/v2/entitlements`` and ``/api/v2/licenses``: what this installation may do, and the licences that say so; for
administrators.

They stand beside the prefix of the public door, not below it, and like all management routes not behind the licence.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, get_args

from flask import Blueprint
from marshmallow import Schema, fields, validate

from flask_aibridge.api.bodies import read_body
from flask_aibridge.api.frame import make_management_blueprint
from flask_aibridge.api.license_changes import install_license, refresh_entitlements, remove_license
from flask_aibridge.api.problems import Problem
from flask_aibridge.errors import ConfigError, LicenseError, ServicesUnavailable
from flask_aibridge.license.grants import FeatureState
from flask_aibridge.services.schemas.fields import Moment

if TYPE_CHECKING:
    from flask_aibridge.api.management import Management
    from flask_aibridge.license.holder import LicenseHolder
    from flask_aibridge.license.licenses import License

__all__ = ["BASE", "BLUEPRINT", "PATHS", "add_routes", "document", "make_license_blueprint", "moment_of"]

BLUEPRINT: Final = "aibridge_licenses"
BASE: Final = "/api/v2"


class NewLicenseSchema(Schema):
    """A licence to install: the compact JWT as it was received; white space in it does not matter."""

    license = fields.String(required=True)


class LicenseClaimsSchema(Schema):
    """What a licence says. Times are seconds since the epoch; unknown claims are not shown."""

    iss = fields.String(metadata={"description": "The vendor."})
    sub = fields.String(metadata={"description": "The customer."})
    jti = fields.String()
    iat = fields.Integer()
    nbf = fields.Integer()
    license_expires = fields.Integer(metadata={"description": "The end of the paid term, when grace begins."})
    exp = fields.Integer(metadata={"description": "The end of the grace."})
    version = fields.Integer()
    features = fields.Dict(keys=fields.String(), values=fields.Integer())
    feature_set = fields.String(allow_none=True)
    trial = fields.Boolean()
    deployment_ids = fields.List(fields.String())


class LicenseSchema(Schema):
    """A licence as it is listed, never its text."""

    id = fields.String(metadata={"description": "Its jti."})
    uploaded_at = Moment(
        allow_none=True, metadata={"description": "When it was installed; null for one of the configuration."}
    )
    claims = fields.Nested(
        LicenseClaimsSchema,
        allow_none=True,
        metadata={"description": "What it says; null where that cannot be verified."},
    )


class FeatureSchema(Schema):
    """One feature."""

    state = fields.String(validate=validate.OneOf(get_args(FeatureState)))
    enabled = fields.Boolean()
    limit = fields.Integer(
        allow_none=True, metadata={"description": "How much is licensed; null for what is only on or off."}
    )
    actual = fields.Integer(
        allow_none=True, metadata={"description": "How much is used; null where that is not counted."}
    )


class WarningSchema(Schema):
    """Something that an administrator should do something about."""

    code = fields.String()
    message = fields.String()


class RejectedSchema(Schema):
    """A licence that does not count, and why."""

    license_id = fields.String()
    code = fields.String()
    message = fields.String()


class EntitlementsSchema(Schema):
    """What the licences allow together."""

    features = fields.Dict(keys=fields.String(), values=fields.Nested(FeatureSchema))
    warnings = fields.List(fields.Nested(WarningSchema))
    errors = fields.List(fields.Nested(RejectedSchema))
    has_license = fields.Boolean()
    trial = fields.Boolean()
    refreshed_at = Moment()
    deployment_id = fields.String(
        allow_none=True,
        metadata={"description": "The id of this installation; null while there is no store that says it."},
    )


_LICENSE: Final = LicenseSchema()
_ENTITLEMENTS: Final = EntitlementsSchema()


def make_license_blueprint(management: Management, base: str = BASE) -> Blueprint:
    """The blueprint of one app's licences.

    :param management: with a ``license_holder``.
    :param base: what the routes are below.
    """
    return make_management_blueprint(management, base, parts=("licenses",), name=BLUEPRINT)


def add_routes(blueprint: Blueprint, management: Management) -> None:
    """Add ``/entitlements``, ``/licenses`` and what is below it.

    :raises ValueError: for a management without a ``license_holder``.
    """
    access, holder = management.access, management.license_holder
    if holder is None:
        raise ValueError("The routes of licences need a Management with a license_holder.")

    @blueprint.get("/entitlements")
    def show_entitlements() -> dict[str, Any]:
        access.require_administrator()
        return entitlements_document(holder)

    @blueprint.get("/licenses")
    def list_licenses() -> list[dict[str, Any]]:
        access.require_administrator()
        return [document(each) for each in holder.licenses()]

    @blueprint.post("/licenses")
    def install() -> tuple[dict[str, Any], int]:
        viewer = access.require_administrator()
        token = read_body(NewLicenseSchema())["license"]
        try:
            return document(install_license(holder, token, by=viewer.name)), 201
        except LicenseError as error:
            raise Problem(400, error.code, str(error)) from None

    @blueprint.delete("/licenses/<license_id>")
    def remove(license_id: str) -> dict[str, Any]:
        viewer = access.require_administrator()
        removed = remove_license(holder, license_id, by=viewer.name)
        return {"id": license_id} if removed is None else document(removed)

    @blueprint.post("/licenses/refresh-entitlements")
    def refresh() -> dict[str, Any]:
        access.require_administrator()
        refresh_entitlements(holder)
        return entitlements_document(holder)


def document(license_: License) -> dict[str, Any]:
    """A licence as JSON shows it."""
    uploaded_at = moment_of(license_.uploaded_at)
    shown: dict[str, Any] = _LICENSE.dump(
        {"id": license_.id, "uploaded_at": uploaded_at, "claims": license_.claims}
    )
    return shown


def moment_of(seconds: float | None) -> datetime | None:
    """A time of the licences', which are seconds since the epoch, as routes and commands show it."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def entitlements_document(holder: LicenseHolder) -> dict[str, Any]:
    """What the licences allow now, as JSON shows it."""
    entitlements = holder.entitlements()
    members = {name: getattr(entitlements, name) for name in _ENTITLEMENTS.fields if name != "deployment_id"}
    members["refreshed_at"] = moment_of(entitlements.refreshed_at)
    shown: dict[str, Any] = _ENTITLEMENTS.dump({**members, "deployment_id": _deployment_id(holder)})
    return shown


def _deployment_id(holder: LicenseHolder) -> str | None:
    try:
        return holder.deployment_id()
    except (ConfigError, ServicesUnavailable):  # what is in force is known all the same
        return None


def _json(schema: object) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _answer(description: str, schema: object) -> dict[str, Any]:
    return {"description": description, "content": _json(schema)}


_LICENSE_ID: Final = {"in": "path", "name": "license_id", "required": True, "schema": {"type": "string"}}

PATHS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "/entitlements": {
            "get": {
                "summary": "What this installation may do. Administrators only, as all of licences.",
                "responses": {"200": _answer("Features, warnings and errors.", EntitlementsSchema)},
            },
        },
        "/licenses": {
            "get": {
                "summary": "Every licence, also those that do not count.",
                "responses": {
                    "200": _answer(
                        "Those of the configuration, then those installed, the oldest first.",
                        {"type": "array", "items": LicenseSchema},
                    )
                },
            },
            "post": {
                "summary": "Verify a licence and put it in force in every process.",
                "requestBody": {"required": True, "content": _json(NewLicenseSchema)},
                "responses": {"201": _answer("The licence, without its text.", LicenseSchema)},
            },
        },
        "/licenses/{license_id}": {
            "parameters": [_LICENSE_ID],
            "delete": {
                "summary": "Remove an installed licence.",
                "responses": {"200": _answer("The licence that was removed.", LicenseSchema)},
            },
        },
        "/licenses/refresh-entitlements": {
            "post": {
                "summary": "Have every process read everything again; at most once a minute.",
                "responses": {"200": _answer("What follows from it.", EntitlementsSchema)},
            },
        },
    }
)
"""The routes of this module, below their base, as OpenAPI operations; schemas stand for themselves."""
