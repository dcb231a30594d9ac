"""What the faces for httpx and httpx2 share: the two libraries have one interface under two names.

The faces stand beside the one for urllib3, on the same exchange. Each names its library once, and everything
that a client sees (responses, streams, exceptions) is that library's own.
"""

from __future__ import annotations

import http.client
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final

from .exchange import Exchange
from .head import Head
from .mounted import MountedApp
from .pipe import Channel, ReaderGone
from .request_body import InMemoryInput, StreamedInput
from .response_body import ResponseBody
from .sleeping import Wake, sleeper
from .urllib3 import WSGIPoolManager

__all__ = ["AsyncFace", "SyncFace"]

# Hosts seen before. Bounded, since every host is served; past the bound it is emptied.
_ORIGINS_KNOWN_MAX: Final = 64


class _Face:
    """What the sync and the async face share: from their library's request to an environ, from a head to a
    response.
    """

    library: Any  # the module: httpx or httpx2

    def __init__(self, manager: WSGIPoolManager) -> None:
        if not isinstance(manager, WSGIPoolManager):
            raise TypeError(
                f"{type(self).__name__} takes a WSGIPoolManager, not {type(manager).__name__}: "
                "pass what transport_for() returned, or WSGIPoolManager(app)."
            )
        self._mounted: MountedApp = manager.mounted
        self._origins: dict[tuple[str, bytes, int | None], Any] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} to {self._mounted.app!r}>"

    def _environ(self, request: Any) -> dict[str, Any]:
        url = request.url
        key = (url.scheme, url.raw_host, url.port)
        origin = self._origins.get(key)
        if origin is None:
            if len(self._origins) >= _ORIGINS_KNOWN_MAX:
                self._origins.clear()
            self._check_url(url)
            origin = self._mounted.mount.origin(url.scheme, url.raw_host.decode("ascii"), url.port)
            self._origins[key] = origin
        try:
            environ: dict[str, Any] = origin.environ(
                request.method, url.raw_path.decode("ascii"), request.headers.raw
            )
        except ValueError as error:
            raise self.library.LocalProtocolError(str(error)) from error
        return environ

    def _check_url(self, url: Any) -> None:
        if url.scheme not in ("http", "https") or not url.host:
            raise self.library.UnsupportedProtocol(
                f"The URL must begin with http:// or https:// and a host; it is {str(url)!r}."
            )

    def _content(self, request: Any) -> bytes | None:
        """The request's body, where it is there as a whole."""
        try:
            content: bytes = request.content
        except self.library.RequestNotRead:
            return None
        return content

    def _begin(self, environ: dict[str, Any], request_body: InMemoryInput | StreamedInput) -> Exchange:
        """Start an exchange; a slot has been taken for it."""
        exchange = Exchange(self._mounted.app, environ, request_body)
        try:
            exchange.start(self._mounted.slots)
        except RuntimeError as error:
            raise self.library.ConnectError(f"Failed to establish a new connection: {error}") from error
        return exchange

    def _no_slot(self, timeouts: Mapping[str, float | None]) -> Exception:
        kind = self.library.ConnectTimeout
        if _patience(timeouts) != timeouts.get("connect"):
            kind = self.library.PoolTimeout
        error: Exception = kind(
            f"All {self._mounted.slots.limit} concurrent calls were taken for {_patience(timeouts)} seconds. "
            "Raise max_concurrency?"
        )
        return error

    def _no_head(self, error: Exception) -> Exception:
        mapped: Exception
        if isinstance(error, TimeoutError):
            mapped = self.library.ReadTimeout("The app sent no response in time.")
        else:
            mapped = self.library.RemoteProtocolError("The app ended without a response.")
        return mapped

    def _broken(self, error: Exception) -> Exception:
        mapped: Exception
        if isinstance(error, TimeoutError):
            mapped = self.library.ReadTimeout("The app sent nothing more in time.")
        else:
            mapped = self.library.RemoteProtocolError(
                "peer closed connection without sending complete message body (incomplete read)"
            )
        return mapped

    def _response(self, head: Head, stream: Any) -> Any:
        return self.library.Response(
            head.status,
            headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in head.headers],
            stream=stream,
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": head.reason.encode("latin-1")},
        )


class SyncFace(_Face):
    """A transport for the library's ``Client``."""

    stream_type: Any  # makes the library's stream of a SyncBody

    def handle_request(self, request: Any) -> Any:
        """Call the app; returns the library's response as soon as its head is committed.

        Raises the library's ``ConnectTimeout`` (no free slot), ``ConnectError`` (no thread), ``ReadTimeout``
        (no head in time), ``LocalProtocolError`` (a request that could not be sent).
        """
        timeouts = request.extensions.get("timeout", {})
        environ = self._environ(request)
        content = self._content(request)
        slots = self._mounted.slots
        if not slots.try_take() and not slots.take(_patience(timeouts)):
            raise self._no_slot(timeouts)
        if content is not None:
            exchange = self._begin(environ, InMemoryInput(content))
        else:
            exchange = self._begin_and_send(environ, request.stream, timeouts.get("write"))
        read_timeout = timeouts.get("read")
        try:
            head = exchange.await_head(read_timeout)
        except (TimeoutError, http.client.RemoteDisconnected) as error:
            raise self._no_head(error) from error
        whole = exchange.whole_body()
        if whole is not None:
            return self._response(head, self.library.ByteStream(whole))
        body = ResponseBody(exchange, head, method=request.method, timeout=read_timeout, strict=True)
        return self._response(head, self.stream_type(SyncBody(body, self._broken)))

    def _begin_and_send(
        self, environ: dict[str, Any], parts: Iterator[bytes], timeout: float | None
    ) -> Exchange:
        channel = Channel()
        exchange = self._begin(environ, StreamedInput(channel))
        try:
            for part in parts:
                if part:
                    channel.put(part, timeout=timeout)
        except ReaderGone:
            return exchange  # the app has answered without reading all of it, as it may
        except BaseException as error:
            channel.end(error=error)
            exchange.cancel()
            if isinstance(error, TimeoutError):
                raise self.library.WriteTimeout("The app did not read the request body in time.") from error
            raise
        channel.end()
        return exchange

    def close(self) -> None:
        """Nothing to close: exchanges belong to their responses."""


class SyncBody:
    """A response body as the library iterates it: what has arrived, as it arrives."""

    def __init__(self, body: ResponseBody, broken: Callable[[Exception], Exception]) -> None:
        self._body = body
        self._broken = broken

    def __iter__(self) -> Iterator[bytes]:
        read1 = self._body.read1
        try:
            while data := read1():
                yield data
        except (TimeoutError, http.client.IncompleteRead) as error:
            raise self._broken(error) from error

    def close(self) -> None:
        """Stop reading; before the end, this cancels the exchange."""
        self._body.close()


class AsyncFace(_Face):
    """A transport for the library's ``AsyncClient``, on asyncio or trio. No thread waits for a body."""

    stream_type: Any  # makes the library's stream of an AsyncBody

    async def handle_async_request(self, request: Any) -> Any:
        """Call the app; returns the library's response as soon as its head is committed; see
        :meth:`SyncFace.handle_request`.

        Cancelling the task cancels the exchange.
        """
        timeouts = request.extensions.get("timeout", {})
        environ = self._environ(request)
        content = self._content(request)
        if not await _take_slot(self._mounted, _patience(timeouts)):
            raise self._no_slot(timeouts)
        if content is not None:
            exchange = self._begin(environ, InMemoryInput(content))
        else:
            exchange = await self._begin_and_send(environ, request.stream, timeouts.get("write"))
        body = AsyncBody(exchange, timeouts.get("read"), self._broken)
        try:
            head = await body.await_head()
        except (TimeoutError, http.client.RemoteDisconnected) as error:
            raise self._no_head(error) from error
        whole = exchange.whole_body()
        return self._response(
            head, self.stream_type(body) if whole is None else self.library.ByteStream(whole)
        )

    async def _begin_and_send(
        self, environ: dict[str, Any], parts: AsyncIterator[bytes], seconds: float | None
    ) -> Exchange:
        channel = Channel()
        exchange = self._begin(environ, StreamedInput(channel))
        waiting = sleeper()
        try:
            async for part in parts:
                if part:
                    channel.put(part, hold=False)
                    while await waiting.sleep(channel.want_room, channel.forget_room_wake, seconds):
                        pass
        except ReaderGone:
            return exchange
        except BaseException as error:
            channel.end(error=error)
            exchange.cancel()
            if isinstance(error, TimeoutError):
                raise self.library.WriteTimeout("The app did not read the request body in time.") from error
            raise
        channel.end()
        return exchange

    async def aclose(self) -> None:
        """Nothing to close: exchanges belong to their responses."""


class AsyncBody:
    """A response body as the library iterates it, in a task: what has arrived, as it arrives."""

    def __init__(
        self, exchange: Exchange, timeout: float | None, broken: Callable[[Exception], Exception]
    ) -> None:
        self._exchange: Exchange | None = exchange
        self._timeout = timeout
        self._broken = broken
        self._sleeper = sleeper()
        self._left: int | None = None

    def __del__(self) -> None:
        exchange = getattr(self, "_exchange", None)
        if exchange is not None:
            exchange.cancel()

    async def await_head(self) -> Head:
        """The head, within the read timeout. Raises :exc:`TimeoutError`,
        :exc:`http.client.RemoteDisconnected`.
        """
        exchange = self._exchange
        if exchange is None:
            raise http.client.RemoteDisconnected("The response is closed.")
        channel = exchange.channel
        try:
            while exchange.head is None:
                if channel.ended or channel.abandoned:
                    raise http.client.RemoteDisconnected("The app ended without a response.")
                await self._sleeper.sleep(channel.want_news, channel.forget_wake, self._timeout)
        except BaseException:
            self.close()
            raise
        self._left = exchange.head.length
        if self._left == 0:
            self._exchange = None
        return exchange.head

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while data := await self._next():
                yield data
        except (TimeoutError, http.client.IncompleteRead) as error:
            raise self._broken(error) from error

    async def _next(self) -> bytes:
        while (exchange := self._exchange) is not None:
            channel = exchange.channel
            if data := channel.take():
                if self._left is not None:
                    self._left -= len(data)
                    if not self._left:
                        self._exchange = None
                return data
            if channel.drained or channel.abandoned:
                self._exchange = None
                if channel.error is not None:
                    raise http.client.IncompleteRead(b"", self._left) from channel.error
                return b""
            try:
                await self._sleeper.sleep(channel.want_news, channel.forget_wake, self._timeout)
            except BaseException:
                self.close()
                raise
        return b""

    def close(self) -> None:
        """Stop reading; before the end, this cancels the exchange."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel()

    async def aclose(self) -> None:
        """As :meth:`close`."""
        self.close()


def _patience(timeouts: Mapping[str, float | None]) -> float | None:
    """Seconds to wait for a slot: it is the connection and its place in the pool in one."""
    limits = [limit for limit in (timeouts.get("connect"), timeouts.get("pool")) if limit is not None]
    return min(limits, default=None)


async def _take_slot(mounted: MountedApp, seconds: float | None) -> bool:
    slots = mounted.slots
    if slots.try_take():
        return True
    waiting: list[Wake] = []

    def want(wake: Wake) -> bool:
        waiting.append(wake)
        return slots.want(wake)

    def forget() -> bool:
        return slots.give_up(waiting[0])

    try:
        await sleeper().sleep(want, lambda: True, seconds)
    except BaseException as error:
        if not forget():
            slots.give_back()  # granted in the same moment
        if isinstance(error, TimeoutError):
            return False
        raise
    return True
