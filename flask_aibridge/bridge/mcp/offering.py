"""Pure: which of the tools that servers list are offered to a model, and under which names."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from flask_aibridge.bridge.injection.tools import MAX_TOOL_ID, PREFIX, InjectedTool
from flask_aibridge.bridge.intercept.documents import Document
from flask_aibridge.bridge.mcp.results import encodable
from flask_aibridge.bridge.mcp.wire import address_of
from flask_aibridge.services.interfaces import MCPServerConfig

MAX_TOOLS: Final = 128
"""Tools of all servers together: what OpenAI takes in one request."""

MAX_NAME: Final = 256
"""Characters of a tool's own name; MCP wants 128 at most."""

MAX_DESCRIPTION: Final = 1024
"""Characters of a description: what OpenAI takes. Each is paid for with every request."""

MAX_SCHEMA: Final = 64 * 1024
"""Characters of an input schema as JSON, for the same reason; a large one has a few thousand."""

DIGEST: Final = 8
"""Hexadecimal digits that make a name unique: a thousand tools share one with a chance of one in ten thousand."""

_OTHER: Final = re.compile(r"[^a-zA-Z0-9_-]")


class Offer(NamedTuple):
    """The tools of one server, as it calls them, and a sentence for each that it has and nobody can use."""

    tools: tuple[InjectedTool, ...]
    unusable: tuple[str, ...] = ()


def offer_of(server: MCPServerConfig, listed: Iterable[Document]) -> Offer:
    """What of a server's list passes its filter and can be used. The ids are not made unique yet.

    :raises re.error: for a filter that is none.
    """
    tools: dict[str, InjectedTool] = {}
    unusable = []
    for raw in listed:
        name = raw.get("name")
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or encodable(name) != name:
            unusable.append(f"a tool has no name, or none of up to {MAX_NAME} characters")
        elif is_allowed(server, name):
            problem = _problem_of(raw.get("inputSchema"))
            if problem is None:
                tools.setdefault(name, _tool(server, name, raw))
            else:
                unusable.append(f"the input schema of {name[:MAX_TOOL_ID]!r} {problem}")
    return Offer(tuple(tools.values()), tuple(unusable))


def is_allowed(server: MCPServerConfig, name: str) -> bool:
    """Tell whether a filter lets a tool through, by its bare name: what is denied is denied, and what is not must be
    allowed where anything is."""
    deny, allow = server.tool_deny_regex, server.tool_allow_regex
    if deny is not None and re.search(deny, name):
        return False
    return allow is None or re.search(allow, name) is not None


def with_unique_ids(
    tools: Iterable[InjectedTool],
) -> tuple[tuple[InjectedTool, ...], tuple[InjectedTool, ...]]:
    """The tools under ids that differ, sorted by them, so that a prompt is the same each time and stays in the
    providers' caches; and those that are too many."""
    tools = list(tools)
    taken = Counter(map(_whole_id, tools))
    by_id: dict[str, InjectedTool] = {}
    for tool in sorted(tools, key=lambda tool: (tool.server, tool.name)):
        whole = _whole_id(tool)
        unique = whole if taken[whole] == 1 and len(whole) <= MAX_TOOL_ID else _with_digest(whole, tool)
        by_id.setdefault(unique, _renamed(tool, unique))
    ordered = tuple(by_id[name] for name in sorted(by_id))
    return ordered[:MAX_TOOLS], ordered[MAX_TOOLS:]


def _whole_id(tool: InjectedTool) -> str:
    return PREFIX + _OTHER.sub("_", f"{tool.server}_{tool.name}")


def _with_digest(whole: str, tool: InjectedTool) -> str:
    digest = hashlib.sha256(f"{tool.server}\0{tool.name}".encode("utf-8", "replace")).hexdigest()[:DIGEST]
    return f"{whole[: MAX_TOOL_ID - DIGEST - 1]}_{digest}"


def _renamed(tool: InjectedTool, id: str) -> InjectedTool:  # noqa: A002 - the field's name
    return InjectedTool(id, tool.server, tool.server_url, tool.name, tool.description, tool.input_schema)


def _tool(server: MCPServerConfig, name: str, raw: Document) -> InjectedTool:
    texts = (raw.get("description"), raw.get("title"))
    description = encodable(next((text for text in texts if isinstance(text, str) and text), ""))
    if len(description) > MAX_DESCRIPTION:
        description = f"{description[: MAX_DESCRIPTION - 1]}…"
    # As it is recorded: a query may hold a key.
    return InjectedTool("", server.id, address_of(server.url), name, description, raw["inputSchema"])


def _problem_of(schema: Any) -> str | None:
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return "is not of an object"
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, RecursionError):
        return "is no JSON that could be sent"
    return f"has more than {MAX_SCHEMA} characters" if len(text) > MAX_SCHEMA else None
