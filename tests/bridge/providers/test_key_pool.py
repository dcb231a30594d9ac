"""The keys of a provider: the best that can be used."""

from __future__ import annotations

import threading

import pytest

from flask_aibridge.bridge.providers.cool_downs import Lane
from flask_aibridge.bridge.providers.key_pool import KeyPool, ProviderKey
from tests.bridge.wsgi import DEADLINE

LANE = Lane("/v1/messages", "m")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def best(pool: KeyPool, *tried: ProviderKey) -> ProviderKey:
    key = pool.best(LANE, tried)
    assert key is not None
    return key


def test_the_first_key_is_the_one_to_use(clock: Clock) -> None:
    """The others are spared."""
    pool = KeyPool(["sk-first-0123456789abcd", "sk-2"], clock=clock)
    assert [best(pool).secret for _ in range(3)] == ["sk-first-0123456789abcd"] * 3
    assert best(pool).hint == "sk-f…abcd"


def test_a_resting_key_gives_way_and_comes_back(clock: Clock) -> None:
    """In the order of the keys, not of their rests."""
    pool = KeyPool(["a", "b", "c"], clock=clock)
    pool.rest(best(pool), LANE, "rejected", 60)
    pool.rest(best(pool), LANE, "rate_limited", 30)
    assert best(pool).secret == "c"
    assert pool.limited_for(LANE) == 30
    clock.now += 30
    assert (best(pool).secret, pool.limited_for(LANE)) == ("b", None)
    clock.now += 30
    assert best(pool).secret == "a"


def test_each_key_is_tried_once(clock: Clock) -> None:
    """Also where it does not rest."""
    pool = KeyPool(["a", "b"], clock=clock)
    first = best(pool)
    second = best(pool, first)
    assert (first.secret, second.secret) == ("a", "b")
    assert pool.best(LANE, [first, second]) is None


def test_a_single_key_never_rests(clock: Clock) -> None:
    """There is no other to spare it for."""
    pool = KeyPool(["a"], clock=clock)
    key = best(pool)
    pool.rest(key, LANE, "rejected", 60)
    assert best(pool) == key
    assert pool.best(LANE, [key]) is None


def test_keys_that_were_not_accepted_come_last(clock: Clock) -> None:
    """In their order, until they are accepted; one that is rate limited does not come at all."""
    pool = KeyPool(["a", "b", "c"], clock=clock)
    for _ in range(2):
        pool.rest(best(pool), LANE, "rejected", 60)
    pool.rest(best(pool), LANE, "rate_limited", 60)
    a = best(pool)
    b = best(pool, a)
    assert (a.secret, b.secret, pool.best(LANE, [a, b])) == ("a", "b", None)
    pool.accepted(b, LANE)
    assert best(pool) == b
    assert pool.best(Lane("/other", "m")) == a


def test_a_key_that_is_there_twice_counts_once() -> None:
    """It would only be refused twice."""
    assert len(KeyPool(["a", "b", "a"])) == 2
    assert len(KeyPool([])) == 0
    assert KeyPool([]).best(LANE) is None


def test_no_key_is_in_a_repr() -> None:
    """Pools and keys are shown in tracebacks."""
    pool = KeyPool(["sk-secret-secret", "sk-other-secret"])
    assert "secret" not in repr(pool) + repr(best(pool)) + str(best(pool))


def test_many_threads_use_one_pool() -> None:
    """Rests are written and read at once, with more names than are kept."""
    pool = KeyPool(["a", "b"])
    failed: list[BaseException] = []

    def use(name: int) -> None:
        try:
            for number in range(300):
                lane = Lane("/", f"{name}-{number}")
                key = pool.best(lane)
                assert key is not None
                pool.rest(key, lane, "rate_limited", 60)
                assert pool.best(lane) is not None
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=use, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert failed == []
