"""What recording costs: CPU here and at the server, round trips, bytes, and time while Redis is away."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event, get_ident
from time import monotonic, perf_counter, process_time, thread_time
from typing import Any
from unittest.mock import patch

import redis
from measure import Figure, Section, Spread, Target, spread
from recorded import accounting_of, content_of, history, key_of, started_now
from redis_server import Server

from flask_aibridge.services.authorizer import HostAuthorizer
from flask_aibridge.services.configuration.mcp import HostMCPConfigurator
from flask_aibridge.services.configuration.providers import ConfiguredProviders
from flask_aibridge.services.hosting import HostServices
from flask_aibridge.services.interfaces import Credential
from flask_aibridge.services.recording.queue import BATCH_RECORDS
from flask_aibridge.services.recording.recorder import Recording
from flask_aibridge.services.records import InterceptionStart, Record
from flask_aibridge.services.redis import wires
from flask_aibridge.services.redis.replies import read_replies
from flask_aibridge.services.spool.spool import Spool
from flask_aibridge.services.storage import Store

KEYS = 50
CPU_AIM = Target(150)
STORED_SECONDS = 60.0
"""How long records may take to be stored before the benchmark gives up."""

STREAM_SECONDS = 0.2
THREADS = 8
WARM = 200


@contextmanager
def bridge(store: Store, folder: str) -> Iterator[tuple[Recording, Sequence[Credential]]]:
    """A recording as a bridge holds it, over the host's own services, and keys to come with."""
    services = HostServices(
        lambda: store,
        HostAuthorizer({}, lambda: store),
        HostMCPConfigurator([], lambda: store, None, lambda: None),
        ConfiguredProviders([]),
    )
    credentials = []
    for number in range(KEYS):
        row, credential = key_of(number)
        store.put_api_key(row)
        credentials.append(credential)
    recording = Recording(services, spool=Spool(Path(folder)))
    try:
        yield recording, credentials
    finally:
        recording.close()


class Maker:
    """Makes the records of interceptions as a bridge does, and knows what that took: it is no recording. It is timed
    where it happens, for after a wait for the server the same code takes twice as long as in a loop of its own."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._seconds = 0.0

    def make(self, credential: Credential) -> tuple[InterceptionStart, list[Record]]:
        """A start, and the rest: content first, the end last."""
        began = thread_time()
        start = started_now(credential, self._worker)
        records = [*content_of(start), *accounting_of(start)]
        self._seconds += thread_time() - began
        return start, records

    def taken(self) -> float:
        """Seconds of CPU since this was last asked."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


def measure_cpu(server: Server, *, rounds: int, batch: int) -> Section:
    """CPU and round trips of interceptions that follow one another as fast as one thread makes them."""
    here, making, there, trips, stores, bare = [], [], [], [], [], []
    with (
        server.store() as (store, _),
        tempfile.TemporaryDirectory() as folder,
        bridge(store, folder) as (rec, keys),
    ):
        maker = Maker(rec.worker)
        _intercept_many(rec, keys, WARM, maker)
        maker.taken()
        for _ in range(rounds):
            before = process_time(), server.cpu(), server.reads()
            _intercept_many(rec, keys, batch, maker)
            took, made = process_time() - before[0], maker.taken()
            here.append((took - made) / batch * 1e6)
            making.append(made / batch * 1e6)
            trips.append((server.reads() - before[2] - 2) / batch)
            there.append((server.cpu() - before[1]) / batch * 1e6)
            stores.append(_store_alone(store, keys, batch, maker))
            bare.append(_bare_socket(server, store, keys, batch))
    figures = [
        Figure("CPU of this process, all threads", spread(here), "µs", CPU_AIM),
        Figure("  the store's part, in batches", spread(stores), "µs"),
        Figure("  floor: the same bytes, made before, on a bare socket", spread(bare), "µs"),
        Figure("  not counted: making the records", spread(making), "µs"),
        Figure("CPU of the server", spread(there), "µs"),
        Figure("round trips, admission included", spread(trips), "", Target(2)),
    ]
    notes = [
        f"{batch} interceptions a round: admission by key, prompt, tool call, thought, tokens, end",
        "the floor is what sending, sleeping until the answer is there, and waking cost on this machine at this hour",
    ]
    return Section("One interception with all its records", figures, notes=notes)


def _store_alone(store: Store, keys: Sequence[Credential], count: int, maker: Maker) -> float:
    """Microseconds for one interception, without the recorder: each admitted, the rest in full batches."""
    began = process_time()
    rest: list[Record] = []
    for credential in _in_turn(keys, count):
        start, records = maker.make(credential)
        store.admit(start, credential)
        rest += records
    for at in range(0, len(rest), BATCH_RECORDS):
        store.record(rest[at : at + BATCH_RECORDS])
    return (process_time() - began - maker.taken()) / count * 1e6


class _Packed(BaseException):
    """What was to be sent: the bytes, and how many commands they are."""


def _bare_socket(server: Server, store: Store, keys: Sequence[Credential], count: int) -> float:
    """Microseconds for one interception of what cannot be done without: its bytes there, the answers back."""
    made = [_packed_by(partial(store.admit, started_now(key), key)) for key in _in_turn(keys, count)]
    maker = Maker("")
    rest = [record for key in _in_turn(keys, count) for record in maker.make(key)[1]]
    batches = (rest[at : at + BATCH_RECORDS] for at in range(0, len(rest), BATCH_RECORDS))
    made += [_packed_by(partial(store.record, each)) for each in batches]
    connection = redis.Redis.from_url(server.url, protocol=2).connection_pool.get_connection()
    sock: Any = connection._sock
    began = process_time()
    for data, commands in made:
        sock.sendall(data)
        read_replies(sock, commands, RuntimeError)
    took = process_time() - began
    connection.disconnect()
    return took / count * 1e6


def _packed_by(call: Callable[[], object]) -> tuple[bytes, int]:
    """What a call would send; it is not sent."""
    pack, here = wires.packed, get_ident()

    def stop(commands: Sequence[Any]) -> bytes:
        data = pack(commands)
        if get_ident() == here:
            raise _Packed(data, len(commands))
        return data

    with patch.object(wires, "packed", stop):
        try:
            call()
        except _Packed as packed:
            data, commands = packed.args
            return data, commands
    raise RuntimeError("The store sends its commands in another way by now: mend this benchmark.")


def _in_turn(keys: Sequence[Credential], count: int) -> Iterator[Credential]:
    return (keys[number % len(keys)] for number in range(count))


def _intercept_many(rec: Recording, keys: Sequence[Credential], count: int, maker: Maker) -> None:
    for credential in _in_turn(keys, count):
        _intercept(rec, credential, maker)
    _wait_until_stored(rec)


def _intercept(
    rec: Recording, credential: Credential, maker: Maker, pause: Callable[[], object] = lambda: None
) -> None:
    start, (prompt, *more) = maker.make(credential)
    rec.admit(start, credential)
    rec.record(prompt)
    pause()
    for record in more:
        rec.record(record)


def _wait_until_stored(rec: Recording) -> None:
    give_up, pause = monotonic() + STORED_SECONDS, Event()
    while True:
        state = rec.state()
        if not state.queued and not state.spooled_records:
            break
        if monotonic() > give_up or state.services_away_since:
            raise RuntimeError(f"the records are not stored: {state}")
        pause.wait(0.005)
    pause.wait(0.02)  # what is in flight is in no queue


def measure_round_trips(server: Server, *, count: int) -> Section:
    """Round trips before the provider is called, and after, where streams take their time."""
    with (
        server.store() as (store, _),
        tempfile.TemporaryDirectory() as folder,
        bridge(store, folder) as (rec, keys),
    ):
        _intercept_many(rec, keys, WARM, Maker(rec.worker))
        admitted = [_admissions(rec, keys, server, count) for _ in range(3)]
        one, many = _streams(rec, keys, server, count // 10, 1), _streams(rec, keys, server, count, THREADS)
    seconds = f"{STREAM_SECONDS:g} s"
    return Section(
        "Round trips of one interception",
        [
            Figure("before the provider is called", spread(admitted), "", Target(1.05)),
            Figure(f"after it, one stream of {seconds} at a time", _single(one - 1), "", Target(1.05)),
            Figure(f"after it, {THREADS} streams of {seconds} at once", _single(many - 1), "", Target(1.05)),
        ],
        notes=[
            "counted by the server: how often it read from a socket",
            "without leases and upkeep, which are as many in a time of the same length where nothing happens",
        ],
    )


def _admissions(rec: Recording, keys: Sequence[Credential], server: Server, count: int) -> float:
    before = server.reads()
    for number in range(count):
        credential = keys[number % len(keys)]
        rec.admit(started_now(credential), credential)
    return (server.reads() - before - 1) / count


def _streams(rec: Recording, keys: Sequence[Credential], server: Server, count: int, threads: int) -> float:
    before, began, pause, maker = server.reads(), monotonic(), Event(), Maker(rec.worker)
    with ThreadPoolExecutor(threads) as pool:
        done = [
            pool.submit(_intercept, rec, credential, maker, lambda: pause.wait(STREAM_SECONDS))
            for credential in _in_turn(keys, count)
        ]
        for each in done:
            each.result()
    _wait_until_stored(rec)
    after, took = server.reads(), monotonic() - began
    pause.wait(took)
    upkeep = server.reads() - after
    return (after - before - upkeep) / count


def measure_bytes(server: Server, *, count: int) -> Section:
    """Memory of the server for one interception."""
    figures = [
        _bytes(server, "with a prompt, a tool call and a thought", count, content=True),
        _bytes(server, "without content", count, content=False),
    ]
    notes = [
        "without the streams for consumers, whose length is bounded; allocated bytes, fragmentation apart"
    ]
    return Section("Bytes of one interception", figures, notes=notes)


def _bytes(server: Server, label: str, count: int, *, content: bool) -> Figure:
    with server.store(record_content=content) as (store, prefix):
        # What every shard has once must not be shared out among these few.
        store.record([record for records in history(WARM, seed=1) for record in records])
        before = server.memory() - server.memory_of_streams(prefix)
        for records in history(count, seed=2):
            start = records[0]
            assert isinstance(start, InterceptionStart)
            store.record([*records, *content_of(start)])
        after = server.memory() - server.memory_of_streams(prefix)
    return Figure(label, _single((after - before) / count), "B")


def measure_away(server: Server, *, count: int) -> Section:
    """What a request waits for while Redis is down, beside what it waits for while it is there. Kills the server."""
    with (
        server.store() as (store, _),
        tempfile.TemporaryDirectory() as folder,
        bridge(store, folder) as (rec, keys),
    ):
        _intercept_many(rec, keys, WARM, Maker(rec.worker))
        there = _waits(rec, keys, count)
        _wait_until_stored(rec)
        server.kill()
        first = _waits(rec, keys, 1)
        _until_known(rec)
        away = _waits(rec, keys, count)
    extra = [wait - spread(there).median for wait in away]
    return Section(
        "An admission while Redis is down",
        [
            Figure("with Redis there", spread(there), "ms"),
            Figure("the first without it", spread(first), "ms"),
            Figure("the following, more than with it", spread(extra), "ms", Target(5)),
            Figure("the slowest of them, more than with it", _single(max(extra)), "ms"),
        ],
        notes=["the key was seen before, the start goes to the spool"],
    )


def _waits(rec: Recording, keys: Sequence[Credential], count: int) -> list[float]:
    waits = []
    for number in range(count):
        credential = keys[number % len(keys)]
        start = started_now(credential)
        began = perf_counter()
        rec.admit(start, credential)
        waits.append((perf_counter() - began) * 1e3)
    return waits


def _until_known(rec: Recording) -> None:
    give_up = time.monotonic() + STORED_SECONDS
    while rec.state().services_away_since is None and time.monotonic() < give_up:
        Event().wait(0.005)


def _single(value: float) -> Spread:
    return Spread(value, value, value)
