"""``bridge.mcp.wire``, ``mirroring`` and ``results``: whatever servers send."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.injection.tools import ToolResult
from flask_aibridge.bridge.mcp import wire
from flask_aibridge.bridge.mcp.mirroring import mirrored, mirrors_of
from flask_aibridge.bridge.mcp.results import MAX_RESULT_TEXT, failure, result_text
from flask_aibridge.bridge.mcp.wire import MAX_SAID, Era, MCPError, NoAnswer

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)
WORDS = st.sampled_from(
    (
        *("jsonrpc", "id", "result", "error", "method", "code", "message", "data", "content", "type", "text"),
        *("isError", "structuredContent", "resultType", "resource", "blob", "uri", "mimeType", "properties"),
        *("x-mcp-header", "items", "anyOf", "$defs"),
    )
)
LIKELY = st.recursive(
    SCALARS | WORDS | st.sampled_from(["text", "image", "resource", "string", "2.0", 1, "1"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=20,
)


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


class TestMessages:
    @given(st.binary() | LIKELY.map(lambda value: json.dumps(value).encode()))
    def test_any_bytes(self, data: bytes) -> None:
        answer = wire.answer_in(data, 1)
        wire.questions_in(data)
        if answer is not None:
            assert "result" in answer or "error" in answer
            with suppress(NoAnswer):
                assert isinstance(wire.result_of("o", "m", answer), dict)

    @pytest.mark.parametrize(
        ("message", "found"),
        [
            ({"id": 7, "result": {}}, True),
            ({"id": "7", "result": {}}, True),
            ({"id": 8, "result": {}}, False),
            ({"id": None, "error": {"code": -32600}}, True),
            ({"id": None, "result": {}}, False),
            ({"id": 7, "method": "ping"}, False),
            ([{"method": "x"}, {"id": 7, "result": {}}], True),
            ([{"id": 7, "method": "x"}, 5], False),
        ],
    )
    def test_which_is_the_answer(self, message: object, found: bool) -> None:
        assert (wire.answer_in(json.dumps(message).encode(), 7) is not None) is found

    @given(st.text(max_size=30))
    def test_any_text_in_a_header(self, value: str) -> None:
        sent = wire.header_value(value)
        assert sent.isascii()
        assert sent.isprintable()
        assert sent == sent.strip()
        if sent != value:
            assert base64.b64decode(sent[len("=?base64?") : -2]).decode() == value
        else:
            assert not value.startswith("=?base64?") or not value.endswith("?=")

    @given(st.text())
    def test_what_is_shown_is_one_short_line(self, said: str) -> None:
        shown = wire.cleaned(said)
        assert len(shown) <= MAX_SAID
        assert "\n" not in shown
        assert "\x1b" not in shown
        shown.encode()

    @pytest.mark.parametrize(
        ("url", "origin"),
        [
            ("https://u:p@mcp.example:8443/a/secret?key=1#x", "https://mcp.example:8443"),
            ("http://[::1]:80/mcp", "http://[::1]:80"),
            ("https://mcp.example", "https://mcp.example"),
            ("http://[broken", "an address that is none"),
            ("http://x:99999/", "an address that is none"),
        ],
    )
    def test_origins(self, url: str, origin: str) -> None:
        assert wire.origin_of(url) == origin

    def test_what_is_sent(self) -> None:
        """To the letter; it is what servers compare."""
        sent = wire.call(Era("2025-06-18", "s"), 3, "echo", {"a": "ü"}, {"Mcp-Param-A": "b"})
        assert json.loads(sent.body) == {
            "jsonrpc": "2.0",
            "id": 3,
            "method": "tools/call",
            "params": {"name": "echo", "arguments": {"a": "ü"}},
        }
        assert sent.headers == {
            "Accept": "application/json, text/event-stream",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "MCP-Protocol-Version": "2025-06-18",
            "Mcp-Session-Id": "s",
        }


class TestResults:
    @given(st.dictionaries(WORDS, LIKELY, max_size=6))
    def test_any_result(self, result: dict[str, Any]) -> None:
        told = result_text(result)
        assert told.text.strip()
        told.text.encode()

    @pytest.mark.parametrize(
        ("result", "told"),
        [
            ({"content": [text("a"), text("b")]}, ToolResult("a\n\nb")),
            ({"content": [text("a")], "isError": True}, ToolResult("a", True)),
            ({"content": [text("a")], "isError": False, "resultType": "complete"}, ToolResult("a")),
            ({"content": [text("a")], "structuredContent": {"a": 1}}, ToolResult("a")),
            ({"content": [], "structuredContent": {"a": "ü"}}, ToolResult('{"a": "ü"}')),
            ({"structuredContent": [1]}, ToolResult("[1]")),
            ({"structuredContent": None}, ToolResult("null")),
            ({"content": []}, ToolResult("The tool returned nothing.", True)),
            ({"content": [text(" \n")]}, ToolResult("The tool returned nothing.", True)),
            ({}, ToolResult("The tool returned nothing.", True)),
            (
                {"content": [{"type": "image", "mimeType": "image/png", "data": "A" * 16384}]},
                ToolResult("[image, image/png, 12 KiB]"),
            ),
            ({"content": [{"type": "audio", "data": "QUJDRA=="}]}, ToolResult("[audio, 4 bytes]")),
            (
                {"content": [{"type": "resource", "resource": {"uri": "file:///a", "text": "in it"}}]},
                ToolResult("in it"),
            ),
            (
                {"content": [{"type": "resource", "resource": {"uri": "file:///a", "blob": "AAAA"}}]},
                ToolResult("[resource, file:///a, 3 bytes]"),
            ),
            (
                {"content": [{"type": "resource_link", "uri": "file:///a", "name": "A"}]},
                ToolResult("[link, file:///a, A]"),
            ),
            ({"content": [{"type": "hologram"}]}, ToolResult("[hologram]")),
            ({"content": [text("half \ud800")]}, ToolResult("half ?")),
        ],
    )
    def test_what_the_model_is_told(self, result: dict[str, Any], told: ToolResult) -> None:
        assert result_text(result) == told

    def test_a_tool_that_asks(self) -> None:
        """The other side of the newer era: the tool wants something of the user, who is not here."""
        assert result_text({"resultType": "input_required", "requestState": "x"}).is_error

    def test_what_is_too_long_says_so(self) -> None:
        told = result_text({"content": [text("x" * MAX_RESULT_TEXT)]}).text
        assert told == "x" * MAX_RESULT_TEXT
        told = result_text({"content": [text("x" * (MAX_RESULT_TEXT + 1))]}).text
        assert told.startswith("x" * MAX_RESULT_TEXT + "\n\n[cut here")
        assert str(MAX_RESULT_TEXT + 1) in told

    def test_the_model_is_not_told_where(self) -> None:
        error = MCPError("https://inner.example", "broke off", "so\nsorry", "HTTPConnection(inner.example)")
        assert failure(error) == ToolResult(
            "The tool could not be run: its MCP server broke off. It said: so sorry", True
        )
        assert "so sorry" not in error.summary
        assert "inner.example" in str(error)


class TestMirroring:
    @given(st.dictionaries(WORDS, LIKELY, max_size=6), JSON)
    def test_any_schema(self, schema: dict[str, Any], arguments: Any) -> None:
        mirrors = mirrors_of(schema)
        for name, value in mirrored(mirrors or {("a",): "A"}, {"a": arguments}).items():
            assert f"{name}{value}".isascii()

    @pytest.mark.parametrize(
        ("properties", "mirrors"),
        [
            ({"a": {"type": "string", "x-mcp-header": "A"}}, {("a",): "A"}),
            (
                {"o": {"properties": {"i": {"type": "integer", "x-mcp-header": "I"}}}},
                {("o", "i"): "I"},
            ),
            ({"a": {"default": {"x-mcp-header": "A"}}}, {}),
            ({"a": {"type": "number", "x-mcp-header": "A"}}, None),
            ({"a": {"type": "string", "x-mcp-header": "A: b\r\n"}}, None),
            ({"a": {"type": "string", "x-mcp-header": 5}}, None),
            ({"a": {"type": "array", "items": {"type": "string", "x-mcp-header": "A"}}}, None),
            ({"a": {"anyOf": [{"type": "string", "x-mcp-header": "A"}]}}, None),
            (
                {"a": {"type": "string", "x-mcp-header": "A"}, "b": {"type": "string", "x-mcp-header": "a"}},
                None,
            ),
        ],
    )
    def test_which_properties(self, properties: dict[str, Any], mirrors: dict[Any, str] | None) -> None:
        assert mirrors_of({"type": "object", "properties": properties}) == mirrors

    def test_values(self) -> None:
        mirrors = {("a",): "A", ("b", "c"): "C", ("d",): "D", ("e",): "E"}
        arguments = {"a": True, "b": {"c": 5}, "d": None, "e": ["x"]}
        assert mirrored(mirrors, arguments) == {"Mcp-Param-A": "true", "Mcp-Param-C": "5"}
