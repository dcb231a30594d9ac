"""The body channel under many threads: no wake-up is lost, no byte is, and leaving is always heard of."""

from __future__ import annotations

import random
import select
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from flask_aibridge.transport.pipe import Channel, ReaderGone
from tests.transport.calls import DEADLINE, wait_for


def readable(descriptor: int, seconds: float = 0) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Threads take turns as often as they can, which brings races out."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def take_some(channel: Channel, rng: random.Random) -> bytes:
    limit = rng.choice([None, 7, 100, 1000])
    data = channel.take(limit)
    assert limit is None or len(data) <= limit
    return data


def take_by_wait(channel: Channel, rng: random.Random) -> bytes:
    assert channel.wait(DEADLINE)
    return take_some(channel, rng)


def take_by_short_waits(channel: Channel, rng: random.Random) -> bytes:
    """The timeout and the wake race with each other."""
    channel.wait(rng.choice([0, 1e-6, 1e-5, 1e-4]))
    return channel.take()


def take_by_poll(channel: Channel, rng: random.Random) -> bytes:
    assert readable(channel.fileno(), DEADLINE)
    return take_some(channel, rng)


def take_by_wake(channel: Channel, rng: random.Random) -> bytes:
    """As the event loops do: a callback from whatever thread."""
    woken = threading.Event()
    if channel.want_news(woken.set):
        wait_for(woken)
    return channel.take()


@pytest.mark.usefixtures("frequent_switches", "no_leaks")
@pytest.mark.parametrize("take", [take_by_wait, take_by_short_waits, take_by_poll, take_by_wake])
def test_no_wake_up_is_lost(take: Callable[[Channel, random.Random], bytes]) -> None:
    """Many channels at once; a lost wake-up would leave one of them waiting past the deadline."""
    rng = random.Random(1)
    failed: list[BaseException] = []

    def produce(channel: Channel, data: bytes) -> None:
        for start in range(0, len(data), 997):
            channel.put(data[start : start + 997])
        channel.end()

    def consume(channel: Channel, data: bytes) -> None:
        got = bytearray()
        try:
            while not channel.drained:
                got += take(channel, rng)
            assert got == data
        except BaseException as error:
            failed.append(error)
        finally:
            channel.abandon()

    threads = []
    for number in range(8):
        channel, data = Channel(), rng.randbytes(150_000 + number)
        threads += [threading.Thread(target=target, args=(channel, data)) for target in (produce, consume)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert not failed


class Interrupted(bytes):
    """A chunk that lets the other side act at the moment when its length is asked for."""

    act: Callable[[], object] | None = None

    def __len__(self) -> int:
        act, self.act = self.act, None
        if act is not None:
            act()
        return super().__len__()


def test_a_limit_holds_in_the_middle_of_a_put() -> None:
    """The reader may come between any two steps of the producer."""
    channel, taken = Channel(), []
    channel.put(b"short")
    chunk = Interrupted(b"x" * 1000)
    chunk.act = lambda: taken.append(channel.take(7))
    channel.put(chunk)
    assert len(taken[0]) <= 7
    assert taken[0] + channel.take() == b"short" + b"x" * 1000


@pytest.mark.usefixtures("frequent_switches", "no_leaks")
def test_leaving_in_another_thread_races_with_reading() -> None:
    """As ``shutdown()`` and ``close()`` do, which are meant to wake a reader: it gets what is there, or nothing."""
    failed: list[BaseException] = []

    def read(channel: Channel, done: threading.Event) -> None:
        try:
            while not channel.abandoned:
                channel.take(5)
                channel.take()
                channel.wait(1e-5)
        except BaseException as error:
            failed.append(error)
        done.set()

    for number in range(300):
        channel, done = Channel(), threading.Event()
        threading.Thread(target=read, args=(channel, done)).start()
        for _ in range(number % 60):
            channel.put(b"abc", hold=False)
        channel.abandon()
        wait_for(done)
    assert not failed


@pytest.mark.usefixtures("frequent_switches", "no_leaks")
def test_leaving_races_with_producing() -> None:
    """Whatever the moment, the producer learns of it and both are free."""
    for number in range(200):
        channel = Channel()
        if number % 2:
            channel.fileno()
        done = threading.Event()

        def produce(channel: Channel = channel, done: threading.Event = done) -> None:
            try:
                while True:
                    channel.put(b"x" * 5000)
            except ReaderGone:
                channel.end()
                done.set()

        threading.Thread(target=produce).start()
        if number % 3:
            channel.wait(DEADLINE)
            channel.take(3)
        channel.abandon()
        wait_for(done)
