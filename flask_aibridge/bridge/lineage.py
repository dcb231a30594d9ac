"""Pure: which tool call a request answers. By it the turns of an agent's loop are found to belong together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flask_aibridge.bridge.intercept.content import dicts, name_of

_OUTPUT: Final = "_output"
"""How the types of the Responses API's items end that hold what a tool said: ``function_call_output`` and its kin."""


def correlating_tool_call(document: Mapping[str, Any]) -> str | None:
    """The id of the tool call whose result is the request's last word; null where the last word is somebody's own.

    Of several results it is the last one's: the calls were made in one answer. ``document`` is a request of any of the
    APIs.
    """
    last = _last(document.get("input"))
    if last:
        kind = last.get("type")
        return name_of(last.get("call_id")) if isinstance(kind, str) and kind.endswith(_OUTPUT) else None
    last = _last(document.get("messages"))
    if last.get("role") == "tool":
        return name_of(last.get("tool_call_id"))
    for block in reversed(dicts(last.get("content"))):
        if block.get("type") == "tool_result":
            return name_of(block.get("tool_use_id"))
    return None


def _last(entries: object) -> dict[str, Any]:
    last = entries[-1] if isinstance(entries, list) and entries else None
    return last if isinstance(last, dict) else {}
