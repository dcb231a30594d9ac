"""What the reading routes share: whose records are shown, and how their answers are described."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from marshmallow import Schema, ValidationError

from flask_aibridge.api.access import Viewer
from flask_aibridge.api.problems import Problem
from flask_aibridge.errors import AIBridgeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Answer = TypeVar("Answer")

ME: Final = "me"
"""The initiator that stands for whoever asks."""


def initiator_for(viewer: Viewer, asked: str | None) -> str | None:
    """Whose records a viewer is shown who asks for somebody's, or null for everybody's.

    :raises Problem: 403 for somebody else's.
    """
    wanted = viewer.name if asked == ME else asked
    if viewer.administrator:
        return wanted
    if wanted not in (None, viewer.name):
        raise Problem(403, "administrator_required", "Only an administrator may see what other users did.")
    return viewer.name


def with_cursor(ask: Callable[[], Answer]) -> Answer:
    """What a store answers to a page that is asked for.

    :raises marshmallow.ValidationError: for a cursor that the store does not know.
    """
    try:
        return ask()
    except AIBridgeError:
        raise
    except ValueError as error:
        raise ValidationError({"cursor": [str(error)]}) from None


def get(summary: str, answer: type[Schema], *parameters: type[Schema], csv: bool = False) -> dict[str, Any]:
    """A GET as an OpenAPI operation."""
    content: dict[str, Any] = {"application/json": {"schema": answer}}
    if csv:
        content["text/csv"] = {"schema": {"type": "string"}}
    return {
        "summary": summary,
        "parameters": [{"in": "query", "schema": each} for each in parameters],
        "responses": {"200": {"description": (answer.__doc__ or "").split(". ")[0], "content": content}},
    }


def path_parameter(name: str) -> dict[str, Any]:
    """A part of a path, as OpenAPI says it."""
    return {"in": "path", "name": name, "required": True, "schema": {"type": "string"}}
