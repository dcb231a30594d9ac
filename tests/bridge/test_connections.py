"""Connections to the providers, while nobody uses them."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from urllib3.exceptions import ClosedPoolError

from flask_aibridge.bridge.connections import UpstreamPool


@pytest.fixture
def pool() -> Iterator[Any]:
    """That of one host; at most two connections of it stay open."""
    with ExitStack() as stack:
        manager = UpstreamPool(idle_connections=2)
        stack.callback(manager.clear)
        yield manager.connection_from_host("127.0.0.1", port=9, scheme="http")


@pytest.fixture
def ends() -> Iterator[list[socket.socket]]:
    """The providers' ends of connections."""
    made: list[socket.socket] = []
    yield made
    for end in made:
        end.close()


def connected(pool: Any, ends: list[socket.socket]) -> Any:
    connection = pool._new_conn()
    connection.sock, end = socket.socketpair()
    ends.append(end)
    return connection


@pytest.mark.usefixtures("no_leaks")
def test_the_last_one_is_used_first_and_the_first_is_closed(pool: Any, ends: list[socket.socket]) -> None:
    """The ones that have been idle for longest are the ones that are missed least."""
    connections = [connected(pool, ends) for _ in range(3)]
    for connection in connections:
        pool._put_conn(connection)
    assert connections[0].sock is None
    assert pool._get_conn() is connections[2]
    assert pool._get_conn() is connections[1]
    assert pool._get_conn() not in connections
    for connection in connections[1:]:
        connection.close()


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
def test_one_on_which_the_provider_has_spoken_or_left_is_closed(
    pool: Any, ends: list[socket.socket], said: bytes
) -> None:
    """It connects anew: what is there already answers no request."""
    connection = connected(pool, ends)
    pool._put_conn(connection)
    if said:
        ends[0].sendall(said)
    else:
        ends[0].close()
    assert pool._get_conn() is connection
    assert connection.sock is None


@pytest.mark.usefixtures("no_leaks")
def test_closing_closes_those_that_are_idle_and_those_that_come_back(
    pool: Any, ends: list[socket.socket]
) -> None:
    """Nobody can be given one afterwards."""
    idle, busy = connected(pool, ends), connected(pool, ends)
    pool._put_conn(idle)
    pool.close()
    pool._put_conn(busy)
    assert idle.sock is None
    assert busy.sock is None
    with pytest.raises(ClosedPoolError):
        pool._get_conn()


@pytest.mark.usefixtures("no_leaks")
def test_a_pool_that_is_given_up_closes_them(ends: list[socket.socket]) -> None:
    """As urllib3's own does."""
    manager = UpstreamPool()
    pool: Any = manager.connection_from_host("127.0.0.1", port=9, scheme="https")
    connection = connected(pool, ends)
    pool._put_conn(connection)
    del manager, pool
    gc.collect()
    assert connection.sock is None


@pytest.mark.usefixtures("no_leaks")
def test_a_pool_that_blocks_is_urllib3s_own(ends: list[socket.socket]) -> None:
    """Its queue is what is waited at."""
    manager = UpstreamPool(idle_connections=1, block=True)
    pool: Any = manager.connection_from_host("127.0.0.1", port=9, scheme="http")
    connection = pool._get_conn()
    pool._put_conn(connection)
    assert pool._get_conn() is connection
    pool._put_conn(None)  # what urllib3 gives back for one that broke
    assert pool._get_conn(timeout=0) is not connection
    pool._put_conn(connection)
    manager.clear()
