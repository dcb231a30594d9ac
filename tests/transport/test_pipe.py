"""The body channel: the same bytes in the same order, bounded, pollable, and awake when there is news."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.transport.pipe import HIGH_WATER, Channel, Doorbell, ReaderGone
from tests.transport.calls import DEADLINE, Scripted, call, eventually, wait_for


def readable(descriptor: int, seconds: float = 0) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


_chunks = st.binary(min_size=1, max_size=20)
_limits = st.one_of(st.none(), st.integers(0, 30))
_operations = st.lists(
    st.one_of(st.tuples(st.just("put"), _chunks), st.tuples(st.just("take"), _limits)), max_size=40
)


@given(_operations, st.binary(max_size=5), st.booleans())
def test_any_puts_and_takes_keep_the_bytes_in_order(
    operations: list[tuple[str, bytes | int | None]], last: bytes, selectable: bool
) -> None:
    """And the descriptor is readable exactly while there is something to take, or it is over."""
    channel, model = Channel(), b""
    descriptor = channel.fileno() if selectable else -1
    for name, value in operations:
        if name == "put":
            assert isinstance(value, bytes)
            channel.put(value)
            model += value
        else:
            assert not isinstance(value, bytes)
            expected = model if value is None else model[:value]
            assert channel.take(value) == expected
            model = model[len(expected) :]
        assert channel.size == len(model)
        assert not channel.drained
        assert not selectable or readable(descriptor) == bool(model)
    channel.end(last)
    assert not selectable or readable(descriptor)
    assert channel.take() == model + last
    assert channel.drained
    assert channel.take() == b""
    assert not selectable or readable(descriptor)
    channel.abandon()


@given(st.lists(_chunks, min_size=1, max_size=20), st.integers(1, 7))
def test_takes_with_a_limit_join_to_the_whole(chunks: list[bytes], limit: int) -> None:
    channel = Channel()
    for chunk in chunks:
        channel.put(chunk)
    channel.end()
    parts = []
    while not channel.drained:
        parts.append(channel.take(limit))
        assert 0 < len(parts[-1]) <= limit
    assert b"".join(parts) == b"".join(chunks)


@given(st.binary(min_size=2, max_size=20), st.integers(1, 19))
def test_what_is_pushed_back_comes_first(data: bytes, at: int) -> None:
    channel = Channel()
    channel.put(data)
    channel.put(b"more")
    taken = channel.take(len(data))
    channel.push_back(taken[at:] or b"x")
    assert channel.take() == (taken[at:] or b"x") + b"more"


def test_one_chunk_is_taken_without_a_copy() -> None:
    channel, chunk = Channel(), bytes(1000)
    channel.put(chunk)
    assert channel.take() is chunk


@pytest.mark.parametrize("size", [1, 1000, 8192, HIGH_WATER - 1, HIGH_WATER, HIGH_WATER * 3])
def test_the_producer_is_held_at_the_bound(size: int) -> None:
    """At most 64 KiB and one chunk wait for a reader who has stopped."""
    channel, put = Channel(), [0]

    def produce() -> None:
        for _ in range(HIGH_WATER // size + 3):
            put[0] += size
            channel.put(b"x" * size)
        channel.end()

    producer = threading.Thread(target=produce)
    producer.start()
    eventually(lambda: channel.size >= HIGH_WATER, "the channel filled")
    producer.join(0.05)
    assert channel.size == put[0] <= HIGH_WATER + size
    total = 0
    while not channel.drained:
        assert channel.wait(DEADLINE)
        total += len(channel.take(1000))
    producer.join(DEADLINE)
    assert total == put[0]


@pytest.mark.parametrize("size", [100, 8192, 100_000])
def test_an_app_whose_reader_stops_is_held_at_the_bound(size: int) -> None:
    sent = [0]

    def count() -> None:
        sent[0] += size

    chunks = HIGH_WATER // size + 20
    script = Scripted(*[step for _ in range(chunks) for step in (count, b"x" * size)])
    response = call(script, preload_content=False)
    eventually(lambda: sent[0] >= HIGH_WATER, "the app runs ahead")
    threading.Event().wait(0.1)
    assert sent[0] <= HIGH_WATER + size
    first = response.read1(10)  # makes no room
    assert len(first) + len(response.read()) == sent[0] == chunks * size


def test_put_gives_up_after_its_timeout() -> None:
    channel = Channel()
    with pytest.raises(TimeoutError):
        channel.put(b"x" * HIGH_WATER, timeout=0.05)
    assert channel.size == HIGH_WATER
    channel.put(b"last", hold=False)


def test_wait_times_out_and_can_be_called_again() -> None:
    channel = Channel()
    assert not channel.wait(0)
    assert not channel.wait(0.01)
    channel.put(b"x")
    assert channel.wait(0)
    assert channel.wait(None)


@pytest.mark.parametrize(
    "news",
    [
        lambda channel: channel.put(b"x"),
        lambda channel: channel.end(),
        lambda channel: channel.end(b"x"),
        lambda channel: channel.announce(),
        lambda channel: channel.abandon(),
    ],
)
def test_any_news_wakes_the_reader(news: Callable[[Channel], object]) -> None:
    channel, woken = Channel(), []
    asleep = threading.Event()

    def wait() -> None:
        asleep.set()
        woken.append(channel.wait(DEADLINE))

    reader = threading.Thread(target=wait)
    reader.start()
    wait_for(asleep)
    news(channel)
    reader.join(DEADLINE)
    assert woken == [True]


def test_an_announcement_is_told_once() -> None:
    channel = Channel()
    channel.announce()
    assert channel.wait(0)
    assert not channel.wait(0)


def test_only_the_first_end_counts() -> None:
    channel, error = Channel(), ValueError("first")
    channel.end(b"x", error)
    channel.end(b"y", ValueError("second"))
    assert channel.error is error
    assert channel.take() == b"x"


def test_bytes_before_an_error_are_still_there() -> None:
    channel = Channel()
    channel.put(b"one")
    channel.end(error=ValueError())
    assert channel.ended
    assert not channel.drained
    assert channel.take() == b"one"
    assert channel.drained


def test_abandon_refuses_the_producer_and_drops_what_waits() -> None:
    channel = Channel()
    channel.put(b"x")
    assert channel.abandon() is True
    assert channel.abandon() is False
    assert channel.abandoned
    for refused in (lambda: channel.put(b"y"), channel.wait_for_room):
        with pytest.raises(ReaderGone):
            refused()
    channel.end(b"z")
    assert channel.take() == b""


def test_abandon_says_whether_the_producer_was_at_work() -> None:
    channel = Channel()
    channel.end(b"x")
    assert channel.abandon() is False


def test_abandon_wakes_a_held_producer() -> None:
    channel, raised = Channel(), []

    def produce() -> None:
        try:
            channel.put(b"x" * HIGH_WATER * 2)
        except ReaderGone as error:
            raised.append(error)

    producer = threading.Thread(target=produce)
    producer.start()
    eventually(lambda: channel.size >= HIGH_WATER, "the channel filled")
    channel.abandon()
    producer.join(DEADLINE)
    assert isinstance(raised[0], BrokenPipeError)


@pytest.mark.parametrize("prepare", [lambda channel: channel.put(b"x"), lambda channel: channel.end()])
def test_fileno_is_readable_for_what_came_before_it_was_asked_for(
    prepare: Callable[[Channel], object],
) -> None:
    channel = Channel()
    prepare(channel)
    assert readable(channel.fileno())
    channel.abandon()


def test_fileno_stays_the_same_and_uses_the_doorbell_it_was_given() -> None:
    doorbell = Doorbell()
    channel = Channel(doorbell)
    assert channel.fileno() == channel.fileno() == doorbell.fileno()
    assert not readable(channel.fileno())
    channel.put(b"x")
    assert readable(channel.fileno())
    channel.abandon()
    assert doorbell.fileno() == -1


@pytest.mark.usefixtures("no_leaks")
def test_an_abandoned_channel_has_no_descriptor() -> None:
    channel = Channel()
    descriptor = channel.fileno()
    channel.abandon()
    with pytest.raises(ValueError, match="closed"):
        channel.fileno()
    with pytest.raises(OSError):
        os.fstat(descriptor)
    unasked = Channel()
    unasked.abandon()
    with pytest.raises(ValueError, match="closed"):
        unasked.fileno()


def test_a_doorbell_is_readable_from_ring_to_answer_and_closes_twice() -> None:
    doorbell = Doorbell()
    assert not doorbell.wait(0)
    doorbell.ring()
    assert doorbell.wait(DEADLINE)
    assert readable(doorbell.fileno())
    doorbell.answer()
    assert not readable(doorbell.fileno())
    descriptor = doorbell.fileno()
    doorbell.close()
    taken = os.dup(0)  # whoever gets the number next keeps it
    doorbell.close()
    os.fstat(taken)
    os.close(taken)
    with pytest.raises(OSError):
        os.fstat(descriptor)
