"""Pure: requests of the OpenAI Responses API: with further tools, and with the results of these.

Codex breaks when what it sends, or gets, is written in another way, so every edit is of one member's text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from flask_aibridge.bridge.injection.response_events import word
from flask_aibridge.bridge.injection.tools import InjectedCall, InjectedTool, ToolResult
from flask_aibridge.bridge.intercept.documents import Document
from flask_aibridge.bridge.intercept.splice import member as span_of
from flask_aibridge.bridge.intercept.splice import with_member, with_value


def with_tools(body: bytes, request: Document, tools: Sequence[InjectedTool]) -> bytes:
    """A request with ``tools`` after its own, if it has any, and with one call at a time."""
    texts = b",".join(_definition(tool) for tool in tools)
    span = span_of(body, "tools")
    if span is None or not request.get("tools"):
        body = with_member(body, "tools", b"[%s]" % texts)
    else:
        body = with_value(body, span, b"%s,%s]" % (body[span.start : span.end - 1], texts))
    return with_member(body, "parallel_tool_calls", b"false")


def continued(
    body: bytes, request: Document, answer: Document, outputs: Sequence[bytes], history: Sequence[bytes]
) -> bytes:
    """The request that follows on ``answer``.

    A conversation has all items already, and a stored response stands for them. Otherwise they are said again.

    :param outputs: the items with the results of its calls.
    :param history: the items of all answers until now, and of all results.
    """
    if request.get("conversation") is not None:
        return with_member(body, "input", _array(outputs))
    # OpenAI says in its answer that it keeps it. Others keep nothing, whatever they are asked for, and do not say so.
    stores = answer.get("store") is True or request.get("input") is None
    if stores and request.get("store") is not False and word(answer, "id"):
        body = with_member(body, "input", _array(outputs))
        return with_member(body, "previous_response_id", json.dumps(answer["id"]).encode())
    return with_member(body, "input", _array([*_asked(body, request), *history]))


def with_choice(body: bytes, request: Document, *, last: bool) -> bytes:
    """A further request, in which the model is free to answer: were it forced to call, it would call for ever.

    :param last: whether it is free to do nothing else.
    """
    choice = request.get("tool_choice")
    span = span_of(body, "tool_choice")
    if last:
        return with_member(body, "tool_choice", b'"none"')
    if span is None or not (choice == "required" or isinstance(choice, dict)):
        return body
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        if choice.get("mode") != "required":
            return body
        return with_value(body, span, with_member(body[span.start : span.end], "mode", b'"auto"'))
    return with_value(body, span, b'"auto"')


def output_of(call: InjectedCall, result: ToolResult) -> bytes:
    """The item by which the model is told of a result. It has no member for an error: that is said in its text."""
    text = _json({"error": True, "message": result.text}).decode() if result.is_error else result.text
    return _json({"type": "function_call_output", "call_id": call.call_id, "output": text})


def _definition(tool: InjectedTool) -> bytes:
    """Not strict: a server's schema rarely is what strict mode wants, where every property is required."""
    return _json(
        {
            "type": "function",
            "name": tool.id,
            "description": tool.description,
            "parameters": dict(tool.input_schema),
            "strict": False,
        }
    )


def _asked(body: bytes, request: Document) -> list[bytes]:
    """The caller's own input, as items."""
    asked, span = request.get("input"), span_of(body, "input")
    if span is None or not isinstance(asked, str | list):
        return []
    text = body[span.start : span.end]
    if isinstance(asked, list):
        return [text[1:-1]] if asked else []
    return [b'{"role":"user","content":%s}' % text]


def _array(items: Sequence[bytes]) -> bytes:
    return b"[%s]" % b",".join(items)


def _json(document: Document) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
