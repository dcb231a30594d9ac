"""``services.mcp_servers``: what an MCP server may be, configured and stored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.errors import ConfigError
from flask_aibridge.services.configuration.mcp_servers import (
    MAX_URL,
    entry_of,
    mcp_servers_from,
    origin_of,
    pattern_error,
    stored_entry,
    text_of,
)
from flask_aibridge.services.configuration.patterns import MAX_PATTERN
from flask_aibridge.services.interfaces import MCPServerConfig

URL = "https://mcp.example/mcp"


def test_the_config_becomes_servers() -> None:
    """In its order; patterns are null by default."""
    servers = mcp_servers_from(
        {"tickets": {"url": URL, "tool_allow_regex": "^read_"}, "files": {"url": "http://h:1/x?y=1"}}
    )
    assert servers == (
        MCPServerConfig("tickets", URL, "^read_"),
        MCPServerConfig("files", "http://h:1/x?y=1"),
    )


@pytest.mark.parametrize("id_", ["", "A", "a_b", "a/b", "a b", "x" * 33, 1])
def test_bad_ids(id_: Any) -> None:
    """They are path segments, and part of tool names."""
    with pytest.raises(ConfigError, match=r"AIBRIDGE_MCP_SERVERS\[.*\]: the id must be"):
        mcp_servers_from({id_: {"url": URL}})


@pytest.mark.parametrize(
    "url",
    [
        None,
        1,
        "",
        "mcp.example",
        "ftp://h",
        "http://",
        "http://h:x",
        "http://h:0",
        "http://[",
        "http://h/a b",
        "http://h\n",
        "http://h#x",
        "http://h\\x",
        "https://user:very-secret@h",
        "http://h/" + "x" * MAX_URL,
    ],
)
def test_bad_urls_are_not_shown(url: Any) -> None:
    """There may be a password in them."""
    with pytest.raises(ConfigError, match=r"AIBRIDGE_MCP_SERVERS\['x'\]: the url must be") as caught:
        mcp_servers_from({"x": {"url": url}})
    assert "very-secret" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_url_is_needed() -> None:
    """There is no default."""
    with pytest.raises(ConfigError, match="the url must be"):
        mcp_servers_from({"x": {}})


@pytest.mark.parametrize("pattern", [1, ["a"], b"a"])
def test_a_pattern_is_a_text(pattern: Any) -> None:
    """Whether it works is another question."""
    with pytest.raises(ConfigError, match="tool_deny_regex must be a regular expression"):
        mcp_servers_from({"x": {"url": URL, "tool_deny_regex": pattern}})


@pytest.mark.parametrize("pattern", ["(", "(a+)+", "x" * (MAX_PATTERN + 1)])
@pytest.mark.parametrize("name", ["tool_allow_regex", "tool_deny_regex"])
def test_a_broken_pattern_disables_its_server(name: str, pattern: str) -> None:
    """It is no error of the config: the app starts, the other servers work, and this one says why it does not."""
    (server,) = mcp_servers_from({"x": {"url": URL, name: pattern}})
    entry = entry_of(server, "config")

    assert (entry.error or "").startswith(f"{name} ")
    assert entry.config is None


def test_one_that_works_has_no_error() -> None:
    """And is the server it was made of."""
    server = MCPServerConfig("x", URL, "a|b", "^c")
    assert pattern_error(server) is None
    assert entry_of(server, "store").config == server


@given(
    allow=st.none() | st.text(max_size=20),
    deny=st.none() | st.text(max_size=20),
    path=st.text("abc/?=&%", max_size=20),
)
def test_the_stored_form_is_read_back(allow: str | None, deny: str | None, path: str) -> None:
    """Broken patterns too: they were stored by somebody who did not ask."""
    server = MCPServerConfig("x", f"https://h/{path}", allow, deny)
    assert stored_entry("x", text_of(server)) == entry_of(server, "store")


@given(
    text=st.text() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps),
    id_=st.text(),
)
def test_no_stored_form_is_an_exception(text: str, id_: str) -> None:
    """It is an entry with an error."""
    assert stored_entry(id_, text).error is not None


@pytest.mark.parametrize(
    "text",
    [
        "very-secret",
        "[" * 100_000,
        '["very-secret"]',
        '{"url": "https://u:very-secret@h"}',
        '{"url": "https://h", "tool_allow_regex": 1}',
        '{"url": {"very-secret": 1}}',
    ],
)
def test_a_damaged_one_shows_nothing_of_it(text: str) -> None:
    """But that it is damaged."""
    entry = stored_entry("x", text)
    assert (entry.error or "").startswith("It is stored damaged")
    assert "very-secret" not in repr(entry)


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("https://H.example:443/other?x", True),
        ("https://h.example", True),
        ("https://h.example:8443", False),
        ("http://h.example", False),
        ("https://h.example.evil", False),
    ],
)
def test_origins(url: str, same: bool) -> None:
    """Scheme, host and port, whatever the spelling."""
    assert (origin_of(url) == origin_of("https://h.example/mcp")) is same
