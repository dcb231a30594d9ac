"""Pure: the tools that the bridge brings, how the model names them, and what becomes of a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

PREFIX: Final = "bmcp_"
"""What the name of every injected tool begins with, so that no caller's tool is taken for one."""

MAX_TOOL_ID: Final = 64
"""Characters of a tool's name that the providers take."""


@dataclass(frozen=True, slots=True)
class InjectedTool:
    """A tool of an MCP server.

    :param id: what the model calls it: ``bmcp_<server>_<tool>``, at most ``MAX_TOOL_ID`` of ``[a-zA-Z0-9_-]``.
    :param server: the id of its server; ``server_url`` is where that is.
    :param name: what the server calls it.
    :param input_schema: a JSON schema of type ``object``.
    """

    id: str
    server: str
    server_url: str
    name: str
    description: str
    input_schema: Mapping[str, Any]


class InjectedCall(NamedTuple):
    """What the model wants run. ``arguments`` is JSON text as the model wrote it, which need not be valid; ``tool`` is
    the tool's id, ``call_id`` the provider's of the call, ``item_id`` the Responses API's beside it."""

    call_id: str
    tool: str
    arguments: str
    message_id: str = ""
    item_id: str | None = None


class ToolResult(NamedTuple):
    """What the model is told of a call: never empty."""

    text: str
    is_error: bool = False
