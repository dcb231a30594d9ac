"""The body of a response as urllib3 reads it: the part of ``http.client.HTTPResponse`` that it uses.

urllib3's own ``HTTPResponse`` stands on top, so decoding, length checks and error mapping stay urllib3's.
What is raised here is what a socket would raise: :exc:`TimeoutError`, :exc:`http.client.IncompleteRead`.
"""

from __future__ import annotations

import http.client
import time
from typing import TYPE_CHECKING

from .pipe import ReaderGone

if TYPE_CHECKING:
    from .exchange import Exchange
    from .head import Head

__all__ = ["ResponseBody"]


class ResponseBody:
    """Reads one exchange's body. Given up (closed, or collected) before its end, it cancels the exchange.

    ``timeout`` is what each wait may take, in seconds; a body that ends before its ``Content-Length`` raises,
    unless ``strict`` is false; one that the app broke off always does.
    """

    def __init__(
        self, exchange: Exchange, head: Head, *, method: str, timeout: float | None, strict: bool
    ) -> None:
        self._exchange: Exchange | None = exchange
        self._channel = exchange.channel
        self._headers = head.headers
        self._left = head.length
        self._method = method  # read by urllib3 as that of the "original response"
        self._strict = strict
        self._shut = False
        self._message: http.client.HTTPMessage | None = None
        self.timeout = timeout
        if head.length == 0:
            self._finish()

    def __del__(self) -> None:
        exchange = getattr(self, "_exchange", None)
        if exchange is not None:
            exchange.cancel()

    @property
    def closed(self) -> bool:
        """Whether nothing more can be read: it is at its end, or was closed."""
        return self._exchange is None

    def isclosed(self) -> bool:
        """As ``http.client.HTTPResponse.isclosed()``."""
        return self._exchange is None

    @property
    def msg(self) -> http.client.HTTPMessage:
        """The headers as ``http.client`` has them; cookie jars read them here."""
        if self._message is None:
            self._message = http.client.HTTPMessage()
            for name, value in self._headers:
                self._message[name] = value
        return self._message

    def fileno(self) -> int:
        """A descriptor that is readable while there is something to read, or the end."""
        if self._exchange is None:
            raise ValueError("The response is at its end or closed; it has no descriptor any more.")
        return self._channel.fileno()

    def flush(self) -> None:
        """Nothing is buffered for writing."""

    def take_whole(self) -> bytes | None:
        """All of it, if it has all arrived and nothing is wrong with it; else ``None``, and nothing is taken."""
        if self._exchange is None:
            return b""
        data = self._exchange.whole_body()
        if data is not None:
            self._exchange = None
        return data

    def read(self, amount: int | None = None) -> bytes:
        """``amount`` bytes, or all; fewer at the end. Waits for them."""
        parts: list[bytes] = []
        wanted = -1 if amount is None else amount
        while wanted != 0:
            part = self.read1(wanted)
            if not part:
                break
            parts.append(part)
            if wanted > 0:
                wanted -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def drain(self, limit: int, seconds: float) -> None:
        """Drop the rest, at most ``limit`` bytes within ``seconds``; then close."""
        deadline = time.monotonic() + seconds
        try:
            while limit > 0 and (remaining := deadline - time.monotonic()) > 0:
                self.timeout = remaining if self.timeout is None else min(self.timeout, remaining)
                data = self.read1(limit)
                if not data:
                    break
                limit -= len(data)
        except (TimeoutError, http.client.IncompleteRead):
            pass
        self.close()

    def read1(self, amount: int | None = None) -> bytes:
        """What has arrived, at most ``amount`` bytes; waits for the first of it. Empty at the end, or when
        closed.
        """
        channel = self._channel
        limit = None if amount is None or amount < 0 else amount
        while self._exchange is not None and limit != 0:
            if data := channel.take(limit):
                if self._left is not None:
                    self._left -= len(data)
                    if not self._left:
                        self._finish()
                return data
            if channel.drained or channel.abandoned:
                self._end()
            elif not channel.wait(self.timeout):
                self.close()
                raise TimeoutError("timed out")
        return b""

    def _end(self) -> None:
        error = self._channel.error
        self._finish()
        if self._shut:
            raise http.client.IncompleteRead(b"", self._left)
        if error is not None and not isinstance(error, ReaderGone) and (self._strict or not self._left):
            raise http.client.IncompleteRead(b"", self._left) from error

    def _finish(self) -> None:
        self._exchange = None
        self._channel.close_doorbell()

    def shutdown(self, _how: int = 0) -> None:
        """End it from another thread: one that waits in a read is woken, and gets an incomplete read."""
        exchange = self._exchange
        if exchange is not None:
            self._shut = True
            exchange.cancel()

    def close(self) -> None:
        """Stop reading; before the end, this cancels the exchange."""
        exchange = self._exchange
        if exchange is not None:
            exchange.cancel()
            self._exchange = None
