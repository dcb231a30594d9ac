"""The contract of the services: what a bridge gets of its host is the same, whichever way it reaches it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Thread

import pytest

from flask_aibridge.config import ProviderSettings, parse_rate_limit
from flask_aibridge.errors import InvalidRecord, RateLimited, ServicesUnavailable, Unauthorized
from flask_aibridge.services import api_keys
from flask_aibridge.services.interfaces import (
    Admission,
    Authorization,
    Credential,
    MCPServerConfig,
    ProviderConfig,
    Services,
)
from flask_aibridge.services.records import SHARDS, Record, shard_of_key
from flask_aibridge.services.storage import InterceptionView, Query
from tests.services.contract_hosts import (
    KEY,
    KEY_ID,
    LOADED_KEY,
    PROVIDER_KEY,
    SCOPES,
    STATIC_KEY,
    TOKEN,
    WRONG_KEY,
    Host,
)
from tests.services.contract_records import (
    DEADLINE,
    TRICKY_TEXTS,
    a_full_start,
    a_prompt,
    a_start,
    a_thought,
    a_usage,
    an_end,
    everything_of,
    now,
    read,
    soon,
    usage_around,
)
from tests.services.servers import wait_until


class ServicesContract:
    """Tests over the fixtures ``host`` and ``services``, which is a way to the host's."""

    # Admission and authorisation

    def test_a_stored_key_is_admitted(self, host: Host, services: Services) -> None:
        """With all that is known of it, the version, and the start recorded on its owner's behalf."""
        start = replace(a_full_start(shard=shard_of_key(KEY_ID)), initiator=None, key_id=None)
        admission = services.admit(start, Credential(key=KEY))
        expected = Authorization("Zoë", KEY_ID, "laptop", SCOPES)
        assert admission == Admission(expected, host.store.config_version())
        assert read(host.store, start).start == replace(start, initiator="Zoë", key_id=KEY_ID)
        assert services.authorizer.authorize(Credential(key=KEY)) == expected
        assert services.authorizer.authorize(Credential(key_id=KEY_ID)) == expected

    def test_a_key_with_a_rate_limit_is_told_where_it_stands(self, host: Host, services: Services) -> None:
        """With each admission, and by the one exception for it when the limit is reached."""
        row = host.store.api_key(KEY_ID)
        assert row is not None
        limit = parse_rate_limit("2/day burst=1")
        host.store.put_api_key(replace(row, key=replace(row.key, rate_limit=limit)))
        admission = services.admit(None, Credential(key=KEY))
        assert admission.rate is not None
        assert (admission.rate.limit, admission.rate.remaining) == (limit, 0)
        with pytest.raises(RateLimited) as refused:
            services.admit(a_start(shard=shard_of_key(KEY_ID), initiator=None), Credential(key=KEY))
        assert refused.value.limit == "2/day burst=1"
        assert 43200 - 60 < refused.value.retry_after <= 43200
        assert services.admit(None, Credential(key_id=KEY_ID)).rate is None
        assert services.authorizer.authorize(Credential(key=KEY)).rate_limit == limit

    @pytest.mark.parametrize(("key", "user"), [(STATIC_KEY, "static"), (LOADED_KEY, "loaded")])
    def test_keys_that_the_store_does_not_know_are_admitted(
        self, host: Host, services: Services, key: str, user: str
    ) -> None:
        """Those of the config, and those that the host's callback knows."""
        start = a_start(initiator=None)
        admission = services.admit(start, Credential(key=key))
        assert admission.authorization is not None
        assert admission.authorization.user == user
        assert admission.authorization == services.authorizer.authorize(Credential(key=key))
        view = read(host.store, start)
        assert (view.start.initiator, view.start.key_id) == (user, admission.authorization.key_id)

    @pytest.mark.parametrize(
        ("credential", "reason"),
        [
            (Credential(key="no key"), "malformed"),
            (Credential(key=WRONG_KEY), "wrong_secret"),
            (Credential(key_id="nobody"), "unknown"),
            (Credential(key=api_keys.spell("key000000002", "S" * api_keys.SECRET_LENGTH)), "unknown"),
        ],
    )
    def test_a_refusal_says_why(
        self, host: Host, services: Services, credential: Credential, reason: str
    ) -> None:
        """In its ``reason``, and records nothing."""
        start = a_start(shard=shard_of_key(KEY_ID))
        with pytest.raises(Unauthorized) as refused:
            services.admit(start, credential)
        assert refused.value.reason == reason
        with pytest.raises(Unauthorized) as refused:
            services.authorizer.authorize(credential)
        assert refused.value.reason == reason
        assert host.store.interception(start.id) is None

    def test_an_admission_twice_records_once(self, host: Host, services: Services) -> None:
        """As a call may be, whose answer was lost."""
        start = a_start(shard=shard_of_key(KEY_ID), initiator=None)
        first = services.admit(start, Credential(key=KEY))
        assert services.admit(start, Credential(key=KEY)) == first
        assert sum(row.requests for row in usage_around(host.store, start.started_at)) == 1

    def test_start_and_credential_may_be_left_out(self, host: Host, services: Services) -> None:
        """Each, and both."""
        start = a_full_start()
        assert services.admit(start, None) == Admission(None, host.store.config_version())
        assert read(host.store, start).start == start
        assert services.admit(None, None) == Admission(None, host.store.config_version())
        admission = services.admit(None, Credential(key=KEY))
        assert admission.authorization is not None
        assert host.store.interceptions(Query()).count == 1

    def test_an_admission_tells_the_version_of_the_providers(self, host: Host, services: Services) -> None:
        """So that whoever holds an older set knows."""
        known = services.provider_configurator.providers().version
        assert services.admit(a_start(), None).config_version == known
        host.providers.change("main", enabled=False)
        told = services.admit(a_start(), None).config_version
        assert told > known
        assert services.provider_configurator.providers().version >= told

    # The record

    def test_every_field_of_every_record_arrives(self, host: Host, services: Services) -> None:
        """As it was sent, to the microsecond."""
        start = a_full_start()
        records = everything_of(start)
        services.recorder.record([start, *records])
        view = read(host.store, start)
        assert view.start == start
        assert [*view.usages, *view.prompts, *view.tool_calls, *view.thoughts, view.end] == records

    @pytest.mark.parametrize("text", TRICKY_TEXTS, ids=ascii)
    def test_text_is_text(self, host: Host, services: Services, text: str) -> None:
        """Whatever characters there are."""
        start = a_start(model=text, session_id=text, user_agent=text)
        prompt, thought = a_prompt(start, text), a_thought(start, text)
        services.recorder.record([start, prompt, thought])
        view = read(host.store, start)
        assert (view.start, view.prompts, view.thoughts) == (start, (prompt,), (thought,))

    def test_a_batch_may_be_large(self, host: Host, services: Services) -> None:
        """A thousand records, and megabytes of them, go in one call of the recorder."""
        starts = [a_start(shard=number % SHARDS) for number in range(300)]
        large: list[Record] = [a_prompt(starts[0], "x" * 500_000) for _ in range(8)]
        services.recorder.record(
            [record for start in starts for record in (start, *everything_of(start)[:2])] + large
        )
        assert host.store.interceptions(Query()).count == 300
        assert len(read(host.store, starts[0]).prompts) == 8

    def test_a_replay_writes_nothing_twice(self, host: Host, services: Services) -> None:
        """Nor does it where only part of it is one."""
        start = a_full_start()
        records = everything_of(start)
        services.recorder.record([start, *records[:3]])
        services.recorder.record([start, *records])
        services.recorder.record([])
        assert [len(read(host.store, start).usages), read(host.store, start).tokens.input] == [2, 9]

    def test_an_impossible_record_is_refused(self, host: Host, services: Services) -> None:
        """With all of its batch, and as what it is."""
        start = a_start()
        with pytest.raises(InvalidRecord):
            services.recorder.record([start, a_usage(start, input=-1)])
        with pytest.raises(InvalidRecord):
            services.admit(replace(start, id="x"), None)
        assert host.store.interception(start.id) is None

    def test_leases_and_upkeep_are_the_hosts(self, host: Host, services: Services) -> None:
        """A worker anywhere renews and maintains."""
        start = a_start(worker="far away")
        services.recorder.record([start])
        services.recorder.renew("far away")
        services.recorder.maintain()
        assert read(host.store, start).status == "running"
        services.recorder.record([an_end(start)])
        assert read(host.store, start).status == "completed"

    def test_threads_may_call_at_once(self, host: Host, services: Services) -> None:
        """Everything they record is there, once."""

        def intercept(number: int) -> InterceptionView:
            start = a_start(shard=shard_of_key(KEY_ID), metadata={"number": number})
            services.admit(start, Credential(key=KEY))
            services.recorder.record(everything_of(start))
            return read(host.store, start)

        with ThreadPoolExecutor(8) as threads:
            views = list(threads.map(intercept, range(40)))
        assert [view.start.metadata["number"] for view in views] == list(range(40))
        assert {view.tokens.input for view in views} == {9}

    # Providers

    def test_providers_are_the_hosts(self, host: Host, services: Services) -> None:
        """Seeded from its config, then as its administrators change them; a disabled one comes without keys."""
        seeded = ProviderConfig(
            ProviderSettings("main", "anthropic", "https://main.example", (PROVIDER_KEY,))
        )
        answer = services.provider_configurator.providers()
        assert answer.providers == (seeded,)
        assert answer.providers[0].settings.keys == (PROVIDER_KEY,)
        host.providers.change("main", enabled=False)
        host.providers.change(
            "other", provider_type="openai", base_url="https://other.example/v1", keys=["a", "b"]
        )
        after = services.provider_configurator.providers()
        assert after.version > answer.version
        disabled, other = sorted(after.providers, key=lambda provider: provider.settings.name)
        assert (disabled.enabled, disabled.settings.keys) == (False, ())
        assert other == ProviderConfig(
            ProviderSettings("other", "openai", "https://other.example/v1", ("a", "b"))
        )

    def test_a_row_that_cannot_be_read_takes_no_other_with_it(self, host: Host, services: Services) -> None:
        """It is left out."""
        services.provider_configurator.providers()
        host.store.put_config_row("providers", "corrupt", "{")
        names = [provider.settings.name for provider in services.provider_configurator.providers().providers]
        assert names == ["main"]

    def test_a_watch_tells_of_changes(self, host: Host, services: Services) -> None:
        """One signal on subscribing, one for what changes; to each that watches."""
        services.provider_configurator.providers()
        configurator = services.provider_configurator
        with configurator.watch_providers() as one, configurator.watch_providers() as other:
            version = host.store.config_version()
            assert (soon(lambda: next(one)), soon(lambda: next(other))) == (version, version)
            host.providers.change("main", enabled=False)
            version = host.store.config_version()
            assert (_told(one, version), _told(other, version)) == (version, version)

    def test_leaving_a_watch_ends_it(self, services: Services) -> None:
        """Whoever waits for the next version stops waiting."""
        told: list[int] = []
        with services.provider_configurator.watch_providers() as versions:
            reader = Thread(target=lambda: told.extend(versions), daemon=True)
            reader.start()
            wait_until(lambda: len(told) == 1, "the first version", DEADLINE)
        reader.join(DEADLINE)
        assert not reader.is_alive()

    # MCP

    def test_mcp_servers_are_the_hosts(self, host: Host, services: Services) -> None:
        """Those of its config and those that are stored, without one whose pattern is broken."""
        host.mcp.put_server(MCPServerConfig("stored", "https://stored.example/mcp"))
        host.store.put_config_row("mcp", "broken", '{"url": "https://x.example", "tool_allow_regex": "("}')
        servers = services.mcp_configurator.mcp_servers("alice")
        assert set(servers) == {
            MCPServerConfig("docs", "https://docs.example/mcp", "^read_", "_all$"),
            MCPServerConfig("stored", "https://stored.example/mcp"),
        }

    def test_tokens_come_in_one_answer(self, host: Host, services: Services) -> None:
        """A stored one, one that the host fetches, and for the others why there is none; each id once."""
        for name in ("stored", "loaded", "without"):
            host.mcp.put_server(MCPServerConfig(name, f"https://{name}.example/mcp"))
        host.mcp.put_token("Zoë", "stored", TOKEN)
        asked = ["stored", "loaded", "stored", "without", "unknown", "unknown"]
        answer = services.mcp_configurator.mcp_access_tokens("Zoë", asked)
        assert dict(answer.tokens) == {"stored": TOKEN, "loaded": "token-of-loaded"}
        assert set(answer.errors) == {"without", "unknown"}
        of_another = services.mcp_configurator.mcp_access_tokens("bob", ["stored"])
        assert (dict(of_another.tokens), set(of_another.errors)) == ({}, {"stored"})
        of_none = services.mcp_configurator.mcp_access_tokens("Zoë", [])
        assert (dict(of_none.tokens), dict(of_none.errors)) == ({}, {})

    # Failures and secrets

    def test_a_store_that_is_away_is_said_to_be(
        self, host: Host, services: Services, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By the one exception for it, with the time after which to ask again."""

        def away(*_: object, **_options: object) -> None:
            raise ServicesUnavailable("The store is away.", 3.5)

        for method in ("admit", "authorize", "record", "renew", "maintain"):
            monkeypatch.setattr(host.store, method, away)
        start = a_start()
        calls = (
            lambda: services.admit(start, None),
            lambda: services.admit(start, Credential(key=KEY)),
            lambda: services.authorizer.authorize(Credential(key=KEY)),
            lambda: services.recorder.record([start]),
            lambda: services.recorder.renew("worker"),
            lambda: services.recorder.maintain(),
        )
        for call in calls:
            with pytest.raises(ServicesUnavailable) as unavailable:
                call()
            assert unavailable.value.retry_after == 3.5
        assert services.authorizer.authorize(Credential(key=STATIC_KEY)).user == "static"

    def test_nothing_secret_is_shown(
        self, host: Host, services: Services, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Neither by what answers nor by what is logged."""
        host.mcp.put_token("Zoë", "docs", TOKEN)
        shown = [
            repr(services),
            repr(services.provider_configurator.providers()),
            repr(services.mcp_configurator.mcp_access_tokens("Zoë", ["docs"])),
            repr(services.admit(a_start(shard=shard_of_key(KEY_ID)), Credential(key=KEY))),
            repr(Credential(key=KEY)),
        ]
        with pytest.raises(Unauthorized) as refused:
            services.authorizer.authorize(Credential(key=WRONG_KEY))
        shown += [repr(refused.value), caplog.text]
        for text in shown:
            for secret in (KEY, WRONG_KEY, "SSSSSSSS", "TTTTTTTT", PROVIDER_KEY, TOKEN):
                assert secret not in text

    def test_closed_services_can_be_used_again(self, host: Host, services: Services) -> None:
        """With what was recorded."""
        start = a_start(now())
        services.admit(start, None)
        services.close()
        services.recorder.record([an_end(start)])
        assert read(host.store, start).status == "completed"
        services.close()


def _told(versions: Iterator[int], version: int) -> int:
    told = soon(lambda: next(versions))
    while told < version:
        told = soon(lambda: next(versions))
    return told
