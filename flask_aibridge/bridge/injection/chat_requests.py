"""Pure: what the provider is asked in each round of a Chat Completions exchange.

https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from flask_aibridge.bridge.injection.tools import InjectedCall, InjectedTool, ToolResult
from flask_aibridge.bridge.intercept.content import dicts
from flask_aibridge.bridge.intercept.documents import Document, member
from flask_aibridge.bridge.intercept.splice import member as span_of
from flask_aibridge.bridge.intercept.splice import with_new_member, with_value

_SPACE: Final = b" \t\r\n"

_SEQUENTIAL: Final = re.compile(r"(?:^|/)o\d")
"""o1, o3 and o4-mini: "Unsupported parameter: 'parallel_tool_calls' is not supported with this model"."""


def takes_tools(request: Document) -> bool:
    """Whether the tools of somebody else can be added to ``request``, and called.

    They cannot where there are several choices, each of which may call something else; where the caller says that no
    tool is to be called, or which ones, or that one has to be, which is then to be one of theirs; where the answer is
    to be JSON, of which there can be no more than one, and which some servers refuse to combine with tools; with
    ``functions``, which came before tools and excludes them; and where the provider will refuse what is there.
    """
    count, choice = request.get("n"), request.get("tool_choice")
    return (
        (count is None or (count == 1 and not isinstance(count, bool)))
        and choice in (None, "auto")
        and member(request, "response_format").get("type") in (None, "text")
        and not request.get("functions")
        and isinstance(request.get("messages"), list)
        and isinstance(request.get("tools"), list | None)
    )


def named(request: Document) -> set[str]:
    """The names of the caller's own tools."""
    tools = dicts(request.get("tools"))
    names = [(member(tool, "function") or member(tool, "custom")).get("name") for tool in tools]
    return {name for name in names if isinstance(name, str)}


def with_tools(body: bytes, tools: Iterable[InjectedTool]) -> bytes:
    """``body`` with ``tools`` behind the caller's own, so that what the provider has cached of those stays good."""
    return _with_values(body, "tools", [written(_declared(tool)) for tool in tools])


def with_one_call_at_a_time(body: bytes, request: Document) -> bytes:
    """``body``, of ``request``, with the parallel calling of tools switched off, but for models that refuse the member
    whatever it says."""
    if request.get("parallel_tool_calls") is False or _SEQUENTIAL.search(str(request.get("model"))):
        return body
    return _with(body, "parallel_tool_calls", b"false")


def with_choice(body: bytes, choice: str) -> bytes:
    """``body`` with ``choice``, ``auto`` or ``none``, in the place of any other ``tool_choice``."""
    return _with(body, "tool_choice", written(choice))


def with_results(
    body: bytes, message: bytes, calls: Sequence[InjectedCall], results: Sequence[ToolResult]
) -> bytes:
    """``body`` with the model's ``message``, JSON text, and the results of its ``calls`` as the last messages."""
    answers = [
        written({"role": "tool", "tool_call_id": call.call_id, "content": _told(result)})
        for call, result in zip(calls, results, strict=True)
    ]
    return _with_values(body, "messages", [message, *answers])


def written(value: Any) -> bytes:
    """JSON text in ASCII: the strings of others may hold what is no Unicode."""
    return json.dumps(value, separators=(",", ":")).encode()


def _told(result: ToolResult) -> str:
    """What the model reads. A message with the role ``tool`` has no member that says that it is an error."""
    if not result.is_error:
        return result.text
    return json.dumps({"error": True, "message": result.text}, ensure_ascii=False, separators=(",", ":"))


def _declared(tool: InjectedTool) -> Mapping[str, Any]:
    function = {"name": tool.id, "description": tool.description, "parameters": dict(tool.input_schema)}
    return {"type": "function", "function": function}


def _with(body: bytes, name: str, value: bytes) -> bytes:
    span = span_of(body, name)
    if span is None:
        return with_new_member(body, name, value)
    return body if body[span.start : span.end] == value else with_value(body, span, value)


def _with_values(body: bytes, name: str, values: Iterable[bytes]) -> bytes:
    """``body`` with ``values`` at the end of its list ``name``, which may be missing or null."""
    added = b",".join(values)
    span = span_of(body, name)
    there = b"null" if span is None else body[span.start : span.end]
    if there == b"null":
        return _with(body, name, b"[%s]" % added)
    assert span is not None
    comma = b"," if there[1:-1].strip(_SPACE) else b""
    end = span.end - 1
    return b"".join((body[:end], comma, added, body[end:]))
