"""The connection answers or says that it cannot, quickly, and is itself again when Redis is."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic

import pytest
import redis

from flask_aibridge.errors import ServicesUnavailable
from flask_aibridge.services.redis import connection as redis_connection
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.scripts import Script
from flask_aibridge.services.redis.wires import CONNECTIONS, SOCKET_SECONDS
from tests.services.deployments import Sentinel
from tests.services.servers import Running, Server, redis_binary, started, valkey_binary, wait_until

pytestmark = pytest.mark.slow

PASSWORD = "sesame"
LONG = 10.0
"""Far above what a call may take, far below what many calls would take that each wait for a timeout."""


@pytest.fixture
def script() -> Script:
    """A script that no server has seen before."""
    script = Script("unlock")
    script.text = f"-- {os.urandom(8).hex()}\nreturn {{KEYS[1], ARGV[1]}}"
    script.digest = hashlib.sha1(script.text.encode()).hexdigest()
    return script


@pytest.fixture
def connection(one_redis_url: str) -> Iterator[RedisConnection]:
    with closing(RedisConnection(one_redis_url)) as connection:
        yield connection


def a_binary() -> Path:
    """The program of some server."""
    binary = valkey_binary() or redis_binary()
    if binary is None:
        pytest.skip("needs a server")
    return binary


@contextmanager
def server_with(*options: str, tcp: bool = False) -> Iterator[Server]:
    """A server of its own, with options."""
    server = Server(a_binary(), *options, tcp=tcp)
    with started(server):
        yield server


def is_back(connection: RedisConnection) -> Callable[[], bool]:
    def is_back() -> bool:
        try:
            return bool(connection.execute("PING"))
        except ServicesUnavailable:
            return False

    return is_back


def test_nothing_is_connected_before_the_first_call() -> None:
    """A URL that leads nowhere is no error until it is used; and then a quick one."""
    connection = RedisConnection(f"redis://me:{PASSWORD}@127.0.0.1:1")
    with pytest.raises(ServicesUnavailable, match="redis://127.0.0.1:1 is away") as away:
        connection.execute("PING")
    assert away.value.retry_after > 0
    assert PASSWORD not in f"{away.value} {connection!r}"


def test_scripts_and_commands_run_on_every_kind_of_server(redis_url: str, script: Script) -> None:
    """Together or alone, known to the server or not."""
    with closing(RedisConnection(redis_url)) as connection:
        assert connection.run(script, ["{a}"], ["1"]) == ["{a}", "1"]
        calls = [(script, [f"{{{tag}}}"], [tag]) for tag in "abcdefgh"]
        assert connection.run_many(calls) == [[f"{{{tag}}}", tag] for tag in "abcdefgh"]
        assert connection.run_many([]) == connection.pipeline([]) == []
        assert connection.execute("SET", "key", "value")
        assert connection.pipeline([("GET", "key"), ("HGETALL", "none")]) == ["value", {}]


def test_a_script_that_the_server_forgot_is_sent_again(connection: RedisConnection, script: Script) -> None:
    """``SCRIPT FLUSH`` and a restart both empty the server's cache."""
    known = Script("unlock")
    connection.run(known, ["lock"], ["nobody"])
    connection.run(script, ["a"], ["1"])
    connection.execute("SCRIPT", "FLUSH")
    connection.run(known, ["lock"], ["nobody"])
    calls = [(known, ["lock"], ["nobody"]), (script, ["a"], ["1"]), (known, ["lock"], ["nobody"])]
    assert connection.run_many(calls) == [None, ["a", "1"], None]


def test_any_text_comes_back_as_it_was(connection: RedisConnection) -> None:
    """Also what is no Unicode."""
    for text in ("", "Zoë", "\x00\r\n", "\ud800 alone", "🦊"):
        connection.execute("SET", "text", text)
        assert connection.execute("GET", "text") == text


def test_a_mistake_of_the_caller_is_no_outage(connection: RedisConnection) -> None:
    """It is raised as it is, and the connection goes on."""
    connection.execute("SET", "text", "a")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        connection.execute("HGETALL", "text")
    assert connection.pipeline([("GET", "text")]) == ["a"]
    assert connection.healthy_since is not None


def test_a_killed_server_costs_next_to_nothing(
    one_redis_server: Running, connection: RedisConnection, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever calls is told at once; one line says that it is away, one that it is back."""
    connection.execute("SET", "key", "value")
    caplog.set_level(logging.INFO, "flask_aibridge.services")
    one_redis_server.kill()
    began = monotonic()
    for _ in range(1000):
        with pytest.raises(ServicesUnavailable):
            connection.execute("GET", "key")
    assert monotonic() - began < LONG
    assert connection.healthy_since is None
    one_redis_server.start()
    wait_until(is_back(connection), "Redis")
    assert connection.execute("GET", "key") == "value"
    assert connection.healthy_since is not None
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2, lines
    assert "is away" in lines[0]
    assert "is back" in lines[1]


def test_a_server_that_does_not_answer_is_not_waited_for(
    one_redis_server: Running, connection: RedisConnection
) -> None:
    """The first callers wait for less than a second; after that, nobody does. More callers than connections or not."""
    connection.execute("PING")
    one_redis_server.freeze()

    def call(_: int) -> str:
        with pytest.raises(ServicesUnavailable) as away:
            connection.execute("PING")
        return str(away.value)

    try:
        began = monotonic()
        with ThreadPoolExecutor(3 * CONNECTIONS) as pool:
            assert all("is away" in said for said in pool.map(call, range(10 * CONNECTIONS)))
        assert monotonic() - began < LONG
    finally:
        one_redis_server.thaw()
    wait_until(is_back(connection), "Redis")


def test_a_call_that_timed_out_is_not_tried_again(
    one_redis_server: Running, connection: RedisConnection
) -> None:
    """Nor is another: Redis counts as away at once. What the first asked for may be done all the same."""
    connection.execute("PING")
    one_redis_server.freeze()
    try:
        away = [_refusal(connection) for _ in range(50)]
    finally:
        one_redis_server.thaw()
    assert "does not answer in time" in str(away[0])
    assert [error.not_asked for error in away] == [False] + [True] * 49
    wait_until(is_back(connection), "Redis")


def test_a_server_that_accepts_and_hangs_is_found_out_by_one() -> None:
    """Those that come meanwhile wait for that one, and not one after another."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        with closing(RedisConnection(url)) as connection, ThreadPoolExecutor(CONNECTIONS) as pool:
            began = monotonic()
            away = list(pool.map(lambda _: _refusal(connection), range(CONNECTIONS)))
            assert monotonic() - began < CONNECTIONS * SOCKET_SECONDS / 4
    assert all(error.not_asked for error in away)


def test_what_is_no_redis_is_away() -> None:
    """Something else has the port; the error says so."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def answer() -> None:
            accepted, _ = listener.accept()
            with closing(accepted):
                accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                accepted.recv(4096)

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        with closing(RedisConnection(url)) as connection:
            assert "neither Redis nor Valkey" in str(_refusal(connection))
        thread.join(LONG)


def test_a_database_that_there_is_not_is_no_defect() -> None:
    """The server refuses the connection; callers are told that Redis is away."""
    with server_with(tcp=True) as server, closing(RedisConnection(f"{server.url}/9999")) as connection:
        assert _refusal(connection).not_asked


def _refusal(connection: RedisConnection) -> ServicesUnavailable:
    with pytest.raises(ServicesUnavailable) as away:
        connection.execute("PING")
    return away.value


def test_connections_that_went_bad_are_replaced(
    one_redis_server: Running, connection: RedisConnection
) -> None:
    """A server that was restarted unnoticed costs nobody an error, however many connections there were."""
    with ThreadPoolExecutor(8) as pool:
        barrier = threading.Barrier(8)
        list(pool.map(lambda _: (barrier.wait(LONG), connection.execute("PING")), range(8)))
    one_redis_server.kill()
    one_redis_server.start()
    for _ in range(20):
        assert connection.execute("PING")


def test_a_closed_connection_can_be_used_again(connection: RedisConnection) -> None:
    """Closing is for letting go of sockets, not the end."""
    for _ in range(2):
        assert connection.execute("PING")
        connection.close()
    connection.close()


def test_a_child_has_connections_of_its_own(connection: RedisConnection) -> None:
    """After a fork neither process reads the other's replies."""
    before = connection.execute("CLIENT", "ID")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads; this child starts none
        child = os.fork()
    if child == 0:
        is_new = connection.execute("CLIENT", "ID") != before
        os._exit(0 if is_new else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert connection.execute("CLIENT", "ID") == before


def test_a_failover_is_followed() -> None:
    """With Sentinel the replica that was promoted is found, and what was written is there."""
    sentinel = Sentinel(a_binary())
    with started(sentinel), closing(RedisConnection(sentinel.url)) as connection:
        connection.execute("SET", "key", "value")
        assert connection.execute("WAIT", 1, int(LONG * 1000)) == 1
        sentinel.fail_over()
        wait_until(is_back(connection), "the new master")
        assert connection.execute("GET", "key") == "value"
        assert connection.execute("SET", "key", "other")


def test_a_replica_is_no_place_to_write() -> None:
    """What would be lost is refused, and the error says what to do."""
    with (
        server_with(tcp=True) as master,
        server_with("--replicaof", "127.0.0.1", str(master.port)) as replica,
        closing(RedisConnection(replica.url)) as connection,
    ):
        with pytest.raises(ServicesUnavailable, match="read-only replica"):
            connection.execute("SET", "key", "value")
        with pytest.raises(ServicesUnavailable, match="read-only replica"):
            connection.run(Script("raise_version"), ["key"], [1])


def test_a_full_server_takes_no_writes() -> None:
    """With ``noeviction``; the error names the setting."""
    with server_with() as server, closing(RedisConnection(server.url)) as connection:
        connection.execute("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(ServicesUnavailable, match="maxmemory"):
            connection.execute("SET", "key", "value")
        with pytest.raises(ServicesUnavailable, match="maxmemory"):
            connection.run(Script("raise_version"), ["key"], [1])
        connection.execute("CONFIG", "SET", "maxmemory", "0")
        assert connection.execute("SET", "key", "value")


def test_a_password_is_used_and_its_lack_explained() -> None:
    """Missing, wrong and right; never shown."""
    with server_with() as server:
        path = str(server.socket_path)
        with server.client() as client:
            client.config_set("requirepass", PASSWORD)
        for url, said in (
            (f"unix://{path}", "has none"),
            (f"unix://:wrong{PASSWORD}@{path}", "does not accept"),
        ):
            with closing(RedisConnection(url)) as connection:
                with pytest.raises(ServicesUnavailable, match=said) as refused:
                    connection.execute("SET", "key", "value")
                assert PASSWORD not in str(refused.value)
        with closing(RedisConnection(f"unix://:{PASSWORD}@{path}")) as connection:
            assert connection.execute("SET", "key", "value")


def test_a_server_that_evicts_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """It would delete records when its memory is full."""
    with (
        server_with("--maxmemory-policy", "allkeys-lru") as server,
        closing(RedisConnection(server.url)) as connection,
    ):
        for _ in range(3):
            connection.execute("PING")
    warned = [record.getMessage() for record in caplog.records if "allkeys-lru" in record.getMessage()]
    assert len(warned) == 1
    assert "noeviction" in warned[0]


def test_a_server_that_is_too_old_is_named(
    connection: RedisConnection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the versions that would do; in the log once."""
    for name in ("Redis", "Valkey"):
        monkeypatch.setitem(redis_connection.OLDEST, name, (999, 9))
    for _ in range(3):
        with pytest.raises(ServicesUnavailable, match=r"too old: it must be at least Redis 999\.9"):
            connection.execute("PING")
    assert len(caplog.records) == 1


def test_a_server_that_is_gone_is_started_again(one_redis_server: Running) -> None:
    """By whoever was named for that; meanwhile callers are told at once."""
    restarted = threading.Event()

    def restart() -> None:
        one_redis_server.start()
        restarted.set()

    with closing(RedisConnection(one_redis_server.url, restart=restart)) as connection:
        connection.execute("PING")
        one_redis_server.kill()
        with pytest.raises(ServicesUnavailable):
            connection.execute("PING")
        assert restarted.wait(LONG)
        wait_until(is_back(connection), "Redis")


@pytest.mark.usefixtures("no_leaks")
def test_a_closed_connection_leaves_no_descriptors(redis_url: str) -> None:
    """Whatever kind of server it led to."""
    with closing(RedisConnection(redis_url)) as connection:
        connection.execute("GET", "key")
