"""What becomes of a request's body that nobody reads.

A request may be refused before its body has come: the licence has ended, the key is wrong, the process stops. A server
that closes the connection then, as it does while it stops, resets it under a client that is still sending, which may
never see why it was refused (RFC 9112, section 9.6); one that does not waits for the rest, to find the next request
behind it, for as long as the client likes. So where the server gives its socket (gunicorn does), what comes within a
moment is read and thrown away, and the rest is cut off.

The server's own reader knows where a body ends, but not after it was interrupted because nothing had come yet: that of
gunicorn says then that the body is over where it is not, or has lost bytes of it. What would be read next on such a
connection is the middle of a body, and whoever wrote that could have it taken for a request. gunicorn closes it, since
27.0; here that reader is asked nothing more that matters, and the connection is cut off, which is what an app can do.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any, Final
from weakref import WeakSet

__all__ = ["Lingering", "awaits_body", "connection_of", "cut_off", "length_of"]

LINGER_SECONDS: Final = 1.0
"""For how long the rest of a body is thrown away: as long as a client takes that has begun to send it."""

MAX_LINGERING: Final = 8
"""Bodies that are thrown away at once, each in a thread of the server: those that do come take a fraction of a
millisecond, and those that do not may come from anybody."""

_READ_SIZE: Final = 64 * 1024
_LAST_CHUNK: Final = b"0\r\n\r\n"
_NOT_YET: Final = (BlockingIOError, TimeoutError, ssl.SSLWantReadError)
"""What a socket says on which nothing has come."""

_NO_BODY: Final = ("", "0")


class Lingering:
    """Deals with the bodies of refused requests. Any number of threads may use it.

    :param most: how many are waited for at once; the others are cut off at once.
    :param clock: monotonic seconds.
    """

    def __init__(self, most: int = MAX_LINGERING, clock: Callable[[], float] = monotonic) -> None:
        self._most = most
        self._clock = clock
        self._begin_anew()
        _all.add(self)

    def discard(self, environ: Mapping[str, Any]) -> None:
        """Take what comes of a body within a moment, so that the client sees the answer, and cut the rest off.

        To be called before the response is returned. Where there is no body, or the server does not give its socket,
        nothing is done.
        """
        connection = connection_of(environ) if awaits_body(environ) else None
        if connection is None:
            return
        if self._places.acquire(blocking=False):
            try:
                if _throw_away(environ, connection, self._clock):
                    return
            finally:
                self._places.release()
        cut_off(connection)

    def _begin_anew(self) -> None:
        self._places = threading.Semaphore(self._most)


def awaits_body(environ: Mapping[str, Any]) -> bool:
    """Whether a request says that it has a body."""
    return environ.get("CONTENT_LENGTH") not in (*_NO_BODY, None) or "HTTP_TRANSFER_ENCODING" in environ


def length_of(environ: Mapping[str, Any]) -> int:
    """How long a body is by its request's own word, in bytes; 0 where it does not say."""
    declared = environ.get("CONTENT_LENGTH") or "0"
    return int(declared) if declared.isascii() and declared.isdigit() and len(declared) < 12 else 0


def connection_of(environ: Mapping[str, Any]) -> socket.socket | None:
    """The connection that a request, and nothing else, came by; null where the server does not give it."""
    connection = environ.get("gunicorn.socket")
    shared = str(environ.get("SERVER_PROTOCOL", "")).startswith("HTTP/2")
    return connection if isinstance(connection, socket.socket) and not shared else None


def cut_off(connection: socket.socket | None) -> None:
    """Have whoever reads from a connection find its end, now and later. What is to be said can still be sent.

    Not the socket's own method: that of TLS would send the rest in plain.
    """
    if connection is not None:
        with suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RD)


def _throw_away(environ: Mapping[str, Any], connection: socket.socket, clock: Callable[[], float]) -> bool:
    """Whether the connection can take another request.

    Nothing waits in ``read``, which a trickle of bytes could hold for ever."""
    before = connection.gettimeout()
    connection.settimeout(0)
    try:
        return _Rest(environ, connection, clock).is_read()
    except Exception:
        return False
    finally:
        with suppress(OSError):
            connection.settimeout(before)


class _Rest:
    """What is still to come of a body, on a socket that does not wait."""

    def __init__(
        self, environ: Mapping[str, Any], connection: socket.socket, clock: Callable[[], float]
    ) -> None:
        self._read = environ["wsgi.input"].read
        self._left = length_of(environ) or None
        self._connection = connection
        self._clock = clock
        self._end = clock() + LINGER_SECONDS
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def is_read(self) -> bool:
        """Read it to its end: whether that is where the server's reader stands."""
        interrupted = False
        while self._left is None or self._left > 0:
            try:
                piece = self._read(_READ_SIZE if self._left is None else min(self._left, _READ_SIZE))
            except _NOT_YET:
                interrupted = True
                if self._left is None:
                    self._drop_chunks()
                    break
                if not self._comes():
                    break
                continue
            if not piece:
                break
            self._left = None if self._left is None else self._left - len(piece)
            if self._clock() > self._end:
                return False
        return not interrupted

    def _drop_chunks(self) -> None:
        """What comes, without its reader, until it looks like the last of it."""
        tail = b""
        while not tail.endswith(_LAST_CHUNK) and self._comes():
            with suppress(*_NOT_YET):
                piece = self._connection.recv(_READ_SIZE)
                if not piece:
                    return
                tail = (tail + piece)[-len(_LAST_CHUNK) :]

    def _comes(self) -> bool:
        """Whether there is something to be read, before the time is up."""
        seconds = self._end - self._clock()
        return seconds > 0 and bool(self._poll.poll(seconds * 1000))


_all: WeakSet[Lingering] = WeakSet()


def _after_fork_in_child() -> None:
    for lingering in list(_all):
        lingering._begin_anew()


os.register_at_fork(after_in_child=_after_fork_in_child)
