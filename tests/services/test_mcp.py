"""``services.mcp``: MCP servers of config and store, and the users' tokens for them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from flask_aibridge.errors import ConfigError, SecretKeyMissing, ServicesUnavailable
from flask_aibridge.services.configuration.mcp import TABLE, TOKENS, HostMCPConfigurator, TokenLoader
from flask_aibridge.services.configuration.mcp_servers import MCPServerEntry
from flask_aibridge.services.configuration.sealing import Sealer
from flask_aibridge.services.interfaces import AccessTokens, MCPConfigurator, MCPServerConfig
from tests.services.switchable import SwitchableStore

SEALER = Sealer(["key-" * 10])
TICKETS = MCPServerConfig("tickets", "https://tickets.example/mcp", "^read_", None)
FILES = MCPServerConfig("files", "https://files.example/mcp")
BROKEN = MCPServerConfig("broken", "https://broken.example/mcp", "(")
SECRET = "tok-very-secret"

Make = Callable[..., HostMCPConfigurator]


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[SwitchableStore]:
    """An empty store, in memory and on a server."""
    if request.param == "memory":
        yield SwitchableStore()
        return
    from flask_aibridge.services.redis.connection import RedisConnection
    from flask_aibridge.services.redis.keys import Keys
    from flask_aibridge.services.redis.store import RedisStore

    connection = RedisConnection(request.getfixturevalue("one_redis_url"))
    redis_store = RedisStore(connection, keys=Keys(request.getfixturevalue("redis_prefix")))
    yield SwitchableStore(redis_store)
    redis_store.close()


@pytest.fixture
def make(store: SwitchableStore) -> Make:
    """Makes configurators over one store."""

    def make(
        configured: Sequence[MCPServerConfig] = (TICKETS, FILES),
        *,
        sealer: Sealer | None = SEALER,
        loader: TokenLoader | None = None,
        seconds: float = 20.0,
    ) -> HostMCPConfigurator:
        return HostMCPConfigurator(configured, store, sealer, lambda: loader, token_seconds=seconds)

    return make


def conforms(configurator: MCPConfigurator) -> MCPConfigurator:
    return configurator


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "memory://" not in record.getMessage()]


class TestServers:
    def test_the_configs_and_the_stores(self, make: Make) -> None:
        """Together, by id; the store wins."""
        configurator = make()
        other = MCPServerConfig("tickets", "https://other.example/mcp")
        new = MCPServerConfig("chat", "https://chat.example/mcp", None, "admin")

        assert configurator.put_server(other)
        assert configurator.put_server(new)
        assert conforms(make()).mcp_servers("alice") == (new, FILES, other)

    def test_what_is_removed_from_the_store_leaves_the_configs(self, make: Make) -> None:
        """A stored one hides it, and does not replace it."""
        configurator = make()
        configurator.put_server(MCPServerConfig("tickets", "https://other.example/mcp"))
        assert configurator.remove_server("tickets")
        assert not configurator.remove_server("tickets")
        assert configurator.mcp_servers("alice") == (FILES, TICKETS)

    def test_storing_again_replaces(self, make: Make) -> None:
        """As a whole: what is not given is not kept."""
        configurator = make(())
        assert configurator.put_server(TICKETS)
        assert not configurator.put_server(MCPServerConfig("tickets", TICKETS.url))
        assert configurator.mcp_servers("alice") == (MCPServerConfig("tickets", TICKETS.url),)

    def test_a_broken_pattern_disables_its_server(self, make: Make, caplog: pytest.LogCaptureFixture) -> None:
        """The others work; the log says it once; administrators see why."""
        configurator = make((TICKETS, BROKEN))

        assert [configurator.mcp_servers("alice") for _ in range(3)] == [(TICKETS,)] * 3
        (message,) = messages(caplog)
        assert message.startswith(
            "MCP server 'broken' is disabled: tool_allow_regex is no regular expression: "
        )
        error = next(entry.error for entry in configurator.entries() if entry.id == "broken")
        assert error is not None
        assert error in message

    def test_a_stored_broken_one_hides_the_configs(
        self, make: Make, store: SwitchableStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Its pattern may have been there to deny; it is said again when it breaks another way, and not before."""
        configurator = make()
        store.put_config_row(
            TABLE, "tickets", '{"url": "https://tickets.example/mcp", "tool_deny_regex": "("}'
        )
        assert configurator.mcp_servers("alice") == (FILES,)
        configurator.put_server(MCPServerConfig("chat", "https://chat.example/mcp"))
        configurator.mcp_servers("alice")
        assert len(messages(caplog)) == 1

        store.put_config_row(TABLE, "tickets", "damaged")
        configurator.mcp_servers("alice")
        assert "It is stored damaged" in messages(caplog)[1]
        assert len(messages(caplog)) == 2

    def test_a_broken_one_is_not_stored(self, make: Make) -> None:
        """Whoever stores it is there to be told."""
        with pytest.raises(ConfigError, match="MCP server 'x': tool_deny_regex repeats a group"):
            make().put_server(MCPServerConfig("x", FILES.url, None, "(a+)+"))
        with pytest.raises(ConfigError, match="MCP server 'X': the id must be"):
            make().put_server(MCPServerConfig("X", FILES.url))

    def test_entries_say_where_a_server_is_from(self, make: Make) -> None:
        """So that one knows where to change it."""
        configurator = make((TICKETS,))
        configurator.put_server(FILES)
        assert configurator.entries() == (
            MCPServerEntry("files", FILES.url),
            MCPServerEntry("tickets", TICKETS.url, "^read_", None, "config"),
        )

    def test_while_the_store_is_away(self, make: Make, store: SwitchableStore) -> None:
        """The last known go on; where there are none, the config's; and where there are none either, none can be
        known."""
        known = make()
        known.put_server(MCPServerConfig("chat", "https://chat.example/mcp"))
        before = known.mcp_servers("alice")
        store.away = True

        assert known.mcp_servers("alice") == before
        assert make().mcp_servers("alice") == (FILES, TICKETS)
        with pytest.raises(ServicesUnavailable):
            make(()).mcp_servers("alice")


class TestTokens:
    def test_stored_ones(self, make: Make, store: SwitchableStore) -> None:
        """Each user's own, sealed in the store."""
        configurator = make()
        configurator.put_token("alice", "tickets", SECRET)
        configurator.put_token("bob", "tickets", "tok-bob")

        assert conforms(configurator).mcp_access_tokens("alice", ["tickets"]) == AccessTokens(
            {"tickets": SECRET}
        )
        assert configurator.mcp_access_tokens("bob", ["tickets"]).tokens == {"tickets": "tok-bob"}
        assert SECRET not in str(store.config_rows(f"{TOKENS}alice"))

    def test_each_id_is_answered_once_and_in_order(self, make: Make) -> None:
        """By a token or in the model's words."""
        configurator = make((TICKETS, FILES, BROKEN))
        configurator.put_token("alice", "tickets", SECRET)
        answer = configurator.mcp_access_tokens(
            "alice", ["nope", "tickets", "files", "tickets", "broken", "nope"]
        )

        assert list(answer.tokens.items()) == [("tickets", SECRET)]
        assert list(answer.errors.items()) == [
            ("nope", "no MCP config found"),
            ("files", "no access token for this user"),
            ("broken", "no MCP config found"),
        ]

    def test_nothing_asked_is_nothing_answered(self, make: Make, store: SwitchableStore) -> None:
        """Without a round trip."""
        assert make().mcp_access_tokens("alice", []) == AccessTokens({}, {})
        assert store.opened == 0

    def test_a_batch_is_one_round_trip(self, make: Make, store: SwitchableStore) -> None:
        """And one for the servers."""
        servers = [MCPServerConfig(f"s{number}", FILES.url) for number in range(20)]
        configurator = make(servers)
        for server in servers:
            configurator.put_token("alice", server.id, f"tok-{server.id}")
        before = store.reads

        assert len(configurator.mcp_access_tokens("alice", [server.id for server in servers]).tokens) == 20
        assert store.reads - before == 2

    def test_the_hosts_own(self, make: Make, deadline: float) -> None:
        """Its callback is asked at once for all that are not stored, and for no others."""
        together = threading.Barrier(2)
        asked: list[str] = []

        def load(user: str, server_id: str) -> str | None:
            asked.append(f"{user}/{server_id}")
            together.wait(deadline)
            return "tok-host" if server_id == "files" else None

        configurator = make((TICKETS, FILES, MCPServerConfig("chat", FILES.url)), loader=load)
        configurator.put_token("alice", "tickets", SECRET)
        answer = configurator.mcp_access_tokens("alice", ["chat", "files", "tickets", "nope"])

        assert dict(answer.tokens) == {"files": "tok-host", "tickets": SECRET}
        assert dict(answer.errors) == {"chat": "no access token for this user", "nope": "no MCP config found"}
        assert sorted(asked) == ["alice/chat", "alice/files"]

    def test_a_failing_callback_fails_its_server_alone(self, make: Make) -> None:
        """In the model's words."""

        def load(_user: str, server_id: str) -> str:
            if server_id == "files":
                raise KeyError(SECRET)
            return "tok"

        answer = make(loader=load).mcp_access_tokens("alice", ["files", "tickets"])
        assert dict(answer.tokens) == {"tickets": "tok"}
        assert dict(answer.errors) == {
            "files": "the token could not be fetched: the application's callback failed with KeyError"
        }

    def test_with_the_store_away(self, make: Make, store: SwitchableStore) -> None:
        """The host's own go on; for the others it is said."""
        configurator = make(loader=lambda _user, server_id: "tok" if server_id == "files" else None)
        configurator.mcp_servers("alice")
        store.away = True
        answer = configurator.mcp_access_tokens("alice", ["files", "tickets"])

        assert dict(answer.tokens) == {"files": "tok"}
        assert dict(answer.errors) == {"tickets": "the token could not be fetched: the store is away"}

    def test_with_the_store_never_there(self, make: Make, store: SwitchableStore) -> None:
        """No batch fails as a whole."""
        store.away = True
        answer = make(()).mcp_access_tokens("alice", ["files", "files"])
        assert answer.tokens == {}
        assert list(answer.errors) == ["files"]
        assert answer.errors["files"].startswith("the token could not be fetched: ")

    def test_a_token_cannot_be_moved(self, make: Make, store: SwitchableStore) -> None:
        """Not to another user, and not to another server."""
        configurator = make()
        configurator.put_token("alice", "tickets", SECRET)
        sealed = store.config_rows(f"{TOKENS}alice")[1]["tickets"]
        store.put_config_row(f"{TOKENS}bob", "tickets", sealed)
        store.put_config_row(f"{TOKENS}alice", "files", sealed)

        for user, server_id in (("bob", "tickets"), ("alice", "files")):
            answer = configurator.mcp_access_tokens(user, [server_id])
            assert answer.tokens == {}
            assert "AIBRIDGE_SECRET_KEY, or was given for another URL" in answer.errors[server_id]

    @pytest.mark.parametrize(
        ("url", "sent"),
        [
            ("https://tickets.example/v2/mcp", True),
            ("https://evil.example/mcp", False),
            ("http://tickets.example", False),
        ],
    )
    def test_a_token_goes_to_the_host_it_was_given_for(self, make: Make, url: str, sent: bool) -> None:
        """A server that moves within its host keeps its tokens; one that moves elsewhere does not get them."""
        configurator = make()
        configurator.put_token("alice", "tickets", SECRET)
        configurator.put_server(MCPServerConfig("tickets", url))
        assert ("tickets" in configurator.mcp_access_tokens("alice", ["tickets"]).tokens) is sent

    def test_one_that_cannot_be_opened_is_asked_of_the_host(
        self, make: Make, store: SwitchableStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        """And it is logged, by the server's id alone."""
        store.put_config_row(f"{TOKENS}alice", "tickets", SECRET)
        answer = make(loader=lambda *_: "tok").mcp_access_tokens("alice", ["tickets"])
        assert dict(answer.tokens) == {"tickets": "tok"}
        assert messages(caplog) == ["a stored access token for MCP server 'tickets' cannot be opened"]

    def test_without_a_secret_key(self, make: Make, store: SwitchableStore) -> None:
        """None can be stored, so none is looked for; the host's callback works."""
        configurator = make(sealer=None, loader=lambda *_: "tok")
        with pytest.raises(
            SecretKeyMissing, match="AIBRIDGE_SECRET_KEY is not set, so access tokens cannot be stored"
        ):
            configurator.put_token("alice", "tickets", SECRET)

        assert dict(configurator.mcp_access_tokens("alice", ["tickets"]).tokens) == {"tickets": "tok"}
        assert store.reads == 1

    def test_removing(self, make: Make) -> None:
        """Whether there was one is told; a server that is gone is no reason to keep them."""
        configurator = make(())
        configurator.put_server(TICKETS)
        configurator.put_token("alice", "tickets", SECRET)
        configurator.remove_server("tickets")

        assert configurator.remove_token("alice", "tickets")
        assert not configurator.remove_token("alice", "tickets")

    @pytest.mark.parametrize("token", ["", "a b", f"{SECRET}\n", "é"])
    def test_what_is_no_token_is_not_stored(self, make: Make, token: str) -> None:
        """Nor shown."""
        with pytest.raises(ConfigError, match="An access token is") as caught:
            make().put_token("alice", "tickets", token)
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize("user", ["", "a\nb", "x" * 257])
    def test_who_is_no_user(self, make: Make, user: str) -> None:
        """A name is what can be shown in a line."""
        with pytest.raises(ConfigError, match="user's name"):
            make().put_token(user, "tickets", SECRET)

    @pytest.mark.parametrize("user", ["*", "a:b", "{s0}", "../x", "Zoë", "a b"])
    def test_any_name_is_one_users(self, make: Make, user: str) -> None:
        """Names come from outside; none reaches another's tokens."""
        configurator = make()
        configurator.put_token(user, "tickets", SECRET)
        assert configurator.mcp_access_tokens(user, ["tickets"]).tokens
        assert not configurator.mcp_access_tokens(user + "x", ["tickets"]).tokens

    def test_a_server_that_is_not_there(self, make: Make) -> None:
        """A token for it would be sent to whatever comes under its name."""
        with pytest.raises(LookupError, match="no MCP server 'nope'"):
            make().put_token("alice", "nope", SECRET)


def test_nothing_secret_is_shown(
    make: Make, store: SwitchableStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Not by any repr, and not in the log at its most talkative."""
    caplog.set_level(logging.DEBUG)
    configurator = make(loader=lambda *_: SECRET)
    configurator.put_token("alice", "tickets", SECRET)
    answer = configurator.mcp_access_tokens("alice", ["tickets", "files"])

    assert len(answer.tokens) == 2
    shown = [repr(configurator), repr(answer), repr(configurator.entries()), caplog.text]
    assert [text for text in shown if SECRET in text] == []
