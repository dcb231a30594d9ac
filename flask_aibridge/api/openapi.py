"""``/openapi.json``: the management routes as an OpenAPI document, made of their schemas by apispec."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, current_app, request

from flask_aibridge.api import licenses
from flask_aibridge.api.problems import MEDIA_TYPE, Problem

if TYPE_CHECKING:
    from flask_aibridge.api.management import Management

__all__ = ["PATHS", "add_routes", "make_document"]

ROUTE: Final = "/openapi.json"
VERSION: Final = "3.1.0"
TITLE: Final = "Flask-AIBridge: management"

PATHS: Final[Mapping[str, Mapping[str, Any]]] = {
    ROUTE: {
        "get": {
            "summary": "This document.",
            "security": [],
            "responses": {
                "200": {
                    "description": "An OpenAPI document.",
                    "content": {"application/json": {"schema": {"type": "object"}}},
                }
            },
        }
    }
}

_TEXT: Final = {"type": "string"}

PROBLEM: Final = {
    "type": "object",
    "description": "Why a request is refused (RFC 9457). 'code' is the stable machine word.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": _TEXT,
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": _TEXT,
        "code": _TEXT,
        "errors": {"type": "object", "description": "What is wrong, by parameter or field."},
    },
}


def add_routes(blueprint: Blueprint, management: Management) -> None:
    """Add ``/openapi.json``. It says nothing of the host, and needs no credentials."""

    @blueprint.get(ROUTE)
    def show_openapi() -> dict[str, Any]:
        prefix = f"{request.script_root}{request.path.rstrip('/').removesuffix(ROUTE)}"
        return make_document(dict([*_paths(blueprint.name), *_license_paths()]), prefix)


def _paths(blueprint: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The described paths for which the current app has a route."""
    from flask_aibridge.api.frame import PARTS

    routed = _routed(blueprint)
    for part in PARTS:
        described = getattr(import_module(f"flask_aibridge.api.{part}"), "PATHS", {})
        for path, item in described.items():
            if any(rule.endswith(_shape(path)) for rule in routed):
                yield path, item


def _license_paths() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The described paths of licences, which say themselves what they are below: it is not the prefix."""
    routed = _routed(licenses.BLUEPRINT)
    for path, item in licenses.PATHS.items():
        bases = [rule.removesuffix(_shape(path)) for rule in routed if rule.endswith(_shape(path))]
        if bases:
            servers = [{"url": f"{request.script_root}{bases[0]}"}]
            yield (
                path,
                {
                    name: each if name == "parameters" else {**each, "servers": servers}
                    for name, each in item.items()
                },
            )


def _routed(blueprint: str) -> list[str]:
    """The shapes of the paths for which the current app has a route."""
    rules = current_app.url_map.iter_rules()
    return [_shape(rule.rule) for rule in rules if rule.endpoint.startswith(f"{blueprint}.")]


def _shape(path: str) -> str:
    return re.sub(r"<[^>]*>|\{[^}]*\}", "<>", path)


def make_document(paths: Mapping[str, Mapping[str, Any]], prefix: str) -> dict[str, Any]:
    """The OpenAPI document of routes.

    :param paths: path → OpenAPI path item, in which marshmallow schemas may stand for themselves.
    :param prefix: what all paths are below.
    :raises Problem: 501 where the extra is not installed.
    """
    try:
        from apispec import APISpec
        from apispec.ext.marshmallow import MarshmallowPlugin
    except ImportError:
        raise Problem(
            501,
            "openapi_missing",
            "The document is made by apispec, which is not installed: pip install 'Flask-AIBridge[openapi]'.",
        ) from None

    spec = APISpec(
        TITLE,
        _version(),
        VERSION,
        plugins=[MarshmallowPlugin()],
        servers=[{"url": prefix}],
        security=[{"bearer": []}],
    )
    spec.components.schema("Problem", PROBLEM)
    spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
    for path, item in paths.items():
        operations = {name: _operation(each) for name, each in item.items() if name != "parameters"}
        spec.path(path, operations=operations, parameters=[dict(each) for each in item.get("parameters", ())])
    document: dict[str, Any] = spec.to_dict()
    return document


def _version() -> str:
    try:
        return version("Flask-AIBridge")
    except PackageNotFoundError:  # run from its sources
        return "0"


def _operation(operation: Mapping[str, Any]) -> dict[str, Any]:
    """An operation of its own, for apispec changes what it is given; with the refusals that all have."""
    copied: dict[str, Any] = _copy(operation)
    refusal = {"description": "A problem document.", "content": {MEDIA_TYPE: {"schema": "Problem"}}}
    copied.setdefault("responses", {}).setdefault("default", _copy(refusal))
    return copied


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copy(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(each) for each in value]
    return value
