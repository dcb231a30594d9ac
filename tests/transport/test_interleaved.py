"""Two threads in one channel or registry: at every single step of the one, the other does its part."""

from __future__ import annotations

import os
import select
from collections.abc import Callable

import pytest

from flask_aibridge.transport import Cancellation
from flask_aibridge.transport.pipe import HIGH_WATER, Channel, ReaderGone
from flask_aibridge.transport.workers import Slots
from tests.transport.calls import DEADLINE
from tests.transport.interleaving import Interleaving, Wake, at_every_step, either_way, result_of

pytestmark = pytest.mark.slow


def readable(channel: Channel) -> bool:
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    return bool(poll.poll(0))


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("limit", [None, 1, 7, 2000])
@pytest.mark.parametrize("selectable", [False, True])
@pytest.mark.parametrize("before", [b"", b"short"])
def test_taking_and_putting(swap: bool, limit: int | None, selectable: bool, before: bytes) -> None:
    """The bytes are all there and in order, within the limit; the descriptor says what is so."""

    def case(interleaving: Interleaving) -> None:
        channel = Channel()
        if selectable:
            channel.fileno()
        if before:
            channel.put(before)
        either_way(interleaving, lambda: channel.take(limit), lambda: channel.put(b"x" * 1000), swap)
        assert not interleaving.errors
        taken = result_of(interleaving, swap)
        assert limit is None or len(taken) <= limit
        assert channel.size == len(before) + 1000 - len(taken)
        assert not selectable or readable(channel) == bool(channel.size)
        assert taken + channel.take() == before + b"x" * 1000
        assert not selectable or not readable(channel)
        channel.abandon()

    at_every_step(case)


NEWS: list[Callable[[Channel], object]] = [
    lambda channel: channel.put(b"x"),
    lambda channel: channel.end(),
    lambda channel: channel.end(b"x"),
    lambda channel: channel.announce(),
    lambda channel: channel.abandon(),
]


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("news", NEWS)
def test_wanting_news_and_having_some(swap: bool, news: Callable[[Channel], object]) -> None:
    """Either the reader is told that there is some, or its wake is called, once."""

    def case(interleaving: Interleaving) -> None:
        channel, wake = Channel(), Wake()
        either_way(interleaving, lambda: channel.want_news(wake), lambda: news(channel), swap)
        assert not interleaving.errors
        assert wake.calls == result_of(interleaving, swap)
        channel.abandon()

    at_every_step(case)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("news", NEWS)
def test_waiting_that_times_out_when_news_comes(swap: bool, news: Callable[[Channel], object]) -> None:
    """No wake is left over for the next sleep, and none is missing in it."""

    def case(interleaving: Interleaving) -> None:
        channel = Channel()
        either_way(interleaving, lambda: channel.wait(0), lambda: news(channel), swap)
        assert not interleaving.errors
        channel.take()
        channel.wait(0)  # an announcement may be told twice, which costs a reader one more look
        if not channel.ended and not channel.abandoned:
            assert not channel.wait(0)
            channel.put(b"y")
            assert channel.wait(DEADLINE)
        channel.abandon()

    at_every_step(case)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("limit", [None, 1, HIGH_WATER])
def test_wanting_room_and_making_some(swap: bool, limit: int | None) -> None:
    """Either the producer is told that there is room, or its wake is called, once."""

    def case(interleaving: Interleaving) -> None:
        channel, wake = Channel(), Wake()
        channel.put(b"x" * HIGH_WATER, hold=False)
        either_way(interleaving, lambda: channel.want_room(wake), lambda: channel.take(limit), swap)
        assert not interleaving.errors
        assert wake.calls == result_of(interleaving, swap)
        channel.abandon()

    at_every_step(case)


@pytest.mark.parametrize("swap", [False, True])
def test_wanting_room_and_leaving(swap: bool) -> None:
    def case(interleaving: Interleaving) -> None:
        channel, wake = Channel(), Wake()
        channel.put(b"x" * HIGH_WATER, hold=False)
        either_way(interleaving, lambda: channel.want_room(wake), channel.abandon, swap)
        assert len(interleaving.errors) + wake.calls == 1
        assert all(isinstance(error, ReaderGone) for error in interleaving.errors)

    at_every_step(case)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("selectable", [False, True])
def test_putting_and_leaving(swap: bool, selectable: bool) -> None:
    """The producer hears of it at once or at the next chunk, and nothing is kept for nobody."""

    def case(interleaving: Interleaving) -> None:
        channel = Channel()
        if selectable:
            channel.fileno()
        either_way(interleaving, lambda: channel.put(b"x"), channel.abandon, swap)
        assert all(isinstance(error, ReaderGone) for error in interleaving.errors)
        with pytest.raises(ReaderGone):
            channel.put(b"y")
        assert channel.take() == b""

    at_every_step(case)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("selectable", [False, True])
def test_ending_and_leaving(swap: bool, selectable: bool) -> None:
    def case(interleaving: Interleaving) -> None:
        channel = Channel()
        if selectable:
            channel.fileno()
        either_way(interleaving, lambda: channel.end(b"x"), channel.abandon, swap)
        assert not interleaving.errors
        assert channel.ended
        assert channel.abandoned

    at_every_step(case)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("limit", [None, 1, 4, 7])
@pytest.mark.parametrize("selectable", [False, True])
def test_taking_and_leaving(swap: bool, limit: int | None, selectable: bool) -> None:
    """Another thread may close the response while one reads: what is taken is the beginning of what was there."""

    def case(interleaving: Interleaving) -> None:
        channel = Channel()
        if selectable:
            channel.fileno()
        for chunk in (b"ab", b"cd", b"ef"):
            channel.put(chunk)
        either_way(interleaving, lambda: channel.take(limit), channel.abandon, swap)
        assert not interleaving.errors
        assert b"abcdef".startswith(result_of(interleaving, swap))

    at_every_step(case)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("news", [NEWS[0], NEWS[1], NEWS[2]])
def test_asking_for_the_descriptor_and_news(swap: bool, news: Callable[[Channel], object]) -> None:
    def case(interleaving: Interleaving) -> None:
        channel = Channel()
        either_way(interleaving, channel.fileno, lambda: news(channel), swap)
        assert not interleaving.errors
        assert readable(channel)
        channel.take()
        assert readable(channel) == channel.ended
        channel.abandon()

    at_every_step(case)


@pytest.mark.parametrize("swap", [False, True])
def test_drained_is_never_true_too_early(swap: bool) -> None:
    def case(interleaving: Interleaving) -> None:
        channel = Channel()
        channel.put(b"ab")
        either_way(interleaving, lambda: (channel.drained, channel.take()), lambda: channel.end(b"cd"), swap)
        assert not interleaving.errors
        drained, taken = result_of(interleaving, swap)
        assert not drained
        assert taken + channel.take() == b"abcd"
        assert channel.drained

    at_every_step(case)


@pytest.mark.parametrize("selectable", [False, True])
@pytest.mark.parametrize(
    "produce",
    [
        lambda channel: channel.put(b"x"),
        lambda channel: channel.end(b"x"),
        lambda channel: channel.announce(),
        lambda channel: channel.want_room(Wake()),
    ],
)
def test_a_response_collected_in_the_producers_own_thread(
    produce: Callable[[Channel], object], selectable: bool
) -> None:
    """The garbage collector may end the exchange between any two steps of the thread that produces it."""

    def case(interleaving: Interleaving) -> None:
        channel, doorbell = Channel(), -1
        if selectable:
            doorbell = channel.fileno()
        interleaving.run(lambda: produce(channel), channel.abandon)
        assert all(isinstance(error, ReaderGone) for error in interleaving.errors)
        assert channel.abandoned
        with pytest.raises(ReaderGone):
            channel.put(b"y")
        if selectable:
            with pytest.raises(OSError):
                os.fstat(doorbell)

    at_every_step(case, same_thread=True)


def test_a_response_collected_in_the_midst_of_a_cancellation() -> None:
    """Of another exchange, whose thread holds the lock that all cancellations share."""

    def case(interleaving: Interleaving) -> None:
        cancelled, other, called = Cancellation(), Cancellation(), Wake()
        other.on_cancel(called)
        interleaving.run(lambda: cancelled.on_cancel(called), other._fire)
        cancelled._fire()
        assert not interleaving.errors
        assert called.calls == 2

    at_every_step(case, same_thread=True)


@pytest.mark.parametrize("swap", [False, True])
def test_wanting_a_slot_and_giving_one_back(swap: bool) -> None:
    """Either it is had at once, or it is granted, once."""

    def case(interleaving: Interleaving) -> None:
        slots, granted = Slots(1), Wake()
        assert slots.try_take()
        either_way(interleaving, lambda: slots.want(granted), slots.give_back, swap)
        assert not interleaving.errors
        assert granted.calls == result_of(interleaving, swap)
        assert slots.taken == 1
        slots.give_back()
        assert slots.taken == 0

    at_every_step(case)


@pytest.mark.parametrize("swap", [False, True])
def test_giving_up_on_a_slot_and_giving_one_back(swap: bool) -> None:
    """Either it is given up, or it is granted and is ours."""

    def case(interleaving: Interleaving) -> None:
        slots, granted = Slots(1), Wake()
        assert slots.try_take()
        assert slots.want(granted)
        either_way(interleaving, lambda: slots.give_up(granted), slots.give_back, swap)
        assert not interleaving.errors
        assert granted.calls == (not result_of(interleaving, swap))
        assert slots.taken == granted.calls

    at_every_step(case)


@pytest.mark.parametrize("swap", [False, True])
def test_putting_a_callback_on_and_cancelling(swap: bool) -> None:
    """It is called, once, whoever comes first."""

    def case(interleaving: Interleaving) -> None:
        cancelled, called = Cancellation(), Wake()
        either_way(interleaving, lambda: cancelled.on_cancel(called), cancelled._fire, swap)
        assert not interleaving.errors
        assert called.calls == 1

    at_every_step(case)


@pytest.mark.parametrize("swap", [False, True])
def test_taking_a_callback_off_and_cancelling(swap: bool) -> None:
    """It is called at most once, and nothing is raised."""

    def case(interleaving: Interleaving) -> None:
        cancelled, called, other = Cancellation(), Wake(), Wake()
        take_off = cancelled.on_cancel(called)
        cancelled.on_cancel(other)
        either_way(interleaving, take_off, cancelled._fire, swap)
        assert not interleaving.errors
        assert called.calls <= 1
        assert other.calls == 1

    at_every_step(case)


def test_two_threads_that_cancel() -> None:
    """The caller leaves just when the app ends."""

    def case(interleaving: Interleaving) -> None:
        cancelled, called = Cancellation(), Wake()
        cancelled.on_cancel(called)
        interleaving.run(cancelled._fire, cancelled._fire)
        assert not interleaving.errors
        assert called.calls == 1

    at_every_step(case)


def test_cancelling_what_is_waited_for() -> None:
    def case(interleaving: Interleaving) -> None:
        cancelled = Cancellation()
        interleaving.run(cancelled._fire, lambda: cancelled.wait(DEADLINE))
        assert not interleaving.errors
        assert interleaving.results["second"] is True

    at_every_step(case)


def test_waiting_for_a_cancellation_that_comes_at_the_last_moment() -> None:
    def case(interleaving: Interleaving) -> None:
        cancelled = Cancellation()
        interleaving.run(lambda: cancelled.wait(0), cancelled._fire)
        assert not interleaving.errors
        assert cancelled.wait(0) is True
        assert not cancelled._callbacks

    at_every_step(case)
