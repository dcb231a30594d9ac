"""Worker threads: started on demand, kept for a while, never queued for.

A call gets an idle worker or a new one, at once. There is no queue between the two, so calls nested in calls
cannot deadlock, however deep; the bound on how many run at once is :class:`Slots`, and it is the caller who
waits for it. Workers are daemon threads: a stuck upstream must not keep a process from exiting.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from .doorbell import Doorbell

__all__ = ["DEFAULT_MAX_CONCURRENCY", "Slots", "Workers", "close", "process_slots", "run", "running"]

_log = logging.getLogger("flask_aibridge.transport")

THREAD_NAME: Final = "aibridge-"

# Enough for every stream of a busy process; a thread costs some 30 KiB of memory, so this is about 30 MiB.
DEFAULT_MAX_CONCURRENCY: Final = 1000

# Seconds that an idle worker waits for the next call. A new one costs some 0.1 ms, so it need not be long; it
# is how long the descriptors of the leader's doorbell and the threads stay after the last call.
IDLE_SECONDS: Final = 1.0

# Idle workers kept at most: the threads of a burst go when it is over, those of steady traffic stay.
MAX_IDLE: Final = 64


class _Worker:
    """One thread. It sleeps on its own lock, or, as the leader, on the doorbell; a call is left in ``task``
    before.
    """

    __slots__ = ("_owner", "_wake", "task")

    def __init__(self, owner: Workers, task: Callable[[], object]) -> None:
        self._owner = owner
        self.task: Callable[[], object] | None = task
        self._wake: threading.Lock | None = None

    def serve(self) -> None:
        """Perform tasks until none comes for a while."""
        owner = self._owner
        while True:
            self._perform()
            if not owner.keeps_idle:
                owner.end_lead()
                return
            doorbell = owner.lead(self)
            called = self._follow() if doorbell is None else self._lead(doorbell)
            if not called and owner.lock_type is threading.Lock:
                return
            if not called:
                self._sleep_on()

    def _sleep_on(self) -> None:
        """For good: gevent has patched the process since this thread started, and its ``threading`` cannot end it."""
        self._own_lock().acquire()

    def _own_lock(self) -> threading.Lock:
        """The lock that this worker sleeps on, locked: made when it is first needed, of the kind its thread is."""
        if self._wake is None:
            self._wake = self._owner.lock_type()
            self._wake.acquire()
        return self._wake

    def _perform(self) -> None:
        task, self.task = self.task, None
        try:
            if task is not None:
                task()
        except BaseException:
            # A task answers for its own errors: this is a bug here. The caller must not lose the thread to
            # it.
            _log.critical("A worker's task raised; please report this.", exc_info=True)

    def call(self) -> None:
        """Wake this follower for its task."""
        if self._wake is not None:
            self._wake.release()

    def _follow(self) -> bool:
        owner, wake = self._owner, self._own_lock()
        if len(owner.followers) >= MAX_IDLE:
            return False
        owner.followers.append(self)
        if wake.acquire(timeout=IDLE_SECONDS):
            return True
        try:
            owner.followers.remove(self)
        except ValueError:  # a call took it off the list at the last moment: it is on its way
            return wake.acquire()
        return False

    def _lead(self, doorbell: Doorbell) -> bool:
        owner = self._owner
        if doorbell.wait(IDLE_SECONDS) or not owner.retire(self, doorbell):
            doorbell.answer()
            owner.vacancy.append(doorbell)  # another may lead
            return True
        return False


class Workers:
    """The worker threads of one process.

    One idle worker, the leader, sleeps on a pipe; others, the followers, on locks, as a stack. Waking the
    leader lets go of the interpreter lock while the kernel switches to it, and it finds the lock free; a
    follower is woken by a caller that still holds it, and goes back to sleep until it is let go (measured,
    pinned to one core: 5 against 15 µs a call). One caller at a time, the usual case, always finds the
    leader.
    """

    def __init__(self) -> None:
        self.followers: list[_Worker] = []
        self._callable: list[tuple[_Worker, Doorbell]] = []  # the leader, until it is called
        # One item while nobody leads: the doorbell, or None where it is still to be made. Taking it is taking
        # the lead.
        self.vacancy: list[Doorbell | None] = [None]
        self._numbers = itertools.count(1)
        self.lock_type = threading.Lock
        # Greenlets are not kept: each belongs to the thread it was started in, and a call that comes from another
        # one, of gevent's thread pool, would wait for a greenlet that may never be switched to again.
        self.keeps_idle = not _threads_are_greenlets()

    def close(self) -> None:
        """Have the idle workers end, and the others with what they do. A call that comes later gets a thread of its
        own."""
        self.keeps_idle = False
        for idle in (self._callable, self.followers):
            while self._run_idle(idle):
                pass

    def _run_idle(self, idle: list[Any]) -> bool:
        try:
            found = idle.pop()
        except IndexError:
            return False
        if isinstance(found, _Worker):
            found.call()
        else:
            found[1].ring()
        return True

    def run(self, task: Callable[[], object]) -> None:
        """Have ``task`` called in a worker thread, at once.

        Raises :exc:`RuntimeError` where no thread can be started; ``task`` was not called then.
        """
        try:
            leader, doorbell = self._callable.pop()
        except IndexError:
            self._run_without_leader(task)
        else:
            leader.task = task
            doorbell.ring()

    def _run_without_leader(self, task: Callable[[], object]) -> None:
        try:
            follower = self.followers.pop()
        except IndexError:
            name = f"{THREAD_NAME}{next(self._numbers)}"
            threading.Thread(target=_Worker(self, task).serve, name=name, daemon=True).start()
        else:
            follower.task = task
            follower.call()

    def lead(self, worker: _Worker) -> Doorbell | None:
        """Make an idle worker the leader, if there is none: the doorbell for it to sleep on."""
        try:
            doorbell = self.vacancy.pop()
        except IndexError:
            return None
        if doorbell is None:
            try:
                doorbell = Doorbell()
            except OSError:  # no descriptors: followers need none
                self.vacancy.append(None)
                return None
        self._callable.append((worker, doorbell))
        return doorbell

    def end_lead(self) -> None:
        """Close the doorbell that nobody will sleep on any more."""
        with suppress(IndexError):
            doorbell = self.vacancy.pop()
            if doorbell is not None:
                doorbell.close()
            self.vacancy.append(None)

    def retire(self, worker: _Worker, doorbell: Doorbell) -> bool:
        """Whether the leader may go: it does, unless it has just been called."""
        try:
            self._callable.remove((worker, doorbell))
        except ValueError:
            return False
        doorbell.close()
        self.vacancy.append(None)
        return True


def _threads_are_greenlets() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


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
            limit = threading.TIMEOUT_MAX if timeout is None else timeout
            given = lock.acquire(timeout=min(max(0.0, limit), threading.TIMEOUT_MAX))
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

_workers = Workers()
process_slots = Slots(DEFAULT_MAX_CONCURRENCY)


def run(task: Callable[[], object]) -> None:
    """Have ``task`` called in one of this process' worker threads, at once; see :meth:`Workers.run`."""
    global _workers
    if _workers.lock_type is not threading.Lock:
        # gevent patched the process meanwhile: the workers of before are threads, those of now are greenlets.
        _workers = Workers()
    _workers.run(task)


def running() -> int:
    """How many calls run in this process now, by whatever transport."""
    return sum(slots.taken for slots in list(_all_slots))


def close(timeout: float) -> bool:
    """End this process' idle workers, and wait for all of them: whether they ended within ``timeout`` seconds. The
    next call starts others."""
    global _workers
    before, _workers = _workers, Workers()
    before.close()
    deadline = time.monotonic() + timeout
    threads = [each for each in threading.enumerate() if each.name.startswith(THREAD_NAME)]
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


def _after_fork_in_child() -> None:
    global _workers
    _workers = Workers()  # the parent's threads do not exist here
    for slots in list(_all_slots):
        slots._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
