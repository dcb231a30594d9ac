"""Rate limits on Redis, beyond the contract: several processes, round trips, what is left in the server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from flask_aibridge.config import RateLimit, parse_rate_limit
from flask_aibridge.errors import RateLimited
from flask_aibridge.services import api_keys
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.storage import Store
from tests.services.contract_rates import KEY, KEY_ID, SECRET
from tests.services.contract_records import a_key_row, a_start
from tests.services.contract_stores import redis_store
from tests.services.programs import environment, python
from tests.services.servers import Server

PROCESSES = 2
DEADLINE_SECONDS = 60.0


@pytest.fixture
def store(one_redis_url: str, redis_prefix: str) -> Iterator[Store]:
    store = redis_store(one_redis_url, redis_prefix)
    yield store
    store.close()


def put(store: Store, limit: RateLimit | None = None) -> None:
    store.put_api_key(a_key_row(KEY_ID, secret_hash=api_keys.secret_hash(SECRET), rate_limit=limit))


@pytest.mark.servers
def test_processes_together_never_exceed_the_limit(
    store: Store, one_redis_url: str, redis_prefix: str
) -> None:
    """Two of them with four threads each, all at once: as many pass as may, to the last."""
    put(store, parse_rate_limit("50/day"))
    command = [*python("rate_process.py"), one_redis_url, redis_prefix, str(KEY.key)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment())
        for _ in range(PROCESSES)
    ]
    try:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        passed = [int(process.communicate(timeout=DEADLINE_SECONDS)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert sum(passed) == 50


def test_what_is_kept_of_a_caller_goes_by_itself(
    store: Store, one_redis_server: Server, redis_prefix: str
) -> None:
    """One small key, for as long as it means something, in the shard of its API key; refused requests write nothing."""
    put(store)
    limit = parse_rate_limit("2/hour")
    for _ in range(2):
        store.admit(None, KEY, limit=limit)
    name = Keys(redis_prefix).rate(KEY_ID)
    assert name.startswith(Keys(redis_prefix).api_key(KEY_ID).rpartition("key:")[0])
    with one_redis_server.client() as client:
        before: Any = client.get(name)
        assert 3600_000 - 60_000 < client.pttl(name) <= 3600_000
        with pytest.raises(RateLimited):
            store.admit(None, KEY, limit=limit)
        assert client.get(name) == before
        used = client.hget(Keys(redis_prefix).api_key(KEY_ID), "used")
        assert used is not None


@pytest.mark.parametrize("name", ["static000001", "user:Zoë"])
def test_counting_is_no_round_trip(store: Store, one_redis_server: Server, name: str) -> None:
    """Authorisation, limit, start and version in one call of one script, in whatever shard the interception is."""
    put(store)
    limit = parse_rate_limit("1000/second")
    store.admit(None, KEY, limit=limit)

    def calls() -> int:
        with one_redis_server.client() as client:
            stats: Any = client.info("commandstats")
            return int(stats["cmdstat_evalsha"]["calls"])

    before = calls()
    store.admit(None, KEY, limit=limit)
    for shard in range(3):
        store.admit(a_start(shard=shard), None, limit=limit, counted_as=name)
    assert calls() - before == 4
