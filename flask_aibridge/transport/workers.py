"""Worker threads: started on demand, kept for a while, never queued for.

A call gets an idle worker or a new one, at once. There is no queue between the two, so calls nested in calls cannot
deadlock, however deep; the bound on how many run at once is :class:`Slots`, and it is the caller who waits for it.
Workers are daemon threads: a stuck upstream must not keep a process from exiting.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["DEFAULT_MAX_CONCURRENCY", "Slots", "Workers", "process_slots", "workers"]

_log = logging.getLogger("flask_aibridge.transport")

# Enough for every stream of a busy process; a thread costs some 30 KiB of memory, so this is about 30 MiB.
DEFAULT_MAX_CONCURRENCY: Final = 1000

# Seconds that an idle worker waits for the next call: long enough for a conversation's next turn.
IDLE_SECONDS: Final = 10.0

# Idle workers kept at most: the threads of a burst go when it is over, those of steady traffic stay.
MAX_IDLE: Final = 64


class _Worker:
    """One thread. It sleeps on its own lock; a call is left in ``task`` before the lock is released."""

    __slots__ = ("_owner", "task", "wake")

    def __init__(self, owner: Workers, task: Callable[[], object]) -> None:
        self._owner = owner
        self.task: Callable[[], object] | None = task
        self.wake = threading.Lock()
        self.wake.acquire()

    def serve(self) -> None:
        idle, wake = self._owner.idle, self.wake
        while True:
            self._perform()
            if len(idle) >= MAX_IDLE:
                return
            idle.append(self)
            if not wake.acquire(timeout=IDLE_SECONDS):
                try:
                    idle.remove(self)
                except ValueError:  # a call took it off the list at the last moment: it is on its way
                    wake.acquire()
                else:
                    return

    def _perform(self) -> None:
        task, self.task = self.task, None
        try:
            if task is not None:
                task()
        except BaseException:
            # A task answers for its own errors: this is a bug here. The caller must not lose the thread to it.
            _log.critical("A worker's task raised; please report this.", exc_info=True)


class Workers:
    """The worker threads of one process.

    The idle ones are a stack: the one that was last at work has the warmest caches and lets the others age out.
    """

    def __init__(self) -> None:
        self.idle: list[_Worker] = []
        self._numbers = itertools.count(1)
        self._lock_type = threading.Lock

    def run(self, task: Callable[[], object]) -> None:
        """Have ``task`` called in a worker thread, at once.

        Raises :exc:`RuntimeError` where no thread can be started; ``task`` was not called then.
        """
        if self._lock_type is not threading.Lock:
            # gevent patched the process meanwhile: workers of before are threads, those of now are greenlets.
            self.forget()
        try:
            worker = self.idle.pop()
        except IndexError:
            self._start(_Worker(self, task))
        else:
            worker.task = task
            worker.wake.release()

    def _start(self, worker: _Worker) -> None:
        name = f"aibridge-{next(self._numbers)}"
        threading.Thread(target=worker.serve, name=name, daemon=True).start()

    def forget(self) -> None:
        """Start anew: in a forked child the parent's threads do not exist."""
        self.idle = []
        self._lock_type = threading.Lock


class Slots:
    """How many calls may run at once. A slot is held from before the app is called until it has finished."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"max_concurrency must be at least 1, not {limit}.")
        self.limit = limit
        self._reset()
        _all_slots.add(self)

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._taken = 0
        self._waiting: deque[Callable[[], object]] = deque()

    def __repr__(self) -> str:
        return f"<Slots {self._taken}/{self.limit} taken, {len(self._waiting)} waiting>"

    @property
    def taken(self) -> int:
        """How many calls run now."""
        return self._taken

    def take(self, timeout: float | None) -> bool:
        """Whether a slot became free within ``timeout`` seconds (``None``: however long it takes)."""
        if self._taken < self.limit and self.try_take():
            return True
        lock = threading.Lock()
        lock.acquire()
        if not self.want(lock.release):
            return True
        given = False
        try:
            given = lock.acquire(timeout=threading.TIMEOUT_MAX if timeout is None else max(0.0, timeout))
        finally:
            if not given and not self.give_up(lock.release):
                given = True
                lock.acquire()
        return given

    def try_take(self) -> bool:
        """Take a slot if one is free."""
        with self._lock:
            if self._taken >= self.limit:
                return False
            self._taken += 1
            return True

    def want(self, granted: Callable[[], object]) -> bool:
        """Take a slot if one is free (``False``); else ``granted`` is called, once one has been taken for it."""
        with self._lock:
            if self._taken < self.limit:
                self._taken += 1
                return False
            self._waiting.append(granted)
            return True

    def give_up(self, granted: Callable[[], object]) -> bool:
        """Stop waiting; ``False`` if a slot has just been granted."""
        with self._lock:
            try:
                self._waiting.remove(granted)
            except ValueError:
                return False
            return True

    def give_back(self) -> None:
        """Free a slot: the caller that has waited longest gets it."""
        with self._lock:
            if not self._waiting:
                # Never below none: a call that forks ends in the child too, which counts from nothing.
                self._taken = max(0, self._taken - 1)
                return
            granted = self._waiting.popleft()
        granted()


_all_slots: weakref.WeakSet[Slots] = weakref.WeakSet()

workers = Workers()
process_slots = Slots(DEFAULT_MAX_CONCURRENCY)


def _after_fork_in_child() -> None:
    workers.forget()
    for slots in list(_all_slots):
        slots._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

