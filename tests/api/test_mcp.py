"""``api.mcp``: MCP servers and tokens, seen and changed by administrators."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from flask_aibridge.api.mcp import PATHS
from flask_aibridge.api.signals import configuration_changed
from flask_aibridge.services.configuration.patterns import MAX_PATTERN
from tests.api.configured_app import ConfiguredApp, no_store
from tests.api.management_app import AS_ADMIN, PREFIX, NoConfigurator, make_app

SECRET = "tok-very-secret"
TICKETS = {
    "id": "tickets",
    "url": "https://tickets.example/mcp",
    "tool_allow_regex": "^read_",
    "tool_deny_regex": None,
    "origin": "config",
    "error": None,
}
CHAT = {"url": "https://chat.example/mcp", "tool_deny_regex": "admin"}
CHAT_SHOWN = {
    "id": "chat",
    "url": "https://chat.example/mcp",
    "tool_allow_regex": None,
    "tool_deny_regex": "admin",
    "origin": "store",
    "error": None,
}
ROUTES = [
    ("GET", "/mcp/servers"),
    ("PUT", "/mcp/servers/tickets"),
    ("DELETE", "/mcp/servers/tickets"),
    ("PUT", "/mcp/servers/tickets/tokens/alice"),
    ("DELETE", "/mcp/servers/tickets/tokens/alice"),
]


@pytest.fixture
def configured() -> ConfiguredApp:
    return ConfiguredApp()


@pytest.fixture
def client(configured: ConfiguredApp) -> FlaskClient:
    return configured.app.test_client()


@pytest.fixture
def changes() -> Iterator[list[tuple[str, ...]]]:
    """What is announced."""
    seen: list[tuple[str, ...]] = []

    def receive(_sender: object, **change: str) -> None:
        seen.append((change["action"], change["kind"], change["name"], change["by"]))

    with configuration_changed.connected_to(receive):
        yield seen


def ask(client: FlaskClient, method: str, path: str, body: object = None) -> Any:
    return client.open(f"{PREFIX}{path}", method=method, json=body, headers=AS_ADMIN)


def code(response: Any) -> tuple[int, str]:
    assert response.mimetype == "application/problem+json"
    return response.status_code, response.json["code"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_they_are_for_administrators(configured: ConfiguredApp, method: str, path: str) -> None:
    """Tokens most of all."""
    response = configured.app.test_client().open(f"{PREFIX}{path}", method=method, json={})
    assert code(response)[0] in (401, 403)


def test_the_list_has_every_server(client: FlaskClient) -> None:
    """With what is wrong with those that are not used."""
    shown = ask(client, "GET", "/mcp/servers").json
    assert shown["count"] == 2
    assert shown["servers"][1] == TICKETS
    assert shown["servers"][0]["error"].startswith("tool_allow_regex is no regular expression")


def test_putting_and_removing(client: FlaskClient, changes: list[tuple[str, ...]]) -> None:
    """A stored server is replaced as a whole."""
    first = ask(client, "PUT", "/mcp/servers/chat", CHAT)
    second = ask(client, "PUT", "/mcp/servers/chat", {"url": CHAT["url"]})
    gone = ask(client, "DELETE", "/mcp/servers/chat")

    assert (first.status_code, first.json) == (201, CHAT_SHOWN)
    assert (second.status_code, second.json) == (200, CHAT_SHOWN | {"tool_deny_regex": None})
    assert (gone.status_code, gone.data) == (204, b"")
    assert changes == [
        ("created", "mcp_server", "chat", "administrator"),
        ("updated", "mcp_server", "chat", "administrator"),
        ("deleted", "mcp_server", "chat", "administrator"),
    ]


def test_what_the_config_names_is_removed_there(client: FlaskClient) -> None:
    """A stored one hides it, until that is removed."""
    assert code(ask(client, "DELETE", "/mcp/servers/tickets")) == (409, "in_config")
    ask(client, "PUT", "/mcp/servers/tickets", CHAT)
    assert ask(client, "GET", "/mcp/servers").json["servers"][1]["url"] == CHAT["url"]
    assert ask(client, "DELETE", "/mcp/servers/tickets").status_code == 204
    assert ask(client, "GET", "/mcp/servers").json["servers"][1] == TICKETS


def test_what_is_not_there(client: FlaskClient, changes: list[tuple[str, ...]]) -> None:
    """Each with a code of its own."""
    assert code(ask(client, "DELETE", "/mcp/servers/x")) == (404, "unknown_mcp_server")
    assert code(ask(client, "PUT", "/mcp/servers/x/tokens/alice", {"token": "t"})) == (
        404,
        "unknown_mcp_server",
    )
    assert code(ask(client, "DELETE", "/mcp/servers/tickets/tokens/alice")) == (404, "unknown_token")
    assert changes == []


@pytest.mark.parametrize(
    ("server_id", "body"),
    [
        ("x", {}),
        ("x", {"url": "ftp://h"}),
        ("x", {"url": f"https://u:{SECRET}@h"}),
        ("x", {"url": "https://h", "tool_allow_regex": "("}),
        ("x", {"url": "https://h", "tool_deny_regex": "(a+)+"}),
        ("x", {"url": "https://h", "tool_deny_regex": "x" * (MAX_PATTERN + 1)}),
        ("x", {"url": "https://h", "allow": "x"}),
        ("UPPER", {"url": "https://h"}),
    ],
)
def test_servers_that_cannot_work_are_a_400(
    client: FlaskClient, server_id: str, body: dict[str, Any]
) -> None:
    """A broken pattern is told to who sends it."""
    response = ask(client, "PUT", f"/mcp/servers/{server_id}", body)
    assert code(response) == (400, "invalid")
    assert SECRET not in response.text


def test_tokens_go_in_and_never_come_out(
    configured: ConfiguredApp,
    client: FlaskClient,
    changes: list[tuple[str, ...]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The user gets theirs by the service alone."""
    caplog.set_level(logging.DEBUG)
    put = ask(client, "PUT", "/mcp/servers/tickets/tokens/a/lice", {"token": SECRET})

    assert (put.status_code, put.data) == (204, b"")
    assert configured.mcp.mcp_access_tokens("a/lice", ["tickets"]).tokens == {"tickets": SECRET}
    assert SECRET not in ask(client, "GET", "/mcp/servers").text
    assert ask(client, "DELETE", "/mcp/servers/tickets/tokens/a/lice").status_code == 204
    assert configured.mcp.mcp_access_tokens("a/lice", ["tickets"]).tokens == {}
    assert changes == [
        ("updated", "mcp_token", "tickets of a/lice", "administrator"),
        ("deleted", "mcp_token", "tickets of a/lice", "administrator"),
    ]
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "body", [{}, {"token": ""}, {"token": f"{SECRET}\n"}, {"token": [SECRET]}, {"tokn": SECRET}]
)
def test_what_is_no_token_is_a_400(client: FlaskClient, body: dict[str, Any]) -> None:
    """And not shown."""
    response = ask(client, "PUT", "/mcp/servers/tickets/tokens/alice", body)
    assert code(response) == (400, "invalid")
    assert SECRET not in response.text


def test_without_a_secret_key_there_are_servers_and_no_tokens() -> None:
    """The problem names the key."""
    client = ConfiguredApp(sealed=False).app.test_client()
    response = ask(client, "PUT", "/mcp/servers/tickets/tokens/alice", {"token": SECRET})

    assert code(response) == (503, "secret_key_missing")
    assert "AIBRIDGE_SECRET_KEY" in response.json["detail"]
    assert ask(client, "PUT", "/mcp/servers/chat", CHAT).status_code == 201


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_a_store(method: str, path: str) -> None:
    """A missing one is the installation's matter, not the request's."""
    client = ConfiguredApp(store=no_store).app.test_client()
    body = {"token": "t"} if "tokens" in path else CHAT
    assert code(ask(client, method, path, body)) == (503, "store_missing")


def test_a_configurator_of_the_hosts(configured: ConfiguredApp, client: FlaskClient) -> None:
    """Its servers are per user, and not ours to list or change."""
    configured.mcp = NoConfigurator()
    assert code(ask(client, "GET", "/mcp/servers")) == (501, "configured_elsewhere")
    other = make_app(configured.store, parts=("mcp",)).test_client()
    assert code(ask(other, "PUT", "/mcp/servers/chat", CHAT)) == (501, "configured_elsewhere")


def test_every_route_is_described() -> None:
    """And no other."""
    described = {
        (method.upper(), path) for path, of in PATHS.items() for method in of if method != "parameters"
    }
    assert described == {
        (method, path.replace("/servers/tickets", "/servers/{server_id}").replace("/alice", "/{user}"))
        for method, path in ROUTES
    }
