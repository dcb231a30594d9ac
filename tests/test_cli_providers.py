"""``cli_providers``: ``flask aibridge provider …``."""

from __future__ import annotations

import json

import pytest
from click.testing import Result
from flask import Flask

from flask_aibridge.cli.answers import MAX_STDIN
from flask_aibridge.cli.providers import provider
from flask_aibridge.config import ProviderSettings
from flask_aibridge.services.configuration.providers import TABLE, StoredProviders
from flask_aibridge.services.configuration.sealing import Sealer
from flask_aibridge.services.interfaces import ProviderConfig
from tests.api.configured_app import KEY, SEED, ConfiguredApp, no_store
from tests.api.management_app import NoConfigurator

OTHER_KEY = "sk-other-0123456789-xyz"


@pytest.fixture
def configured() -> ConfiguredApp:
    return ConfiguredApp()


def run(configured: ConfiguredApp, *arguments: str, stdin: str | None = None, **env: str) -> Result:
    result = configured.app.test_cli_runner().invoke(
        provider, arguments, input=stdin, env=env, catch_exceptions=False
    )
    assert KEY not in result.output
    assert OTHER_KEY not in result.output
    return result


def settings(configured: ConfiguredApp, name: str) -> ProviderConfig:
    """A provider as the bridge gets it."""
    return next(one for one in configured.providers.providers().providers if one.settings.name == name)


def test_the_list_is_a_table(configured: ConfiguredApp) -> None:
    """With hints in place of keys."""
    configured.store().put_config_row(TABLE, "broken\x1b[2J\nx", "damaged")
    result = run(configured, "list")

    assert result.exit_code == 0
    header, first, second = result.output.splitlines()
    assert header.split() == ["name", "type", "base", "url", "enabled", "keys", "error"]
    assert first.split() == ["anthropic", "anthropic", "https://api.anthropic.com", "yes", "sk-a…6789", "-"]
    assert second.startswith("broken\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}x  ")
    assert second.endswith("it is not JSON")


def test_the_list_as_json(configured: ConfiguredApp) -> None:
    """As the management route answers it."""
    shown = json.loads(run(configured, "list", "--json").output)
    assert shown["count"] == 1
    assert shown["providers"][0]["keys"] == {"count": 1, "hints": ["sk-a…6789"]}


def test_an_empty_list_says_how_to_make_one(configured: ConfiguredApp) -> None:
    """And is no failure."""
    assert run(configured, "remove", "anthropic").exit_code == 0
    result = run(configured, "list")
    assert (result.exit_code, "flask aibridge provider set NAME" in result.output) == (0, True)


class TestKeys:
    def test_from_standard_input(self, configured: ConfiguredApp) -> None:
        """One in a line, best first."""
        result = run(configured, "set", "anthropic", "--key-stdin", stdin=f"{OTHER_KEY}\r\n\n {KEY} \n")
        assert result.output == (
            "Provider anthropic is changed: anthropic at https://api.anthropic.com, enabled, "
            "keys sk-o…-xyz, sk-a…6789.\n"
        )
        assert settings(configured, "anthropic").settings.keys == (OTHER_KEY, KEY)

    def test_from_a_prompt(self, configured: ConfiguredApp) -> None:
        """Which shows nothing of it."""
        result = run(configured, "set", "gpt", "--type", "openai", "--key", stdin=f"{OTHER_KEY}\n")
        assert result.exit_code == 0
        assert settings(configured, "gpt").settings == ProviderSettings(
            "gpt", "openai", "https://api.openai.com/v1", (OTHER_KEY,)
        )

    def test_from_the_environment(self, configured: ConfiguredApp) -> None:
        """By the names of variables."""
        result = run(
            configured,
            "set",
            "anthropic",
            "--key-env",
            "ONE",
            "--key-env",
            "TWO",
            ONE=OTHER_KEY,
            TWO=f" {KEY}\n",
        )
        assert result.exit_code == 0
        assert settings(configured, "anthropic").settings.keys == (OTHER_KEY, KEY)

    def test_from_the_command_line(self, configured: ConfiguredApp) -> None:
        """Where somebody insists; the help says who can see it."""
        assert run(configured, "set", "anthropic", "--key", OTHER_KEY).exit_code == 0
        assert settings(configured, "anthropic").settings.keys == (OTHER_KEY,)
        assert "list of processes" in " ".join(run(configured, "set", "--help").output.split())

    def test_none(self, configured: ConfiguredApp) -> None:
        """For a server that asks for none."""
        result = run(
            configured,
            "set",
            "anthropic",
            "--no-key",
            "--base-url",
            "http://localhost:8000",
            "--disable",
            "--json",
        )
        shown = json.loads(result.output)
        assert (shown["keys"]["count"], shown["base_url"], shown["enabled"]) == (
            0,
            "http://localhost:8000",
            False,
        )

    def test_those_that_are_not_given_stay(self, configured: ConfiguredApp) -> None:
        """Nothing is asked."""
        assert run(configured, "set", "anthropic", "--enable").exit_code == 0
        assert settings(configured, "anthropic").settings == SEED[0]

    def test_in_two_ways_is_a_mistake(self, configured: ConfiguredApp) -> None:
        """One would be lost."""
        result = run(configured, "set", "anthropic", "--key-stdin", "--no-key", stdin=KEY)
        assert (result.exit_code, "Give keys in one way" in result.output) == (2, True)

    @pytest.mark.parametrize("stdin", ["", "\n \n"])
    def test_nothing_on_standard_input_is_a_mistake(self, configured: ConfiguredApp, stdin: str) -> None:
        """A pipe that broke must not remove the keys."""
        result = run(configured, "set", "anthropic", "--key-stdin", stdin=stdin)
        assert (result.exit_code, "nothing on standard input" in result.output) == (1, True)
        assert settings(configured, "anthropic").settings == SEED[0]

    def test_too_much_is_a_mistake(self, configured: ConfiguredApp) -> None:
        """It is another file."""
        result = run(configured, "set", "anthropic", "--key-stdin", stdin="x" * (MAX_STDIN + 1))
        assert (result.exit_code, "is that a key?" in result.output) == (1, True)

    def test_a_variable_that_is_not_set_is_a_mistake(self, configured: ConfiguredApp) -> None:
        """It is named."""
        result = run(configured, "set", "anthropic", "--key-env", "NOWHERE", NOWHERE="")
        assert (result.exit_code, "'NOWHERE' is not set" in result.output) == (1, True)

    def test_what_cannot_be_sent_is_not_stored(self, configured: ConfiguredApp) -> None:
        """And not shown."""
        result = run(configured, "set", "anthropic", "--key-stdin", stdin="with a space")
        assert result.exit_code == 1
        assert "a key of provider 'anthropic'" in result.output
        assert "with a space" not in result.output


def test_enabling_disabling_removing(configured: ConfiguredApp) -> None:
    """A sentence each."""
    assert run(configured, "disable", "anthropic").output == "Provider anthropic is disabled.\n"
    assert not settings(configured, "anthropic").enabled
    assert run(configured, "enable", "anthropic").output == "Provider anthropic is enabled.\n"
    assert settings(configured, "anthropic").settings == SEED[0]
    assert run(configured, "remove", "anthropic").output == "Provider anthropic is removed.\n"


@pytest.mark.parametrize("command", ["enable", "disable", "remove"])
def test_what_is_not_there(configured: ConfiguredApp, command: str) -> None:
    """An exit code for scripts."""
    result = run(configured, command, "nobody")
    assert (result.exit_code, result.output) == (1, "Error: There is no stored provider 'nobody'.\n")


@pytest.mark.parametrize("arguments", [("x",), ("UPPER", "--type", "openai"), ("x", "--type", "gopher")])
def test_what_cannot_work(configured: ConfiguredApp, arguments: tuple[str, ...]) -> None:
    """Is told in a sentence."""
    result = run(configured, "set", *arguments)
    assert result.exit_code in (1, 2)
    assert "Error: " in result.output


def test_encrypting_anew(configured: ConfiguredApp) -> None:
    """After a new secret key was put in front."""
    configured.providers.providers()
    secrets = ["new-" * 10, "key-" * 10]
    configured.providers = StoredProviders(configured.store, Sealer(secrets), ())

    assert run(configured, "reseal").output == "Encrypted anew: anthropic.\n"
    assert run(configured, "reseal").output == "There is nothing to encrypt anew.\n"
    alone = StoredProviders(configured.store, Sealer(secrets[:1]), ())
    assert alone.providers().providers[0].settings == SEED[0]


def test_without_a_secret_key() -> None:
    """Listing works; the error of all else says how to make one."""
    configured = ConfiguredApp(sealed=False)
    assert run(configured, "list").exit_code == 0
    result = run(configured, "disable", "anthropic")
    assert (result.exit_code, "AIBRIDGE_SECRET_KEY is not set" in result.output) == (1, True)


def test_without_a_store() -> None:
    """The remedy is named."""
    result = run(ConfiguredApp(store=no_store), "list")
    assert (result.exit_code, "AIBRIDGE_REDIS_URL" in result.output) == (1, True)


def test_a_configurator_of_the_hosts(configured: ConfiguredApp) -> None:
    """It is changed where it has its providers from."""
    configured.providers = NoConfigurator()
    result = run(configured, "remove", "x")
    assert (result.exit_code, "of the application's own" in result.output) == (1, True)


def test_an_app_without_the_extension() -> None:
    """Says what to call."""
    result = Flask("bare").test_cli_runner().invoke(provider, ["list"])
    assert (result.exit_code, "call AIBridge(app)" in result.output) == (1, True)
