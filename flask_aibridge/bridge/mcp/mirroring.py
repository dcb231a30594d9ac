"""Pure: arguments that a call repeats in headers, for proxies that route by them.

A property of a tool's schema says so by ``x-mcp-header``; a tool that says it wrongly must not be offered.
See https://modelcontextprotocol.io/specification/2026-07-28/basic/transports, "Custom Headers".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from flask_aibridge.bridge.mcp.wire import header_value

Mirrors: TypeAlias = dict[tuple[str, ...], str]
"""The path of a property, and the name of its header."""

_MARK: Final = "x-mcp-header"
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", re.ASCII)
_TYPES: Final = ("string", "integer", "boolean")
_ONE: Final = frozenset(
    {
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_SEVERAL: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED: Final = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties"})


def mirrors_of(schema: Mapping[str, Any]) -> Mirrors | None:
    """Which properties have a header; null where that is said in a way that is not allowed."""
    mirrors: Mirrors = {}
    for path, inner in _schemas(schema):
        if _MARK not in inner:
            continue
        token = inner[_MARK]
        if not path or not isinstance(token, str) or not _TOKEN.fullmatch(token):
            return None
        if inner.get("type") not in _TYPES or token.lower() in map(str.lower, mirrors.values()):
            return None
        mirrors[path] = token
    return mirrors


def mirrored(mirrors: Mirrors, arguments: Mapping[str, Any]) -> dict[str, str]:
    """The headers that go with a call."""
    headers = {}
    for path, token in mirrors.items():
        text = _as_text(_at(path, arguments))
        if text is not None:
            headers[f"Mcp-Param-{token}"] = header_value(text)
    return headers


def _schemas(root: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...] | None, Mapping[str, Any]]]:
    """Every schema within a schema, with its path through ``properties`` alone, null where there is none."""
    left: list[tuple[tuple[str, ...] | None, Any]] = [((), root)]
    while left:
        path, schema = left.pop()
        if not isinstance(schema, Mapping):
            continue
        yield path, schema
        for word, value in schema.items():
            if word == "properties" and isinstance(value, Mapping):
                left += [(None if path is None else (*path, name), inner) for name, inner in value.items()]
            elif word in _ONE:
                left.append((None, value))
            elif word in _SEVERAL and isinstance(value, list):
                left += [(None, inner) for inner in value]
            elif word in _NAMED and isinstance(value, Mapping):
                left += [(None, inner) for inner in value.values()]


def _at(path: tuple[str, ...], arguments: Any) -> Any:
    for name in path:
        if not isinstance(arguments, Mapping):
            return None
        arguments = arguments.get(name)
    return arguments


def _as_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int, float)):
        return None
    try:
        return str(value)
    except ValueError:  # it has more digits than Python writes
        return None
