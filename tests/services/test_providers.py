"""``services.providers``: providers of the config, and of the store, whatever is in it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.config import ProviderSettings
from flask_aibridge.errors import ConfigError, SecretKeyMissing, ServicesUnavailable
from flask_aibridge.services.configuration.providers import (
    TABLE,
    ConfiguredProviders,
    ProviderEntry,
    StoredProviders,
    administered,
    entry_of,
)
from flask_aibridge.services.configuration.sealing import Sealer
from flask_aibridge.services.interfaces import ProviderConfig, ProviderConfigurator, ProviderSet
from flask_aibridge.services.memory.store import MemoryStore
from flask_aibridge.services.storage import ConfigStore
from tests.services.switchable import SwitchableStore

LOGGER = "flask_aibridge.services"
OLD, NEW = "old-" * 10, "new-" * 10
SEALER = Sealer([NEW])
KEY = "sk-ant-secret-0123456789"
ANTHROPIC = ProviderSettings("anthropic", "anthropic", "https://api.anthropic.com", (KEY,))
LOCAL = ProviderSettings("local", "openai", "http://10.0.0.1:8000/v1")
SEED = (ANTHROPIC, LOCAL)


def enabled(*settings: ProviderSettings) -> tuple[ProviderConfig, ...]:
    return tuple(ProviderConfig(one) for one in settings)


def conforms(configurator: ProviderConfigurator) -> ProviderConfigurator:
    return configurator


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


def stored(store: SwitchableStore, seed: tuple[ProviderSettings, ...] = SEED) -> StoredProviders:
    return StoredProviders(store, SEALER, seed)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "memory://" not in record.getMessage()]


class TestConfigured:
    def test_they_are_as_the_config_says(self) -> None:
        """All enabled, at version 0, in its order."""
        assert ConfiguredProviders(SEED).providers() == ProviderSet(enabled(*SEED), 0)

    def test_a_watch_is_one_signal_and_lasts(self, deadline: float) -> None:
        """It ends when its context is left, by any thread."""
        seen: list[int] = []
        first = threading.Event()

        def follow(versions: Iterator[int]) -> None:
            for version in versions:
                seen.append(version)
                first.set()

        with conforms(ConfiguredProviders(SEED)).watch_providers() as versions:
            thread = threading.Thread(target=follow, args=(versions,))
            thread.start()
            assert first.wait(deadline)
            assert thread.is_alive()
        thread.join(deadline)

        assert not thread.is_alive()
        assert seen == [0]

    def test_entries_are_sorted_and_show_no_key(self) -> None:
        """But hints."""
        shown = ConfiguredProviders((LOCAL, ANTHROPIC)).entries()

        assert [entry.name for entry in shown] == ["anthropic", "local"]
        assert shown[0].key_hints == ("sk-a…6789",)

    def test_they_cannot_be_changed(self) -> None:
        """The error says what is missing, and how to make one."""
        with pytest.raises(SecretKeyMissing, match=r"AIBRIDGE_SECRET_KEY is not set.*token_urlsafe\(32\)"):
            administered(ConfiguredProviders(SEED))

    def test_what_cannot_work_is_refused(self) -> None:
        """By the one check there is."""
        with pytest.raises(ConfigError, match="name 'A B'"):
            ConfiguredProviders([ProviderSettings("A B", "openai", "http://h")])


class TestSeeding:
    def test_the_store_is_seeded_from_the_config(self, store: SwitchableStore) -> None:
        """Once; the version is at least 1, which no set of the config's alone has."""
        found = stored(store).providers()

        assert found.providers == enabled(*SEED)
        assert found.version >= 1
        assert stored(store, ()).providers() == found

    def test_keys_are_sealed_in_it(self, store: SwitchableStore) -> None:
        """Whoever reads the store learns none."""
        stored(store).providers()
        assert KEY not in str(store.config_rows(TABLE))

    def test_then_the_store_wins(self, store: SwitchableStore, caplog: pytest.LogCaptureFixture) -> None:
        """A config that differs is said once, with the commands that change what is in force."""
        stored(store).providers()
        other = stored(store, (ProviderSettings("anthropic", "anthropic", "https://x", (KEY,)),))

        for _ in range(3):
            assert other.providers().providers == enabled(*SEED)
        (message,) = messages(caplog)
        assert "AIBRIDGE_PROVIDERS" in message
        assert "flask aibridge provider set" in message
        assert KEY not in message

    def test_the_same_config_says_nothing(
        self, store: SwitchableStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        """In whatever order, and also under a secret key that was put behind a new one."""
        StoredProviders(store, Sealer([OLD]), SEED).providers()
        again = StoredProviders(store, Sealer([NEW, OLD]), tuple(reversed(SEED)))

        assert again.providers().providers == enabled(*SEED)
        assert messages(caplog) == []

    def test_another_key_is_a_difference(
        self, store: SwitchableStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Rotated in the config alone, it would not be used."""
        stored(store).providers()
        stored(
            store, (ProviderSettings("anthropic", "anthropic", ANTHROPIC.base_url, ("other",)),)
        ).providers()
        assert len(messages(caplog)) == 1

    def test_the_digest_in_the_store_tells_nothing_about_keys(self, store: SwitchableStore) -> None:
        """It is made with the secret key: the same config under another has another digest."""
        digests = []
        for secret in (OLD, NEW):
            fresh = MemoryStore()
            StoredProviders(lambda fresh=fresh: fresh, Sealer([secret]), SEED).providers()  # type: ignore[misc]
            digests.append(fresh.seed_config(TABLE, {}, "x"))

        assert digests[0] != digests[1]
        assert KEY not in str(digests)

    def test_an_empty_config_seeds_nothing(self, store: SwitchableStore) -> None:
        """A config that gets its first provider later still can."""
        assert stored(store, ()).providers().providers == ()
        assert stored(store).providers().providers == enabled(*SEED)

    def test_what_was_removed_does_not_come_back(self, store: SwitchableStore) -> None:
        """Not with the next process either."""
        assert stored(store).remove("anthropic")
        assert stored(store).providers().providers == enabled(LOCAL)

    def test_a_change_before_anything_was_read_keeps_the_seed(self, store: SwitchableStore) -> None:
        """It is a change of what the config says."""
        stored(store).change("new", provider_type="openai", keys=["k"])
        names = [one.settings.name for one in stored(store, ()).providers().providers]
        assert names == ["anthropic", "local", "new"]

    def test_threads_and_processes_seed_once(self, store: SwitchableStore, deadline: float) -> None:
        """Everybody has the providers of whoever was first, whole."""
        seeds = [
            (ProviderSettings(f"p{number}", "openai", "http://h", (f"k{number}",)),) for number in range(8)
        ]
        barrier = threading.Barrier(len(seeds))
        found: list[ProviderSet] = []

        def start(seed: tuple[ProviderSettings, ...]) -> None:
            providers = stored(store, seed)
            barrier.wait(deadline)
            found.append(providers.providers())

        threads = [threading.Thread(target=start, args=(seed,)) for seed in seeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(deadline)

        assert len(found) == len(seeds)
        assert len({one.providers for one in found}) == 1
        assert found[0].providers in [enabled(*seed) for seed in seeds]

    def test_a_store_that_lost_everything_is_seeded_again(self, store: SwitchableStore) -> None:
        """Without a restart."""
        providers = stored(store)
        providers.change("new", provider_type="openai")
        providers.providers()

        store.store = MemoryStore()
        assert providers.providers().providers == enabled(*SEED)


class TestTheStoreIsAway:
    def test_the_last_known_providers_go_on(self, store: SwitchableStore) -> None:
        """Not those of the config, which may be older."""
        providers = stored(store)
        providers.set_enabled("anthropic", False)
        known = providers.providers()
        store.away = True
        assert providers.providers() == known

    def test_a_fresh_start_serves_what_the_config_says(
        self, store: SwitchableStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The host's agents go on, the log says so, and what is stored is in force as soon as it can be read."""
        stored(store).set_enabled("anthropic", False)
        providers = stored(store)
        store.away = True

        assert providers.providers() == ProviderSet(enabled(*SEED), 0)
        assert "what the app's config says goes on in its place" in messages(caplog)[0]

        store.away = False
        assert [one.enabled for one in providers.providers().providers] == [False, True]

    def test_without_any_it_is_unavailable(self, store: SwitchableStore) -> None:
        """No providers is an answer that the store alone can give."""
        store.away = True
        with pytest.raises(ServicesUnavailable):
            stored(store, ()).providers()

    def test_nothing_can_be_changed(self, store: SwitchableStore) -> None:
        """Or listed: administrators are not to decide by what was."""
        providers = stored(store)
        providers.providers()
        store.away = True
        for attempt in (
            lambda: providers.change("x", provider_type="openai"),
            lambda: providers.set_enabled("local", False),
            lambda: providers.remove("local"),
            lambda: providers.reseal(),
            providers.entries,
        ):
            with pytest.raises(ServicesUnavailable):
                attempt()


class TestRows:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "not JSON " + KEY,
            "[" * 100_000,
            "[]",
            "{}",
            json.dumps({"type": "openai", "base_url": "http://h", "keys": KEY, "enabled": True}),
            json.dumps({"type": "openai", "base_url": "http://h", "keys": [KEY], "enabled": True}),
            json.dumps({"type": "openai", "base_url": "http://h", "keys": KEY, "enabled": 1}),
            json.dumps({"type": KEY, "base_url": "http://h", "keys": "x", "enabled": True}),
        ],
    )
    def test_a_corrupt_one_is_left_out_and_logged_by_name(
        self, text: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Once, whatever is in it; the others are served, and administrators see it."""
        store = SwitchableStore()
        providers = stored(store)
        providers.providers()
        store.put_config_row(TABLE, "broken", text)

        assert [providers.providers().providers for _ in range(3)] == [enabled(*SEED)] * 3
        (message,) = messages(caplog)
        assert message.startswith("the stored provider 'broken' is left out: ")
        assert KEY not in message
        entry = {entry.name: entry for entry in providers.entries()}["broken"]
        assert entry.error is not None
        assert KEY not in entry.error

    @given(text=st.text(), name=st.text(min_size=1))
    def test_no_row_fails_the_set(self, text: str, name: str) -> None:
        """Whatever its name, too."""
        store = SwitchableStore()
        providers = stored(store, (LOCAL,))
        providers.providers()
        if name == LOCAL.name:
            return
        store.put_config_row(TABLE, name, text)
        assert providers.providers().providers == enabled(LOCAL)
        assert len(providers.entries()) == 2

    @pytest.mark.parametrize(
        "changed",
        [
            {"base_url": "https://evil.example"},
            {"type": "openai"},
            {"base_url": "https://api.anthropic.com/"},
        ],
    )
    def test_keys_cannot_be_sent_elsewhere_by_the_store_alone(self, changed: dict[str, str]) -> None:
        """Who may write to the store, and does not have the secret key, cannot redirect them."""
        store = SwitchableStore()
        providers = stored(store, (ANTHROPIC,))
        providers.providers()
        row = json.loads(store.config_rows(TABLE)[1]["anthropic"])
        store.put_config_row(TABLE, "anthropic", json.dumps(row | changed))

        assert providers.providers().providers == ()
        assert "AIBRIDGE_SECRET_KEY" in (providers.entries()[0].error or "")

    def test_a_row_cannot_be_moved_to_another_name(self) -> None:
        """Nor its keys."""
        store = SwitchableStore()
        providers = stored(store, (ANTHROPIC,))
        providers.providers()
        store.put_config_row(TABLE, "other", store.config_rows(TABLE)[1]["anthropic"])
        assert providers.providers().providers == enabled(ANTHROPIC)

    def test_a_lost_secret_key_leaves_all_out(self, caplog: pytest.LogCaptureFixture) -> None:
        """Each with the reason."""
        store = SwitchableStore()
        StoredProviders(store, Sealer([OLD]), SEED).providers()

        assert StoredProviders(store, Sealer([NEW]), ()).providers().providers == ()
        assert [message.count("AIBRIDGE_SECRET_KEY") for message in messages(caplog)] == [1, 1]

    def test_fields_of_a_later_version_are_no_reason_to_fail(self) -> None:
        """Two versions run side by side during an upgrade."""
        store = SwitchableStore()
        providers = stored(store, (LOCAL,))
        providers.providers()
        row = json.loads(store.config_rows(TABLE)[1]["local"])
        store.put_config_row(TABLE, "local", json.dumps({**row, "weight": 3}))
        assert providers.providers().providers == enabled(LOCAL)


class TestChanging:
    def test_a_new_one_has_defaults(self, store: SwitchableStore) -> None:
        """The type is enough; the next set has it, under another version."""
        providers = stored(store)
        before = providers.providers()
        entry, new = providers.change("gpt", provider_type="openai")

        assert (entry, new) == (ProviderEntry("gpt", "openai", "https://api.openai.com/v1", True), True)
        after = providers.providers()
        assert after.version > before.version
        assert after.providers[1].settings == ProviderSettings("gpt", "openai", "https://api.openai.com/v1")

    def test_what_is_not_given_stays(self, store: SwitchableStore) -> None:
        """Field by field."""
        providers = stored(store)
        providers.change("anthropic", enabled=False)
        entry, new = providers.change("anthropic", keys=["one", "two"])

        assert (entry.base_url, entry.enabled, len(entry.key_hints), new) == (
            ANTHROPIC.base_url,
            False,
            2,
            False,
        )
        assert providers.change("anthropic")[0] == entry
        providers.change("local", provider_type="anthropic", base_url="http://h/")
        assert {one.name: one.base_url for one in providers.entries()}["local"] == "http://h"
        providers.change("local", provider_type="openai")
        assert {one.name: one.base_url for one in providers.entries()}["local"] == "https://api.openai.com/v1"

    @pytest.mark.parametrize(
        "change", [{"base_url": "https://elsewhere.example"}, {"provider_type": "openai"}]
    )
    def test_stored_keys_go_nowhere_else(self, store: SwitchableStore, change: dict[str, str]) -> None:
        """Who may change providers and may not read keys would else have them sent to a server of theirs."""
        providers = stored(store)
        with pytest.raises(ConfigError, match="give its keys again") as caught:
            providers.change(
                "anthropic", base_url=change.get("base_url"), provider_type=change.get("provider_type")
            )
        assert KEY not in str(caught.value)
        providers.change("anthropic", keys=["new"], **change)  # type: ignore[arg-type]
        providers.change("local", base_url="http://other/v1")

    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("A", {"provider_type": "openai"}),
            ("x", {}),
            ("x", {"provider_type": "gopher"}),
            ("x", {"provider_type": "openai", "base_url": "ftp://h"}),
            ("x", {"provider_type": "openai", "base_url": f"https://u:{KEY}@h"}),
            ("x", {"provider_type": "openai", "keys": [KEY + "\n"]}),
        ],
    )
    def test_what_cannot_work_is_not_stored(self, name: str, change: dict[str, object]) -> None:
        """The sentence shows no secret."""
        store = SwitchableStore()
        providers = stored(store)
        with pytest.raises(ConfigError) as caught:
            providers.change(name, **change)  # type: ignore[arg-type]
        assert KEY not in str(caught.value)
        assert sorted(store.config_rows(TABLE)[1]) == ["anthropic", "local"]

    def test_a_disabled_one_gives_no_keys(self, store: SwitchableStore) -> None:
        """Until it is enabled again; administrators see that they are there."""
        providers = stored(store)
        disabled = providers.set_enabled("anthropic", False)

        assert disabled is not None
        assert (disabled.enabled, disabled.key_hints) == (False, ("sk-a…6789",))
        (served, _) = providers.providers().providers
        assert (served.enabled, served.settings.keys) == (False, ())

        providers.set_enabled("anthropic", True)
        assert providers.providers().providers == enabled(*SEED)

    def test_what_is_not_there_is_not_made(self, store: SwitchableStore) -> None:
        """Nor removed."""
        providers = stored(store)
        assert providers.set_enabled("nobody", True) is None
        assert not providers.remove("nobody")

    def test_a_damaged_one_can_be_set_anew_or_removed(self) -> None:
        """And not enabled."""
        store = SwitchableStore()
        providers = stored(store, ())
        store.put_config_row(TABLE, "x", "damaged")

        with pytest.raises(ConfigError, match="stored damaged: it is not JSON"):
            providers.set_enabled("x", True)
        with pytest.raises(ConfigError, match="say which type"):
            providers.change("x", keys=["k"])
        assert providers.change("x", provider_type="openai")[1] is False
        assert providers.remove("x")

    def test_rotation_of_the_secret_key(self, store: SwitchableStore) -> None:
        """With both keys all opens; after sealing anew the old one is not needed, and nothing is left to do."""
        StoredProviders(store, Sealer([OLD]), SEED).providers()
        both = StoredProviders(store, Sealer([NEW, OLD]), ())

        assert both.providers().providers == enabled(*SEED)
        assert both.reseal() == ("anthropic", "local")
        assert both.reseal() == ()
        assert stored(store, ()).providers().providers == enabled(*SEED)

    def test_sealing_anew_skips_what_does_not_open(self, caplog: pytest.LogCaptureFixture) -> None:
        """It cannot be helped, and must not stop the others."""
        store = SwitchableStore()
        StoredProviders(store, Sealer([OLD]), (LOCAL,)).providers()
        store.put_config_row(TABLE, "broken", "damaged")
        StoredProviders(store, Sealer(["lost" * 10]), ()).change("lost", provider_type="openai")

        assert StoredProviders(store, Sealer([NEW, OLD]), ()).reseal() == ("local",)
        assert [message.split(" is ")[0] for message in messages(caplog)] == [
            "the stored provider 'broken'",
            "the stored provider 'lost'",
        ]


def test_a_watch_tells_of_changes(store: SwitchableStore, deadline: float) -> None:
    """One signal on subscribing, and another that comes with a change."""
    providers = stored(store)
    version = providers.providers().version
    seen: list[int] = []
    subscribed, changed = threading.Event(), threading.Event()

    def follow(versions: Iterator[int]) -> None:
        for found in versions:
            seen.append(found)
            subscribed.set()
            if found > version:
                changed.set()
                return

    with conforms(providers).watch_providers() as versions:
        thread = threading.Thread(target=follow, args=(versions,))
        thread.start()
        assert subscribed.wait(deadline)
        providers.set_enabled("local", False)
        assert changed.wait(deadline)
        thread.join(deadline)
    assert seen[0] == version


def test_only_the_hosts_own_are_administered() -> None:
    """Another ProviderConfigurator's providers are changed where it has them from."""

    class Other(ConfiguredProviders):
        pass

    providers = stored(SwitchableStore())
    assert administered(providers) is providers
    assert administered(object()) is None  # type: ignore[arg-type]
    with pytest.raises(SecretKeyMissing):
        administered(Other(SEED))


def test_nothing_secret_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Not by any repr, and not in the log at its most talkative."""
    caplog.set_level(logging.DEBUG)
    store = SwitchableStore()
    providers = stored(store)
    shown = [
        repr(providers),
        repr(ConfiguredProviders(SEED)),
        repr(providers.providers()),
        repr(providers.entries()),
        repr(entry_of(ProviderConfig(ANTHROPIC))),
        caplog.text,
        repr(store.config_rows(TABLE)),
    ]
    assert [text for text in shown if KEY in text or NEW in text] == []


def test_any_config_store_will_do() -> None:
    """What is asked of it is the Protocol."""
    conforming: ConfigStore = SwitchableStore()
    assert StoredProviders(lambda: conforming, SEALER, SEED).providers().providers == enabled(*SEED)
