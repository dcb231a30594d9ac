"""Pure: editing requests of the Anthropic Messages API: tools, the choice among them, and the next turns.

https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use. Nothing but the members named here
changes: the provider's prompt cache goes by what was written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from flask_aibridge.bridge.injection.tools import InjectedCall, InjectedTool, ToolResult
from flask_aibridge.bridge.intercept.documents import Document
from flask_aibridge.bridge.intercept.splice import elements, with_member, with_new_member, with_value
from flask_aibridge.bridge.intercept.splice import member as span_of

_DISABLED: Final = "disable_parallel_tool_use"

_ONE_AT_A_TIME: Final = b'{"type":"auto","disable_parallel_tool_use":true}'

_NONE: Final = b'{"type":"none"}'

_FORCED: Final = ("any", "tool")
"""Choices by which the model has to call a tool, in every round anew."""


def injectable(request: Document, tools: Iterable[InjectedTool]) -> list[InjectedTool]:
    """Those of ``tools`` that ``request`` can be given: not what the caller has a tool of the same name for, and none
    where ``tools`` or ``messages`` is something else than a list, for the provider will refuse that."""
    theirs = request.get("tools", [])
    if not isinstance(theirs, list) or not isinstance(request.get("messages"), list):
        return []
    names = [tool.get("name") for tool in theirs if isinstance(tool, dict)]
    return [tool for tool in tools if tool.id not in names]


def with_tools(body: bytes, tools: Sequence[InjectedTool]) -> bytes:
    """``body`` with ``tools`` before the caller's own, so that what the caller has marked for the cache stays last."""
    ours = b",".join(map(_declaration, tools))
    span = span_of(body, "tools")
    if span is None:
        return with_new_member(body, "tools", b"[%s]" % ours)
    theirs = body[span.start : span.end]
    comma = b"," if elements(theirs) else b""
    return with_value(body, span, b"".join((b"[", ours, comma, theirs[1:])))


def with_one_call_at_a_time(body: bytes, request: Document) -> bytes:
    """``body`` with its ``tool_choice`` completed, or made; ``none`` stays, and so does what the provider will
    refuse."""
    choice = request.get("tool_choice")
    if choice is None:
        return with_member(body, "tool_choice", _ONE_AT_A_TIME)
    if (
        not isinstance(choice, dict)
        or choice.get("type") not in ("auto", *_FORCED)
        or choice.get(_DISABLED) is True
    ):
        return body
    span = span_of(body, "tool_choice")
    if span is None:
        return body
    return with_value(body, span, with_member(body[span.start : span.end], _DISABLED, b"true"))


def with_choice_for_next(body: bytes, request: Document, *, last: bool) -> bytes:
    """``body`` with the ``tool_choice`` of a later round: none in the last one, and otherwise the caller's, unless that
    would force the model to call tools for ever."""
    if last:
        return with_member(body, "tool_choice", _NONE)
    choice = request.get("tool_choice")
    forced = isinstance(choice, dict) and choice.get("type") in _FORCED
    return with_member(body, "tool_choice", _ONE_AT_A_TIME) if forced else body


def with_turns(
    body: bytes, content: Sequence[bytes], answers: Iterable[tuple[InjectedCall, ToolResult]]
) -> bytes:
    """``body`` with two more ``messages``: the assistant's, of the blocks ``content``, JSON text each, and the user's,
    with the results."""
    span = span_of(body, "messages")
    if span is None:
        return body
    messages = body[span.start : span.end]
    results = json.dumps([_result(call, result) for call, result in answers], separators=(",", ":")).encode()
    assistant = b'{"role":"assistant","content":[%s]}' % b",".join(content)
    user = b'{"role":"user","content":%s}' % results
    comma = b"," if elements(messages) else b""
    return with_value(body, span, b"".join((messages[:-1], comma, assistant, b",", user, b"]")))


def _declaration(tool: InjectedTool) -> bytes:
    document = {"name": tool.id, "description": tool.description, "input_schema": dict(tool.input_schema)}
    return json.dumps(document, separators=(",", ":")).encode()


def _result(call: InjectedCall, result: ToolResult) -> dict[str, Any]:
    document = {"type": "tool_result", "tool_use_id": call.call_id, "content": result.text}
    return document | {"is_error": True} if result.is_error else document
