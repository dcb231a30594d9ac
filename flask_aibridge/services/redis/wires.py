"""Ways to send commands: a pool of connections to one server (or to the one that Sentinels name), and a cluster.

The settings are for a request path: what Redis does not do in a fraction of a second, it does not do.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final, Protocol

import redis
from redis import cluster as redis_cluster
from redis import sentinel as redis_sentinel
from redis.backoff import FullJitterBackoff, NoBackoff
from redis.connection import ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry

from flask_aibridge.services.redis.address import RedisAddress
from flask_aibridge.services.redis.faults import DROPPED, STEPPED_DOWN, why_unable
from flask_aibridge.services.redis.replies import read_replies
from flask_aibridge.services.redis.scripts import Command

# redis-py says little of the types of these.
ClusterNode: Any = redis_cluster.ClusterNode
RedisCluster: Any = redis_cluster.RedisCluster
Sentinel: Any = redis_sentinel.Sentinel

CONNECT_SECONDS: Final = 0.25
"""How long a connection may take to be made: a hundred times what it takes within a data centre."""

SOCKET_SECONDS: Final = 0.5
"""How long an answer may take: a hundred times what the slowest script takes."""

CONNECTIONS: Final = 32
"""Connections of one process: one for each thread of a busy server. It bounds what Redis sees of us, too."""

LISTENING: Final = 1
"""Connections beside those: one that waits for what is published."""

HEALTH_CHECK_SECONDS: Final = 30
"""A connection that was idle for so long is tried with a PING first: firewalls forget idle ones silently."""

BACKOFF_BASE: Final = 0.01
BACKOFF_CAP: Final = 0.05
"""Between which the wait before the one retry is drawn at random, so that not all processes come back at once."""


class CannotConnect(Exception):
    """No connection was made; ``__cause__`` is why. ``asked``: over an earlier one the commands were sent."""

    asked = False


class Wire(Protocol):
    """A way to send commands."""

    retries_itself: bool

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """The reply of each command, in one round trip where that is possible; errors that Redis answered are
        replies.

        :raises CannotConnect: where no connection was made.
        :raises Exception: one of ``redis_faults.AWAY``.
        """

    def listen(self, channel: str) -> Any:
        """A subscription of redis-py's to what is published on a channel: messages may be lost, and nothing is
        connected before the first is asked for."""

    def close(self) -> None:
        """Close every connection."""


class PoolWire:
    """One server, or the master that Sentinels name.

    It works below redis-py's client and pool, with redis-py's connections: what those two add to a call (a look at
    whether the connection is still good, metrics, generic encoding) takes as long as all the rest. A connection that
    has gone bad meanwhile is found out by using it. Scripts, which is what requests wait for, are sent and answered on
    the connection's socket itself, where redis-py has left one that is in use.
    """

    retries_itself = False

    def __init__(self, pool: ConnectionPool, sentinel: Any = None) -> None:
        self._pool: Any = pool
        self._sentinel = sentinel
        self._idle: list[Any] = []
        self._client: Any = redis.Redis(connection_pool=pool)
        self._parse: Any = self._client.parse_response

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        try:
            replies = self._on_socket(connection, commands) or self._by_redis_py(connection, commands)
        except BaseException:
            # Replies may be left unread, so nobody can use it again; and what broke it may have broken the others.
            connection.disconnect()
            self._pool.release(connection)
            self._drop_idle()
            raise
        self._idle.append(connection)
        return replies

    def _connect(self) -> Any:
        try:
            return self._pool.get_connection()
        except (redis.RedisError, OSError) as error:  # such as a database that there is not
            raise CannotConnect from error

    def _on_socket(self, connection: Any, commands: Sequence[Command]) -> list[Any] | None:
        """The replies of scripts; null for other commands, whose replies redis-py has forms for, and where the
        connection is to be made, or to be tried, first."""
        sock, now = connection._sock, monotonic()
        if sock is None or now >= connection.next_health_check:
            return None
        for command in commands:
            if command[0] != "EVALSHA":
                return None
        sock.sendall(packed(commands))
        replies = read_replies(sock, len(commands), connection._parser.parse_error)
        connection.next_health_check = now + HEALTH_CHECK_SECONDS
        for reply in replies:
            if isinstance(reply, Exception):
                self._look_at(reply)
        return replies

    def _by_redis_py(self, connection: Any, commands: Sequence[Command]) -> list[Any]:
        connection.send_packed_command([packed(commands)])
        return [self._reply(connection, command[0]) for command in commands]

    def _reply(self, connection: Any, name: Any) -> Any:
        try:
            return self._parse(connection, name)
        except redis.ResponseError as error:
            self._look_at(error)
            return error

    def _look_at(self, error: Exception) -> None:
        if why_unable(error) == STEPPED_DOWN:
            # Whoever has the address now is found by connecting anew.
            self._drop_idle()
            if self._sentinel is not None:
                raise redis.ConnectionError("The master has become a replica.") from error

    def _drop_idle(self) -> None:
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                connection.disconnect()
                self._pool.release(connection)

    def listen(self, channel: str) -> Any:
        return _subscribed(self._client.pubsub(ignore_subscribe_messages=True), channel)

    def close(self) -> None:
        self._drop_idle()
        self._pool.disconnect()
        for sentinel in self._sentinel.sentinels if self._sentinel else ():
            sentinel.close()


def packed(commands: Sequence[Command]) -> bytes:
    """Commands in the protocol's form: an array of bulk strings each."""
    # As one text, most of which is ASCII and as long as its bytes: half the cost of encoding each argument.
    parts = []
    for command in commands:
        parts.append(f"*{len(command)}\r\n")
        for argument in command:
            text = argument if type(argument) is str else str(argument)
            length = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
            parts.append(f"${length}\r\n{text}\r\n")
    return "".join(parts).encode("utf-8", "surrogatepass")


class ClusterWire:
    """A cluster: every command goes to the node of its key, one after another."""

    retries_itself = True

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        # redis-py takes no EVALSHA in a cluster's pipeline.
        return [self._reply(command) for command in commands]

    def _reply(self, command: Command) -> Any:
        try:
            if command[0] == "INFO":
                return self._cluster.execute_command(*command, target_nodes=RedisCluster.RANDOM)
            return self._cluster.execute_command(*command)
        except redis.exceptions.ClusterDownError:
            raise
        except (redis.ResponseError, redis.exceptions.ClusterError) as error:
            # The other cluster errors are of one slot that cannot be used now; the rest of the cluster can.
            return error

    def listen(self, channel: str) -> Any:
        return _subscribed(self._cluster.pubsub(ignore_subscribe_messages=True), channel)

    def close(self) -> None:
        self._cluster.close()


def _subscribed(subscription: Any, channel: str) -> Any:
    try:
        subscription.subscribe(channel)
    except BaseException:
        subscription.close()
        raise
    return subscription


def open_wire(address: RedisAddress) -> Wire:
    """The way to an address. Nothing is connected yet, but to a cluster, which is asked for its nodes.

    :raises CannotConnect: where the cluster cannot be asked.
    """
    if address.kind == "cluster":
        return _open_cluster(address)
    options = _options(address) | {"retry": Retry(NoBackoff(), 0), "db": address.database}
    if address.kind == "sentinel":
        return _open_sentinel(address, options)
    if address.kind == "unix":
        del options["socket_keepalive"]
        return PoolWire(
            ConnectionPool(UnixDomainSocketConnection, CONNECTIONS + LISTENING, path=address.path, **options)
        )
    host, port = address.nodes[0]
    if address.tls:
        return PoolWire(
            ConnectionPool(SSLConnection, CONNECTIONS + LISTENING, host=host, port=port, **options)
        )
    return PoolWire(ConnectionPool(max_connections=CONNECTIONS + LISTENING, host=host, port=port, **options))


def _options(address: RedisAddress) -> dict[str, Any]:
    """The settings of a connection to a data node."""
    return {
        "username": address.username,
        "password": address.password,
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": SOCKET_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": HEALTH_CHECK_SECONDS,
        "client_name": f"flask-aibridge:{os.getpid()}",
        "protocol": 2,
        "decode_responses": True,
        # What is no Unicode, such as a name with a lone surrogate, is stored as it is and read back the same.
        "encoding_errors": "surrogatepass",
        **_tls_options(address),
    }


def _tls_options(address: RedisAddress) -> dict[str, Any]:
    options: dict[str, Any] = {
        name: value for name, value in address.options.items() if name.startswith("ssl_")
    }
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = options["ssl_check_hostname"].lower() not in ("0", "false", "no")
    return options if address.tls else {}


def _open_sentinel(address: RedisAddress, options: dict[str, Any]) -> Wire:
    of_sentinels = {
        **options,
        "username": address.options.get("sentinel_username"),
        "password": address.options.get("sentinel_password"),
        "db": 0,
        "ssl": address.tls,
    }
    sentinel = Sentinel(list(address.nodes), sentinel_kwargs=of_sentinels)
    client = sentinel.master_for(
        address.service,
        **options,
        ssl=address.tls,
        max_connections=CONNECTIONS + LISTENING,
        check_connection=False,
    )
    return PoolWire(client.connection_pool, sentinel)


def _open_cluster(address: RedisAddress) -> Wire:
    options = _options(address)
    del options["health_check_interval"]  # redis-py has none for a cluster
    try:
        return ClusterWire(
            RedisCluster(
                startup_nodes=[ClusterNode(host, port) for host, port in address.nodes],
                retry=Retry(FullJitterBackoff(BACKOFF_CAP, BACKOFF_BASE), 1),
                max_connections=CONNECTIONS,
                ssl=address.tls,
                **options,
            )
        )
    except (*DROPPED, redis.exceptions.RedisClusterException, redis.ResponseError) as error:
        raise CannotConnect from error
