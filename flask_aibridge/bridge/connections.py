"""Connections to the providers: pooled, each attached to the one exchange that it is used for."""

from __future__ import annotations

import select
import ssl
import weakref
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ClosedPoolError, SSLError
from urllib3.util import Url, parse_url
from urllib3.util.ssl_match_hostname import CertificateError

from flask_aibridge.bridge.direct import DirectResponse, receive_head, send
from flask_aibridge.bridge.heads import request_head
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
    """A connection pool that attaches each connection to the exchange it is used for, and to no other.

    Idle connections are on a list, the last one first: urllib3's queue, which can also wait, takes five times as long.
    """

    def __init__(self, host: str, port: int | None = None, **options: Any) -> None:
        super().__init__(host, port, **options)
        self._idle: list[Any] = []
        self._max_idle: int = options.get("maxsize", 1)
        weakref.finalize(self, _close_but, 0, self._idle)

    def _make_request(self, conn: Any, *args: Any, **kwargs: Any) -> Any:
        conn.line = line = current_line.get()
        if line is not None and conn.sock is not None:
            line.switch.attach(stopper(conn.sock))
        return super()._make_request(conn, *args, **kwargs)

    def exchange(
        self, line: Line, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> DirectResponse:
        """As ``urlopen``, on the connection's own socket; the response's body is still to be read."""
        conn: Any = self._get_conn()
        try:
            conn.line = line
            if conn.sock is None:
                self._connect(conn)
            else:
                line.switch.attach(stopper(conn.sock))
            if conn.sock.gettimeout() != self.timeout.read_timeout:
                conn.sock.settimeout(self.timeout.read_timeout)
            send(conn.sock, request_head(method, target, _host_of(conn), headers, body), body)
            return DirectResponse(conn, self, receive_head(conn.sock, method))
        except BaseException:
            conn.close()
            self._put_conn(conn)
            raise

    def _connect(self, conn: Any) -> None:
        conn.timeout = self.timeout.connect_timeout
        try:
            conn.connect()
            self._validate_conn(conn)
        except (ssl.SSLError, CertificateError) as error:
            raise SSLError(error) from error

    def _get_conn(self, timeout: float | None = None) -> Any:
        if self.block:
            return super()._get_conn(timeout)
        if self.pool is None:
            raise ClosedPoolError(self, "Pool is closed.")
        try:
            conn = self._idle.pop()
        except IndexError:
            return self._new_conn()
        if conn.sock is not None and _is_readable(conn.sock):
            conn.close()  # the provider has closed it, or said what nobody asked for
        return conn

    def _put_conn(self, conn: Any) -> None:
        if conn is not None and conn.line is not None:
            conn.line.switch.detach()
            conn.line = None
        if self.block:
            super()._put_conn(conn)  # nothing is a place that is free again: somebody may wait for it
        elif conn is not None:
            self._idle.append(conn)
            # Without a word, unlike urllib3: that there are too many is nothing that anybody has to look into.
            _close_but(0 if self.pool is None else self._max_idle, self._idle)

    def close(self) -> None:
        super().close()
        _close_but(0, self._idle)


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
        self._known: dict[tuple[str | None, str | None, int | None], Any] = {}

    def exchange(
        self, line: Line, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> DirectResponse:
        """Send one request and return the head of its answer; the body is still to be read."""
        parsed = _parsed(url)
        name = (parsed.scheme, parsed.host, parsed.port)
        pool: Any = self._known.get(name)
        if pool is None or pool.pool is None:  # it was closed to make room for another host's
            pool = self.connection_from_host(parsed.host, port=parsed.port, scheme=parsed.scheme)
            self._known[name] = pool
        response: DirectResponse = pool.exchange(line, method, parsed.request_uri, headers, body)
        line.response = response
        return response

    def clear(self) -> None:
        """Close the idle connections now; urllib3's own would leave that to the garbage collector."""
        pools = [self.pools.get(key) for key in self.pools.keys()]  # noqa: SIM118 - it refuses iteration
        super().clear()
        self._known.clear()
        for pool in pools:
            if pool is not None:
                pool.close()


def _close_but(most: int, idle: list[Any]) -> None:
    """Close the connections that have been idle for longest, but for so many of the others."""
    while len(idle) > most:
        with suppress(IndexError):  # another thread has taken it
            idle.pop(0).close()


def _is_readable(sock: Any) -> bool:
    # Not kept: a connection that is closed would leave it with a descriptor that is somebody else's by then.
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


@lru_cache(256)
def _parsed(url: str) -> Url:
    return parse_url(url)


def _host_of(conn: Any) -> str:
    """What goes into the Host header."""
    host = f"[{conn.host}]" if ":" in conn.host else conn.host
    return host if conn.port in (None, conn.default_port) else f"{host}:{conn.port}"
