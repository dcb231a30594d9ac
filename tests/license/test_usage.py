"""``license.usage``: who counts as an active user, and how often that is counted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from flask_aibridge.errors import ServicesUnavailable
from flask_aibridge.license.usage import COUNT_SECONDS, UserCount, active_users
from flask_aibridge.services.memory.store import MemoryStore
from tests.services.contract_records import a_start

NOW = datetime(2027, 1, 15, 8, 30, tzinfo=UTC)


def test_active_users_are_those_of_thirty_days() -> None:
    """Each once, whatever they asked for; the present hour is in, and nobody without a name."""
    store = MemoryStore(clock=NOW.timestamp)
    for user, days in (("alice", 0), ("alice", 3), ("bob", 29), ("carol", 31), (None, 1)):
        store.admit(a_start(NOW - timedelta(days=days), initiator=user), None)
    assert active_users(store, NOW.timestamp()) == 2
    assert active_users(store, NOW.timestamp(), days=1) == 1
    assert active_users(store, NOW.timestamp(), days=60) == 3


class Counter:
    """Counts how often it is asked."""

    def __init__(self, answer: Callable[[int], int]) -> None:
        self.calls = 0
        self._answer = answer

    def __call__(self) -> int:
        self.calls += 1
        return self._answer(self.calls)


def test_it_is_not_counted_again_for_a_while() -> None:
    """Five minutes."""
    now = [0.0]
    counter = Counter(lambda calls: 10 * calls)
    users = UserCount(counter, lambda: now[0])
    assert users.known is None
    assert [users.current(), users.current(), users.known] == [10, 10, 10]
    now[0] += COUNT_SECONDS
    assert users.current() == 20
    assert counter.calls == 2


def test_a_count_that_fails_leaves_the_last_one() -> None:
    """And is not tried again for the same while: it may have taken long."""
    now = [0.0]

    def answer(calls: int) -> int:
        if calls == 2:
            raise ServicesUnavailable("Away.")
        return calls

    counter = Counter(answer)
    users = UserCount(counter, lambda: now[0])
    assert users.current() == 1
    now[0] += COUNT_SECONDS
    assert [users.current(), users.current()] == [1, 1]
    now[0] += COUNT_SECONDS
    assert users.current() == 3


def test_nobody_waits_for_another_ones_count(deadline: float) -> None:
    """Who comes second has the last one."""
    counting, go_on = threading.Event(), threading.Event()

    def count() -> int:
        counting.set()
        assert go_on.wait(deadline)
        return 7

    users = UserCount(count)
    first = threading.Thread(target=users.current, daemon=True)
    first.start()
    assert counting.wait(deadline)
    assert users.current() is None
    go_on.set()
    first.join(deadline)
    assert users.current() == 7


def test_without_a_count_nothing_is_known() -> None:
    """Where nothing is recorded."""
    assert UserCount(None).current() is None
