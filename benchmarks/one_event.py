"""One event, from the app's `yield` to the return of the read of a reader that waits for it.

Each contestant keeps one stream open. For each event the reader throws a ball (a lock that the app waits on)
and reads; the app answers with one event. Two figures are taken of it, each against a bare pipe that is
measured in the same way, with the same generator in its thread:

one way
    From the moment before `yield` to the moment after the read, the median of a batch. Between the throw and
    that moment the app gives up the processor until the reader is asleep in its read, so that all there is to
    do is to carry an event and to wake its reader. That it was asleep, each time, is counted and printed.
round trip
    From the throw to the moment after the read, the mean of a batch: a ping-pong, in which the app is woken
    as well, in one of two ways, by the scheduler's choice. The app cannot run before the reader's read gives
    up the GIL, so the reader waits here too, but at times it is only on its way to sleep.
"""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack
from time import perf_counter_ns
from typing import NamedTuple

import urllib3
from apps import BALL_KEY, EVENT_SIZE, Ball, ball_app
from faces import BASE_URL, Faces, faces
from measure import Comparison, Contestant, Section, Target, run_rounds

URL = BASE_URL + "/v1/ball"

YIELDS = 5
"""How often the app gives up the processor before a one-way event. Once is enough for every reader here."""

PROOF = 200
"""Events in which it is counted how often a reader falls asleep."""

READ_SIZE = 65536
"""What a reader of the bare pipe asks for: the capacity of a Linux pipe."""

FLOOR = "floor: bare pipe between two threads"
READ1 = "Flask-AIBridge, urllib3 read1()"
STREAM = "Flask-AIBridge, urllib3 stream()"
REQUESTS = "Flask-AIBridge, requests iter_content(None)"
HTTPX2 = "Flask-AIBridge, httpx2 iter_raw()"
HTTPX2_ASYNC = "Flask-AIBridge, httpx2 async aiter_raw()"

TARGET = Target(2.5)


class Lap(NamedTuple):
    """Moments of one event, in nanoseconds of `perf_counter_ns`."""

    thrown: int
    yielded: int
    read: int


Play = Callable[[int], list[Lap]]
"""Plays n events on an open stream."""


class Player(NamedTuple):
    name: str
    ball: Ball
    play: Play


class Way(NamedTuple):
    """Which of the two figures is taken."""

    name: str
    yields: int
    figure: Callable[[Sequence[Lap]], float]


ONE_WAY = Way("one way", YIELDS, lambda laps: statistics.median(lap.read - lap.yielded for lap in laps))
ROUND_TRIP = Way("round trip", 0, lambda laps: statistics.fmean(lap.read - lap.thrown for lap in laps))


def measure(*, rounds: int, batch: int) -> Section:
    """Measure both figures through the faces that stream, side by side with the bare pipe."""
    with ExitStack() as stack:
        players = [stack.enter_context(_bare_pipe()), *_ours(stack)]
        contestants = [_contestant(player, way) for way in (ONE_WAY, ROUND_TRIP) for player in players]
        notes = [_proof_of_waiting(player) for player in players]
        timings, figures = run_rounds(contestants, _comparisons(), rounds=rounds, batch=batch)
    return Section("One event to a waiting reader", figures, timings, notes)


def _proof_of_waiting(player: Player) -> str:
    player.ball.yields = ONE_WAY.yields
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    player.play(PROOF)
    slept = (resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before) / PROOF
    return f"{player.name}, one way: the reader slept {slept:.2f} times for each event."


def _comparisons() -> Sequence[Comparison]:
    """Return the two figures that have a target, the one way of both, then the other faces.

    The target is one event's way against a bare pipe's round trip; that of the two round trips is as strict.
    """
    judged = [_comparison(READ1, way, ROUND_TRIP, TARGET) for way in (ONE_WAY, ROUND_TRIP)]
    others = [
        _comparison(name, way, way)
        for name in (STREAM, REQUESTS, HTTPX2, HTTPX2_ASYNC)
        for way in (ONE_WAY, ROUND_TRIP)
    ]
    return [*judged, _comparison(READ1, ONE_WAY, ONE_WAY), *others]


def _comparison(name: str, way: Way, floor_way: Way, target: Target | None = None) -> Comparison:
    label = f"{name.partition(', ')[2]}, {way.name} : bare pipe, {floor_way.name}"
    return Comparison(label, f"{name}, {way.name}", f"{FLOOR}, {floor_way.name}", target)


def _contestant(player: Player, way: Way) -> Contestant:
    def batch(count: int) -> float:
        player.ball.yields = way.yields
        return way.figure(player.play(count)) / 1000

    return Contestant(f"{player.name}, {way.name}", batch, lambda: _check(player))


def _check(player: Player) -> None:
    (lap,) = player.play(1)
    if not lap.thrown < lap.yielded < lap.read:
        raise RuntimeError(f"{player.name} delivered an event that had not been asked for")


@contextlib.contextmanager
def _bare_pipe() -> Iterator[Player]:
    """Yield the floor: the events of a Ball, written to a pipe by the thread that iterates them."""
    ball = Ball()
    reader, writer = os.pipe()
    thread = threading.Thread(target=_write_events, args=(ball, writer), daemon=True)
    thread.start()
    try:
        _expect_one(os.read(reader, READ_SIZE))
        yield Player(FLOOR, ball, _playing(ball, lambda: os.read(reader, READ_SIZE)))
    finally:
        ball.drop()
        thread.join()
        os.close(reader)


def _write_events(ball: Ball, writer: int) -> None:
    for event in ball.events():
        os.write(writer, event)
    os.close(writer)


def _ours(stack: ExitStack) -> list[Player]:
    return [
        _through_read1(stack),
        _through_stream(stack),
        _through_requests(stack),
        _through_httpx2(stack),
        _through_httpx2_async(stack),
    ]


def _with_ball(stack: ExitStack) -> tuple[Ball, Faces]:
    """Return clients of their own for one stream, and the ball that its app waits for."""
    ball = Ball()
    ours = stack.enter_context(faces(ball_app, {BALL_KEY: ball}))
    stack.callback(ball.drop)
    return ball, ours


def _open(stack: ExitStack, ours: Faces) -> urllib3.BaseHTTPResponse:
    response = ours.pool.request("GET", URL, preload_content=False)
    stack.callback(response.close)
    return response


def _through_read1(stack: ExitStack) -> Player:
    ball, ours = _with_ball(stack)
    response = _open(stack, ours)
    return _opened(READ1, ball, response.read1)


def _through_stream(stack: ExitStack) -> Player:
    ball, ours = _with_ball(stack)
    chunks = iter(_open(stack, ours).stream())
    return _opened(STREAM, ball, chunks.__next__)


def _through_requests(stack: ExitStack) -> Player:
    ball, ours = _with_ball(stack)
    response = stack.enter_context(ours.session.get(URL, stream=True))
    chunks = iter(response.iter_content(None))
    return _opened(REQUESTS, ball, chunks.__next__)


def _through_httpx2(stack: ExitStack) -> Player:
    ball, ours = _with_ball(stack)
    response = stack.enter_context(ours.httpx2_client.stream("GET", URL))
    return _opened(HTTPX2, ball, response.iter_raw().__next__)


def _opened(name: str, ball: Ball, read: Callable[[], bytes]) -> Player:
    _expect_one(read())
    return Player(name, ball, _playing(ball, read))


def _through_httpx2_async(stack: ExitStack) -> Player:
    ball, ours = _with_ball(stack)

    async def open_stream() -> AsyncIterator[bytes]:
        request = ours.httpx2_async_client.build_request("GET", URL)
        response = await ours.httpx2_async_client.send(request, stream=True)
        stack.callback(lambda: ours.runner.run(response.aclose()))
        chunks = response.aiter_raw()
        _expect_one(await anext(chunks))
        return chunks

    chunks = ours.runner.run(open_stream())
    return Player(HTTPX2_ASYNC, ball, lambda count: ours.runner.run(_play_async(ball, chunks, count)))


def _playing(ball: Ball, read: Callable[[], bytes]) -> Play:
    def play(count: int) -> list[Lap]:
        laps = []
        for _ in range(count):
            thrown = perf_counter_ns()
            ball.throw()
            event = read()
            laps.append(Lap(thrown, ball.yielded_at, perf_counter_ns()))
            _expect_one(event)
        return laps

    return play


async def _play_async(ball: Ball, chunks: AsyncIterator[bytes], count: int) -> list[Lap]:
    laps = []
    for _ in range(count):
        thrown = perf_counter_ns()
        ball.throw()
        event = await anext(chunks)
        laps.append(Lap(thrown, ball.yielded_at, perf_counter_ns()))
        _expect_one(event)
    return laps


def _expect_one(event: bytes) -> None:
    if len(event) != EVENT_SIZE:
        raise RuntimeError(f"a read returned {len(event)} bytes where one event has {EVENT_SIZE}")
