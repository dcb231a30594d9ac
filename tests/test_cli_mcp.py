"""``cli_mcp``: ``flask aibridge mcp …``."""

from __future__ import annotations

import json

import pytest
from click.testing import Result

from flask_aibridge.cli.mcp import mcp
from tests.api.configured_app import ConfiguredApp
from tests.api.management_app import NoConfigurator

SECRET = "tok-very-secret"


@pytest.fixture
def configured() -> ConfiguredApp:
    return ConfiguredApp()


def run(configured: ConfiguredApp, *arguments: str, stdin: str | None = None, **env: str) -> Result:
    result = configured.app.test_cli_runner().invoke(
        mcp, arguments, input=stdin, env=env, catch_exceptions=False
    )
    assert SECRET not in result.output
    return result


def token_of(configured: ConfiguredApp, user: str) -> str | None:
    return configured.mcp.mcp_access_tokens(user, ["tickets"]).tokens.get("tickets")


def test_the_list_is_a_table(configured: ConfiguredApp) -> None:
    """Of those that are not used, too."""
    header, first, second = run(configured, "list").output.splitlines()
    assert header.split() == ["id", "url", "allowed", "tools", "denied", "tools", "from", "error"]
    assert "tool_allow_regex is no regular expression" in first
    assert second.split() == ["tickets", "https://tickets.example/mcp", "^read_", "-", "config", "-"]


def test_the_list_as_json(configured: ConfiguredApp) -> None:
    """As the management route answers it."""
    assert [one["id"] for one in json.loads(run(configured, "list", "--json").output)["servers"]] == [
        "broken",
        "tickets",
    ]


def test_setting_and_removing(configured: ConfiguredApp) -> None:
    """A sentence each."""
    url = "https://chat.example/mcp"
    assert run(configured, "set", "chat", "--url", url).output == "MCP server chat is stored.\n"
    shown = json.loads(
        run(configured, "set", "chat", "--url", url, "--allow", "a", "--deny", "b", "--json").output
    )
    assert (shown["tool_allow_regex"], shown["tool_deny_regex"], shown["origin"]) == ("a", "b", "store")
    assert run(configured, "set", "chat", "--url", url).output == "MCP server chat is changed.\n"
    assert run(configured, "remove", "chat").output == "MCP server chat is removed.\n"
    assert run(configured, "remove", "chat").output == "Error: There is no MCP server 'chat'.\n"


def test_an_empty_list_says_how_to_make_one(configured: ConfiguredApp) -> None:
    """And is no failure."""
    from flask_aibridge.services.configuration.mcp import HostMCPConfigurator

    configured.mcp = HostMCPConfigurator((), configured.store, None, lambda: None)
    result = run(configured, "list")
    assert (result.exit_code, "flask aibridge mcp set ID" in result.output) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("set", "chat"), "Missing option '--url'"),
        (("set", "chat", "--url", "ftp://h"), "the url must be"),
        (("set", "chat", "--url", "http://h", "--allow", "("), "tool_allow_regex is no regular expression"),
        (("remove", "tickets"), "take it out of AIBRIDGE_MCP_SERVERS"),
        (("token", "nope", "alice", "--env", "TOKEN"), "There is no MCP server 'nope'"),
        (("token", "tickets", "alice", "--env", "NOWHERE"), "'NOWHERE' is not set"),
        (("token", "tickets", "alice", "--env", "TOKEN", "--remove"), "Give one of"),
        (("token", "tickets", "alice", "--remove"), "No token of this user"),
    ],
)
def test_what_cannot_work(configured: ConfiguredApp, arguments: tuple[str, ...], message: str) -> None:
    """Is told in a sentence, with an exit code for scripts."""
    result = run(configured, *arguments, TOKEN=SECRET)
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.output.split())


class TestTokens:
    def test_from_a_prompt(self, configured: ConfiguredApp) -> None:
        """Which shows nothing of it."""
        result = run(configured, "token", "tickets", "alice", stdin=f"{SECRET}\n")
        assert result.output.endswith("The token of alice for MCP server tickets is stored.\n")
        assert token_of(configured, "alice") == SECRET
        assert token_of(configured, "bob") is None

    def test_from_standard_input(self, configured: ConfiguredApp) -> None:
        """One line."""
        assert run(configured, "token", "tickets", "alice", "--stdin", stdin=f"{SECRET}\n").exit_code == 0
        assert token_of(configured, "alice") == SECRET
        result = run(configured, "token", "tickets", "alice", "--stdin", stdin="a\nb\n")
        assert (result.exit_code, "more than one line" in result.output) == (1, True)

    def test_from_the_environment(self, configured: ConfiguredApp) -> None:
        """By the name of a variable."""
        assert run(configured, "token", "tickets", "alice", "--env", "TOKEN", TOKEN=SECRET).exit_code == 0
        assert token_of(configured, "alice") == SECRET

    def test_removing(self, configured: ConfiguredApp) -> None:
        """It is gone for the service too."""
        run(configured, "token", "tickets", "alice", "--env", "TOKEN", TOKEN=SECRET)
        result = run(configured, "token", "tickets", "alice", "--remove")
        assert result.output == "The token of alice for MCP server tickets is removed.\n"
        assert token_of(configured, "alice") is None

    def test_without_a_secret_key(self) -> None:
        """The error says how to make one."""
        result = run(ConfiguredApp(sealed=False), "token", "tickets", "alice", "--env", "TOKEN", TOKEN=SECRET)
        assert (result.exit_code, "AIBRIDGE_SECRET_KEY is not set" in result.output) == (1, True)


def test_a_configurator_of_the_hosts(configured: ConfiguredApp) -> None:
    """Its servers are seen and changed elsewhere."""
    configured.mcp = NoConfigurator()
    result = run(configured, "list")
    assert (result.exit_code, "of the application's own" in result.output) == (1, True)
