"""A response whose body can be waited for a while, and a while longer, without losing any of it.

After a timeout neither ``http.client`` nor the buffered reader under it can be read again: what had arrived of a
chunk's size is gone, and the file refuses. So the head is read as ever, and the body from the socket itself, whose
timeouts cost nothing: what has arrived stays where it is, in the kernel or in the TLS layer.
"""

from __future__ import annotations

import http.client
import io
from typing import Any, Final

from flask_aibridge.bridge.chunked import BadChunk, Dechunker
from flask_aibridge.bridge.switch import UpstreamSilent

READ_SIZE: Final = 16 * 1024
"""At most so much is taken from the socket at a time; a read returns as soon as there is anything. It is the most that
one TLS record holds, and for short events measurably cheaper than more."""


class _Wire(io.RawIOBase):
    """A socket as a file, until it is ``parked``: then it has nothing for its reader, and does not look."""

    def __init__(self, sock: Any) -> None:
        self.parked = False
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        read: int | None = None if self.parked else self._file.readinto(buffer)
        return read

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._file.close()


class _Makefile:
    """What ``http.client.HTTPResponse`` takes for a socket."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._wire)


class ReceivedResponse(http.client.HTTPResponse):
    """A response whose body is read by ``receive``, once ``open_body`` was called, and by nothing else."""

    def __init__(self, sock: Any, debuglevel: int = 0, method: str | None = None, url: str | None = None):
        self._wire = _Wire(sock)
        super().__init__(_Makefile(self._wire), debuglevel, method, url)  # type: ignore[arg-type]
        self._begin(sock)

    def _begin(self, sock: Any) -> None:
        self._sock = sock
        self._dechunker: Dechunker | None = None
        self._body_left: int | None = None
        self._early = b""
        self._excess = False
        self._broken: BadChunk | None = None
        self._limit: float | None = None
        self._timeout: float | None = None
        self._waited = 0.0

    @property
    def reusable(self) -> bool:
        """Whether the connection can be used again: the body has ended, and nothing came after it."""
        return self.isclosed() and not self._excess and not self._has_more()

    def _has_more(self) -> bool:
        # What is left in the TLS layer is not seen by the pool, which looks at the socket: it would be taken for the
        # answer to the next request.
        try:
            pending = getattr(self._sock, "pending", None)
            return pending is not None and pending() > 0
        except (
            OSError,
            ValueError,
        ):  # it is closed, and gevent's sockets let themselves be asked nothing then
            return False

    def open_body(self, length: int | None) -> None:
        """Begin with the body, of ``length`` bytes where that is known. The socket's timeout is taken for the longest
        silence that is borne."""
        if self.chunked:
            self._dechunker = Dechunker()
        else:
            self._body_left = length
        if self.fp is not None:
            self._early = self._come_along()
        self._limit = self._timeout = self._sock.gettimeout()
        if self._body_left == 0:
            self.close()

    def _come_along(self) -> bytes:
        """What of the body came along with the head."""
        self._wire.parked = True
        return self.fp.peek()

    def receive(self, patience: float | None = None) -> bytes:
        """Return bytes of the body, waiting for the first; none at all means that it is whole.

        :param patience: seconds after which waiting raises ``UpstreamSilent``; null for the longest silence that is
            borne, after which ``TimeoutError`` is raised in any case.

        Raises ``http.client.IncompleteRead`` for a body that broke off, ``OSError`` for a connection that did.
        """
        while self.fp is not None:
            if self._broken is not None:
                raise http.client.IncompleteRead(b"") from self._broken
            data, self._early = self._early, b""
            if not data:
                data = self._take(patience)
            body = self._measured(data) if self._dechunker is None else self._dechunked(self._dechunker, data)
            if body:
                return body
        return b""

    def _take(self, patience: float | None) -> bytes:
        limit = self._limit
        timeout = limit if limit is None else limit - self._waited
        if patience is not None and (timeout is None or patience < timeout):
            timeout = patience
        if timeout != self._timeout:
            self._sock.settimeout(timeout)
            self._timeout = timeout
        left = self._body_left
        try:
            data: bytes = self._sock.recv(READ_SIZE if left is None or left > READ_SIZE else left)
        except TimeoutError:
            if timeout is None:
                raise
            self._waited += timeout
            if limit is not None and self._waited >= limit:
                raise
            raise UpstreamSilent from None
        self._waited = 0.0
        return data

    def _dechunked(self, dechunker: Dechunker, data: bytes) -> bytes:
        if not data:
            if not dechunker.at_trailer:
                raise http.client.IncompleteRead(b"")
            self._excess = True  # the body is whole, and a few servers leave it at that
            self.close()
            return b""
        try:
            body = dechunker.feed(data)
        except BadChunk as error:
            self._broken = error
            return error.body
        if dechunker.ended:
            self._excess = dechunker.excess
            self.close()
        return body

    def _measured(self, data: bytes) -> bytes:
        left = self._body_left
        if left is None:
            if not data:
                self.close()
            return data
        if not data:
            raise http.client.IncompleteRead(b"", left)
        body = data[:left]  # more can only have come along with the head
        self._body_left = left = left - len(body)
        if not left:
            self._excess = len(body) < len(data)
            self.close()
        return body
