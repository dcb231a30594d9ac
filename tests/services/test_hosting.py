"""``services.hosting``: the four services of a host, put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from flask_aibridge.config import RateLimit, parse_rate_limit
from flask_aibridge.errors import RateLimited, ServicesUnavailable, Unauthorized
from flask_aibridge.services import api_keys
from flask_aibridge.services.authorizer import HostAuthorizer
from flask_aibridge.services.hosting import HostServices
from flask_aibridge.services.interfaces import (
    AccessTokens,
    Admission,
    Authorization,
    Authorizer,
    CallObserver,
    Credential,
    MCPServerConfig,
    ProviderSet,
)
from flask_aibridge.services.memory.store import MemoryStore
from flask_aibridge.services.records import (
    InterceptionStart,
    TokenUsage,
    make_interception_id,
    shard_of_key,
)
from flask_aibridge.services.storage import Query, Store

NOW = datetime.now(UTC)
KEY_ID, SECRET = api_keys.generate(b"k" * api_keys.RANDOM_BYTES)
KEY = Credential(key=api_keys.spell(KEY_ID, SECRET))
STATIC = Credential(key="aib_adas_letmein")


class CountedStore(MemoryStore):
    """Counts the round trips that a store elsewhere would take."""

    def __init__(self) -> None:
        super().__init__()
        self.trips: list[str] = []
        self.closed = 0

    def admit(
        self, start: InterceptionStart | None, credential: Credential | None, **counting: Any
    ) -> Admission:
        self.trips.append("admit" if credential is None else "admit with a credential")
        return super().admit(start, credential, **counting)

    def authorize(self, credential: Credential) -> Authorization:
        self.trips.append("authorize")
        return super().authorize(credential)

    def close(self) -> None:
        self.closed += 1
        super().close()


class MCP:
    def mcp_servers(self, user: str) -> tuple[MCPServerConfig, ...]:
        return (MCPServerConfig(user, "https://mcp.example/"),)

    def mcp_access_tokens(self, user: str, server_ids: Sequence[str]) -> AccessTokens:
        return AccessTokens(errors=dict.fromkeys(server_ids, user))


class Providers:
    def providers(self) -> ProviderSet:
        return ProviderSet((), 3)

    @contextmanager
    def watch_providers(self) -> Iterator[Iterator[int]]:
        yield iter([3, 4])


class Observer:
    """Writes down each call, and how it ended."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @contextmanager
    def call(self, service: str, method: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.seen.append(f"{service}.{method}: {type(error).__name__}")
            raise
        else:
            self.seen.append(f"{service}.{method}")


@pytest.fixture
def store() -> CountedStore:
    store = CountedStore()
    store.put_api_key(api_keys.new_row(KEY_ID, SECRET, owner="eve", now=NOW, display_name="laptop"))
    return store


def make(
    store: Store,
    authorizer: Authorizer | None = None,
    observer: CallObserver | None = None,
    rate_limit: RateLimit | None = None,
) -> HostServices:
    asked = authorizer or HostAuthorizer({"ada": "aib_adas_letmein"}, lambda: store)
    return HostServices(lambda: store, asked, MCP(), Providers(), observer=observer, rate_limit=rate_limit)


def a_start(shard: int = 0, initiator: str | None = None) -> InterceptionStart:
    return InterceptionStart(
        id=make_interception_id(NOW, shard, 1),
        initiator=initiator,
        provider="openai",
        provider_type="openai",
        started_at=NOW,
    )


def test_a_stored_key_and_the_start_take_one_round_trip(store: CountedStore) -> None:
    start = a_start(shard_of_key(KEY_ID))
    admission = make(store).admit(start, KEY)
    assert admission.authorization == Authorization("eve", KEY_ID, "laptop")
    assert store.trips == ["admit with a credential"]
    recorded = store.interception(start.id)
    assert recorded is not None
    assert (recorded.start.initiator, recorded.start.key_id) == ("eve", KEY_ID)


@pytest.mark.parametrize("key", [KEY.key, STATIC.key])
def test_the_gateway_s_rate_limit_is_of_each_key_from_outside(store: CountedStore, key: str) -> None:
    """Of stored and of static ones, each for itself, in the one round trip; not of callers in process."""
    services = make(store, rate_limit=parse_rate_limit("2/day"))
    admissions = [services.admit(None, Credential(key=key)) for _ in range(2)]
    assert [each.rate and each.rate.remaining for each in admissions] == [1, 0]
    start = a_start()
    with pytest.raises(RateLimited):
        services.admit(start, Credential(key=key))
    assert len(store.trips) == 3
    assert store.interception(start.id) is None
    admission = admissions[0]
    assert admission.authorization is not None
    assert services.admit(None, Credential(key_id=admission.authorization.key_id)).rate is None
    assert services.admit(None, None).rate is None
    other = KEY if key == STATIC.key else STATIC
    assert services.admit(None, other).rate is not None


def test_the_host_may_give_a_key_a_limit_of_its_own(store: CountedStore) -> None:
    """In what its callback answers; without an id the limit is its user's."""
    own = Authorization("ada", rate_limit=parse_rate_limit("1/day"))
    authorizer = HostAuthorizer({}, lambda: store, lambda: lambda key: own if key == "adas" else None)
    services = make(store, authorizer)
    assert services.admit(a_start(), Credential(key="adas")).rate is not None
    with pytest.raises(RateLimited):
        services.admit(a_start(3), Credential(key="adas"))


def test_a_static_key_and_the_start_take_one_round_trip(store: CountedStore) -> None:
    start = a_start()
    admission = make(store).admit(start, STATIC)
    assert admission.authorization == Authorization("ada", "adas")
    assert store.trips == ["admit"]
    recorded = store.interception(start.id)
    assert recorded is not None
    assert (recorded.start.initiator, recorded.start.key_id) == ("ada", "adas")


def test_without_a_credential_the_start_stays_as_it_is(store: CountedStore) -> None:
    start = a_start(initiator="application")
    assert make(store).admit(start, None).authorization is None
    recorded = store.interception(start.id)
    assert recorded is not None
    assert recorded.start.initiator == "application"


@pytest.mark.parametrize("credential", [KEY, STATIC, None])
def test_without_a_start_the_version_is_told(store: CountedStore, credential: Credential | None) -> None:
    store.put_config_row("providers", "openai", "{}")
    admission = make(store).admit(None, credential)
    assert admission.config_version == 1
    assert len(store.trips) == 1


def test_nothing_is_recorded_of_who_is_refused(store: CountedStore) -> None:
    start = a_start(shard_of_key(KEY_ID))
    assert KEY.key is not None
    for key in ("sk-nonsense", KEY.key[:-1] + ("A" if KEY.key[-1] != "A" else "B")):
        with pytest.raises(Unauthorized):
            make(store).admit(start, Credential(key=key))
    assert store.interception(start.id) is None


def test_a_whole_authorizer_of_the_hosts_is_asked_alone(store: CountedStore) -> None:
    class Directory:
        def authorize(self, credential: Credential) -> Authorization:
            if credential.key != "ldap":
                raise Unauthorized("unknown")
            return Authorization("dora", "ldap-7")

    services, start = make(store, Directory()), a_start()
    assert services.admit(start, Credential(key="ldap")).authorization == Authorization("dora", "ldap-7")
    recorded = store.interception(start.id)
    assert recorded is not None
    assert (recorded.start.initiator, recorded.start.key_id) == ("dora", "ldap-7")
    with pytest.raises(Unauthorized):
        services.admit(None, KEY)
    assert store.trips == ["admit"]


def test_the_store_is_opened_when_it_is_needed() -> None:
    """Making the services, and asking who holds a static key, opens nothing."""

    def away() -> Store:
        raise ServicesUnavailable("away")

    services = HostServices(away, HostAuthorizer({"ada": "aib_adas_letmein"}, away), MCP(), Providers())
    assert services.authorizer.authorize(STATIC).user == "ada"
    assert services.mcp_configurator.mcp_servers("ada")
    services.close()
    with pytest.raises(ServicesUnavailable):
        services.admit(None, None)
    with pytest.raises(ServicesUnavailable):
        services.recorder.renew("w")


def test_close_closes_the_store_that_was_used(store: CountedStore) -> None:
    services = make(store)
    services.close()
    assert store.closed == 0
    services.recorder.maintain()
    services.close()
    assert store.closed == 1
    services.recorder.maintain()


def test_every_call_is_observed(store: CountedStore) -> None:
    observer = Observer()
    services = make(store, observer=observer)
    start = a_start()
    services.admit(start, STATIC)
    services.recorder.record([TokenUsage(id="u1", interception_id=start.id, input=3, created_at=NOW)])
    services.recorder.renew("w")
    services.recorder.maintain()
    services.authorizer.authorize(KEY)
    assert services.mcp_configurator.mcp_servers("ada")[0].id == "ada"
    assert services.mcp_configurator.mcp_access_tokens("ada", ["x"]).errors == {"x": "ada"}
    assert services.provider_configurator.providers().version == 3
    with services.provider_configurator.watch_providers() as versions:
        assert list(versions) == [3, 4]
    assert observer.seen == [
        "services.admit",
        "recorder.record",
        "recorder.renew",
        "recorder.maintain",
        "authorizer.authorize",
        "mcp_configurator.mcp_servers",
        "mcp_configurator.mcp_access_tokens",
        "provider_configurator.providers",
        "provider_configurator.watch_providers",
    ]
    view = store.interception(start.id)
    assert view is not None
    assert view.tokens.input == 3


def test_a_call_that_fails_is_observed_with_its_exception(store: CountedStore) -> None:
    observer = Observer()
    services = make(store, observer=observer)
    with pytest.raises(Unauthorized):
        services.admit(None, Credential(key="nonsense"))
    with pytest.raises(ZeroDivisionError), services.provider_configurator.watch_providers():
        _ = 1 / 0
    assert observer.seen == [
        "services.admit: Unauthorized",
        "provider_configurator.watch_providers: ZeroDivisionError",
    ]


def test_it_says_what_it_is_made_of(store: CountedStore) -> None:
    assert "not used yet" in repr(make(store))
    assert "letmein" not in repr(make(store))


def test_a_callback_that_fails_leaves_nothing_behind(store: CountedStore) -> None:
    """Whoever is refused for it knows that nothing was recorded."""

    def failing(key: str) -> str:
        raise LookupError("a defect of the host")

    services = make(store, HostAuthorizer({}, lambda: store, lambda: failing))
    with pytest.raises(ServicesUnavailable) as away:
        services.admit(a_start(), Credential(key="a key"))
    assert away.value.not_asked
    assert store.interceptions(Query()).count == 0
