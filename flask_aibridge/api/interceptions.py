"""``/interceptions``: what was asked of the providers, newest first; everybody's for administrators, else one's own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Response

from flask_aibridge.api import schemas
from flask_aibridge.api.csv_export import TOKENS, Chunk, csv_response, pages, wants_csv
from flask_aibridge.api.problems import Problem
from flask_aibridge.api.reading import get, initiator_for, path_parameter, with_cursor
from flask_aibridge.services.storage import InterceptionView, Page, Query

if TYPE_CHECKING:
    from flask_aibridge.api.management import Management

__all__ = ["PATHS", "add_routes", "document", "full_document"]

COLUMNS: Final = (
    "id",
    "initiator",
    "provider",
    "provider_type",
    "model",
    "client",
    "source",
    "session_id",
    "status",
    "started_at",
    "ended_at",
    *TOKENS,
)

_INTERCEPTION: Final = schemas.Interception()
_DETAIL: Final = schemas.InterceptionDetail()


def add_routes(blueprint: Blueprint, management: Management) -> None:
    """Add ``/interceptions`` and what is below it."""
    access, store = management.access, management.store

    @blueprint.get("/interceptions")
    def list_interceptions() -> dict[str, Any] | Response:
        viewer, asked = access.viewer(), schemas.read_query(schemas.InterceptionsQuery())
        limit, cursor, form = (asked.pop(name, None) for name in ("limit", "cursor", "format"))
        query = Query(**asked | {"initiator": initiator_for(viewer, asked.get("initiator"))})
        reader = store()

        def ask(size: int, place: str | None) -> Page:
            return with_cursor(lambda: reader.interceptions(query, limit=size, cursor=place))

        if wants_csv(form):
            return csv_response(
                "interceptions", COLUMNS, pages(lambda *page: _chunk(ask(*page)), limit, cursor)
            )
        page = ask(limit or schemas.DEFAULT_LIMIT, cursor)
        return {"count": page.count, "interceptions": _documents(page), "next": page.next}

    @blueprint.get("/interceptions/<interception_id>")
    def show_interception(interception_id: str) -> dict[str, Any]:
        viewer = access.viewer()
        schemas.read_query(schemas.NoQuery())
        view = store().interception(interception_id)
        if view is None or not viewer.may_see(view.start.initiator):
            raise Problem(404, "unknown_interception", "There is no interception with this id.")
        return full_document(view)


def _documents(page: Page) -> list[dict[str, Any]]:
    return [document(view) for view in page.interceptions]


def _chunk(page: Page) -> Chunk:
    return Chunk(_documents(page), page.next)


def document(view: InterceptionView) -> dict[str, Any]:
    """An interception as JSON shows it."""
    shown: dict[str, Any] = _INTERCEPTION.dump(view)
    return shown


def full_document(view: InterceptionView) -> dict[str, Any]:
    """A single interception as JSON shows it, with everything that is recorded of it."""
    shown: dict[str, Any] = _DETAIL.dump(view)
    failed = view.end is not None and (view.end.error_type or view.end.error_message)
    shown["error"] = schemas.InterceptionError().dump(view.end) if failed else None
    return shown


PATHS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "/interceptions": {
            "get": get(
                "Interceptions, newest first.", schemas.InterceptionPage, schemas.InterceptionsQuery, csv=True
            )
        },
        "/interceptions/{interception_id}": {
            "parameters": [path_parameter("interception_id")],
            "get": get("One interception, with its content.", schemas.InterceptionDetail),
        },
    }
)
"""The routes of this module, below the prefix, as OpenAPI operations; schemas stand for themselves."""
