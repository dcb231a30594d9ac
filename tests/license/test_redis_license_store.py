"""``license.redis_license_store``: the same for every process, on a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from time import monotonic
from typing import Any

import pytest
import redis

from flask_aibridge.errors import ServicesUnavailable
from flask_aibridge.license import refresher
from flask_aibridge.license.gate import Gate
from flask_aibridge.license.holder import LicenseHolder
from flask_aibridge.license.issuing import issue_license
from flask_aibridge.license.redis_license_store import RedisLicenseStore
from flask_aibridge.license.store import LicenseStore
from flask_aibridge.services.redis.connection import RedisConnection
from tests.license.signed import KEY
from tests.license.store_contract import StoreContract
from tests.services.servers import Running, wait_until

PREFIX = "test"


class TestRedis(StoreContract):
    @pytest.fixture
    def now(self) -> float:
        return time.time()

    @pytest.fixture
    def store(self, any_server: Running) -> Iterator[LicenseStore]:
        with closing(RedisConnection(any_server.url)) as connection:
            yield RedisLicenseStore(connection, PREFIX)


@pytest.fixture
def connection(license_server: Running) -> Iterator[RedisConnection]:
    with closing(RedisConnection(license_server.url)) as connection:
        yield connection


def test_two_processes_share_it(connection: RedisConnection, license_server: Running) -> None:
    """Whoever has the same URL and prefix."""
    with closing(RedisConnection(license_server.url)) as other:
        one, two = RedisLicenseStore(connection, PREFIX), RedisLicenseStore(other, PREFIX)
        version = one.install("a", "token", 1.0)
        assert two.version() == version
        assert two.installed() == one.installed()
        assert two.deployment_id() == one.deployment_id()
        assert one.take_turn(60) == 0
        assert two.take_turn(60) > 0


def test_two_prefixes_do_not(connection: RedisConnection) -> None:
    """They are two installations."""
    one, two = RedisLicenseStore(connection, "one"), RedisLicenseStore(connection, "two")
    one.install("a", "token", 1.0)
    assert two.installed() == ()
    assert two.deployment_id() != one.deployment_id()


def test_a_version_is_not_given_again_after_all_is_lost(connection: RedisConnection) -> None:
    """A server that comes back empty, and is changed as often as before, has another version than before."""
    store = RedisLicenseStore(connection, PREFIX)
    before = store.install("a", "token", 1.0)
    connection.execute("FLUSHALL")
    after = store.install("b", "token", 1.0)
    assert before is not None
    assert after is not None
    assert after > before


def test_every_key_has_the_prefix_and_one_tag(connection: RedisConnection) -> None:
    """So that they change together in a cluster, and nobody else's are touched."""
    store = RedisLicenseStore(connection, PREFIX)
    store.install("a", "token", 1.0)
    store.deployment_id()
    store.highest_time(time.time())
    store.take_turn(60)
    names = connection.execute("KEYS", "*")
    assert len(names) == 5
    assert all(name.startswith("test:{license}:") for name in names)


def test_changes_are_published(connection: RedisConnection, license_server: Running, deadline: float) -> None:
    """Each with its version, for whoever wants to know sooner."""
    store = RedisLicenseStore(connection, PREFIX)
    client: Any = redis.Redis.from_url(license_server.url, decode_responses=True)
    with closing(client), client.pubsub(ignore_subscribe_messages=True) as subscription:
        subscription.subscribe("test:{license}:changes")
        subscription.get_message(timeout=deadline)
        version = store.install("a", "token", 1.0)
        heard: list[object] = []

        def hears() -> bool:
            message = subscription.get_message(timeout=0.1)
            heard.extend([message["data"]] if message else [])
            return bool(heard)

        wait_until(hears, "the message")
        assert heard == [str(version)]


def test_a_change_is_announced(connection: RedisConnection, deadline: float) -> None:
    """Whoever waits for one is woken; who does not listen yet, or no longer, misses nothing but the hint."""
    store = RedisLicenseStore(connection, PREFIX)
    store.version()
    heard = threading.Event()
    ready = threading.Event()

    def listen() -> None:
        until = monotonic() + deadline
        while monotonic() < until and not heard.is_set():
            if store.wait_for_change(0.1):
                heard.set()
            ready.set()

    listener = threading.Thread(target=listen)
    listener.start()
    assert ready.wait(deadline)
    store.bump()
    assert heard.wait(deadline)
    listener.join(deadline)


def test_a_store_that_was_never_reached_is_not_listened_to() -> None:
    """Nothing is waited for: the caller goes by the clock."""
    with closing(RedisConnection("redis://127.0.0.1:1")) as connection, pytest.raises(ServicesUnavailable):
        RedisLicenseStore(connection, PREFIX).wait_for_change(60.0)


def test_an_announcement_puts_a_change_in_force_at_once(
    connection: RedisConnection, license_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before it would be looked for."""
    monkeypatch.setattr(refresher, "POLL_SECONDS", 300.0)
    with closing(RedisConnection(license_server.url)) as its_own:
        holder = LicenseHolder({"k1": KEY.public_pem}, store=lambda: RedisLicenseStore(its_own, PREFIX))
        gate = Gate(holder=holder)
        assert not gate.check().open
        vendor = LicenseHolder({"k1": KEY.public_pem}, store=lambda: RedisLicenseStore(connection, PREFIX))

        def is_open() -> bool:
            # Again and again: a hint that comes before anybody listens is lost.
            vendor.install(issue_license(KEY, jti="at-once"))
            return gate.check().open

        wait_until(is_open, "the licence")
        holder.close()
        vendor.close()


def test_an_account_needs_no_channel(license_server: Running) -> None:
    """From Redis 7 on, one has none unless it is given some: then nothing is published, and all else is done."""
    user = ("ACL", "SETUSER", "limited", "reset", "on", ">secret", "~test:*", "+@all", "resetchannels")
    with redis.Redis.from_url(license_server.url) as client:
        client.execute_command(*user)
    url = license_server.url.replace("unix://", "unix://limited:secret@")
    with closing(RedisConnection(url)) as connection:
        store = RedisLicenseStore(connection, PREFIX)
        assert store.install("a", "token", 1.0) == store.version()
        with pytest.raises(ServicesUnavailable):
            store.wait_for_change(60.0)
        assert store.bump() == store.version()
        assert store.remove("a") == store.version()


def test_a_server_that_is_away_is_said_to_be(license_server: Running) -> None:
    """For every method, within a moment; and it is there again when the server is."""
    with closing(RedisConnection(license_server.url)) as connection:
        store = RedisLicenseStore(connection, PREFIX)
        store.install("a", "token", 1.0)
        license_server.kill()
        for call in (
            store.version,
            store.installed,
            store.bump,
            store.deployment_id,
            lambda: store.install("b", "token", 1.0),
            lambda: store.remove("a"),
            lambda: store.highest_time(1.0),
            lambda: store.take_turn(60),
        ):
            with pytest.raises(ServicesUnavailable):
                call()
        license_server.start()
        wait_until(lambda: _answers(store), "an answer")
        assert store.version() > 0


def _answers(store: LicenseStore) -> bool:
    try:
        return store.version() >= 0
    except ServicesUnavailable:
        return False


@pytest.mark.parametrize(
    "row",
    [
        "not JSON",
        "[]",
        "{}",
        '{"token": 1, "uploaded_at": 1}',
        '{"token": "x", "uploaded_at": "soon"}',
        '{"token": "x", "uploaded_at": NaN}',
        '{"token": "x", "uploaded_at": 1e300}',
    ],
)
def test_a_row_that_cannot_be_read_takes_nothing_from_the_others(
    connection: RedisConnection, row: str
) -> None:
    """It is a licence without a text, which can be removed."""
    store = RedisLicenseStore(connection, PREFIX)
    store.install("good", "token", 1.0)
    connection.execute("HSET", f"{PREFIX}:{{license}}:installed", "bad", row)
    assert [(each.id, each.token, each.uploaded_at) for each in store.installed()] == [
        ("bad", "", 0.0),
        ("good", "token", 1.0),
    ]
    assert store.remove("bad")
    assert [each.id for each in store.installed()] == ["good"]
