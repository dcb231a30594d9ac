"""Sleeping in a task until a thread has news: what an async face does where a sync one sleeps on a lock."""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections import deque
from collections.abc import Callable

from .doorbell import Doorbell

__all__ = ["DoorbellSleeper", "LoopSleeper", "Wake", "sleeper"]

Wake = Callable[[], object]


class LoopSleeper:
    """Sleeps in a task of an asyncio loop; woken by any thread.

    All sleepers of a loop share one alarm: under load, many are woken by one call of
    ``call_soon_threadsafe``. The timeout is one timer for a whole body, moved on lazily, since a read timeout
    is set for every event and hardly ever expires.
    """

    __slots__ = ("__weakref__", "_alarm", "_deadline", "_future", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._alarm = _alarm_of(loop)
        self._future: asyncio.Future[bool] | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def sleep(
        self, want: Callable[[Wake], bool], forget: Callable[[], bool], seconds: float | None
    ) -> bool:
        """Whether it had to sleep: until woken, by what ``want`` registers. Raises :exc:`TimeoutError`."""
        future = self._loop.create_future()
        if not want(functools.partial(self._alarm.ring, future)):
            return False
        self._future = future
        if seconds is not None:
            self._deadline = self._loop.time() + seconds
            if self._timer is None:
                self._set_timer(seconds)
        try:
            if not await future:
                raise TimeoutError("timed out")
        finally:
            self._future = None
            forget()
        return True

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
    """Wakes futures of one loop from other threads, as many as have come together at once."""

    __slots__ = ("__weakref__", "_loop", "_ready", "_set")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._ready: deque[asyncio.Future[bool]] = deque()
        self._set = False

    def ring(self, future: asyncio.Future[bool]) -> None:
        """Wake one sleeper; from any thread."""
        self._ready.append(future)
        if self._set:
            return  # the loop has not come round to it yet, and will find this one too
        self._set = True
        loop = self._loop()
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._wake_all)
            except RuntimeError:  # the loop is closed: nobody sleeps in it any more
                self._ready.clear()
                self._set = False

    def _wake_all(self) -> None:
        self._set = False  # before looking, so that whoever comes now sets it again
        ready = self._ready
        while ready:
            future = ready.popleft()
            if not future.done():
                future.set_result(True)


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
