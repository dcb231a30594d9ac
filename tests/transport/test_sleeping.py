"""How tasks sleep until a thread has news: one alarm for a loop, which ticks under load."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from flask_aibridge.transport import sleeping
from flask_aibridge.transport.sleeping import LoopSleeper, Wake

DEADLINE = 20.0
ROUNDS = 400
SLEEPERS = 25


class Post:
    """News for one sleeper, brought by a thread."""

    def __init__(self) -> None:
        self._wake: Wake | None = None
        self._lock = threading.Lock()
        self.news = 0

    def want(self, wake: Wake) -> bool:
        with self._lock:
            if self.news:
                return False
            self._wake = wake
            return True

    def forget(self) -> bool:
        with self._lock:
            wake, self._wake = self._wake, None
        return wake is not None

    def bring(self) -> None:
        with self._lock:
            self.news += 1
            wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def take(self) -> int:
        with self._lock:
            news, self.news = self.news, 0
        return news


async def _collect(post: Post, count: int) -> int:
    sleeper = LoopSleeper(asyncio.get_running_loop())
    seen = 0
    while seen < count:
        await sleeper.sleep(post.want, post.forget, DEADLINE)
        seen += post.take()
    return seen


def _in_a_thread(bring: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=bring)
    thread.start()
    return thread


@pytest.mark.parametrize("ticking", [False, True])
def test_no_wake_is_lost(ticking: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any rate, when the loop ticks and when it does not; and the first one after a lull wakes it as well."""
    monkeypatch.setattr(sleeping, "CALLS_BEFORE_TICKS", 2 if ticking else 10**9)
    monkeypatch.setattr(sleeping, "TICK_SECONDS", 0.01 if ticking else 0.0005)
    posts = [Post() for _ in range(SLEEPERS)]

    def bring() -> None:
        for _ in range(ROUNDS):
            for post in posts:
                post.bring()

    async def main() -> None:
        for _ in range(2):
            thread = _in_a_thread(bring)
            seen = await asyncio.gather(*(_collect(post, ROUNDS) for post in posts))
            thread.join(DEADLINE)
            assert seen == [ROUNDS] * SLEEPERS
            alone = _in_a_thread(posts[0].bring)
            assert await _collect(posts[0], 1) == 1
            alone.join(DEADLINE)

    asyncio.run(asyncio.wait_for(main(), DEADLINE))


def test_a_loop_under_load_is_called_for_few_of_many_wakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it ticks, whoever has news only leaves it."""
    monkeypatch.setattr(sleeping, "CALLS_BEFORE_TICKS", 2)
    monkeypatch.setattr(sleeping, "TICK_SECONDS", 5.0)
    monkeypatch.setattr(sleeping, "WAKES_PER_TICK", 1)
    before = 4  # twice CALLS_BEFORE_TICKS: the first time there is nothing to compare with
    calls: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        call = loop.call_soon_threadsafe

        def counted(*what: Any) -> asyncio.Handle:
            calls.append(what)
            return call(*what)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        posts = [Post() for _ in range(SLEEPERS)]
        tasks = [asyncio.create_task(_collect(post, 1)) for post in posts]
        for number, post in enumerate(posts):
            await asyncio.sleep(0)
            _in_a_thread(post.bring).join(DEADLINE)
            if number < before:
                await tasks[number]
        for task in tasks[before:]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(asyncio.wait_for(main(), DEADLINE))
    assert len(calls) == before


def test_a_timeout() -> None:
    """Ends the sleep; the timer goes with the sleeper."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            await LoopSleeper(loop).sleep(lambda wake: True, lambda: True, 0.01)

    asyncio.run(main())
    gc.collect()
