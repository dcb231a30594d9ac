"""Pure: what an MCP server is: its id, its URL, its patterns, and how it is configured and stored."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import SplitResult, urlsplit

from flask_aibridge.config import MCP_SERVERS
from flask_aibridge.errors import ConfigError
from flask_aibridge.services.configuration.patterns import WrongPattern, compiled
from flask_aibridge.services.interfaces import MCPServerConfig

MAX_URL: Final = 2048
"""Characters of a URL: more than any server has, and still a row that can be listed."""

Origin: TypeAlias = Literal["config", "store"]
"""Where a server is configured."""

_ID = re.compile(r"[a-z0-9-]{1,32}")
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")
_PATTERNS: Final = ("tool_allow_regex", "tool_deny_regex")


@dataclass(frozen=True, slots=True)
class MCPServerEntry:
    """An MCP server as administrators see it. With an ``error`` it is not used; ``url`` is null where it could not be
    read."""

    id: str
    url: str | None
    tool_allow_regex: str | None = None
    tool_deny_regex: str | None = None
    origin: Origin = "store"
    error: str | None = None

    @property
    def config(self) -> MCPServerConfig | None:
        """The server, if it can be used."""
        if self.error is not None or self.url is None:
            return None
        return MCPServerConfig(self.id, self.url, self.tool_allow_regex, self.tool_deny_regex)


def mcp_servers_from(mapping: Mapping[str, Mapping[str, Any]]) -> tuple[MCPServerConfig, ...]:
    """The servers of ``AIBRIDGE_MCP_SERVERS``: ``{id: {"url", "tool_allow_regex", "tool_deny_regex"}}``.

    Whether the patterns work is not asked here: a broken one disables its server and nothing else.

    :raises ConfigError: for an id, a URL or a pattern that is none.
    """
    servers = []
    for id_, fields in mapping.items():
        server = MCPServerConfig(id_, fields.get("url", ""), *(fields.get(name) for name in _PATTERNS))
        servers.append(check_server(server, f"{MCP_SERVERS}[{id_!r:.80}]"))
    return tuple(servers)


def check_server(server: MCPServerConfig, where: str) -> MCPServerConfig:
    """The server, if its id and its URL can be such and its patterns are texts or null.

    :param where: what the error names as the place of the value.
    :raises ConfigError: otherwise.
    """
    if not isinstance(server.id, str) or not _ID.fullmatch(server.id):
        raise ConfigError(f"{where}: the id must be 1 to 32 of the characters a-z, 0-9 and '-'.")
    if _split(server.url) is None:
        raise ConfigError(
            f"{where}: the url must be http(s)://host[:port][/path][?query] of at most {MAX_URL} characters, with no "
            "user, password or fragment."
        )
    for name in _PATTERNS:
        if not isinstance(getattr(server, name), str | None):
            raise ConfigError(f"{where}: {name} must be a regular expression as a str, or None.")
    return server


def pattern_error(server: MCPServerConfig) -> str | None:
    """What is wrong with the patterns of a server, as a sentence; null where they work."""
    for name in _PATTERNS:
        pattern = getattr(server, name)
        try:
            if pattern is not None:
                compiled(pattern)
        except WrongPattern as error:
            return f"{name} {error}."
    return None


def origin_of(url: str) -> str:
    """Scheme, host and port of a checked URL, in one spelling."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{parts.hostname}:{port}"


def entry_of(server: MCPServerConfig, origin: Origin) -> MCPServerEntry:
    """A checked server as administrators see it."""
    return MCPServerEntry(
        server.id, server.url, server.tool_allow_regex, server.tool_deny_regex, origin, pattern_error(server)
    )


def text_of(server: MCPServerConfig) -> str:
    """The stored form."""
    patterns = {name: getattr(server, name) for name in _PATTERNS}
    return json.dumps({"url": server.url, **patterns})


def stored_entry(id_: str, text: str) -> MCPServerEntry:
    """A server from its stored form; one that cannot be read has an ``error`` that shows nothing of it."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return MCPServerEntry(id_, None, error="It is stored damaged: it is not JSON.")
    if not isinstance(row, dict):
        return MCPServerEntry(id_, None, error="It is stored damaged: it is not a JSON object.")
    try:
        server = MCPServerConfig(id_, row.get("url", ""), *(row.get(name) for name in _PATTERNS))
        return entry_of(check_server(server, "It is stored damaged"), "store")
    except ConfigError as error:
        return MCPServerEntry(id_, None, error=str(error))


def _split(url: object) -> SplitResult | None:
    if not isinstance(url, str) or len(url) > MAX_URL or not _VISIBLE_ASCII.fullmatch(url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    plain = not set("@#\\") & set(url)
    return parts if plain and parts.scheme in ("http", "https") and parts.hostname and port != 0 else None
