"""The one seam to the providers: a request goes out, a status, headers and a body that can be stopped come
back.

The bridge neither retries nor follows redirects: the SDKs in front of it do, and both together would
multiply. A body is read as it comes. A caller that gives up is felt at once, also while the provider has not
answered yet: shutting the socket down wakes whoever waits on it.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, ReadTimeoutError

from flask_aibridge.bridge.caller import Cancellation
from flask_aibridge.errors import AIBridgeError

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

READ_SIZE = 64 * 1024
"""At most so much is taken from the socket at a time; a read returns as soon as there is anything."""


class UpstreamFailure(AIBridgeError):
    """The provider could not be reached, or its answer broke off. The message is for operators, not for
    callers."""


class UpstreamBroken(UpstreamFailure):
    """The answer broke off before its end."""


class UpstreamTimeout(UpstreamFailure):
    """The provider was silent for the whole read timeout."""


class UpstreamCancelled(UpstreamFailure):
    """The caller gave up, and the exchange was stopped on their behalf."""


class Switch:
    """Stops one exchange from any thread.

    The lock is re-entrant because a garbage collection, in whatever thread it happens to run, may be what
    throws it.
    """

    def __init__(self) -> None:
        self.thrown = False
        self.attached = False
        self._lock = threading.RLock()
        self._stop: Callable[[], object] | None = None

    def attach(self, stop: Callable[[], object]) -> None:
        """Have ``stop`` called when the switch is thrown; raises ``UpstreamCancelled`` if it has been."""
        with self._lock:
            self._stop, self.attached = stop, True
        if self.thrown:
            raise UpstreamCancelled("the caller gave up before the provider was asked")

    def detach(self) -> None:
        """Stop nothing from here on: the connection belongs to somebody else."""
        with self._lock:
            self._stop = None

    def throw(self) -> None:
        """Stop the exchange now."""
        with self._lock:
            self.thrown = True
            if self._stop is not None:
                self._stop()


_current: ContextVar[Switch | None] = ContextVar("flask_aibridge_switch", default=None)
"""Carries the switch through ``PoolManager.urlopen``, which has no argument for it, to the connection it
picks."""


class _Connection(HTTPConnection):
    switch: Switch | None = None

    def connect(self) -> None:
        super().connect()
        if self.switch is not None:
            self.switch.attach(_stopper(self.sock))


class _TLSConnection(HTTPSConnection):
    switch: Switch | None = None

    def connect(self) -> None:
        super().connect()
        if self.switch is not None:
            self.switch.attach(_stopper(self.sock))


class _Switched(HTTPConnectionPool):
    """A connection pool that attaches each connection to the exchange it is used for, and to no other."""

    def _make_request(self, conn: Any, *args: Any, **kwargs: Any) -> Any:
        conn.switch = switch = _current.get()
        if switch is not None and conn.sock is not None:
            switch.attach(_stopper(conn.sock))
        return super()._make_request(conn, *args, **kwargs)

    def _put_conn(self, conn: Any) -> None:
        if conn is not None and conn.switch is not None:
            conn.switch.detach()
            conn.switch = None
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


class Answer:
    """A provider's answer: its head, and its body as it arrives."""

    def __init__(
        self, response: urllib3.BaseHTTPResponse, switch: Switch, forget: Callable[[], None]
    ) -> None:
        self.status = response.status
        self.reason = response.reason or ""
        self.headers = list(response.headers.items())
        self._response = response
        self._switch = switch
        self._forget = forget

    def read(self) -> bytes:
        """Return the bytes that have arrived, waiting for the first; none at all means the body is whole.

        Raises ``UpstreamBroken`` for a body that broke off, ``UpstreamTimeout`` after a silence,
        ``UpstreamCancelled`` when the caller has given up.
        """
        try:
            data = self._response.read1(READ_SIZE)
        except Exception as error:
            raise _failure(error, self._switch, UpstreamBroken) from error
        if self._switch.thrown:
            # A socket that was shut down can look like the end of a body that has no length.
            raise UpstreamCancelled("the caller gave up")
        if not data:
            self._let_go()
        return data

    def close(self) -> None:
        """Give the connection back if the body was read to its end, and close it otherwise."""
        self._let_go()
        self._response.close()
        self._response.release_conn()

    def _let_go(self) -> None:
        self._switch.detach()
        self._forget()


class Upstream:
    """Sends requests to providers through one pool; see ``UpstreamPool`` for the default.

    A pool of another kind uses its own timeouts, and an exchange on it can be stopped once the head has
    arrived.
    """

    def __init__(self, pool: urllib3.PoolManager | None = None) -> None:
        self._given = pool
        self._pool = pool if pool is not None else UpstreamPool()
        self._pid = os.getpid()

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        cancellation: Cancellation | None = None,
    ) -> Answer:
        """Send one request and return the answer's head, with the body still to be read.

        Raises ``UpstreamTimeout`` when no head came in time, ``UpstreamCancelled`` when the caller gave up
        before it did, and ``UpstreamFailure`` when the provider cannot be reached. The answer must be closed.
        """
        switch = Switch()
        forget = cancellation.on_cancel(switch.throw) if cancellation is not None else _nothing
        try:
            response = self._exchange(switch, method, url, headers, body)
            answer = Answer(response, switch, forget)
        except BaseException as error:
            switch.detach()
            forget()
            if not isinstance(error, Exception):
                raise
            raise _failure(error, switch) from error
        return answer

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.clear()

    def _exchange(
        self, switch: Switch, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> urllib3.BaseHTTPResponse:
        token = _current.set(switch)
        try:
            response = self._live_pool().urlopen(
                method,
                url,
                body=body or (None if method in ("GET", "HEAD", "DELETE") else b""),
                headers=headers,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        finally:
            _current.reset(token)
        if not switch.attached:
            _attach_late(switch, response)
        return response

    def _live_pool(self) -> urllib3.PoolManager:
        # Connections must not be shared with the process that this one was forked from: two would read one stream.
        if self._pid != os.getpid():
            self._pid = os.getpid()
            if self._given is None:
                self._pool = UpstreamPool()
            else:
                self._pool.clear()
        return self._pool


def _failure(
    error: Exception, switch: Switch, kind: type[UpstreamFailure] = UpstreamFailure
) -> UpstreamFailure:
    if switch.thrown or isinstance(error, UpstreamCancelled):
        return UpstreamCancelled("the caller gave up")
    described = f"{type(error).__name__}: {error}"
    if isinstance(error, ReadTimeoutError):
        return UpstreamTimeout(described)
    if isinstance(error, (HTTPError, OSError)):
        return kind(described)
    raise error


def _attach_late(switch: Switch, response: urllib3.BaseHTTPResponse) -> None:
    def stop() -> None:
        with suppress(RuntimeError, ValueError, OSError):  # it has been read to its end, or closed
            response.shutdown()

    try:
        switch.attach(stop)
    except UpstreamCancelled:
        response.close()
        raise


def _stopper(sock: Any) -> Callable[[], None]:
    def stop() -> None:
        with suppress(OSError):  # it has been closed
            if isinstance(sock, socket.socket):
                # Not `sock.shutdown`: that of an SSLSocket drops its TLS state under the thread that is reading.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            else:
                sock.shutdown(socket.SHUT_RDWR)

    return stop


def _nothing() -> None:
    return
