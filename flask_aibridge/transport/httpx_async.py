"""The async half of what the faces for httpx and httpx2 share. No thread waits for a body: a task does."""

from __future__ import annotations

import http.client
from collections.abc import AsyncIterator, Callable
from typing import Any

from .exchange import Exchange
from .head import Head
from .httpx_family import Face, patience
from .mounted import MountedApp
from .pipe import Channel, ReaderGone
from .request_body import InMemoryInput, StreamedInput
from .sleeping import Wake, sleeper

__all__ = ["AsyncBody", "AsyncFace"]


class AsyncFace(Face):
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
        if not await _take_slot(self._mounted, patience(timeouts)):
            raise self._no_slot(timeouts)
        if content is not None:
            exchange = self._begin(environ, InMemoryInput(content))
        else:
            exchange = await self._begin_and_send(environ, request.stream, timeouts.get("write"))
        body = AsyncBody(exchange, timeouts.get("read"), self._broken)
        try:
            head = await body.await_head()
        except OSError as error:
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
                if (channel.ended or channel.abandoned) and exchange.head is None:  # as in Exchange
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
            while (exchange := self._exchange) is not None:
                channel = exchange.channel
                if data := channel.take():
                    if self._left is not None:
                        self._left -= len(data)
                        if not self._left:
                            self._exchange = None
                    yield data
                elif channel.drained or channel.abandoned:
                    self._end(channel)
                else:
                    await self._sleep(channel)
        except (OSError, http.client.IncompleteRead) as error:
            raise self._broken(error) from error

    async def _sleep(self, channel: Channel) -> None:
        try:
            await self._sleeper.sleep(channel.want_news, channel.forget_wake, self._timeout)
        except BaseException:
            self.close()
            raise

    def _end(self, channel: Channel) -> None:
        self._exchange = None
        if channel.error is not None:
            raise http.client.IncompleteRead(b"", self._left) from channel.error

    def close(self) -> None:
        """Stop reading; before the end, this cancels the exchange."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel()

    async def aclose(self) -> None:
        """As :meth:`close`."""
        self.close()


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
