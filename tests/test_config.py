"""``config``: what a key may be, what it is by default, and what a wrong one is told."""

from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge import config as config_module
from flask_aibridge.config import (
    BUILT_IN,
    KNOWN_KEYS,
    CircuitBreaker,
    ProviderSettings,
    RateLimit,
    Settings,
    parse_rate_limit,
    read_settings,
)
from flask_aibridge.config import settings as settings_module
from flask_aibridge.errors import ConfigError, ConfigWarning

SECRET = "sk-do-not-show-this"


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return []


def read(env: dict[str, str] | None = None, **config: Any) -> Settings:
    return read_settings(config, env or {})


def test_the_defaults_alone_are_enough() -> None:
    """An empty config is a built-in bridge at the default prefix, with nothing secret and nobody allowed."""
    assert read() == Settings(url_prefix="/api/v2/aibridge", bridge=BUILT_IN)
    assert read().bridge == "built-in"


def test_absent_keys_are_written_into_the_config() -> None:
    """``app.config`` shows what is in force."""
    config: dict[str, Any] = {}
    read_settings(config, {})

    assert set(config) == set(KNOWN_KEYS)
    assert config["AIBRIDGE_URL_PREFIX"] == "/api/v2/aibridge"


def test_a_key_that_is_set_is_left_alone() -> None:
    """``setdefault`` semantics."""
    config: dict[str, Any] = {"AIBRIDGE_URL_PREFIX": "/ai", "OTHER": 1}
    read_settings(config, {})

    assert (config["AIBRIDGE_URL_PREFIX"], config["OTHER"]) == ("/ai", 1)


def test_keys_from_the_environment_are_not_written_into_the_config() -> None:
    """A config is printed more easily than an environment."""
    config: dict[str, Any] = {}
    read_settings(config, {"OPENAI_API_KEY": SECRET})

    assert SECRET not in repr(config)


def test_settings_are_frozen_and_independent_of_the_config() -> None:
    """What is changed after init_app has no effect."""
    keys = {"alice": "aib_1_x"}
    settings = read(AIBRIDGE_API_KEYS=keys)
    keys["eve"] = "aib_2_y"

    assert dict(settings.api_keys) == {"alice": "aib_1_x"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.url_prefix = "/other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.api_keys["eve"] = "aib_2_y"  # type: ignore[index]


def test_no_secret_is_in_a_repr() -> None:
    """Settings may be logged whole."""
    providers = {"openai": {"type": "openai", "keys": [SECRET]}}
    settings = read(
        AIBRIDGE_PROVIDERS=providers, AIBRIDGE_API_KEYS={"a": f"aib_{SECRET}"}, AIBRIDGE_LICENSE=SECRET
    )

    assert SECRET not in repr(settings)
    assert SECRET not in repr(settings.providers[0])


def test_every_known_key_is_documented() -> None:
    """The table in the docstring is whole."""
    assert [key for key in KNOWN_KEYS if f"``{key}``\n" not in (config_module.__doc__ or "")] == []


class TestUnknownKeys:
    def test_a_misspelt_key_is_named_with_the_nearest(self) -> None:
        """Whoever wrote it sees what was meant."""
        with pytest.warns(ConfigWarning, match=r"AIBRIDGE_LICENCE is not .* Did you mean AIBRIDGE_LICENSE\?"):
            read(AIBRIDGE_LICENCE="x")

    def test_a_key_like_no_other_is_named_alone(self) -> None:
        """No guess is better than a wrong one."""
        with pytest.warns(ConfigWarning) as caught:
            read(AIBRIDGE_ZZZZQQQQ=1)
        assert "Did you mean" not in str(caught[0].message)

    @pytest.mark.parametrize("key", ["AIBRIDGES", "OTHER_AIBRIDGE_KEY", *KNOWN_KEYS])
    def test_other_keys_are_nobodys_business(self, key: str) -> None:
        """Only the prefix ``AIBRIDGE_`` is ours."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            settings_module.warn_of_unknown_keys({key: None})


class TestURLPrefix:
    @pytest.mark.parametrize("value", ["/ai", "/api/v2/aibridge", "/a.b/c-d_e~f", "/~user/@x"])
    def test_good(self, value: str) -> None:
        """A path of segments."""
        assert read(AIBRIDGE_URL_PREFIX=value).url_prefix == value

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "/",
            "ai",
            "/ai/",
            "//ai",
            "/a//b",
            "/a/../b",
            "/.",
            "/<x>",
            "/a?b",
            "/a#b",
            "/a%20b",
            "/a b",
            "/ä",
            "/a\n",
            None,
            1,
            b"/ai",
        ],
    )
    def test_bad(self, value: Any) -> None:
        """The error names the key, the value and what is allowed."""
        with pytest.raises(ConfigError) as caught:
            read(AIBRIDGE_URL_PREFIX=value)
        assert str(caught.value).startswith(f"AIBRIDGE_URL_PREFIX is {value!r}; it must be a path")

    @given(st.text(max_size=20))
    def test_whatever_is_accepted_is_safe_to_route(self, value: str) -> None:
        """No prefix gets through that a URL rule or a path comparison would read differently."""
        try:
            accepted = read(AIBRIDGE_URL_PREFIX=value).url_prefix
        except ConfigError:
            return
        assert accepted.isascii()
        assert accepted.startswith("/")
        assert not accepted.endswith("/")
        assert not set("<>%?# \\") & set(accepted)


class TestBridge:
    @pytest.mark.parametrize("value", [BUILT_IN, "package.module:app", wsgi_app])
    def test_good(self, value: Any) -> None:
        """The built-in one, an import string, or any callable."""
        assert read(AIBRIDGE_BRIDGE=value).bridge is value

    @pytest.mark.parametrize("value", ["builtin", "module", "a:b:c", "", 1, False, ["a:b"]])
    def test_bad(self, value: Any) -> None:
        """Anything else stops the app."""
        with pytest.raises(ConfigError, match="^AIBRIDGE_BRIDGE is .* it must be 'built-in', a WSGI app"):
            read(AIBRIDGE_BRIDGE=value)

    def test_the_argument_is_the_default(self) -> None:
        """Without the key, the app that was passed is mounted."""
        assert read_settings({}, {}, wsgi_app=wsgi_app).bridge is wsgi_app

    def test_the_config_overrides_the_argument(self) -> None:
        """Also where it names the built-in bridge."""
        assert read_settings({"AIBRIDGE_BRIDGE": BUILT_IN}, {}, wsgi_app=wsgi_app).bridge == BUILT_IN

    def test_none_mounts_nothing(self) -> None:
        """The public route is then a 404."""
        assert read(AIBRIDGE_BRIDGE=None).bridge is None

    def test_an_argument_stands_in_for_none(self) -> None:
        """``None`` turns off the built-in bridge, not a given one."""
        assert read_settings({"AIBRIDGE_BRIDGE": None}, {}, wsgi_app=wsgi_app).bridge is wsgi_app


class TestLicense:
    @pytest.mark.parametrize("value", [None, "", "  \n"])
    def test_nothing(self, value: Any) -> None:
        """An empty text is no licence: what an unset variable becomes in a container's environment."""
        assert read(AIBRIDGE_LICENSE=value).license is None

    def test_a_value_of_the_wrong_type_is_not_shown(self) -> None:
        """A licence is nobody else's to read."""
        with pytest.raises(ConfigError, match="^AIBRIDGE_LICENSE has a value of type bytes") as caught:
            read(AIBRIDGE_LICENSE=SECRET.encode())
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize("value", ["license.jwt", Path("license.jwt")])
    def test_a_file_is_a_path(self, value: Any) -> None:
        """As text or as a ``Path``."""
        assert read(AIBRIDGE_LICENSE_FILE=value).license_file == "license.jwt"

    @pytest.mark.parametrize("value", [1, b"x", "a\0b"])
    def test_a_file_that_cannot_be_one(self, value: Any) -> None:
        """Named with its key."""
        with pytest.raises(ConfigError, match="^AIBRIDGE_LICENSE_FILE is "):
            read(AIBRIDGE_LICENSE_FILE=value)

    @pytest.mark.parametrize(
        "value", [None, "key", ["key"], {"kid": 1}, {"kid": " "}, {1: "key"}, {"": "key"}]
    )
    def test_public_keys_are_a_mapping(self, value: Any) -> None:
        """Of key ids to texts; what the texts are is the licence's business."""
        with pytest.raises(ConfigError, match="AIBRIDGE_LICENSE_PUBLIC_KEYS"):
            read(AIBRIDGE_LICENSE_PUBLIC_KEYS=value)

    @pytest.mark.parametrize("value", [402, 403])
    def test_the_status_of_a_refusal(self, value: int) -> None:
        """One that says no; 403 unless it is chosen."""
        assert read(AIBRIDGE_LICENSE_STATUS=value).license_status == value
        assert read().license_status == 403

    @pytest.mark.parametrize("value", [None, 401, 404, 429, 200, 403.0, "403", True])
    def test_no_other_status(self, value: Any) -> None:
        """One that SDKs try again, or that means something else."""
        with pytest.raises(ConfigError, match="^AIBRIDGE_LICENSE_STATUS is .*; it must be 403 or 402"):
            read(AIBRIDGE_LICENSE_STATUS=value)


class TestProviders:
    def test_a_provider_has_defaults(self) -> None:
        """The type is enough."""
        settings = read(AIBRIDGE_PROVIDERS={"claude": {"type": "anthropic"}, "gpt": {"type": "openai"}})
        assert settings.providers == (
            ProviderSettings("claude", "anthropic", "https://api.anthropic.com"),
            ProviderSettings("gpt", "openai", "https://api.openai.com/v1"),
        )

    def test_several_of_a_type(self) -> None:
        """Names are free; order and every field are kept."""
        fields = {"type": "openai", "base_url": "http://10.0.0.1:8000/v1/", "keys": ["k1", "k2"]}
        settings = read(AIBRIDGE_PROVIDERS={"openai-2": fields, "local": fields})
        assert settings.providers == (
            ProviderSettings("openai-2", "openai", "http://10.0.0.1:8000/v1", ("k1", "k2")),
            ProviderSettings("local", "openai", "http://10.0.0.1:8000/v1", ("k1", "k2")),
        )

    @pytest.mark.parametrize("name", ["OpenAI", "open_ai", "a/b", "a.b", "ä", "a b", "."])
    def test_bad_names(self, name: str) -> None:
        """A name is a path segment."""
        with pytest.raises(ConfigError, match="a name in AIBRIDGE_PROVIDERS is .* made of a-z, 0-9"):
            read(AIBRIDGE_PROVIDERS={name: {"type": "openai"}})

    @pytest.mark.parametrize("value", ["openai", ["openai"], 1, {"openai": "sk-1"}, {"": {}}, {None: {}}])
    def test_bad_forms(self, value: Any) -> None:
        """A mapping of mappings."""
        with pytest.raises(ConfigError, match="AIBRIDGE_PROVIDERS"):
            read(AIBRIDGE_PROVIDERS=value)

    @pytest.mark.parametrize("type_", [None, "", "gemini", "OpenAI", 1, ["openai"]])
    def test_bad_types(self, type_: Any) -> None:
        """Only the wire formats that are spoken."""
        match = r"AIBRIDGE_PROVIDERS\['x'\]\['type'\] is .* must be 'anthropic' or 'openai'"
        with pytest.raises(ConfigError, match=match):
            read(AIBRIDGE_PROVIDERS={"x": {"type": type_}})

    def test_an_unknown_field_is_named_with_the_nearest(self) -> None:
        """A misspelt field would else be a default unnoticed."""
        with pytest.raises(ConfigError, match="has a field 'baseurl'.*Did you mean base_url"):
            read(AIBRIDGE_PROVIDERS={"x": {"type": "openai", "baseurl": "http://localhost"}})

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "localhost",
            "//localhost",
            "ftp://localhost",
            "http://",
            "http:///v1",
            "http://h:x",
            "http://h:0",
            "http://h:99999",
            "http://h/v1?x=1",
            "http://h/v1#x",
            "http://h/a b",
            "http://h\r\n",
            "http://[::1",
            "http://h\\x",
            1,
            None,
            b"http://h",
        ],
    )
    def test_bad_base_urls(self, url: Any) -> None:
        """Only http(s), with a host, and nothing that the bridge's own paths would be lost behind."""
        with pytest.raises(ConfigError, match=r"AIBRIDGE_PROVIDERS\['x'\]\['base_url'\]"):
            read(AIBRIDGE_PROVIDERS={"x": {"type": "openai", "base_url": url}})

    @pytest.mark.parametrize("url", [f"https://u:{SECRET}@h/v1", f"https://h/v1?key={SECRET}"])
    def test_credentials_in_a_base_url_are_refused_unseen(self, url: str) -> None:
        """They belong in ``keys``, and not in an error message."""
        with pytest.raises(ConfigError, match="no user, password") as caught:
            read(AIBRIDGE_PROVIDERS={"x": {"type": "openai", "base_url": url}})
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize(
        "keys", [SECRET, {SECRET: 1}, None, 1, [""], [None], [f"{SECRET}\r\nX: y"], [f" {SECRET}"], ["é"]]
    )
    def test_bad_keys_are_not_shown(self, keys: Any) -> None:
        """A list of texts that can stand in a header."""
        with pytest.raises(ConfigError, match=r"AIBRIDGE_PROVIDERS\['x'\]\['keys'\]") as caught:
            read(AIBRIDGE_PROVIDERS={"x": {"type": "openai", "keys": keys}})
        assert SECRET not in str(caught.value)


class TestProvidersFromTheEnvironment:
    def test_each_key_brings_its_provider(self) -> None:
        """With the provider's own URL."""
        settings = read({"ANTHROPIC_API_KEY": "k1", "OPENAI_API_KEY": "k2"})
        assert settings.providers == (
            ProviderSettings("anthropic", "anthropic", "https://api.anthropic.com", ("k1",)),
            ProviderSettings("openai", "openai", "https://api.openai.com/v1", ("k2",)),
        )

    def test_a_base_url_is_enough(self) -> None:
        """A provider next door asks for no key."""
        settings = read({"OPENAI_BASE_URL": "http://localhost:11434/v1/", "ANTHROPIC_API_KEY": " "})
        assert settings.providers == (ProviderSettings("openai", "openai", "http://localhost:11434/v1"),)

    def test_the_config_replaces_the_environment(self) -> None:
        """Also where it says that there are none."""
        assert read({"OPENAI_API_KEY": "k"}, AIBRIDGE_PROVIDERS={}).providers == ()

    def test_a_bad_variable_is_named(self) -> None:
        """Nobody looks for it in the config."""
        with pytest.raises(
            ConfigError, match="^the environment variable OPENAI_BASE_URL is 'api.openai.com'"
        ):
            read({"OPENAI_BASE_URL": "api.openai.com"})


class TestAPIKeys:
    @pytest.mark.parametrize("key", ["aib_1_secret", "aib_x", "aib_A-b.c~d_e="])
    def test_good(self, key: str) -> None:
        """The prefix and visible characters."""
        assert dict(read(AIBRIDGE_API_KEYS={"alice": key}).api_keys) == {"alice": key}

    @pytest.mark.parametrize(
        "key", [SECRET, f"aib_{SECRET}\n", f"aib_ {SECRET}", "aib_", "aib_é", None, b"aib_x"]
    )
    def test_bad_keys_are_not_shown(self, key: Any) -> None:
        """The user is named instead."""
        with pytest.raises(ConfigError, match=r"AIBRIDGE_API_KEYS\['alice'\]") as caught:
            read(AIBRIDGE_API_KEYS={"alice": key})
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize("user", ["", " ", "a\nb", 1, None])
    def test_bad_users(self, user: Any) -> None:
        """A user is a name that can stand in a log line."""
        with pytest.raises(ConfigError, match="a name in AIBRIDGE_API_KEYS"):
            read(AIBRIDGE_API_KEYS={user: "aib_1_x"})

    def test_one_key_for_two_users(self) -> None:
        """A record could not say whose request it was."""
        with pytest.raises(ConfigError, match="'alice' and 'bob' the same key") as caught:
            read(AIBRIDGE_API_KEYS={"alice": f"aib_{SECRET}", "bob": f"aib_{SECRET}"})
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize("value", [None, "aib_1_x", ["aib_1_x"]])
    def test_bad_forms(self, value: Any) -> None:
        """A mapping of users to keys."""
        with pytest.raises(ConfigError, match="^AIBRIDGE_API_KEYS has a value of type"):
            read(AIBRIDGE_API_KEYS=value)


def test_a_long_wrong_value_is_cut_short() -> None:
    """An error stays one line."""
    with pytest.raises(ConfigError) as caught:
        read(AIBRIDGE_URL_PREFIX="x" * 10_000)
    assert len(str(caught.value)) < 500


LONG = SECRET * 4
"""Long enough for a secret that is typed into a config."""


class TestCircuitBreaker:
    @pytest.mark.parametrize(
        ("value", "breaker"),
        [
            (None, None),
            ({}, CircuitBreaker(failure_threshold=5, interval=10, timeout=30, max_requests=3)),
            ({"interval": 0, "timeout": 0.5}, CircuitBreaker(interval=0, timeout=0.5)),
            (
                {"failure_threshold": 1, "max_requests": 1},
                CircuitBreaker(failure_threshold=1, max_requests=1),
            ),
        ],
    )
    def test_good(self, value: Any, breaker: CircuitBreaker | None) -> None:
        """Off, on, or on with numbers of one's own."""
        assert read(AIBRIDGE_CIRCUIT_BREAKER=value).circuit_breaker == breaker

    @pytest.mark.parametrize(
        ("value", "named"),
        [
            (True, "AIBRIDGE_CIRCUIT_BREAKER is True; it must be None, or a mapping"),
            ({"treshold": 1}, "'treshold'.*failure_threshold"),
            ({"failure_threshold": 0}, r"\['failure_threshold'\] is 0; it must be a whole number from 1"),
            ({"failure_threshold": 1.5}, "whole number"),
            ({"max_requests": True}, "whole number"),
            ({"timeout": 0}, r"\['timeout'\] is 0; it must be a number of seconds above 0"),
            ({"timeout": "30"}, "seconds above 0"),
            ({"timeout": float("nan")}, "seconds above 0"),
            ({"interval": -1}, "seconds from 0"),
            ({"interval": 1e9}, "seconds from 0"),
        ],
    )
    def test_bad(self, value: Any, named: str) -> None:
        """The error says which field, and what it may be."""
        with pytest.raises(ConfigError, match=named):
            read(AIBRIDGE_CIRCUIT_BREAKER=value)


class TestServices:
    @pytest.mark.parametrize(
        ("key", "value", "name"),
        [
            ("AIBRIDGE_ADMIN_TOKEN", LONG, "admin_token"),
            ("AIBRIDGE_REDIS_URL", f"rediss://u:{SECRET}@redis.example:6379/0", "redis_url"),
            ("AIBRIDGE_REDIS_URL", "redis+cluster://a:1,b:2", "redis_url"),
            ("AIBRIDGE_REDIS_URL", "memory://", "redis_url"),
            ("AIBRIDGE_REDIS_PREFIX", "gateway-1", "redis_prefix"),
            ("AIBRIDGE_RECORDING", "off", "recording"),
            ("AIBRIDGE_RECORD_CONTENT", False, "record_content"),
            ("AIBRIDGE_INJECT_MCP_TOOLS", True, "inject_mcp_tools"),
            ("AIBRIDGE_RETENTION_DAYS", 0, "retention_days"),
            ("AIBRIDGE_CONTENT_RETENTION_DAYS", 7, "content_retention_days"),
            ("AIBRIDGE_SPOOL_BYTES", 2**20, "spool_bytes"),
            ("AIBRIDGE_MAX_CONCURRENCY", 1, "max_concurrency"),
            ("AIBRIDGE_MAX_IN_PROCESS", 50, "max_in_process"),
        ],
    )
    def test_good(self, key: str, value: Any, name: str) -> None:
        """What is right is taken as it is."""
        assert getattr(read(**{key: value}), name) == value

    @pytest.mark.parametrize("key", ["AIBRIDGE_ADMIN_TOKEN", "AIBRIDGE_REDIS_URL", "AIBRIDGE_SECRET_KEY"])
    def test_an_empty_text_is_none(self, key: str) -> None:
        """What an unset variable becomes in a container's environment neither opens nor names anything."""
        config: dict[str, Any] = {key: ""}
        settings, unset = read(**config), read()
        names = ("admin_token", "redis_url", "secret_keys")
        assert [getattr(settings, name) for name in names] == [getattr(unset, name) for name in names]

    def test_one_secret_key_or_several(self) -> None:
        """A text is the only one; a list has the newest first."""
        assert read(AIBRIDGE_SECRET_KEY=LONG).secret_keys == (LONG,)
        assert read(AIBRIDGE_SECRET_KEY=[LONG, "b" * 32]).secret_keys == (LONG, "b" * 32)

    @pytest.mark.parametrize(
        ("key", "value", "allowed"),
        [
            ("AIBRIDGE_ADMIN_TOKEN", LONG[:31], "32"),
            ("AIBRIDGE_ADMIN_TOKEN", LONG.encode(), "str"),
            ("AIBRIDGE_SECRET_KEY", LONG[:31], "32"),
            ("AIBRIDGE_SECRET_KEY", [LONG, LONG[:31]], "32"),
            ("AIBRIDGE_SECRET_KEY", {LONG: 1}, "list"),
            ("AIBRIDGE_REDIS_URL", f"http://u:{SECRET}@h", "redis://"),
            ("AIBRIDGE_REDIS_URL", f"u:{SECRET}@h:6379", "redis://"),
            ("AIBRIDGE_REDIS_URL", f"redis://u:{SECRET}@h".encode(), "redis://"),
        ],
    )
    def test_a_wrong_secret_is_not_shown(self, key: str, value: Any, allowed: str) -> None:
        """The error names the key and what is allowed, and the value by its type alone."""
        with pytest.raises(ConfigError, match=rf"^{key} has a value of type \w+.*{allowed}") as caught:
            read(**{key: value})
        assert SECRET[:16] not in str(caught.value)

    @pytest.mark.parametrize(
        ("key", "value", "allowed"),
        [
            ("AIBRIDGE_REDIS_PREFIX", "{tag}", "1 to 64 of the characters"),
            ("AIBRIDGE_REDIS_PREFIX", "", "1 to 64 of the characters"),
            ("AIBRIDGE_REDIS_PREFIX", "a b", "1 to 64 of the characters"),
            ("AIBRIDGE_REDIS_PREFIX", None, "1 to 64 of the characters"),
            ("AIBRIDGE_RECORDING", "on", "'required'.*'best-effort'.*'off'"),
            ("AIBRIDGE_RECORDING", None, "'required'.*'best-effort'.*'off'"),
            ("AIBRIDGE_RECORDING", False, "'required'.*'best-effort'.*'off'"),
            ("AIBRIDGE_RECORD_CONTENT", "no", "True or False"),
            ("AIBRIDGE_INJECT_MCP_TOOLS", "yes", "True or False"),
            ("AIBRIDGE_RECORD_CONTENT", 0, "True or False"),
            ("AIBRIDGE_RECORD_CONTENT", None, "True or False"),
            ("AIBRIDGE_RETENTION_DAYS", -1, "0"),
            ("AIBRIDGE_RETENTION_DAYS", 36_501, "36.?500"),
            ("AIBRIDGE_RETENTION_DAYS", "60", "0"),
            ("AIBRIDGE_RETENTION_DAYS", float("nan"), "0"),
            ("AIBRIDGE_RETENTION_DAYS", float("inf"), "0"),
            ("AIBRIDGE_RETENTION_DAYS", True, "0"),
            ("AIBRIDGE_RETENTION_DAYS", None, "0"),
            ("AIBRIDGE_CONTENT_RETENTION_DAYS", -1, "36.?500"),
            ("AIBRIDGE_CONTENT_RETENTION_DAYS", "7", "36.?500"),
            ("AIBRIDGE_SPOOL_BYTES", 2**20 - 1, "1048576|1,048,576|1 MiB"),
            ("AIBRIDGE_SPOOL_BYTES", "64MB", "1048576|1,048,576|1 MiB"),
            ("AIBRIDGE_SPOOL_BYTES", None, "1048576|1,048,576|1 MiB"),
            ("AIBRIDGE_MAX_CONCURRENCY", 0, "1 or more"),
            ("AIBRIDGE_MAX_CONCURRENCY", True, "1 or more"),
            ("AIBRIDGE_MAX_IN_PROCESS", "100", "1 or more"),
            ("AIBRIDGE_MAX_IN_PROCESS", None, "1 or more"),
            *(
                ("AIBRIDGE_RATE_LIMIT", value, "'60/minute'.*'60/minute burst=20'")
                for value in (
                    *("60", "60/m", "0/minute", "60/minute burst=0", "60/minute burst=10001", "10001/second"),
                    *("-1/minute", "60/minute/minute", "60 / minute", "x", 60, 1.5, True, ["60/minute"]),
                )
            ),
            ("AIBRIDGE_MAX_UPLOADS", 0, "1 to 100.?000"),
            ("AIBRIDGE_MAX_UPLOADS", True, "1 to 100.?000"),
            ("AIBRIDGE_MAX_UPLOADS", None, "1 to 100.?000"),
            ("AIBRIDGE_MAX_UPLOADS", "32", "1 to 100.?000"),
        ],
    )
    def test_a_wrong_value_is_shown_with_what_is_allowed(self, key: str, value: Any, allowed: str) -> None:
        """One sentence: the key, the value, and what it may be."""
        with pytest.raises(
            ConfigError, match=rf"^{key} is {re.escape(repr(value))}; it must be .*({allowed})"
        ):
            read(**{key: value})

    @pytest.mark.parametrize(
        ("text", "limit"),
        [
            ("60/minute", (60, 60, 60)),
            (" 60/minute burst=20 ", (60, 60, 20)),
            ("1/second", (1, 1, 1)),
            ("20000/hour", (20_000, 3600, 10_000)),
            ("5/day burst=10000", (5, 86400, 10_000)),
        ],
    )
    def test_a_rate_limit(self, text: str, limit: tuple[int, int, int]) -> None:
        """Without a burst, all of a period may come at once; its text says the same again."""
        read_limit = read(AIBRIDGE_RATE_LIMIT=text).rate_limit
        assert read_limit == RateLimit(*limit)
        assert parse_rate_limit(str(read_limit)) == read_limit
        assert read(AIBRIDGE_RATE_LIMIT="").rate_limit is read().rate_limit is None

    @pytest.mark.parametrize(
        ("requests", "per", "interval"), [(60, 60, 10**6), (7, 60, 8_571_429), (10**4, 1, 100)]
    )
    def test_the_time_between_two_requests_is_rounded_up(
        self, requests: int, per: int, interval: int
    ) -> None:
        """So that the limit is never exceeded."""
        assert RateLimit(requests, per, 1).interval == interval

    @pytest.mark.parametrize("parts", [(0, 1, 1), (1, 2, 1), (1, 1, 0), (10_001, 1, 1), (1, 1, 10_001)])
    def test_a_limit_that_cannot_be_kept_is_none(self, parts: tuple[int, int, int]) -> None:
        """However it was made."""
        with pytest.raises(ValueError, match="60/minute"):
            RateLimit(*parts)

    @pytest.mark.parametrize(
        ("value", "named"),
        [
            ("https://h", "AIBRIDGE_MCP_SERVERS"),
            ([], "AIBRIDGE_MCP_SERVERS"),
            ({"x": "https://h"}, r"AIBRIDGE_MCP_SERVERS\['x'\]"),
            ({"x": {"url": "https://h", "allow": "a"}}, "'allow'.*tool_allow_regex"),
            ({1: {"url": "https://h"}}, "1"),
        ],
    )
    def test_wrong_mcp_servers(self, value: Any, named: str) -> None:
        """The error says which server, and which of its fields."""
        with pytest.raises(ConfigError, match=f"AIBRIDGE_MCP_SERVERS.*{named}|^{named}"):
            read(AIBRIDGE_MCP_SERVERS=value)

    def test_a_broken_pattern_does_not_stop_the_app(self) -> None:
        """It disables its own server, which says so where it is listed."""
        servers = {"x": {"url": "https://h", "tool_allow_regex": "("}}
        assert dict(read(AIBRIDGE_MCP_SERVERS=servers).mcp_servers["x"])["tool_allow_regex"] == "("

    def test_no_secret_of_theirs_is_in_a_repr(self) -> None:
        """Settings are logged and shown in tracebacks."""
        shown = repr(
            read(
                AIBRIDGE_ADMIN_TOKEN=LONG,
                AIBRIDGE_SECRET_KEY=[LONG],
                AIBRIDGE_REDIS_URL=f"redis://u:{SECRET}@h",
            )
        )
        assert SECRET not in shown
