"""1,000 streams open at once through AsyncWSGITransport, 20 events a second on each for four seconds.

Run by `transport.py`; each load runs in a process of its own (this file as a script), so that resident
memory is its own alone, and on all the cores that the machine gives.

The app's threads sleep until their next event is due. A gateway's threads would be blocked in a read of the
provider's socket instead; both are a thread that the kernel wakes for an event and that then needs the GIL,
but the sleep needs no second process to play the provider, whose own cost and lateness would be in every
figure, and it says to the microsecond when the event was due. What it leaves out is what the app does with
a socket: parsing, TLS.

Lateness is counted from the moment an event was due (what a user would notice: it includes the app's own
waiting for the GIL) and from the moment the app yielded it (the transport and the loop alone). Each stream
has its own phase within a period, as strangers' streams have. `--phase "in step"` makes all of them yield at
once, 20 times a second: bare pipes cannot keep up with that either, so it says more about the GIL, for which
a thousand threads then queue, than about what carries the events.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING

import httpx2
from apps import EVENT_SIZE, EVENTS
from measure import Figure, Section, Target, spread

from flask_aibridge.transport import WSGIPoolManager
from flask_aibridge.transport.httpx2 import AsyncWSGITransport

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

Result = dict[str, float]

STREAMS = 1_000
RATE = 20
SECONDS = 4.0

HEAD_START = 0.5
"""Seconds between the start of the app's clock and its first event, for all threads to be asleep by then."""

STRAGGLERS = 10.0
"""Seconds after the last event is due at which an incomplete load is given up and counted as it is."""

CHILD_TIMEOUT = 120.0
"""Seconds that one load may take in all."""

READ_SIZE = 65536
TIMEOUT = httpx2.Timeout(600, connect=5)
"""What the LLM SDKs use, so that the cost of a read timeout is in the figures."""

TRANSPORT = "transport"
PIPE = "pipe"
NAMES = {TRANSPORT: "AsyncWSGITransport", PIPE: "floor: bare pipes"}
PHASES = ("spread", "in step")


class Load:
    """What the app's threads yield and when, and when it was read.

    The records are allocated and touched in advance, so that they are no part of the growth that is measured.
    """

    def __init__(self, streams: int, seconds: float, phase: str) -> None:
        self.streams = streams
        self.events = int(RATE * seconds)
        self.total = streams * self.events
        self.delivered = 0
        self.opened = asyncio.Semaphore(0)
        self.complete = asyncio.Event()
        self._stagger = 1e9 / RATE / streams if phase == "spread" else 0.0
        self._yielded = array("q", bytes(8 * self.total))
        self._read = array("q", bytes(8 * self.total))
        self._may_start = threading.Event()
        self._may_end = threading.Event()
        self._first_due = 0

    def start(self) -> None:
        """Set the clock: the first event is due in HEAD_START seconds."""
        self._first_due = perf_counter_ns() + int(HEAD_START * 1e9)
        self._may_start.set()

    def end(self) -> None:
        """Let the app's iterables end; until then every stream stays open."""
        self._may_end.set()

    def due(self, stream: int, number: int) -> int:
        """Return when an event is to be yielded, in nanoseconds of `perf_counter_ns`."""
        return self._first_due + int(stream * self._stagger) + number * 1_000_000_000 // RATE

    def events_of(self, stream: int) -> Iterator[bytes]:
        """Yield one event at once, so that the response begins, then each when it is due."""
        event = EVENTS[0]
        yield event
        self._may_start.wait()
        for number in range(self.events):
            early = self.due(stream, number) - perf_counter_ns()
            if early > 0:
                time.sleep(early / 1e9)
            self._yielded[stream * self.events + number] = perf_counter_ns()
            yield event
        self._may_end.wait()

    def reader_of(self, stream: int) -> Callable[[bytes], None]:
        """Return what to call with each chunk of a stream as soon as it is read."""
        base = stream * self.events
        size = 0

        def read(chunk: bytes) -> None:
            nonlocal size
            now = perf_counter_ns()
            # The first event opens the stream and is not counted.
            first = max(size // EVENT_SIZE - 1, 0)
            size += len(chunk)
            last = size // EVENT_SIZE - 1
            for number in range(first, last):
                self._read[base + number] = now
            self._count(last - first)
            if not last:
                self.opened.release()

        return read

    def _count(self, events: int) -> None:
        self.delivered += events
        if self.delivered >= self.total:
            self.complete.set()

    def milliseconds_late(self) -> tuple[list[float], list[float], list[float]]:
        """Return, of what was read, how late it was after it was due, how late after it was yielded, and the
        difference: how late the app was to yield it."""
        seen = [index for index in range(self.total) if self._read[index]]
        due = {index: self.due(*divmod(index, self.events)) for index in seen}
        return (
            [(self._read[index] - due[index]) / 1e6 for index in seen],
            [(self._read[index] - self._yielded[index]) / 1e6 for index in seen],
            [(self._yielded[index] - due[index]) / 1e6 for index in seen],
        )


@asynccontextmanager
async def through_transport(load: Load) -> AsyncIterator[None]:
    """Open every stream of the load through AsyncWSGITransport; the block runs while they are read."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return load.events_of(int(environ["QUERY_STRING"]))

    manager = WSGIPoolManager(app, max_concurrency=max(load.streams, 1))
    async with (
        httpx2.AsyncClient(transport=AsyncWSGITransport(manager), timeout=TIMEOUT) as client,
        asyncio.TaskGroup() as readers,
    ):
        for stream in range(load.streams):
            readers.create_task(_read_stream(client, stream, load.reader_of(stream)))
        yield


async def _read_stream(client: httpx2.AsyncClient, stream: int, read: Callable[[bytes], None]) -> None:
    async with client.stream("GET", f"http://bridge.invalid/?{stream}") as response:
        async for chunk in response.aiter_raw():
            read(chunk)


@asynccontextmanager
async def through_pipes(load: Load) -> AsyncIterator[None]:
    """The floor: one thread and one pipe for each stream, and a callback of the loop that reads it."""
    loop = asyncio.get_running_loop()
    closed = asyncio.Semaphore(0)
    threads = []
    for stream in range(load.streams):
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        loop.add_reader(reader, _read_pipe, loop, reader, load.reader_of(stream), closed)
        threads.append(threading.Thread(target=_write_pipe, args=(load, stream, writer), daemon=True))
        threads[-1].start()
    yield
    for _ in threads:
        await closed.acquire()
    for thread in threads:
        thread.join()


def _write_pipe(load: Load, stream: int, writer: int) -> None:
    for event in load.events_of(stream):
        os.write(writer, event)
    os.close(writer)


def _read_pipe(
    loop: asyncio.AbstractEventLoop, reader: int, read: Callable[[bytes], None], closed: asyncio.Semaphore
) -> None:
    if chunk := os.read(reader, READ_SIZE):
        read(chunk)
        return
    loop.remove_reader(reader)
    os.close(reader)
    closed.release()


CARRIERS = {TRANSPORT: through_transport, PIPE: through_pipes}


async def run_load(carrier: str, streams: int, seconds: float, phase: str) -> Result:
    """Warm up with one stream, then run a load and return its figures: KiB, ms, s and numbers of events."""
    await _run(carrier, Load(1, 0.1, phase))
    load = Load(streams, seconds, phase)
    return await _run(carrier, load)


async def _run(carrier: str, load: Load) -> Result:
    before = resident_kib()
    started = time.perf_counter()
    async with CARRIERS[carrier](load):
        for _ in range(load.streams):
            await load.opened.acquire()
        opening = time.perf_counter() - started
        opened = resident_kib()
        load.start()
        await _until_complete(load)
        ended = resident_kib()
        load.end()
    return {
        "delivered": load.delivered,
        "total": load.total,
        "opening": opening,
        "opened_kib": (opened - before) / load.streams,
        "ended_kib": (ended - before) / load.streams,
        **_lateness(load),
    }


async def _until_complete(load: Load) -> None:
    allowed = HEAD_START + load.events / RATE + STRAGGLERS
    try:
        await asyncio.wait_for(load.complete.wait(), allowed)
    except TimeoutError:
        print(f"{load.total - load.delivered:,} events are missing after {allowed:g} s", file=sys.stderr)


def _lateness(load: Load) -> Result:
    figures: Result = {}
    for name, values in zip(("due", "yielded", "app"), load.milliseconds_late(), strict=True):
        percentiles = statistics.quantiles(values, n=100, method="inclusive")
        figures |= {f"{name}_p50": percentiles[49], f"{name}_p99": percentiles[98]}
    return figures


def resident_kib() -> int:
    """Return the resident memory of this process, exactly: the kernel's quick counters lag by pages."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    raise RuntimeError("/proc/self/smaps_rollup has no Rss line: this benchmark needs Linux 4.14 or later")


def measure(*, runs: int, streams: int, seconds: float, cpus: Sequence[int]) -> Section:
    """Run the loads in turn, each in a new process on all of `cpus`, and return the medians of the runs."""
    results: dict[str, list[Result]] = {carrier: [] for carrier in NAMES}
    for _ in range(runs):
        for carrier in NAMES:
            results[carrier].append(_in_child(carrier, streams, seconds, cpus))
    figures = [figure for carrier in NAMES for figure in _figures(carrier, results[carrier])]
    title = f"{streams:,} streams open at once, {RATE} events a second on each for {seconds:g} s"
    return Section(
        title, figures, notes=[f"On {len(cpus)} cores; {runs} runs of each, garbage collector on."]
    )


def _in_child(carrier: str, streams: int, seconds: float, cpus: Sequence[int]) -> Result:
    options = {"--carrier": carrier, "--streams": streams, "--seconds": seconds}
    flags = [str(part) for option in options.items() for part in option]
    command = [sys.executable, __file__, *flags, "--cpus", ",".join(map(str, cpus))]
    child = subprocess.run(command, stdout=subprocess.PIPE, timeout=CHILD_TIMEOUT, check=True)
    result: Result = json.loads(child.stdout)
    return result


def _figures(carrier: str, results: Sequence[Result]) -> list[Figure]:
    judged = carrier == TRANSPORT
    every = results[0]["total"]

    def figure(label: str, key: str, unit: str, target: Target | None = None) -> Figure:
        values = spread([result[key] for result in results])
        return Figure(f"{NAMES[carrier]}: {label}", values, unit, target if judged else None)

    fewest = min(result["delivered"] for result in results)
    complete = Target(every, at_least=True) if judged else None

    return [
        figure("resident per stream, opened", "opened_kib", "KiB", Target(48)),
        figure("resident per stream, at the end", "ended_kib", "KiB", Target(48)),
        Figure(
            f"{NAMES[carrier]}: events delivered of {every:,.0f}, fewest of the runs",
            spread([fewest]),
            "",
            complete,
        ),
        figure("late after due, p50", "due_p50", "ms"),
        figure("late after due, p99", "due_p99", "ms", Target(50)),
        figure("late after yield, p50", "yielded_p50", "ms"),
        figure("late after yield, p99", "yielded_p99", "ms"),
        figure("app late to yield, p99", "app_p99", "ms"),
        figure("time to open them all", "opening", "s"),
    ]


def main() -> None:
    """Run one load and print its figures as JSON: the child process of `measure`."""
    parser = argparse.ArgumentParser(description="Run one load of open streams; see transport.py.")
    parser.add_argument("--carrier", choices=sorted(NAMES), default=TRANSPORT)
    parser.add_argument("--phase", choices=PHASES, default=PHASES[0])
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument(
        "--cpus", default="", help="cores to run on, comma-separated; default: all that it may"
    )
    options = parser.parse_args()
    if options.cpus:
        os.sched_setaffinity(0, {int(core) for core in options.cpus.split(",")})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    load = functools.partial(run_load, options.carrier, options.streams, options.seconds, options.phase)
    print(json.dumps(asyncio.run(load())))


if __name__ == "__main__":
    main()
