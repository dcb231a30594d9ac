"""Sleeping in a task until a thread has news: what an async face does where a sync one sleeps on a lock."""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final

from .doorbell import Doorbell

__all__ = ["DoorbellSleeper", "LoopSleeper", "Wake", "sleeper"]

# The loop ticks while at least so many sleepers are to be woken in each tick: 16,000 a second and more.
TICK_SECONDS: Final = 0.0005
WAKES_PER_TICK: Final = 8

# Wake-ups after which it is looked at how long they took together: a burst of one answer's tokens is no reason to tick.
CALLS_BEFORE_TICKS: Final = 32

Wake = Callable[[], object]


class LoopSleeper:
    """Sleeps in a task of an asyncio loop; woken by any thread.

    All sleepers of a loop share one alarm: under load, many are woken by one call of
    ``call_soon_threadsafe``. The timeout is one timer for a whole body, moved on lazily, since a read timeout
    is set for every event and hardly ever expires.
    """

    __slots__ = ("__weakref__", "_deadline", "_future", "_loop", "_ring", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ring = functools.partial(_alarm_of(loop).ring, weakref.ref(self))
        self._future: asyncio.Future[bool] | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def sleep(
        self, want: Callable[[Wake], bool], forget: Callable[[], bool], seconds: float | None
    ) -> bool:
        """Whether it had to sleep: until woken, by what ``want`` registers. Raises :exc:`TimeoutError`."""
        if not want(self._ring):
            return False
        future = self._future = self._loop.create_future()
        if seconds is not None:
            self._deadline = self._loop.time() + seconds
            if self._timer is None:
                self._set_timer(seconds)
        woken = False
        try:
            woken = await future
        finally:
            self._future = None
            if not woken:
                forget()
        if not woken:
            raise TimeoutError("timed out")
        return True

    def wake(self) -> None:
        """End the sleep, if there is one; in the loop. One that comes late makes somebody look once more."""
        future = self._future
        if future is not None and not future.done():
            future.set_result(True)

    def _set_timer(self, seconds: float) -> None:
        # Weak, so that the timer of a body that is over, or was dropped, goes with it.
        self._timer = self._loop.call_later(seconds, _expire, weakref.ref(self))

    def expire(self) -> None:
        """The timer's time has come; end the sleep if it is the sleeper's as well."""
        self._timer = None
        future = self._future
        if future is None or future.done():
            return
        remaining = self._deadline - self._loop.time()
        if remaining > 0:
            self._set_timer(remaining)
        else:
            future.set_result(False)

    def __del__(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _expire(reference: weakref.ref[LoopSleeper]) -> None:
    sleeping = reference()
    if sleeping is not None:
        sleeping.expire()


class _Alarm:
    """Wakes the sleepers of one loop from other threads, as many as have come together at once.

    A wake-up of the loop costs a system call and two changes of the interpreter lock's holder. At thousands a second,
    with as many threads about, that is most of the work and all of the waiting; so past a rate the loop looks by
    itself, once a tick, and whoever has news only leaves it in the deque.
    """

    __slots__ = ("__weakref__", "_calls", "_loop", "_ready", "_set", "_since")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._ready: deque[weakref.ref[LoopSleeper]] = deque()
        self._set = False
        self._calls = 0
        self._since = 0.0

    def ring(self, asleep: weakref.ref[LoopSleeper]) -> None:
        """Wake one sleeper; from any thread."""
        self._ready.append(asleep)
        if self._set:
            return  # the loop has not come round to it yet, and will find this one too
        self._set = True
        loop = self._loop()
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._called, loop)
            except RuntimeError:  # the loop is closed: nobody sleeps in it any more
                self._ready.clear()
                self._set = False

    def _called(self, loop: asyncio.AbstractEventLoop) -> None:
        self._calls += 1
        if self._calls < CALLS_BEFORE_TICKS:
            self._set = False  # before looking, so that whoever comes now sets it again
        else:
            now = loop.time()
            often = now - self._since < CALLS_BEFORE_TICKS * TICK_SECONDS / WAKES_PER_TICK
            self._calls, self._since = 0, now
            self._set = often
            if often:
                loop.call_later(TICK_SECONDS, self._tick, loop)
        self._wake_all()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        if len(self._ready) >= WAKES_PER_TICK:
            loop.call_later(TICK_SECONDS, self._tick, loop)
        else:
            self._since = loop.time()
            self._set = False
        self._wake_all()

    def _wake_all(self) -> None:
        ready = self._ready
        for _ in range(len(ready)):
            asleep = ready.popleft()()
            if asleep is not None:
                asleep.wake()


_alarms: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Alarm] = weakref.WeakKeyDictionary()


def _alarm_of(loop: asyncio.AbstractEventLoop) -> _Alarm:
    alarm = _alarms.get(loop)
    if alarm is None:
        alarm = _alarms.setdefault(loop, _Alarm(loop))
    return alarm


class DoorbellSleeper:
    """Sleeps in a task of any other loop that anyio knows: on a pipe, which costs two descriptors while it
    sleeps.
    """

    __slots__ = ()

    async def sleep(
        self, want: Callable[[Wake], bool], forget: Callable[[], bool], seconds: float | None
    ) -> bool:
        """As :meth:`LoopSleeper.sleep`."""
        import anyio

        doorbell = Doorbell()
        rung = False
        try:
            if not want(doorbell.ring):
                return False
            try:
                with anyio.fail_after(seconds):
                    await anyio.wait_readable(doorbell.fileno())
                rung = True
            finally:
                if not rung and not forget():
                    doorbell.answer()  # a ring is on its way, and must not outlive the descriptor
            return True
        finally:
            doorbell.close()


def sleeper() -> LoopSleeper | DoorbellSleeper:
    try:
        return LoopSleeper(asyncio.get_running_loop())
    except RuntimeError:
        return DoorbellSleeper()
