"""The servers that the tests start: each kind keeps its data through a crash and can be emptied."""

from __future__ import annotations

from contextlib import closing

import pytest
import redis
from redis.cluster import RedisCluster

from tests.services.deployments import Cluster, Sentinel
from tests.services.servers import Running, Server, redis_binary, started, valkey_binary


def _client(server: Running) -> redis.Redis | RedisCluster:
    if isinstance(server, Cluster):
        return RedisCluster(host="127.0.0.1", port=server.nodes[0].port, decode_responses=True)
    node = server.current_master() if isinstance(server, Sentinel) else server
    assert isinstance(node, Server)
    return node.client()


def test_data_survive_a_crash(redis_server: Running) -> None:
    """Everything that was answered: a write is handed to the system before its answer, so SIGKILL takes nothing."""
    with closing(_client(redis_server)) as client:
        for number in range(30):
            client.set(f"key-{number}", number)
    redis_server.kill()
    redis_server.start()
    with closing(_client(redis_server)) as client:
        assert [client.get(f"key-{number}") for number in range(30)] == [str(number) for number in range(30)]


def test_flush_empties(redis_server: Running) -> None:
    with closing(_client(redis_server)) as client:
        client.set("key", 1)
        redis_server.flush()
        assert client.get("key") is None


def test_a_frozen_server_answers_again(one_redis_server: Server) -> None:
    with closing(one_redis_server.client(timeout=0.2)) as client:
        one_redis_server.freeze()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        one_redis_server.thaw()
        assert client.ping()


def test_a_sentinel_promotes_the_replica() -> None:
    """A server of its own: those for all tests keep their roles."""
    binary = valkey_binary() or redis_binary()
    if binary is None:
        pytest.skip("needs a Redis or Valkey server")
    sentinel = Sentinel(binary, down_after=1.0)
    with started(sentinel):
        with sentinel.current_master().client() as client:
            client.set("key", "value")
            assert client.wait(1, 5000) == 1
        sentinel.fail_over()
        with sentinel.current_master().client() as client:
            assert client.get("key") == "value"
