"""``bridge.mcp.offering``: filters and names."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.injection.tools import MAX_TOOL_ID, InjectedTool
from flask_aibridge.bridge.mcp.offering import (
    MAX_DESCRIPTION,
    MAX_SCHEMA,
    MAX_TOOLS,
    is_allowed,
    offer_of,
    with_unique_ids,
)
from flask_aibridge.services.interfaces import MCPServerConfig

SCHEMA = {"type": "object"}


def server(allow: str | None = None, deny: str | None = None) -> MCPServerConfig:
    return MCPServerConfig("files", "https://files.example/mcp", allow, deny)


def tool(server: str, name: str) -> InjectedTool:
    return InjectedTool("", server, "https://x.example", name, "", SCHEMA)


def ids(*tools: InjectedTool) -> list[str]:
    return [one.id for one in with_unique_ids(tools)[0]]


@pytest.mark.parametrize(
    ("allow", "deny", "allowed"),
    [
        (None, None, ["read_file", "write_file", "admin_read"]),
        ("^read_", None, ["read_file"]),
        ("read", None, ["read_file", "admin_read"]),
        (None, "^admin", ["read_file", "write_file"]),
        ("read", "^admin", ["read_file"]),
        (".", ".", []),
        ("", None, ["read_file", "write_file", "admin_read"]),
        (None, "", []),
        ("^READ", None, []),
        ("files", None, []),
    ],
)
def test_filters(allow: str | None, deny: str | None, allowed: list[str]) -> None:
    """They are searched for in the bare name; what is denied is denied."""
    names = ["read_file", "write_file", "admin_read"]
    assert [name for name in names if is_allowed(server(allow, deny), name)] == allowed
    listed = [{"name": name, "inputSchema": SCHEMA} for name in names]
    assert [one.name for one in offer_of(server(allow, deny), listed).tools] == allowed


def test_a_filter_that_is_none() -> None:
    with pytest.raises(re.error):
        offer_of(server("("), [{"name": "x", "inputSchema": SCHEMA}])


@pytest.mark.parametrize(
    "schema",
    [
        None,
        [],
        {},
        {"type": "string"},
        {"type": ["object"]},
        {"type": "object", "x": float("nan")},
        {"type": "object", "x": "\ud800"},
        {"type": "object", "x": "y" * MAX_SCHEMA},
    ],
)
def test_a_schema_that_cannot_be_used(schema: object) -> None:
    offer = offer_of(
        server(), [{"name": "bad", "inputSchema": schema}, {"name": "good", "inputSchema": SCHEMA}]
    )
    assert [one.name for one in offer.tools] == ["good"]
    assert "'bad'" in offer.unusable[0]


@pytest.mark.parametrize("name", [None, "", 5, "x" * 257, "\ud800"])
def test_a_name_that_cannot_be_used(name: object) -> None:
    offer = offer_of(server(), [{"name": name, "inputSchema": SCHEMA}])
    assert (offer.tools, len(offer.unusable)) == ((), 1)


def test_descriptions() -> None:
    """The title where there is none; the beginning where it is long."""
    listed: list[dict[str, Any]] = [
        {"name": "a", "title": "A", "description": "does a", "inputSchema": SCHEMA},
        {"name": "b", "title": "B", "inputSchema": SCHEMA},
        {"name": "c", "description": 5, "inputSchema": SCHEMA},
        {"name": "d", "description": "x" * 5000, "inputSchema": SCHEMA},
        {"name": "a", "description": "again", "inputSchema": SCHEMA},
    ]
    described = [one.description for one in offer_of(server(), listed).tools]
    assert described == ["does a", "B", "", "x" * (MAX_DESCRIPTION - 1) + "…"]


def test_names() -> None:
    assert ids(tool("git", "list_issues"), tool("git.hub", "läse")) == [
        "bmcp_git_hub_l_se",
        "bmcp_git_list_issues",
    ]


def test_names_that_collide() -> None:
    """Each has a digest of its own then, whichever comes first."""
    one, two = tool("a_b", "c"), tool("a", "b_c")
    named = ids(one, two, tool("a", "x"))
    assert named == ids(two, tool("a", "x"), one)
    assert named[2] == "bmcp_a_x"
    assert all(re.fullmatch("bmcp_a_b_c_[0-9a-f]{8}", name) for name in named[:2])
    assert len(set(named)) == 3


def test_names_that_are_long() -> None:
    long = ids(tool("s", "x" * 100), tool("s", "x" * 100 + "y"))
    assert [len(name) for name in long] == [MAX_TOOL_ID, MAX_TOOL_ID]
    assert len(set(long)) == 2
    assert ids(tool("s", "x" * 57)) == ["bmcp_s_" + "x" * 57]


@given(st.lists(st.tuples(st.text(max_size=40), st.text(max_size=80)), unique=True, max_size=150))
def test_any_names(names: list[tuple[str, str]]) -> None:
    tools, too_many = with_unique_ids([tool(*name) for name in names])
    assert len(tools) == min(len(names), MAX_TOOLS)
    assert len(tools) + len(too_many) == len(names)
    every = [one.id for one in (*tools, *too_many)]
    assert every == sorted(set(every))
    assert all(re.fullmatch("bmcp_[a-zA-Z0-9_-]{1,59}", name, re.ASCII) for name in every)
    assert {(one.server, one.name) for one in (*tools, *too_many)} == set(names)
