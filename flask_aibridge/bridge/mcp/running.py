"""The tools of one user, to be offered to a model and run when it calls them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from flask_aibridge.bridge.injection.tools import InjectedCall, InjectedTool, ToolResult
from flask_aibridge.bridge.mcp.client import MCPClient, OnStop
from flask_aibridge.bridge.mcp.results import failure
from flask_aibridge.bridge.mcp.wire import MCPError, MCPStopped, MCPUnauthorized

logger = logging.getLogger("flask_aibridge.bridge")


class Tools:
    """A user's tools, as they were when a request came.

    :param rejected: called with the id of a server that does not accept the user's token any more.
    """

    def __init__(
        self,
        tools: tuple[InjectedTool, ...] = (),
        clients: Mapping[str, MCPClient] | None = None,
        rejected: Callable[[str], None] | None = None,
    ) -> None:
        self.tools = tools
        """Sorted by their ids."""
        self._by_id = {tool.id: tool for tool in tools}
        self._clients = clients or {}
        self._rejected = rejected

    def run(self, call: InjectedCall, on_stop: OnStop | None = None) -> ToolResult:
        """What a tool returns. Never an exception: what goes wrong is told to the model, which may go on without.

        :param on_stop: takes what ends the call when its caller leaves, and returns what takes that off again.
        """
        tool = self._by_id.get(call.tool)
        if tool is None:
            return ToolResult(f"There is no tool {call.tool!r} here.", True)
        arguments = _arguments(call.arguments)
        if arguments is None:
            return ToolResult("The arguments are not a JSON object, so the tool was not run. Send one.", True)
        try:
            return self._clients[tool.server].call_tool(tool.name, arguments, on_stop)
        except MCPStopped as error:
            return failure(error)
        except MCPError as error:
            if isinstance(error, MCPUnauthorized) and self._rejected is not None:
                self._rejected(tool.server)
            logger.warning(
                "A call of the injected tool %s failed, which the model is told. %s", tool.id, error.summary
            )
            return failure(error)
        except Exception as error:
            # Not its text, nor its traceback: they may hold the arguments.
            logger.error("A call of the injected tool %s failed: %s.", tool.id, type(error).__name__)
            return ToolResult("The tool could not be run: the gateway has made a mistake.", True)


NO_TOOLS: Final = Tools()


def _arguments(text: str) -> dict[str, Any] | None:
    """What the model wrote, as an object; null for what is none. Nothing at all is what some write for no arguments."""
    if not text.strip():
        return {}
    try:
        arguments = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return arguments if isinstance(arguments, dict) else None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
