"""``/sessions``: interceptions by the session they belong to, last active first."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Response

from flask_aibridge.api import schemas
from flask_aibridge.api.csv_export import TOKENS, Chunk, csv_response, pages, wants_csv
from flask_aibridge.api.problems import Problem
from flask_aibridge.api.reading import get, initiator_for, path_parameter, with_cursor
from flask_aibridge.services.storage import SessionPage, SessionView

if TYPE_CHECKING:
    from flask_aibridge.api.management import Management

__all__ = ["PATHS", "add_routes", "document", "full_document"]

COLUMNS: Final = (
    "id",
    "initiator",
    "providers",
    "models",
    "client",
    "started_at",
    "ended_at",
    "last_active_at",
    "interceptions",
    "threads",
    *TOKENS,
)

_SESSION: Final = schemas.Session()
_DETAIL: Final = schemas.SessionDetail()


def add_routes(blueprint: Blueprint, management: Management) -> None:
    """Add ``/sessions`` and what is below it."""
    access, store = management.access, management.store

    @blueprint.get("/sessions")
    def list_sessions() -> dict[str, Any] | Response:
        viewer, asked = access.viewer(), schemas.read_query(schemas.SessionsQuery())
        limit, cursor, form = (asked.pop(name, None) for name in ("limit", "cursor", "format"))
        asked["initiator"] = initiator_for(viewer, asked.get("initiator"))
        reader = store()

        def ask(size: int, place: str | None) -> SessionPage:
            return with_cursor(lambda: reader.sessions(**asked, limit=size, cursor=place))

        if wants_csv(form):
            return csv_response("sessions", COLUMNS, pages(lambda *page: _chunk(ask(*page)), limit, cursor))
        page = ask(limit or schemas.DEFAULT_LIMIT, cursor)
        return {"count": page.count, "sessions": _documents(page), "next": page.next}

    # A path, because clients choose these ids, and some have slashes in them.
    @blueprint.get("/sessions/<path:session_id>")
    def show_session(session_id: str) -> dict[str, Any]:
        viewer, asked = access.viewer(), schemas.read_query(schemas.InitiatorQuery())
        initiator = initiator_for(viewer, asked.get("initiator"))
        view = store().session(session_id, initiator=initiator)
        if view is None:
            raise Problem(404, "unknown_session", "There is no session with this id.")
        return full_document(view)


def _documents(page: SessionPage) -> list[dict[str, Any]]:
    return [document(view) for view in page.sessions]


def _chunk(page: SessionPage) -> Chunk:
    return Chunk(_documents(page), page.next)


def document(view: SessionView) -> dict[str, Any]:
    """A session as JSON shows it."""
    shown: dict[str, Any] = _SESSION.dump(view)
    return shown


def full_document(view: SessionView) -> dict[str, Any]:
    """A single session as JSON shows it, with its interceptions."""
    shown: dict[str, Any] = _DETAIL.dump(view)
    return shown


PATHS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "/sessions": {
            "get": get("Sessions, last active first.", schemas.SessionPage, schemas.SessionsQuery, csv=True)
        },
        "/sessions/{session_id}": {
            "parameters": [path_parameter("session_id")],
            "get": get("One session, with its timeline.", schemas.SessionDetail, schemas.InitiatorQuery),
        },
    }
)
"""The routes of this module, below the prefix, as OpenAPI operations; schemas stand for themselves."""
