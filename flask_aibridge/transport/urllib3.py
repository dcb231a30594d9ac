"""The face for urllib3: a ``PoolManager`` whose connections call a WSGI app.

Only the connection is replaced; pools, retries, redirects, timeouts and responses are urllib3's own classes.
So the exceptions are urllib3's too, by phase: nothing was called yet → ``NewConnectionError`` or
``ConnectTimeoutError``; no head in time → ``ReadTimeoutError``; a body that breaks off → ``ProtocolError``.
"""

from __future__ import annotations

import http.client
import re
import weakref
from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import urllib3
from urllib3 import HTTPHeaderDict
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import (
    ClosedPoolError,
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ReadTimeoutError,
)
from urllib3.poolmanager import SSL_KEYWORDS, PoolManager
from urllib3.response import BaseHTTPResponse, HTTPResponse
from urllib3.util.retry import Retry
from urllib3.util.timeout import Timeout

from .doorbell import Doorbell
from .exchange import Exchange
from .framing import framed, header_pairs, limited
from .head import Head
from .mounted import MountedApp
from .pipe import Channel, ReaderGone
from .request_body import InMemoryInput, StreamedInput
from .response_body import ResponseBody

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["WSGIConnection", "WSGIConnectionPool", "WSGIPoolManager", "WSGIResponse"]

_USER_AGENT: Final = f"python-urllib3/{urllib3.__version__}"  # type: ignore[attr-defined]  # public, if not exported

# Pools looked up before, by what they were asked for. Bounded, since every host is served; past the bound it
# is emptied.
_POOLS_KNOWN_MAX: Final = 64


# A URL that urllib3.util.parse_url() would leave as it is: nothing to encode, to lower, or to resolve ("/."
# is the start of a dot segment). Most are; whatever else looks different is left to urllib3.
_is_normal_url = re.compile(
    r"(https?)://([a-z0-9][a-z0-9.-]*)(?::([1-9][0-9]{0,3}|[1-5][0-9]{4}))?"
    r"((?:/(?!\.)[A-Za-z0-9_~!$&'()*+,;=:@.-]*)*)(\?[A-Za-z0-9_~!$&'()*+,;=:@./?-]*)?"
).fullmatch

# What a request may come with to be tried without urllib3's preparations for a second one.
_PLAIN: Final = frozenset(("body", "headers", "retries", "timeout", "preload_content", "decode_content"))
_WHOLE: Final = (bytes, str, type(None))


class WSGIResponse(HTTPResponse):
    """urllib3's response; ``stream()`` hands out what has arrived instead of waiting to fill ``amt`` bytes."""

    def __init__(self, head: Head, body: ResponseBody, request: _Request) -> None:
        super().__init__(
            body=cast(Any, body),
            headers=HTTPHeaderDict(head.headers),
            status=head.status,
            version=11,
            version_string="HTTP/1.1",
            reason=head.reason,
            preload_content=False,
            decode_content=request.decode_content,
            original_response=cast(Any, body),
            enforce_content_length=request.enforce_content_length,
            request_method=request.method,
            request_url=request.url,
            sock_shutdown=body.shutdown,
        )
        if request.preload_content:
            self._body = self._preloaded(body)

    def _preloaded(self, body: ResponseBody) -> bytes:
        if "content-encoding" in self.headers:
            return self.read(decode_content=self.decode_content)
        data = body.take_whole()
        if data is None:
            return self.read(decode_content=self.decode_content)
        self._fp_bytes_read = len(data)
        self.length_remaining = 0
        return data

    def stream(
        self, amt: int | None = 2**16, decode_content: bool | None = None
    ) -> Generator[bytes, None, None]:
        """Each batch of bytes as it arrives, at most ``amt`` of them at once; never empty."""
        if amt == 0:
            return
        while not self._exhausted():
            if data := self.read1(amt, decode_content=decode_content):
                yield data

    def _exhausted(self) -> bool:
        if not self.closed or len(self._decoded_buffer):
            return False
        return not getattr(self._decoder, "has_unconsumed_tail", False)


class _Request(NamedTuple):
    """What the response needs to know of its request."""

    method: str
    url: str
    preload_content: bool
    decode_content: bool
    enforce_content_length: bool


class WSGIConnection:
    """What urllib3 asks of a connection; each request is a call of the app.

    It has no state between requests, so it can be reused as soon as its response is there.
    """

    default_port = 80
    default_socket_options: tuple[()] = ()

    def __init__(self, mounted: MountedApp, scheme: str, host: str, port: int | None, **options: Any) -> None:
        self.host = host
        self.port = port
        self.timeout: float | None = Timeout.resolve_default_timeout(
            options.get("timeout", Timeout.DEFAULT_TIMEOUT)
        )
        self.blocksize: int = options.get("blocksize", 16384)
        self.source_address = None
        self.socket_options = None
        self.proxy = None
        self.proxy_config = None
        self.is_verified = True  # nothing on the way could listen
        self.proxy_is_verified = None
        self.has_connected_to_proxy = False
        self.is_closed = True
        self._mounted = mounted
        self._origin = mounted.mount.origin(scheme, host, port)
        self._exchange: Exchange | None = None
        # Weak: a response that is dropped half-read cancels its exchange, wherever its connection is by then.
        self._body: weakref.ref[ResponseBody] | None = None
        self._request = _Request("GET", "/", True, True, True)

    def __str__(self) -> str:
        return f"{type(self).__name__}(host={self.host!r}, port={self.port!r})"

    @property
    def is_connected(self) -> bool:
        """Whether it is open; there is no network that could have dropped it."""
        return not self.is_closed

    def set_tunnel(
        self, host: str, port: int | None = None, headers: Any = None, scheme: str = "http"
    ) -> None:
        """Refused: there is no proxy on the way to an app in this process."""
        raise ValueError("An in-process connection has no proxy to tunnel through; do not configure one.")

    def connect(self) -> None:
        """Open it; nothing has to be done for that."""
        self.is_closed = False

    def close(self) -> None:
        """Close it; an exchange that is under way is cancelled."""
        self.is_closed = True
        exchange, self._exchange = self._exchange, None
        body = None if self._body is None else self._body()
        self._body = None
        if exchange is not None:
            exchange.cancel()
        if body is not None:
            body.close()

    def request(
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        chunked: bool = False,
        preload_content: bool = True,
        decode_content: bool = True,
        enforce_content_length: bool = True,
    ) -> None:
        """Call the app in a worker thread, and send it the body. The first four arguments are positional for
        botocore.
        """
        self._request = _Request(method, url, preload_content, decode_content, enforce_content_length)
        pairs, skipped = header_pairs(headers)
        environ = self._origin.environ(method, url, pairs)
        if "HTTP_ACCEPT_ENCODING" not in environ and "accept-encoding" not in skipped:
            environ["HTTP_ACCEPT_ENCODING"] = "identity"
        if "HTTP_USER_AGENT" not in environ and "user-agent" not in skipped:
            environ["HTTP_USER_AGENT"] = _USER_AGENT
        if "host" in skipped:
            environ.pop("HTTP_HOST", None)
        content, parts = framed(environ, method, body, chunked=chunked, blocksize=self.blocksize)
        if parts is None:
            self._call(environ, InMemoryInput(content))
        else:
            self._call_and_send(environ, parts)

    def _call(self, environ: dict[str, Any], request_body: InMemoryInput | StreamedInput) -> None:
        """Have the app called. What fails here fails before it: nothing was invoked, so urllib3 may retry."""
        slots = self._mounted.slots
        if not slots.try_take() and not slots.take(self.timeout):
            raise ConnectTimeoutError(
                self,
                f"All {slots.limit} concurrent calls were taken for {self.timeout} seconds. Raise max_concurrency?",
            )
        doorbell: Doorbell | None = None
        try:
            doorbell = Doorbell()
            # Known before it starts, so that close() ends it wherever an interrupt comes.
            self._exchange = exchange = Exchange(self._mounted.app, environ, request_body, doorbell)
        except BaseException as error:
            slots.give_back()
            if doorbell is not None:
                doorbell.close()
            if isinstance(error, OSError):
                raise self._not_established(error) from error
            raise
        try:
            exchange.start(slots)
        except RuntimeError as error:
            raise self._not_established(error) from error
        self.is_closed = False
        self._body = None

    def _not_established(self, error: Exception) -> NewConnectionError:
        return NewConnectionError(
            cast("HTTPConnection", self), f"Failed to establish a new connection: {error}"
        )

    def _call_and_send(self, environ: dict[str, Any], parts: Iterable[bytes | str]) -> None:
        """Have the app called and send it the body from here, as it reads: in the caller's thread, as over a
        socket.
        """
        channel = Channel()
        try:
            self._call(environ, StreamedInput(channel))
            for part in limited(parts, environ.get("CONTENT_LENGTH")):
                channel.put(part, timeout=self.timeout)
        except ReaderGone:
            return  # the app has answered without reading all of it, as it may
        except BaseException as error:
            channel.end(error=error)
            if self._exchange is not None:
                self._exchange.cancel()
            raise
        channel.end()

    def getresponse(self) -> WSGIResponse:
        """The response, as soon as its head is committed. Raises :exc:`TimeoutError` after :attr:`timeout`
        seconds.
        """
        exchange = self._exchange
        if exchange is None:
            raise http.client.ResponseNotReady("getresponse() needs a request() before it.")
        head = exchange.await_head(self.timeout)
        request = self._request
        strict = request.enforce_content_length
        body = ResponseBody(exchange, head, method=request.method, timeout=self.timeout, strict=strict)
        self._exchange = None  # the body's from here on
        if not request.preload_content:
            self._body = weakref.ref(body)
        return WSGIResponse(head, body, request)


class _Attempt:
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
    ) -> _Attempt:
        """Make a request once, as :meth:`urlopen` would for the first time, and say what came of it."""
        if not isinstance(retries, Retry):
            retries = Retry.from_int(retries, redirect=False, default=self.retries)
        waits = self.timeout if timeout is Timeout.DEFAULT_TIMEOUT else self._get_timeout(timeout)
        if waits.total is not None:
            waits = waits.clone()
            waits.start_connect()
        conn: WSGIConnection = self._get_conn()
        attempt = _Attempt(retries)
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
            return conn.getresponse()
        except TimeoutError as error:
            raise ReadTimeoutError(self, target, f"Read timed out. (read timeout={conn.timeout})") from error

    def _make_request(self, conn: Any, method: str, url: str, *args: Any, **options: Any) -> BaseHTTPResponse:
        attempt: _Attempt | None = options.pop("attempt", None)
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


class WSGIPoolManager(PoolManager):
    """A :class:`urllib3.PoolManager` that sends every request, whatever its host, to ``wsgi_app`` in this
    process.

    :param wsgi_app: any WSGI app (PEP 3333). It is called in a worker thread, with a copy of the caller's
        context variables.
    :param script_name: where the app is mounted, as it sees it: ``SCRIPT_NAME``, such as ``/api``.
    :param path_prefix: put before the path of every request: ``PATH_INFO`` of ``/v1/x`` becomes
        ``/prefix/v1/x``.
    :param environ: merged into the environ of every request.
    :param max_concurrency: how many calls may run at once through this manager. Without it, all managers
        share the bound of the process, 1000. A caller past the bound waits for its connect timeout, then gets
        ``ConnectTimeoutError``.
    :param num_pools: and ``headers``, ``retries``, ``timeout``, ``block``, ``maxsize``: as for
        :class:`urllib3.PoolManager`.

    :raises TypeError: for an app that is not callable, or another parameter of the wrong type.
    :raises ValueError: for a mount point or bound that cannot be used.
    :raises RuntimeError: on Windows, whose pipes cannot be polled.
    """

    def __init__(
        self,
        wsgi_app: WSGIApplication,
        *,
        script_name: str = "",
        path_prefix: str = "",
        environ: Mapping[str, Any] | None = None,
        max_concurrency: int | None = None,
        num_pools: int = 10,
        headers: Mapping[str, str] | None = None,
        **connection_pool_kw: Any,
    ) -> None:
        super().__init__(num_pools, headers, **connection_pool_kw)
        self.mounted = MountedApp(
            wsgi_app,
            script_name=script_name,
            path_prefix=path_prefix,
            environ=environ,
            max_concurrency=max_concurrency,
        )
        self._known: dict[tuple[str | None, int | None, str | None], HTTPConnectionPool] = {}

    def __reduce__(self) -> Any:
        raise TypeError(
            "A WSGIPoolManager cannot be pickled: its app lives in this process. Make a new one where it is needed."
        )

    def request(
        self,
        method: str,
        url: str,
        body: Any = None,
        fields: Any = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        **urlopen_kw: Any,
    ) -> BaseHTTPResponse:
        """As :meth:`urllib3.PoolManager.request`."""
        if fields is not None or json is not None:
            return super().request(method, url, body, fields, headers, json, **urlopen_kw)
        if body is not None:
            urlopen_kw["body"] = body
        return self.urlopen(
            method.upper(), url, headers=self.headers if headers is None else headers, **urlopen_kw
        )

    def urlopen(  # type: ignore[override]  # as PoolManager's own, which differs from its base's
        self, method: str, url: str, redirect: bool = True, **kw: Any
    ) -> BaseHTTPResponse:
        """As :meth:`urllib3.PoolManager.urlopen`.

        The usual case (a URL seen before, a whole body, an answer that nothing follows) is done here, with
        the same steps but without working everything out anew: half of urllib3's time on a small request.
        Whatever else comes of the attempt is handed to urllib3's own code, which takes it as that of its
        first try.
        """
        if not (kw.keys() <= _PLAIN and type(kw.get("body")) in _WHOLE):
            return super().urlopen(method, url, redirect, **kw)
        match = _is_normal_url(url)
        if match is None:
            return super().urlopen(method, url, redirect, **kw)
        scheme, host, port, path, query = match.groups()
        pool = self.connection_from_host(host, None if port is None else int(port), scheme)
        if pool.block or not isinstance(pool, WSGIConnectionPool):
            return super().urlopen(method, url, redirect, **kw)
        if "headers" not in kw:
            kw["headers"] = self.headers
        attempt = pool.attempt(method, (path or "/") + (query or ""), **kw)
        response = attempt.settled()
        if response is not None:
            return response
        kw["headers"] = HTTPHeaderDict(kw["headers"])
        return super().urlopen(method, url, redirect, **kw, attempt=attempt)

    def connection_from_host(
        self,
        host: str | None,
        port: int | None = None,
        scheme: str | None = "http",
        pool_kwargs: dict[str, Any] | None = None,
    ) -> HTTPConnectionPool:
        """The pool for a host; every host leads to the app."""
        if pool_kwargs is not None:
            return super().connection_from_host(host, port, scheme, pool_kwargs)
        key = (host, port, scheme)
        pool = self._known.get(key)
        if pool is None or pool.pool is None:
            pool = super().connection_from_host(host, port, scheme)
            if len(self._known) >= _POOLS_KNOWN_MAX:
                self._known.clear()
            self._known[key] = pool
        return pool

    def _new_pool(
        self, scheme: str, host: str, port: int, request_context: dict[str, Any] | None = None
    ) -> HTTPConnectionPool:
        options = (self.connection_pool_kw if request_context is None else request_context).copy()
        for key in ("scheme", "host", "port", *SSL_KEYWORDS):
            options.pop(key, None)
        if options.get("blocksize") is None:
            options["blocksize"] = 16384
        return WSGIConnectionPool(self.mounted, scheme, host, port, **options)

    def clear(self) -> None:
        """Forget all pools; exchanges under way go on."""
        self._known.clear()
        super().clear()
