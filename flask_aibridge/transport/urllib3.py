"""The face for urllib3: a ``PoolManager`` whose connections call a WSGI app.

Only the connection is replaced; pools, retries, redirects, timeouts and responses are urllib3's own classes. So the
exceptions are urllib3's too, by phase: nothing was called yet → ``NewConnectionError`` or ``ConnectTimeoutError``; no head in
time → ``ReadTimeoutError``; a body that breaks off → ``ProtocolError``.
"""

from __future__ import annotations

import http.client
from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import ClosedPoolError, ConnectTimeoutError, NewConnectionError
from urllib3.poolmanager import SSL_KEYWORDS, PoolManager
from urllib3.response import HTTPResponse
from urllib3.util.request import SKIP_HEADER, SKIPPABLE_HEADERS, body_to_chunks
from urllib3.util.timeout import Timeout

from .environ import header_text
from .exchange import Exchange, Head
from .mounted import MountedApp
from .pipe import Channel, Doorbell, ReaderGone
from .request_body import InMemoryInput, StreamedInput
from .response_body import ResponseBody

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["WSGIConnection", "WSGIConnectionPool", "WSGIPoolManager", "WSGIResponse"]

_USER_AGENT: Final = f"python-urllib3/{urllib3.__version__}"

# Pools looked up before, by what they were asked for. Bounded, since every host is served; past the bound it is emptied.
_POOLS_KNOWN_MAX: Final = 64


class WSGIResponse(HTTPResponse):
    """urllib3's response; ``stream()`` hands out what has arrived instead of waiting to fill ``amt`` bytes."""

    def stream(self, amt: int | None = 2**16, decode_content: bool | None = None) -> Generator[bytes, None, None]:
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


class WSGIConnection:
    """What urllib3 asks of a connection; each request is a call of the app.

    It has no state between requests, so it can be reused as soon as its response is there.
    """

    default_port = 80
    default_socket_options: tuple[()] = ()

    def __init__(self, mounted: MountedApp, scheme: str, host: str, port: int | None, **options: Any) -> None:
        self.host = host
        self.port = port
        self.timeout: Any = options.get("timeout", Timeout.DEFAULT_TIMEOUT)
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
        self._body: ResponseBody | None = None
        self._options = ("GET", "/", True, True, True)

    def __str__(self) -> str:
        return f"{type(self).__name__}(host={self.host!r}, port={self.port!r})"

    @property
    def is_connected(self) -> bool:
        """Whether it is open; there is no network that could have dropped it."""
        return not self.is_closed

    def set_tunnel(self, host: str, port: int | None = None, headers: Any = None, scheme: str = "http") -> None:
        """Refused: there is no proxy on the way to an app in this process."""
        raise ValueError("An in-process connection has no proxy to tunnel through; do not configure one.")

    def connect(self) -> None:
        """Open it; nothing has to be done for that."""
        self.is_closed = False

    def close(self) -> None:
        """Close it; an exchange that is under way is cancelled."""
        self.is_closed = True
        exchange, self._exchange = self._exchange, None
        body, self._body = self._body, None
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
        """Call the app in a worker thread, and send it the body. The first four arguments are positional for botocore."""
        self._options = (method, url, preload_content, decode_content, enforce_content_length)
        pairs, skipped = _header_pairs(headers)
        environ = self._origin.environ(method, url, pairs)
        if "HTTP_ACCEPT_ENCODING" not in environ and "accept-encoding" not in skipped:
            environ["HTTP_ACCEPT_ENCODING"] = "identity"
        if "HTTP_USER_AGENT" not in environ and "user-agent" not in skipped:
            environ["HTTP_USER_AGENT"] = _USER_AGENT
        if "host" in skipped:
            environ.pop("HTTP_HOST", None)
        content, parts = _framed(environ, method, body, chunked=chunked, blocksize=self.blocksize)
        if parts is None:
            self._call(environ, InMemoryInput(content))
        else:
            self._call_and_send(environ, parts)

    def _call(self, environ: dict[str, Any], request_body: InMemoryInput | StreamedInput) -> None:
        """Have the app called. What fails here fails before it: nothing was invoked, so urllib3 may retry."""
        slots = self._mounted.slots
        if not slots.try_take() and not slots.take(self.timeout):
            raise ConnectTimeoutError(
                self, f"All {slots.limit} concurrent calls are taken. (connect timeout={self.timeout}) Raise max_concurrency?"
            )
        try:
            doorbell = Doorbell()
        except OSError as error:
            slots.give_back()
            raise self._not_established(error) from error
        exchange = Exchange(self._mounted.app, environ, request_body, doorbell)
        try:
            exchange.start(slots)
        except RuntimeError as error:
            exchange.channel.abandon()
            raise self._not_established(error) from error
        self.is_closed = False
        self._body = None
        self._exchange = exchange

    def _not_established(self, error: Exception) -> NewConnectionError:
        return NewConnectionError(cast("HTTPConnection", self), f"Failed to establish a new connection: {error}")

    def _call_and_send(self, environ: dict[str, Any], parts: Iterable[bytes | str]) -> None:
        """Have the app called and send it the body from here, as it reads: in the caller's thread, as over a socket."""
        channel = Channel()
        self._call(environ, StreamedInput(channel))
        exchange = self._exchange
        try:
            for part in _limited(parts, environ.get("CONTENT_LENGTH")):
                channel.put(part, timeout=self.timeout)
        except ReaderGone:
            return  # the app has answered without reading all of it, as it may
        except BaseException as error:
            channel.end(error=error)
            if exchange is not None:
                exchange.cancel()
            raise
        channel.end()

    def getresponse(self) -> WSGIResponse:
        """The response, as soon as its head is committed. Raises :exc:`TimeoutError` after :attr:`timeout` seconds."""
        exchange = self._exchange
        if exchange is None:
            raise http.client.ResponseNotReady("getresponse() needs a request() before it.")
        head = _await_head(exchange, self.timeout)
        self._exchange = None
        method, url, preload, decode, strict = self._options
        body = ResponseBody(exchange, head, method=method, timeout=self.timeout, strict=strict)
        self._body = None if preload else body
        return _response(head, body, method, url, preload, decode, strict)


def _await_head(exchange: Exchange, timeout: float | None) -> Head:
    channel = exchange.channel
    try:
        while exchange.head is None:
            if channel.ended or channel.abandoned:
                raise http.client.RemoteDisconnected("The app ended without a response.")
            if not channel.wait(timeout, promptly=True):
                raise TimeoutError("timed out")
    except BaseException:
        exchange.cancel()
        raise
    return exchange.head


def _response(
    head: Head, body: ResponseBody, method: str, url: str, preload: bool, decode: bool, strict: bool
) -> WSGIResponse:
    response = WSGIResponse(
        body=cast(Any, body),
        headers=cast(Any, head.headers),
        status=head.status,
        version=11,
        version_string="HTTP/1.1",
        reason=head.reason,
        preload_content=preload,
        decode_content=decode,
        original_response=cast(Any, body),
        enforce_content_length=strict,
        request_method=method,
        request_url=url,
        sock_shutdown=body.shutdown,
    )
    return response


def _header_pairs(headers: Mapping[str, str] | None) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """The headers as pairs of text, and the lower-case names of those that must not get a default."""
    pairs: list[tuple[str, str]] = []
    skipped: tuple[str, ...] = ()
    for key, content in headers.items() if headers else ():
        name, value = header_text(key), header_text(content)
        if value != SKIP_HEADER:
            pairs.append((name, value))
        elif name.lower() in SKIPPABLE_HEADERS:
            skipped += (name.lower(),)
        else:
            allowed = "', '".join(sorted(SKIPPABLE_HEADERS))
            raise ValueError(f"urllib3.util.SKIP_HEADER only supports '{allowed}', not {name!r}.")
    return pairs, skipped


def _framed(
    environ: dict[str, Any], method: str, body: Any, *, chunked: bool, blocksize: int
) -> tuple[bytes, Iterable[bytes | str] | None]:
    """The body, whole or else in parts, with its framing put into ``environ``; a framing that the caller chose stays."""
    parts: Iterable[bytes | str] | None = None
    if type(body) is bytes:
        content: bytes | None = body
    else:
        parts, length = body_to_chunks(body, method=method, blocksize=blocksize)
        content = bytes(next(iter(parts))) if parts is not None and length is not None else None  # type: ignore[arg-type]
        if parts is None and length == 0:
            content = b""
    if chunked or "HTTP_TRANSFER_ENCODING" in environ:
        environ.setdefault("HTTP_TRANSFER_ENCODING", "chunked")
        environ.pop("CONTENT_LENGTH", None)
    elif "CONTENT_LENGTH" in environ:
        if content is not None:
            content = _clipped(content, int(environ["CONTENT_LENGTH"]))
    elif content is not None:
        environ["CONTENT_LENGTH"] = str(len(content))
    elif parts is not None:
        environ["HTTP_TRANSFER_ENCODING"] = "chunked"
    return (content or b"", None) if content is not None or parts is None else (b"", parts)


def _clipped(content: bytes, length: int) -> bytes:
    if len(content) < length:
        raise ValueError(f"Content-Length says {length} bytes, but the body has {len(content)}; leave the header out.")
    return content[:length]


def _limited(parts: Iterable[bytes | str], content_length: str | None) -> Iterable[bytes]:
    """``parts`` as bytes without empty ones, cut off at ``content_length``."""
    left = None if content_length is None else int(content_length)
    for part in parts:
        data = part.encode() if isinstance(part, str) else bytes(part)
        if left is not None:
            data = data[:left]
            left -= len(data)
        if data:
            yield data


class WSGIConnectionPool(HTTPConnectionPool):
    """A pool of connections to one app under one scheme, host and port. It warns of nothing: there is no TLS to miss."""

    def __init__(self, mounted: MountedApp, scheme: str, host: str, port: int | None = None, **options: Any) -> None:
        self.scheme = scheme
        self._mounted = mounted
        super().__init__(host, port, **options)
        self._idle: list[WSGIConnection] = []
        self._idle_max: int = options.get("maxsize", 1)

    def _new_conn(self) -> Any:
        self.num_connections += 1
        return WSGIConnection(
            self._mounted, self.scheme, self.host, self.port, timeout=self.timeout.connect_timeout, **self.conn_kw
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

    def close(self) -> None:
        """Close idle connections and refuse further requests."""
        super().close()
        while self._idle:
            self._idle.pop().close()


class WSGIPoolManager(PoolManager):
    """A :class:`urllib3.PoolManager` that sends every request, whatever its host, to ``wsgi_app`` in this process.

    :param wsgi_app: any WSGI app (PEP 3333). It is called in a worker thread, with a copy of the caller's context variables.
    :param script_name: where the app is mounted, as it sees it: ``SCRIPT_NAME``, such as ``/api``.
    :param path_prefix: put before the path of every request: ``PATH_INFO`` of ``/v1/x`` becomes ``/prefix/v1/x``.
    :param environ: merged into the environ of every request.
    :param max_concurrency: how many calls may run at once through this manager. Without it, all managers share the bound of
        the process, 1000. A caller past the bound waits for its connect timeout, then gets ``ConnectTimeoutError``.
    :param num_pools: and ``headers``, ``retries``, ``timeout``, ``block``, ``maxsize``: as for :class:`urllib3.PoolManager`.

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
        raise TypeError("A WSGIPoolManager cannot be pickled: its app lives in this process. Make a new one where it is needed.")

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
