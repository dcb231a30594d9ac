"""A pool of urllib3's: its connections, and the first attempt at a request, which is most often the only one."""

from __future__ import annotations

import http.client
import logging
from collections.abc import Mapping
from typing import Any, cast

from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import ClosedPoolError, HTTPError, ReadTimeoutError
from urllib3.response import BaseHTTPResponse
from urllib3.util.retry import Retry
from urllib3.util.timeout import Timeout

from .connection import WSGIConnection, WSGIResponse
from .mounted import MountedApp

__all__ = ["Attempt", "WSGIConnectionPool"]

# urllib3's own: whoever turns its log on sees each request, by whichever way it went.
_urllib3_log = logging.getLogger("urllib3.connectionpool")


class Attempt:
    """What came of a first request: a response, or an error that urllib3's retry logic knows."""

    __slots__ = ("error", "response", "retries", "used")

    def __init__(self, retries: Retry) -> None:
        self.retries = retries
        self.response: WSGIResponse | None = None
        self.error: Exception | None = None
        self.used = False

    def settled(self) -> WSGIResponse | None:
        """The response, where no retry or redirect can follow it."""
        response, retries = self.response, self.retries
        if response is None or not 200 <= response.status < 300:
            return None
        # A subclass may want to retry whatever it likes.
        return None if retries.status_forcelist or type(retries) is not Retry else response


class WSGIConnectionPool(HTTPConnectionPool):
    """A pool of connections to one app under one scheme, host and port. It warns of nothing: there is no TLS
    to miss.
    """

    def __init__(
        self, mounted: MountedApp, scheme: str, host: str, port: int | None = None, **options: Any
    ) -> None:
        self.scheme = scheme
        self._mounted = mounted
        super().__init__(host, port, **options)
        self._idle: list[WSGIConnection] = []
        self._idle_max: int = options.get("maxsize", 1)

    def _new_conn(self) -> Any:
        self.num_connections += 1
        return WSGIConnection(
            self._mounted,
            self.scheme,
            self.host,
            self.port,
            timeout=self.timeout.connect_timeout,
            **self.conn_kw,
        )

    def _get_conn(self, timeout: float | None = None) -> Any:
        if self.block:
            return super()._get_conn(timeout)
        if self.pool is None:
            raise ClosedPoolError(self, "Pool is closed.")
        try:
            return self._idle.pop()
        except IndexError:
            return self._new_conn()

    def _put_conn(self, conn: Any) -> None:
        if self.block:
            super()._put_conn(conn)
        elif conn is not None:
            if self.pool is None:
                conn.close()
            elif len(self._idle) < self._idle_max:
                self._idle.append(conn)

    def attempt(
        self,
        method: str,
        target: str,
        *,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        retries: Retry | bool | int | None = None,
        timeout: Any = Timeout.DEFAULT_TIMEOUT,
        preload_content: bool = True,
        decode_content: bool = True,
    ) -> Attempt:
        """Make a request once, as :meth:`urlopen` would for the first time, and say what came of it."""
        if not isinstance(retries, Retry):
            retries = Retry.from_int(retries, redirect=False, default=self.retries)
        waits = self.timeout if timeout is Timeout.DEFAULT_TIMEOUT else self._get_timeout(timeout)
        if waits.total is not None:
            waits = waits.clone()
            waits.start_connect()
        conn: WSGIConnection = self._get_conn()
        attempt = Attempt(retries)
        try:
            response = self._exchange(
                conn, waits, method, target, body, headers, preload_content, decode_content
            )
        except (HTTPError, OSError, http.client.HTTPException) as error:
            conn.close()
            attempt.error = error
        except BaseException:
            conn.close()
            raise
        else:
            attempt.response = response
            if attempt.settled():
                response.retries = retries
                response._pool = self
                if preload_content:
                    self._put_conn(conn)
                else:
                    response._connection = cast(Any, conn)
                return attempt
        # urllib3 goes on with what came of it: it takes this connection for its own first try.
        self._idle.append(conn)
        return attempt

    def _exchange(
        self,
        conn: WSGIConnection,
        waits: Timeout,
        method: str,
        target: str,
        body: bytes | str | None,
        headers: Mapping[str, str] | None,
        preload_content: bool,
        decode_content: bool,
    ) -> WSGIResponse:
        self.num_requests += 1
        conn.timeout = Timeout.resolve_default_timeout(waits.connect_timeout)
        conn.request(
            method, target, body, headers, preload_content=preload_content, decode_content=decode_content
        )
        conn.timeout = waits.read_timeout
        if conn.timeout == 0:
            raise ReadTimeoutError(self, target, f"Read timed out. (read timeout={conn.timeout})")
        try:
            response = conn.getresponse()
        except TimeoutError as error:
            raise ReadTimeoutError(self, target, f"Read timed out. (read timeout={conn.timeout})") from error
        if _urllib3_log.isEnabledFor(logging.DEBUG):
            self._log_request(method, target, response)
        return response

    def _log_request(self, method: str, target: str, response: WSGIResponse) -> None:
        origin = (self.scheme, self.host, self.port)
        answer = (response.version_string, response.status, response.length_remaining)
        _urllib3_log.debug('%s://%s:%s "%s %s %s" %s %s', *origin, method, target, *answer)

    def _make_request(self, conn: Any, method: str, url: str, *args: Any, **options: Any) -> BaseHTTPResponse:
        attempt: Attempt | None = options.pop("attempt", None)
        if attempt is None or attempt.used:
            return super()._make_request(conn, method, url, *args, **options)
        attempt.used = True
        response = attempt.response
        if response is None:
            raise attempt.error or ConnectionError("The attempt had no outcome.")
        response.retries = options["retries"]
        response._connection = options["response_conn"]
        response._pool = self
        return response

    def close(self) -> None:
        """Close idle connections and refuse further requests."""
        super().close()
        while self._idle:
            self._idle.pop().close()
