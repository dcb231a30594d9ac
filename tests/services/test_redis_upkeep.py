"""Upkeep deletes all there is of what is too old, and ends what nobody will, without getting in anybody's way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from flask_aibridge.services.records import ENDS, InterceptionStart
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.redis.store import RedisStore
from flask_aibridge.services.redis.upkeep import ORPHAN_DAYS, SWEEP_BATCH
from tests.services.contract_lineage import a_loop, records_of
from tests.services.contract_records import (
    a_full_start,
    a_prompt,
    a_start,
    a_usage,
    an_end,
    everything_of,
    now,
)
from tests.services.redis_contents import Client, contents
from tests.services.servers import Running, Server, wait_until

LEASE_SECONDS = 0.3
OLD = timedelta(days=100)


@pytest.fixture
def connection(one_redis_url: str) -> Iterator[RedisConnection]:
    with closing(RedisConnection(one_redis_url)) as connection:
        yield connection


@pytest.fixture
def client(one_redis_server: Running) -> Iterator[Client]:
    assert isinstance(one_redis_server, Server)
    with one_redis_server.client() as client:
        yield client


@pytest.fixture
def make_store(connection: RedisConnection, redis_prefix: str) -> Callable[..., RedisStore]:
    def make_store(**options: Any) -> RedisStore:
        return RedisStore(connection, keys=Keys(redis_prefix), **options)

    return make_store


def _old() -> datetime:
    return now() - OLD


def _maintained(store: RedisStore, fact: Callable[[], bool], what: str) -> None:
    def is_so() -> bool:
        store.maintain()
        return fact()

    wait_until(is_so, what)


def test_nothing_is_left_of_what_is_too_old(
    make_store: Callable[..., RedisStore], client: Client, redis_prefix: str
) -> None:
    """Ended in any way, or swept, running, with and without content, and records whose start never came; loops of
    agents, whatever is known of what they called; from every key but the stream."""
    store = make_store(retention_days=60)
    for _ in range(40):
        start, running, unstarted = a_full_start(_old()), a_start(_old()), a_start(_old())
        store.record([start, *everything_of(start), running, a_prompt(running), *everything_of(unstarted)])
    for end in ENDS:
        start, swept, left = (a_full_start(_old()) for _ in range(3))
        store.record([start, an_end(start, end), swept, left])
        store.record_swept([an_end(each, "interrupted") for each in (swept, left)])
        store.record([an_end(swept, end)])
    for session in (None, "one"):
        loop = records_of(a_loop(60, begin=_old(), session_id=session))
        store.record([*loop[::-3], *loop])
    _maintained(
        store,
        lambda: all(name.endswith(":stream") for name in contents(client, redis_prefix)),
        "an empty store",
    )


def test_what_is_newer_stays_as_it_is(
    make_store: Callable[..., RedisStore], client: Client, redis_prefix: str
) -> None:
    """With its session and its names, though something older bore them too."""
    store = make_store(retention_days=60)
    young = [a_full_start(shard=shard) for shard in (0, 7)]
    for start in young:
        store.record([start, *everything_of(start)])

    def without_streams() -> dict[str, Any]:
        found = contents(client, redis_prefix)
        return {name: value for name, value in found.items() if not name.endswith(":stream")}

    expected = without_streams()
    for shard in (0, 7):
        start = a_full_start(_old(), shard=shard)
        store.record([start, *everything_of(start)])
    assert without_streams() != expected
    _maintained(store, lambda: without_streams() == expected, "the young ones alone")


def test_content_goes_first(make_store: Callable[..., RedisStore], client: Client, redis_prefix: str) -> None:
    """Also where no start ever came. Token counts survive it."""
    store = make_store(retention_days=200, content_retention_days=60)
    start, unstarted, young = a_full_start(_old()), a_start(_old()), a_full_start()
    for each in (start, young):
        store.record([each, *everything_of(each)])
    store.record([a_prompt(unstarted), a_usage(unstarted)])

    def with_content() -> set[str]:
        return {name.rpartition(":")[2] for name in contents(client, redis_prefix) if ":c:" in name}

    assert with_content() == {start.id, unstarted.id, young.id}
    _maintained(store, lambda: with_content() == {young.id}, "the young one's content alone")
    view = store.interception(start.id)
    assert view is not None
    assert (view.prompts, view.tool_calls, view.thoughts) == ((), (), ())
    assert (view.tokens.input, len(view.usages)) == (9, 2)


def test_the_stream_keeps_nothing_for_longer(
    make_store: Callable[..., RedisStore], client: Client, redis_prefix: str
) -> None:
    """What was said must not be read there when it is gone elsewhere."""
    store = make_store(retention_days=200, content_retention_days=60)
    stream = Keys(redis_prefix).stream(0)
    milliseconds = int(client.time()[0]) * 1000
    day = 86_400_000
    for days in (61, 59):
        client.xadd(stream, {"kind": "x", "record": "{}"}, id=f"{milliseconds - days * day}-0")
    store.maintain()
    assert [entry for entry, _ in client.xrange(stream)] == [f"{milliseconds - 59 * day}-0"]


@pytest.mark.parametrize(
    "options", [{"retention_days": 0}, {"retention_days": 0, "content_retention_days": 0}]
)
def test_for_ever_is_for_ever(make_store: Callable[..., RedisStore], options: dict[str, float]) -> None:
    """0 deletes nothing."""
    store = make_store(**options)
    start = a_full_start(_old())
    store.record([start, *everything_of(start)])
    before = store.interception(start.id)
    store.maintain()
    assert before is not None
    assert store.interception(start.id) == before


def test_a_backlog_is_worked_off_a_little_at_a_time(
    make_store: Callable[..., RedisStore], client: Client, redis_prefix: str
) -> None:
    """Many more than one call deletes, most of them in one shard."""
    store = make_store(retention_days=60)
    for begin in range(
        0, 3000, 250
    ):  # each call has to end within the deadline of a request, on a busy machine too
        numbers = range(begin, begin + 250)
        store.record([a_start(_old() + timedelta(milliseconds=number), shard=3) for number in numbers])
    index = Keys(redis_prefix).index(3)
    _maintained(store, lambda: not client.exists(index), "no backlog")


def test_the_living_do_not_hide_the_dead(make_store: Callable[..., RedisStore]) -> None:
    """However many of them stand before one that nobody will end."""
    store = make_store(lease_seconds=LEASE_SECONDS)
    alive = [a_start(worker="alive", shard=0) for _ in range(2 * SWEEP_BATCH + 1)]
    dead = a_start(worker="dead", shard=0)
    store.record([*alive, dead])

    def is_swept() -> bool:
        store.renew("alive")
        return _status(store, dead) == "interrupted"

    store.renew("alive")
    _maintained(store, is_swept, "the end of the dead one")
    assert {_status(store, start) for start in alive} == {"running"}


def _status(store: RedisStore, start: InterceptionStart) -> str:
    view = store.interception(start.id)
    assert view is not None
    return view.status


def test_nobody_is_believed_dead_before_redis_has_been_there_for_a_while(
    one_redis_server: Running, make_store: Callable[..., RedisStore]
) -> None:
    """After an outage every lease is over, whoever lives; they get time to renew."""
    patient = make_store(lease_seconds=0.01, sweep_grace=1000)
    start = a_start(worker="w")
    patient.record([start])
    one_redis_server.kill()
    one_redis_server.start()
    for _ in range(5):
        patient.maintain()
    hasty = make_store(lease_seconds=0.01, sweep_grace=0)
    assert _status(patient, start) == "running"
    _maintained(hasty, lambda: _status(hasty, start) == "interrupted", "the end after the grace")


def test_an_end_by_a_sweep_is_not_before_its_start(make_store: Callable[..., RedisStore]) -> None:
    """Even where the host's clock was ahead of the server's."""
    store = make_store(lease_seconds=0.01, sweep_grace=0)
    start = a_start(now() + timedelta(hours=1))
    store.record([start])
    _maintained(store, lambda: _status(store, start) == "interrupted", "the end")
    view = store.interception(start.id)
    assert view is not None
    assert view.end is not None
    assert view.end.ended_at >= start.started_at


def test_one_process_at_a_time_does_it(
    make_store: Callable[..., RedisStore], client: Client, redis_prefix: str
) -> None:
    """A lock says who."""
    store = make_store(retention_days=60)
    start = a_start(_old())
    store.record([start])
    lock = Keys(redis_prefix).lock("upkeep")
    client.set(lock, "somebody else")
    store.maintain()
    assert store.interception(start.id) is not None
    assert client.get(lock) == "somebody else", "only who holds a lock gives it back"
    client.delete(lock)
    _maintained(store, lambda: store.interception(start.id) is None, "its deletion")
    assert not client.exists(lock), "a lock is given back"


def test_copies_of_the_version_are_brought_into_line(
    make_store: Callable[..., RedisStore], client: Client, redis_prefix: str
) -> None:
    """Copies that a writer did not get to, and a version that a failover has set back."""
    store, keys = make_store(), Keys(redis_prefix)
    store.put_config_row("providers", "a", "{}")
    copies = [keys.version_copy(number) for number in range(16)]
    assert client.mget(copies) == ["1"] * 16
    client.delete(copies[3])
    client.set(keys.config("version"), 7)
    client.set(copies[5], 9)
    store.maintain()
    assert client.mget(copies) == ["9"] * 16
    assert store.config_version() == 9
    assert store.put_config_row("providers", "a", "{}") == 10


def test_what_waits_for_a_start_does_not_wait_for_ever(
    make_store: Callable[..., RedisStore], client: Client, redis_prefix: str
) -> None:
    """Whatever the retention: the start may have been stored nowhere."""
    store = make_store(retention_days=0)
    lost, waiting = a_full_start(_old()), a_full_start(now() - timedelta(days=ORPHAN_DAYS - 1))
    store.record([*everything_of(lost), *everything_of(waiting)])
    _maintained(
        store,
        lambda: not any(lost.id in str(entry) for entry in _but_streams(client, redis_prefix).items()),
        "the end of what waits in vain",
    )
    store.record([waiting])
    view = store.interception(waiting.id)
    assert view is not None
    assert (view.status, len(view.usages), len(view.prompts)) == ("upstream_error", 2, 1)


def _but_streams(client: Client, prefix: str) -> dict[str, Any]:
    return {name: value for name, value in contents(client, prefix).items() if not name.endswith(":stream")}


def test_an_id_of_no_date_does_not_stop_upkeep(make_store: Callable[..., RedisStore]) -> None:
    """Its milliseconds are after the year 9999; the sweep ends it, and the others."""
    store = make_store(lease_seconds=LEASE_SECONDS, sweep_grace=0.0)
    odd = replace(a_start(worker="dead"), id="f" * 31 + "3")
    other = a_start(worker="dead", shard=3)
    store.record([odd, other])

    def are_ended() -> bool:
        views = [store.interception(each.id) for each in (odd, other)]
        return [view and view.status for view in views] == ["interrupted"] * 2

    _maintained(store, are_ended, "the sweep")


def test_a_thread_that_goes_on_keeps_its_session(
    make_store: Callable[..., RedisStore], client: Client, redis_prefix: str
) -> None:
    """Its first turns are deleted, and the rest is still found by its root; once all is too old nothing is left."""
    store = make_store(retention_days=60)
    old, young = a_loop(3, begin=_old()), a_loop(5)[2:]
    store.record(records_of([*old[:2], *young]))
    root, last = old[0][0].id, young[-1][0]
    assert _session_of(store, last) == (root, 5)
    _maintained(store, lambda: store.interception(old[1][0].id) is None, "the young ones alone")
    assert _session_of(store, last) == (root, 3)
    assert [each.id for each in store.sessions().sessions] == [root]
    found = store.session(root)
    assert found is not None
    assert found.interceptions == 3
    answer = a_start(shard=3, correlating_tool_call_id="call_3")
    store.record([answer])
    assert _session_of(store, answer) == (root, 4)
    shorter = make_store(retention_days=1e-9)

    def left() -> set[str]:
        return {name.removeprefix("{s3}:").partition(":")[0] for name in contents(client, redis_prefix)}

    _maintained(shorter, lambda: left() <= {"stream", "hours", "r"}, "nothing but the usage of this hour")


def _session_of(store: RedisStore, start: InterceptionStart) -> tuple[str, int]:
    session = store.session(start.id)
    assert session is not None
    return session.id, session.interceptions
