"""One connection of urllib3's, and its response: each request is a call of the app."""

from __future__ import annotations

import http.client
import weakref
from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import urllib3
from urllib3 import HTTPHeaderDict
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.response import HTTPResponse
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
    from urllib3.connection import HTTPConnection

__all__ = ["WSGIConnection", "WSGIResponse"]

# What is read of a redirect's or a retried answer's body before it is cut off: some are pages, one might be endless.
DRAIN_BYTES: Final = 1024 * 1024
DRAIN_SECONDS: Final = 1.0

_USER_AGENT: Final = f"python-urllib3/{urllib3.__version__}"  # type: ignore[attr-defined]  # public, if not exported


class WSGIResponse(HTTPResponse):
    """urllib3's response; ``stream()`` hands out what has arrived instead of waiting to fill ``amt`` bytes."""

    def __init__(self, head: Head, body: ResponseBody, request: Request) -> None:
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
        # A decoder that waits for more says so only when it is told that nothing follows.
        if self._decoder and (data := self.read1(amt, decode_content=decode_content)):
            yield data

    def drain_conn(self) -> None:
        """Read and drop the rest, up to a bound; past it, close, which cancels the exchange.

        A connection has nothing to be drained of; what is waited for is the app, which may want to finish.
        """
        body = self._fp
        if isinstance(body, ResponseBody):
            body.drain(DRAIN_BYTES, DRAIN_SECONDS)
        super().drain_conn()

    def _exhausted(self) -> bool:
        if not self.closed or len(self._decoded_buffer):
            return False
        return not getattr(self._decoder, "has_unconsumed_tail", False)


class Request(NamedTuple):
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
        self._request = Request("GET", "/", True, True, True)

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
        self._request = Request(method, url, preload_content, decode_content, enforce_content_length)
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
