"""Request bodies on their way in: how many at once, of whom, and for how long.

WSGI has an app read the body in a thread of the server, and has no word for how long that may take. A few clients who
send a byte now and then would take every thread there is. So bodies are received for callers whose credential is known
alone (``admission``), a bounded number at once, half of which one caller may have; and those that have taken too long
make room as soon as somebody else needs it. While nobody does, they may go on.

Where the server gives its socket (gunicorn does), a body that has come to a standstill is given up. What becomes of one
that nobody reads is told in ``lingering``.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from time import monotonic
from typing import Any, Final
from weakref import WeakSet

from flask_aibridge.bridge.caller import IN_PROCESS
from flask_aibridge.bridge.request import Refused
from flask_aibridge.lingering import Lingering, awaits_body, connection_of, cut_off, length_of
from flask_aibridge.services.interfaces import Credential

MAX_UPLOADS: Final = 32
"""Bodies that are received at once: half the threads of a server that has 64."""

SHARE_OF_ONE: Final = 2
"""One caller may have one place in so many."""

UNDISTURBED_SECONDS: Final = 10.0
"""For how long a body is received whoever else needs the place; longer for a large one."""

SLOW_BYTES_A_SECOND: Final = 64 * 1024
"""How much longer: the pace of a poor mobile connection."""

STALLED_SECONDS: Final = 30.0
"""After how long without a byte a body is given up: longer than a connection that is to recover takes to."""

RETRY_AFTER: Final = "1"
"""Seconds after which a client that found no place may come again. Bodies take less, as a rule."""

SHARE_OF_LINGERING: Final = 4
"""One request may linger for so many that may be received: those that do come from anybody."""


class TooSlow(Refused):
    """A body took too long."""

    def __init__(self) -> None:
        super().__init__(408, "The request body came too slowly.", error="the request body came too slowly")


class NoPlace(Refused):
    """As many bodies are being received as may be."""

    def __init__(self) -> None:
        super().__init__(
            503,
            "The AI bridge is receiving too many requests at once; try again.",
            ("Retry-After", RETRY_AFTER),
            error="too many uploads",
        )


@dataclass(slots=True, eq=False)
class _Upload:
    caller: bytes
    connection: socket.socket | None
    overdue_at: float
    cut: bool = False


class Uploads:
    """The bodies that a process receives. Any number of threads may use it.

    :param most: how many at once.
    :param clock: monotonic seconds.
    """

    def __init__(self, most: int = MAX_UPLOADS, clock: Callable[[], float] = monotonic) -> None:
        self._most = most
        self._of_one = max(1, most // SHARE_OF_ONE)
        self._clock = clock
        self._lingering = Lingering(max(1, most // SHARE_OF_LINGERING), clock)
        self._begin_anew()
        _all.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self._active)} of {self._most}>"

    def read(
        self, environ: Mapping[str, Any], credential: Credential | None, read: Callable[[], bytes]
    ) -> bytes:
        """What ``read`` reads of ``wsgi.input``, within the bounds where the request came from outside.

        :raises NoPlace: nothing was read.
        :raises TooSlow: the connection takes no other request.
        """
        if IN_PROCESS in environ or not awaits_body(environ):
            return read()
        connection = connection_of(environ)
        allowed = UNDISTURBED_SECONDS + length_of(environ) / SLOW_BYTES_A_SECOND
        upload = _Upload(_caller(credential), connection, self._clock() + allowed)
        self._enter(upload)
        try:
            with _stalls_end(connection):
                return read()
        except Refused as refused:
            if upload.cut or isinstance(refused.__cause__, TimeoutError):
                cut_off(connection)
                raise TooSlow from None
            if (
                refused.__cause__ is not None
            ):  # the server's reader failed: nobody knows where the next request begins
                cut_off(connection)
            raise
        finally:
            with self._lock:
                self._active.discard(upload)

    def discard(self, environ: Mapping[str, Any]) -> None:
        """Deal with the body of a request that is refused before it was read."""
        if IN_PROCESS not in environ:
            self._lingering.discard(environ)

    def _enter(self, upload: _Upload) -> None:
        with self._lock:
            if not self._has_place(upload):
                self._cut_overdue()
                if not self._has_place(upload):
                    raise NoPlace
            self._active.add(upload)

    def _has_place(self, upload: _Upload) -> bool:
        active = self._active
        if len(active) < self._of_one:
            return True
        return (
            len(active) < self._most and sum(each.caller == upload.caller for each in active) < self._of_one
        )

    def _cut_overdue(self) -> None:
        """Whoever reads one of them is told by the end of the connection; where there is none to be had, it stays."""
        now = self._clock()
        for each in [each for each in self._active if each.overdue_at <= now]:
            if each.connection is not None:
                each.cut = True
                cut_off(each.connection)
                self._active.discard(each)

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._active: set[_Upload] = set()


def _caller(credential: Credential | None) -> bytes:
    """What tells callers apart: a digest of the key, since how long a comparison takes must tell nothing of it."""
    key = "" if credential is None else credential.key or credential.key_id or ""
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


@contextmanager
def _stalls_end(connection: socket.socket | None) -> Iterator[None]:
    if connection is None:
        yield
        return
    before = connection.gettimeout()
    connection.settimeout(STALLED_SECONDS)
    try:
        yield
    finally:
        with suppress(OSError):
            connection.settimeout(before)


_all: WeakSet[Uploads] = WeakSet()


def _after_fork_in_child() -> None:
    for uploads in list(_all):
        uploads._begin_anew()


os.register_at_fork(after_in_child=_after_fork_in_child)
