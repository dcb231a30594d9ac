"""``Doorbell``: wake-ups across a pipe, and what a fork does to it.

A forked child inherits the descriptors of its parent's pipes but none of the threads that use them. It lets
go of them at once, and disowns what was opened before the fork: an *era* is the stretch of a process' life
between two forks.
"""

from __future__ import annotations

import contextlib
import os
import select

__all__ = ["Doorbell", "Era", "current_era"]


class Era:
    """The stretch of a process' life between two forks: what was opened in another era is not ours to touch."""

    __slots__ = ("doorbells",)

    def __init__(self) -> None:
        self.doorbells: set[Doorbell] = set()


_era = Era()


def current_era() -> Era:
    """The era that this process is in."""
    return _era


def _begin_era() -> None:
    """In a forked child: let go of the parent's descriptors and disown the parent's exchanges."""
    global _era
    inherited, _era = _era.doorbells, Era()
    for doorbell in inherited:
        doorbell.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_era)


class Doorbell:
    """A pipe that carries wake-ups: one byte each, from any thread, to whoever polls the read end.

    Raises :exc:`OSError` (``EMFILE``, ``ENFILE``) where no descriptors are left.
    """

    __slots__ = ("_poll", "_reader", "_writer")

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._poll: select.poll | None = None
        _era.doorbells.add(self)

    def fileno(self) -> int:
        """The read end: readable while a wake-up waits in it."""
        return self._reader

    def ring(self) -> None:
        """Leave one wake-up. Never blocks: each is answered before the next is left."""
        os.write(self._writer, b"\0")

    def answer(self) -> None:
        """Take one wake-up, which must be there or on its way."""
        os.read(self._reader, 1)

    def wait(self, timeout: float) -> bool:
        """Whether a wake-up came within ``timeout`` seconds.

        ``select.poll`` is looked up at the first call, not at import, since gevent replaces it.
        """
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._reader, select.POLLIN)
        return bool(self._poll.poll(timeout * 1000))

    def close(self) -> None:
        """Give both descriptors back. Does nothing the second time, or in a forked child."""
        if self._reader >= 0 and self in _era.doorbells:
            _era.doorbells.discard(self)
            self.disown()

    def disown(self) -> None:
        """Close this process' copies of the descriptors."""
        reader, writer, self._reader, self._writer = self._reader, self._writer, -1, -1
        for descriptor in (reader, writer):
            with contextlib.suppress(OSError):
                os.close(descriptor)
