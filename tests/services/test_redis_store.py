"""The store through faults: a server that dies under load, a fork, and watches that go on."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from flask_aibridge.errors import ServicesUnavailable
from flask_aibridge.services.records import InterceptionStart
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.redis.store import RedisStore
from flask_aibridge.services.storage import WATCH_SECONDS, Query, Store
from tests.services.contract_records import a_start, a_usage, an_end, now
from tests.services.servers import Running, Server, redis_binary, started, valkey_binary, wait_until

CRASHES = 3
WORKERS = 4
LONG = 20.0


@pytest.fixture
def store(one_redis_url: str, redis_prefix: str) -> Iterator[RedisStore]:
    with closing(RedisStore(RedisConnection(one_redis_url), keys=Keys(redis_prefix))) as store:
        yield store


def is_there(store: Store) -> bool:
    try:
        store.ping()
    except ServicesUnavailable:
        return False
    return True


def test_it_is_a_store(store: RedisStore) -> None:
    """By the type checker's lights; and it says where it is."""
    as_store: Store = store
    assert repr(as_store).startswith("<RedisStore unix://")
    as_store.ping()


def test_whatever_was_acknowledged_is_there_once_after_crashes(redis_prefix: str) -> None:
    """SIGKILL under load, again and again, with every answered write kept: retries double nothing."""
    binary = valkey_binary() or redis_binary()
    if binary is None:
        pytest.skip("needs a server")
    server = Server(binary)
    with started(server), closing(RedisStore(RedisConnection(server.url), keys=Keys(redis_prefix))) as store:
        stop = threading.Event()
        with ThreadPoolExecutor(WORKERS) as pool:
            work = [pool.submit(_record_until, store, stop) for _ in range(WORKERS)]
            for _ in range(CRASHES):
                count = _count(store)
                wait_until(lambda count=count: _count(store) > count, "more records")  # type: ignore[misc]
                server.kill()
                server.start()
                wait_until(lambda: is_there(store), "the server")
            stop.set()
            recorded = [start for each in work for start in each.result(LONG)]
        assert recorded
        for start in recorded:
            view = store.interception(start.id)
            assert view is not None
            assert (view.status, view.tokens.input, len(view.usages)) == ("completed", 3, 1)
        usage = store.usage(since=recorded[0].started_at.replace(minute=0), until=now().replace(year=2100))
        assert sum(row.tokens.input for row in usage) == 3 * sum(row.requests for row in usage)


def _count(store: Store) -> int:
    try:
        return store.interceptions(Query(), limit=1).count
    except ServicesUnavailable:
        return 0


def _record_until(store: Store, stop: threading.Event) -> list[InterceptionStart]:
    """Record interceptions, each until it is acknowledged."""
    recorded = []
    while not stop.is_set():
        start = a_start()
        usage, end = a_usage(start, input=3), an_end(start)
        _until_acknowledged(lambda start=start: store.admit(start, None))
        _until_acknowledged(lambda batch=[usage, end]: store.record(batch))
        recorded.append(start)
    return recorded


def _until_acknowledged(call: object) -> None:
    assert callable(call)

    def is_done() -> bool:
        try:
            call()
        except ServicesUnavailable:
            return False
        return True

    wait_until(is_done, "an acknowledgement")


def test_a_child_records_beside_its_parent(store: RedisStore) -> None:
    """After a fork both go on, each on its own."""
    store.record([a_start()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads; this child starts none
        child = os.fork()
    if child == 0:
        store.record([a_start() for _ in range(10)])
        os._exit(0)
    store.record([a_start() for _ in range(10)])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.interceptions(Query()).count == 21


def test_a_watch_outlives_an_outage(one_redis_server: Running, store: RedisStore) -> None:
    """While Redis is away nothing changes; afterwards changes come as before."""
    seen: list[int] = []
    came = threading.Condition()

    def watch(versions: Iterator[int]) -> None:
        for version in versions:
            with came:
                seen.append(version)
                came.notify_all()

    def wait_for(version: int) -> None:
        with came:
            assert came.wait_for(lambda: version in seen, LONG), seen

    with store.watch_config() as versions:
        thread = threading.Thread(target=watch, args=(versions,))
        thread.start()
        wait_for(0)
        store.put_config_row("mcp", "a", "{}")
        wait_for(1)
        one_redis_server.kill()
        assert not is_there(store)
        one_redis_server.start()
        wait_until(lambda: is_there(store), "the server")
        version = store.put_config_row("mcp", "b", "{}")
        wait_for(version)
    thread.join(LONG)
    assert not thread.is_alive(), "a watch ends with its context"


def test_closing_ends_watches(store: RedisStore) -> None:
    """At once, whatever they wait for."""
    with store.watch_config() as versions:
        assert next(versions) == 0
        timer = threading.Timer(WATCH_SECONDS / 10, store.close)
        timer.start()
        assert list(versions) == []
        timer.join()


def test_a_watch_cannot_begin_while_redis_is_away(one_redis_server: Running, store: RedisStore) -> None:
    """There is no version to begin with."""
    one_redis_server.kill()
    with store.watch_config() as versions, pytest.raises(ServicesUnavailable):
        next(versions)
