"""Pure: what the model is told of a tool's result.

See https://modelcontextprotocol.io/specification/2026-07-28/server/tools, "Tool Result".
"""

from __future__ import annotations

import json
from typing import Any, Final

from flask_aibridge.bridge.injection.tools import ToolResult
from flask_aibridge.bridge.intercept.documents import Document, member
from flask_aibridge.bridge.mcp.wire import MCPError, cleaned

MAX_RESULT_TEXT: Final = 256 * 1024
"""Characters of a result that the model gets: some 64,000 tokens, a good part of what models can read at all."""

_NOTHING: Final = "The tool returned nothing."


def result_text(result: Document) -> ToolResult:
    """What a ``tools/call`` returned: its texts, with a few words for what is none, or else its structured content."""
    if result.get("resultType", "complete") != "complete":
        return ToolResult("The tool asks the user for something, which cannot be done here.", True)
    is_error = result.get("isError") is True
    content = result.get("content")
    blocks = [_block(block) for block in content] if isinstance(content, list) else []
    text = "\n\n".join(block for block in blocks if block.strip())
    if "structuredContent" in result and not _has_text(content):
        text = "\n\n".join(part for part in (_structured(result["structuredContent"]), text) if part)
    if not text:
        return ToolResult(_NOTHING, True)
    return ToolResult(cut(text), is_error)


def failure(error: MCPError) -> ToolResult:
    """What the model is told of a call that failed. Where the server is, is no business of the model's."""
    said = f" It said: {error.said}" if error.said else ""
    return ToolResult(f"The tool could not be run: its MCP server {error.problem}.{said}", True)


def cut(text: str) -> str:
    """A text that can be sent, and says so itself where it is not whole."""
    text = encodable(text)
    if len(text) <= MAX_RESULT_TEXT:
        return text
    note = f"[cut here: of the {len(text)} characters of the result, these are the first {MAX_RESULT_TEXT}]"
    return f"{text[:MAX_RESULT_TEXT]}\n\n{note}"


def encodable(text: str) -> str:
    """The text without halves of characters, which JSON can name and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def _has_text(content: Any) -> bool:
    return isinstance(content, list) and any(
        isinstance(block, dict) and block.get("type") == "text" and str(block.get("text", "")).strip()
        for block in content
    )


def _structured(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return ""


def _block(block: Any) -> str:
    if not isinstance(block, dict):
        return ""
    kind = block.get("type")
    if kind == "text":
        return block["text"] if isinstance(block.get("text"), str) else ""
    if kind == "resource":
        return _resource(member(block, "resource"))
    if kind == "resource_link":
        return _described("link", block.get("uri"), block.get("name"), block.get("mimeType"))
    return _described(kind or "something of no known kind", block.get("mimeType"), _size(block.get("data")))


def _resource(resource: Document) -> str:
    text = resource.get("text")
    if isinstance(text, str):
        return text
    return _described("resource", resource.get("uri"), resource.get("mimeType"), _size(resource.get("blob")))


def _described(*facts: Any) -> str:
    return f"[{', '.join(cleaned(fact) for fact in facts if isinstance(fact, str) and fact)}]"


def _size(encoded: Any) -> str | None:
    """The size of what is in base64."""
    if not isinstance(encoded, str):
        return None
    size = len(encoded) * 3 // 4 - encoded[-2:].count("=")
    return f"{size} bytes" if size < 1024 else f"{round(size / 1024)} KiB"
