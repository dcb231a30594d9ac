"""``/healthz`` and ``/readyz``: what asks whether this process lives, and whether to send it requests.

They need no credentials and stand beside the gate, so they say nothing but words from a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint

from flask_aibridge.api.problems import MEDIA_TYPE, Problem

if TYPE_CHECKING:
    from flask_aibridge.api.management import Management

__all__ = ["PATHS", "add_routes"]

LIVE: Final = "/healthz"
READY: Final = "/readyz"

RETRY_AFTER: Final = "1"
"""Seconds until it has been looked again."""


def add_routes(blueprint: Blueprint, management: Management) -> None:
    """Add ``/healthz``, which looks at nothing, and ``/readyz``."""
    readiness = management.readiness

    @blueprint.get(LIVE)
    def show_health() -> dict[str, Any]:
        return {"live": True}

    if readiness is None:
        return

    @blueprint.get(READY)
    def show_readiness() -> dict[str, Any]:
        found = readiness()
        answer = {"ready": found.ready, "reasons": list(found.reasons)}
        if not found.ready:
            detail = "This process is not to be sent requests now; 'reasons' says why."
            raise Problem(503, "not_ready", detail, headers={"Retry-After": RETRY_AFTER}, more=answer)
        return answer


def _get(summary: str, properties: Mapping[str, Any], **responses: Any) -> dict[str, Any]:
    schema = {"type": "object", "required": list(properties), "properties": dict(properties)}
    well = {"description": "So it is.", "content": {"application/json": {"schema": schema}}}
    return {"get": {"summary": summary, "security": [], "responses": {"200": well, **responses}}}


_REASONS: Final = {
    "type": "array",
    "description": "Stable words for what is not as it should be; some of them this process can live with.",
    "items": {"type": "string"},
}

PATHS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        LIVE: _get("Whether this process answers at all.", {"live": {"type": "boolean"}}),
        READY: _get(
            "Whether this process can serve requests.",
            {"ready": {"type": "boolean"}, "reasons": _REASONS},
            **{
                "503": {
                    "description": "It cannot, and 'reasons' says why.",
                    "content": {MEDIA_TYPE: {"schema": "Problem"}},
                }
            },
        ),
    }
)
"""The routes of this module, below the prefix, as OpenAPI operations."""
