"""``/usage``: sums by day, user, model and provider; and the ``/models`` and ``/clients`` that there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Response
from marshmallow import ValidationError

from flask_aibridge.api import schemas
from flask_aibridge.api.csv_export import MAX_ROWS, TOKENS, Chunk, csv_response, wants_csv
from flask_aibridge.api.problems import Problem
from flask_aibridge.api.reading import get, initiator_for
from flask_aibridge.services.storage import Grouping

if TYPE_CHECKING:
    from flask_aibridge.api.management import Management

__all__ = ["PATHS", "add_routes"]

LABELS: Final[Mapping[Grouping, str]] = MappingProxyType(
    {"day": "period", "hour": "period", "user": "user", "model": "model", "provider": "provider"}
)
"""What is grouped by → the member of a row that says which group it is."""

_ROW: Final = schemas.UsageRow()


def add_routes(blueprint: Blueprint, management: Management) -> None:
    """Add ``/usage``, ``/models`` and ``/clients``."""
    access, store = management.access, management.store

    @blueprint.get("/usage")
    def show_usage() -> dict[str, Any] | Response:
        viewer, asked = access.viewer(), schemas.read_query(schemas.UsageQuery())
        user = initiator_for(viewer, asked.pop("initiator", None))
        form, groups = asked.pop("format", None), asked["group_by"]
        asked |= _span(asked.get("since"), asked.get("until"))
        rows = [_ROW.dump(row) for row in store().usage(**asked, user=user)]
        if len(rows) > MAX_ROWS:
            raise Problem(
                400,
                "too_many_rows",
                f"The answer would have {len(rows)} rows, and {MAX_ROWS} is the most: ask for less time, or for "
                "fewer groups.",
            )
        if wants_csv(form):
            columns = (*_labels(groups), "requests", *TOKENS)
            return csv_response("usage", columns, [Chunk(rows, None)])
        times = schemas.Usage(only=("since", "until")).dump(asked)
        return {**times, "group_by": list(groups), "usage": rows}

    @blueprint.get("/models")
    def list_models() -> dict[str, Any]:
        asked = schemas.read_query(schemas.InitiatorQuery())
        names = store().names("model", initiator=initiator_for(access.viewer(), asked.get("initiator")))
        return {"count": len(names), "models": list(names)}

    @blueprint.get("/clients")
    def list_clients() -> dict[str, Any]:
        asked = schemas.read_query(schemas.InitiatorQuery())
        names = store().names("client", initiator=initiator_for(access.viewer(), asked.get("initiator")))
        return {"count": len(names), "clients": list(names)}


def _labels(groups: Sequence[Grouping]) -> list[str]:
    return [LABELS[group] for group in groups]


def _span(since: datetime | None, until: datetime | None) -> dict[str, datetime]:
    """The time that is summed; unless it is said, whole days up to now."""
    until = until or datetime.now(UTC)
    if since is None:
        day = max(until - schemas.DEFAULT_SPAN, schemas.EARLIEST).date()
        since = datetime.combine(day, time(), UTC)
    if not since < until or until - since > schemas.MAX_SPAN:
        limit = f"Must be before 'until', and no more than {schemas.MAX_SPAN.days} days."
        raise ValidationError({"since": [limit]})
    return {"since": since, "until": until}


PATHS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "/usage": {"get": get("Sums of usage.", schemas.Usage, schemas.UsageQuery, csv=True)},
        "/models": {"get": get("Every model seen.", schemas.Models, schemas.InitiatorQuery)},
        "/clients": {"get": get("Every client seen.", schemas.Clients, schemas.InitiatorQuery)},
    }
)
"""The routes of this module, below the prefix, as OpenAPI operations; schemas stand for themselves."""
