"""Connections to the providers: pooled, each attached to the one exchange that it is used for."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from flask_aibridge.bridge.received import ReceivedResponse
from flask_aibridge.bridge.switch import Switch, stopper

CONNECT_TIMEOUT = 10.0
"""Seconds to reach a provider. One that is up answers a SYN in well under one; TLS through a slow proxy takes
a few."""

READ_TIMEOUT = 600.0
"""Seconds between two reads, not for the whole answer: a stream may last for hours. Ten minutes is what the
providers' SDKs allow a blocking answer of a reasoning model."""

IDLE_CONNECTIONS = 64
"""Connections kept open per provider for the next request. More can be open at once; they are closed after
use."""

HOSTS = 64
"""Hosts whose connections are kept; a configuration has one to a few."""


class Line:
    """What an exchange knows of the connection that it was given: its switch stops what happens there, and
    ``response`` is what came back on it."""

    __slots__ = ("response", "switch")

    def __init__(self, switch: Switch) -> None:
        self.switch = switch
        self.response: ReceivedResponse | None = None


current_line: ContextVar[Line | None] = ContextVar("flask_aibridge_line", default=None)
"""Carries the line through ``PoolManager.urlopen``, which has no argument for it, to the connection it picks."""


class _Attached(HTTPConnection):
    line: Line | None = None

    def connect(self) -> None:
        super().connect()
        if self.line is not None:
            self.line.switch.attach(stopper(self.sock))

    def response_class(self, sock: Any, debuglevel: int = 0, method: str | None = None) -> ReceivedResponse:  # type: ignore[override]
        response = ReceivedResponse(sock, debuglevel, method)
        if self.line is not None:
            self.line.response = response
        return response


class _Connection(_Attached):
    pass


class _TLSConnection(_Attached, HTTPSConnection):
    pass


class _Switched(HTTPConnectionPool):
    """A connection pool that attaches each connection to the exchange it is used for, and to no other."""

    def _make_request(self, conn: Any, *args: Any, **kwargs: Any) -> Any:
        conn.line = line = current_line.get()
        if line is not None and conn.sock is not None:
            line.switch.attach(stopper(conn.sock))
        return super()._make_request(conn, *args, **kwargs)

    def _put_conn(self, conn: Any) -> None:
        if conn is not None and conn.line is not None:
            conn.line.switch.detach()
            conn.line = None
        super()._put_conn(conn)


class _HTTPPool(_Switched):
    ConnectionCls = _Connection


class _HTTPSPool(_Switched, HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class UpstreamPool(urllib3.PoolManager):
    """A ``urllib3.PoolManager`` whose exchanges can be stopped while they wait for the head of the answer."""

    def __init__(
        self,
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        read_timeout: float = READ_TIMEOUT,
        idle_connections: int = IDLE_CONNECTIONS,
        **connection_pool_kw: Any,
    ) -> None:
        timeout = urllib3.Timeout(connect=connect_timeout, read=read_timeout)
        super().__init__(HOSTS, timeout=timeout, maxsize=idle_connections, **connection_pool_kw)
        self.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def clear(self) -> None:
        """Close the idle connections now; urllib3's own would leave that to the garbage collector."""
        pools = [self.pools.get(key) for key in self.pools.keys()]  # noqa: SIM118 - it refuses iteration
        super().clear()
        for pool in pools:
            if pool is not None:
                pool.close()
