"""What is under way: so much and no more, counted once, ended when it has to be."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from flask_aibridge.bridge import occupancy
from flask_aibridge.bridge.occupancy import Exchange, Occupancy
from flask_aibridge.bridge.request import Refused
from tests.bridge.wsgi import DEADLINE, FakeCancellation


def stopped_by(exchange: Exchange) -> list[str]:
    stops: list[str] = []
    exchange.on_cancel(lambda: stops.append("stop"))
    return stops


def test_each_door_has_a_bound_of_its_own() -> None:
    """One that is full leaves the other alone, and whoever leaves makes room."""
    full = Occupancy(2, 1)
    first, _ = full.enter(None), full.enter(None)
    full.enter(FakeCancellation())
    for caller in (None, FakeCancellation()):
        with pytest.raises(Refused) as refused:
            full.enter(caller)
        assert refused.value.status == 503
        assert refused.value.headers == (("Retry-After", "5"),)
    assert full.running == 3
    first.leave()
    first.leave()
    full.enter(None)
    assert full.running == 3


def test_a_caller_who_leaves_stops_the_exchange() -> None:
    """And one who has left before it began."""
    caller = FakeCancellation()
    exchange = Occupancy(1, 1).enter(caller)
    stops = stopped_by(exchange)
    caller.cancel()
    assert (stops, exchange.left, exchange.interrupted) == (["stop"], True, False)
    assert stopped_by(Occupancy(1, 1).enter(caller)) == ["stop"]


def test_what_is_taken_off_stops_nothing() -> None:
    """The exchange may ask another provider after that."""
    caller = FakeCancellation()
    exchange = Occupancy(1, 1).enter(caller)
    stops: list[int] = []
    exchange.on_cancel(lambda: stops.append(1))()
    again = stopped_by(exchange)
    assert len(caller.callbacks) == 1
    caller.cancel()
    exchange.interrupt()
    assert stops == []
    assert again == ["stop", "stop"]


def test_what_outlives_its_caller_is_not_stopped_by_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """While there is room, which those who have a caller do not take."""
    monkeypatch.setattr(occupancy, "MAX_DETACHED", 1)
    callers = [FakeCancellation(), FakeCancellation()]
    counted = Occupancy(1, 2)
    exchanges = [counted.enter(caller) for caller in callers]
    stops = [stopped_by(exchange) for exchange in exchanges]
    for exchange, caller in zip(exchanges, callers, strict=True):
        exchange.outlives = True
        caller.cancel()
    assert stops == [[], ["stop"]]
    assert exchanges[0].detach()
    assert not exchanges[1].detach()
    assert counted.running == 2
    counted.enter(FakeCancellation())
    exchanges[0].leave()
    assert exchanges[1].detach()
    assert counted.running == 2


def test_draining_waits_for_what_is_under_way() -> None:
    """Nothing new begins meanwhile; when the last has left it is over, and stays so."""
    draining = Occupancy(5, 5)
    exchanges = [draining.enter(None), draining.enter(FakeCancellation())]
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(draining.drain(DEADLINE)))
    thread.start()
    while not draining.draining:
        threading.Event().wait(0.001)
    with pytest.raises(Refused) as refused:
        draining.enter(None)
    assert (refused.value.status, refused.value.headers) == (503, (("Retry-After", "1"),))
    for exchange in exchanges:
        exchange.leave()
    thread.join(DEADLINE)
    assert results == [True]
    assert draining.drain(0)
    assert draining.running == 0


def test_a_garbage_collection_may_end_what_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the thread that waits, at any step of that."""
    monkeypatch.setattr(occupancy, "ENDING_SECONDS", 0.001)
    for moment in range(1, 30):
        occupied = Occupancy(1, 1)
        thread = threading.Thread(
            target=_drain_and_leave, args=(occupied, occupied.enter(None), moment), daemon=True
        )
        thread.start()
        thread.join(DEADLINE)
        assert not thread.is_alive()


def _drain_and_leave(occupied: Occupancy, exchange: Exchange, moment: int) -> None:
    steps = iter(range(moment))

    def collect(*_event: object) -> None:
        if next(steps, None) is None:
            sys.setprofile(None)
            exchange.leave()

    sys.setprofile(collect)
    try:
        occupied.drain(0.001)
    finally:
        sys.setprofile(None)


def test_what_does_not_end_is_ended() -> None:
    """Also what only learns afterwards how it can be stopped."""
    draining = Occupancy(5, 5)
    waiting, admitted = draining.enter(None), draining.enter(FakeCancellation())

    def ask() -> None:
        assert interrupted.wait(DEADLINE)
        admitted.on_cancel(admitted.leave)

    interrupted = threading.Event()

    def end() -> None:
        waiting.leave()
        interrupted.set()

    waiting.on_cancel(end)
    thread = threading.Thread(target=ask)
    thread.start()
    assert not draining.drain(0)
    thread.join(DEADLINE)
    assert (waiting.interrupted, admitted.interrupted, draining.running) == (True, True, 0)


def test_what_cannot_be_ended_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reader does not read; the process has to go all the same."""
    monkeypatch.setattr(occupancy, "ENDING_SECONDS", 0.001)
    draining = Occupancy(5, 5)
    exchange = draining.enter(None)
    assert not draining.drain(0)
    assert exchange.interrupted
    assert draining.running == 1


def test_only_what_is_detached_is_ended_with_the_bridge() -> None:
    """The others have callers."""
    counted = Occupancy(5, 5)
    alone, accompanied = counted.enter(None), counted.enter(None)
    alone.on_cancel(alone.leave)
    assert alone.detach()
    counted.end_detached()
    assert (alone.interrupted, accompanied.interrupted, counted.running) == (True, False, 1)
    counted.enter(None)


def test_a_forked_child_begins_with_nothing() -> None:
    """What its parent has under way, and that it stops, is none of its business."""
    counted = Occupancy(1, 1)
    exchange = counted.enter(None)
    with exchange._process.lock:
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            try:
                began = counted.running == 0 and not counted.draining
                counted.enter(None)
                exchange.leave()
                os._exit(0 if began and counted.running == 1 else 1)
            finally:
                os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert counted.running == 1
