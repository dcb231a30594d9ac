"""What is under way in this process: how much of it there may be, and how it is ended."""

from __future__ import annotations

import _thread
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from flask_aibridge.bridge.caller import Cancellation
from flask_aibridge.bridge.request import Refused

MAX_DETACHED: Final = 32
"""Answers that are read on in a process after their callers have left. Each holds a thread and a connection for up to
half a minute, for nobody but the account; many who leave should not take the place of those who stay."""

ENDING_SECONDS: Final = 2.0
"""What was ended by force gets so long to say so: a thread that is woken needs milliseconds for its last words, and one
whose reader does not read would never find the time."""

FULL_SECONDS: Final = 5
"""``Retry-After`` of a request that finds no room: answers take seconds, so by then some of them are over."""

DRAINING_SECONDS: Final = 1
"""``Retry-After`` of a request to a process that is about to stop: whoever takes its place is there already."""


class Exchange:
    """One request under way: where it is counted, and what stops it.

    ``interrupted`` says that the bridge ended it; ``left`` that its caller gave up, which only callers in process can
    tell. Where it ``outlives`` its caller, their leaving does not stop it while there is room for such, or not before
    ``grace`` seconds if there is one. It is a ``Cancellation`` itself: of both reasons.
    """

    __slots__ = (
        *("__weakref__", "_caller", "_group", "_over", "_process", "_stop"),
        *("grace", "interrupted", "left", "outlives"),
    )

    def __init__(self, process: _Process, group: set[Exchange], caller: Cancellation | None) -> None:
        self.interrupted = False
        self.left = False
        self.outlives = False
        self.grace: float | None = None
        self._over: threading.Lock | None = None
        self._process = process
        self._group = group
        self._caller = caller
        self._stop: Callable[[], None] | None = None

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have ``callback`` called when the exchange is to stop, at once if it is already; the function returned takes
        it off again. There is one at a time."""
        self._stop = callback
        # Nothing is begun for somebody who has left already.
        outlives, self.outlives = self.outlives, False
        forget = self._caller.on_cancel(self._caller_left) if self._caller is not None else None
        self.outlives = outlives
        if self.interrupted:  # set before `_stop` is looked for, so one of the two sees the other
            callback()

        def take_off() -> None:
            self._stop = None
            if forget is not None:
                forget()

        return take_off

    def detach(self) -> bool:
        """Go on without a caller; false where too many do."""
        process = self._process
        with process.lock:
            if self._group is not process.detached:
                if len(process.detached) >= MAX_DETACHED:
                    return False
                if self in self._group:
                    self._group.remove(self)
                    process.detached.add(self)
                self._group = process.detached
        return True

    def interrupt(self) -> None:
        """End it now, from any thread."""
        self.interrupted = True
        self._halt()

    def halt(self) -> None:
        """Stop what is under way for it, from any thread, for no reason of the caller's or the bridge's."""
        self._halt()

    def leave(self) -> None:
        """It is over. Once is enough."""
        process = self._process
        with process.lock:
            self._group.discard(self)
            if self._over is not None:
                with suppress(RuntimeError):  # it has been
                    self._over.release()
            if process.awaited:
                process.tell()

    def _caller_left(self) -> None:
        self.left = True
        if not (self.outlives and self.detach() and self._will_end()):
            self._halt()

    def _will_end(self) -> bool:
        """Whether somebody sees to it that it ends in time."""
        if self.grace is None:
            return True
        over = threading.Lock()
        over.acquire()
        with self._process.lock:
            if self not in self._group:
                return False
            try:
                # Not `threading.Thread`, which starts by locks of its own: a garbage collection may be what leaves.
                _thread.start_new_thread(self._halt_after, (self.grace, over))
            except RuntimeError:  # the system has no thread to spare
                return False
            self._over = over
        return True

    def _halt_after(self, seconds: float, over: threading.Lock) -> None:
        if not over.acquire(timeout=seconds):
            self._halt()

    def _halt(self) -> None:
        stop = self._stop
        if stop is not None:
            stop()


class _Process:
    """What is under way in one process: a forked child begins with nothing, and what its parent has is none of its
    business.

    The lock is re-entrant, because a garbage collection may be what ends an exchange.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.draining = False
        self.public: set[Exchange] = set()
        self.in_process: set[Exchange] = set()
        self.detached: set[Exchange] = set()
        self.awaited: list[tuple[threading.Lock, tuple[set[Exchange], ...]]] = []

    def wait_until_empty(self, timeout: float, *groups: set[Exchange]) -> bool:
        # A lock that is released when it is so: whoever releases it may be a garbage collection in this very thread,
        # while it waits, and an event has a lock of its own that it would wait for then. It is made here, not in
        # advance: by now gevent, if it is used, has put its own in its place.
        emptied = threading.Lock()
        emptied.acquire()
        with self.lock:
            self.awaited.append((emptied, groups))
            self.tell()
        try:
            return emptied.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        finally:
            with self.lock:
                self.awaited = [waiting for waiting in self.awaited if waiting[0] is not emptied]

    def tell(self) -> None:
        for emptied, groups in self.awaited:
            if not any(groups):
                with suppress(RuntimeError):  # it has been
                    emptied.release()


def refusal_while_draining(error: str | None = None) -> Refused:
    """Return the refusal of a request to a process that is about to stop; ``error`` as of ``Refused``."""
    return _later("The AI bridge is shutting down; try again.", DRAINING_SECONDS, error)


def _full() -> Refused:
    return _later("The AI bridge is at capacity now; try again later.", FULL_SECONDS)


def _later(message: str, seconds: int, error: str | None = None) -> Refused:
    return Refused(503, message, ("Retry-After", str(seconds)), error=error)


def uncounted() -> Exchange:
    """Return an exchange that is in nobody's way."""
    return Exchange(_Process(), set(), None)


class Occupancy:
    """The exchanges of one bridge that are under way in this process.

    :param max_public: how many of them may be by the public door.
    :param max_in_process: how many may be in process.
    """

    def __init__(self, max_public: int, max_in_process: int) -> None:
        self._max_public = max_public
        self._max_in_process = max_in_process
        self._process = _Process()
        _all.add(self)

    @property
    def running(self) -> int:
        """How many exchanges are under way, those included that are read on for callers who have left."""
        process = self._process
        return len(process.public) + len(process.in_process) + len(process.detached)

    @property
    def draining(self) -> bool:
        """Whether no more are taken."""
        return self._process.draining

    def enter(self, caller: Cancellation | None) -> Exchange:
        """Take one more, in process if there is a ``caller`` who can give up. It must ``leave``.

        Raises ``Refused``, with 503, where there is no room or no time for it.
        """
        process = self._process
        group, limit = process.public, self._max_public
        if caller is not None:
            group, limit = process.in_process, self._max_in_process
        exchange = Exchange(process, group, caller)
        with process.lock:
            if not process.draining and len(group) < limit:
                group.add(exchange)
                return exchange
        raise refusal_while_draining() if process.draining else _full()

    def drain(self, timeout: float) -> bool:
        """Take no more, wait up to ``timeout`` seconds for what is under way, then end it. Returns whether all of it
        ended by itself."""
        process = self._process
        with process.lock:
            process.draining = True
        groups = (process.public, process.in_process, process.detached)
        if process.wait_until_empty(timeout, *groups):
            return True
        self._end(process, *groups)
        return False

    def end_detached(self) -> None:
        """End what is read on for callers who have left."""
        process = self._process
        if process.detached:
            self._end(process, process.detached)

    @staticmethod
    def _end(process: _Process, *groups: set[Exchange]) -> None:
        with process.lock:
            left = [exchange for group in groups for exchange in group]
        for exchange in left:
            exchange.interrupt()
        process.wait_until_empty(ENDING_SECONDS, *groups)

    def _begin_anew(self) -> None:
        # The thread that forked may be within an exchange, which it will leave here too.
        self._process.lock = threading.RLock()
        self._process = _Process()


_all: weakref.WeakSet[Occupancy] = weakref.WeakSet()


def _begin_anew() -> None:
    """In a forked child: the threads that held the locks do not exist here, nor do those that would leave."""
    for occupancy in list(_all):
        occupancy._begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
