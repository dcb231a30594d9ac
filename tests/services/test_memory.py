"""What the store in memory does beside the contract: it warns, it is bounded, and it goes by the clock it is given."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest

from flask_aibridge.services.memory.ledger import UPKEEP_BATCH, Ledger
from flask_aibridge.services.memory.store import MemoryStore
from flask_aibridge.services.records import Record
from flask_aibridge.services.storage import MAX_COUNTED, Query, Store
from tests.services.contract_records import (
    DEADLINE,
    a_full_start,
    a_key_row,
    a_prompt,
    a_start,
    a_usage,
    an_end,
    everything_of,
    now,
    read,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Clock:
    """Seconds since the epoch, set by hand."""

    def __init__(self) -> None:
        self.moment = NOON

    def __call__(self) -> float:
        return self.moment.timestamp()

    def advance(self, **by: float) -> None:
        self.moment += timedelta(**by)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_it_is_a_store() -> None:
    """For the type checker, and for whoever asks."""
    store: Store = MemoryStore()
    store.ping()


class TestWarning:
    def test_it_warns_once_when_it_is_first_used(self, caplog: pytest.LogCaptureFixture) -> None:
        """Not when it is made."""
        store = MemoryStore()
        assert caplog.records == []
        for _ in range(3):
            store.ping()
        (record,) = caplog.records
        assert (record.levelno, record.name) == (logging.WARNING, "flask_aibridge.services")
        assert "memory://" in record.message
        assert "for tests" in record.message

    def test_of_many_threads_one_warns(self, caplog: pytest.LogCaptureFixture) -> None:
        """Whoever comes first."""
        store, together = MemoryStore(), Barrier(8)

        def use(_: int) -> None:
            together.wait(DEADLINE)
            store.ping()

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(use, range(8)))
        assert len(caplog.records) == 1


class TestBounds:
    def _store(self, max_interceptions: int) -> MemoryStore:
        store = MemoryStore()
        store._ledger = Ledger(record_content=True, max_interceptions=max_interceptions)
        return store

    def test_the_oldest_interceptions_go(self) -> None:
        """Whatever order they came in; their usage stays in the roll-ups."""
        store = self._store(3)
        starts = [a_start(NOON + timedelta(seconds=second)) for second in (4, 1, 3, 2, 5)]
        for start in starts:
            store.record([start, a_usage(start, input=1)])
        kept = [view.start for view in store.interceptions(Query()).interceptions]
        assert kept == sorted(starts, key=lambda start: start.id, reverse=True)[:3]
        (row,) = store.usage(since=NOON, until=NOON + timedelta(hours=1))
        assert (row.requests, row.tokens.input) == (5, 5)

    def test_what_waits_for_its_start_counts_too(self) -> None:
        """So that what never gets one does not fill the memory."""
        store = self._store(3)
        for second in range(10):
            store.record([a_usage(a_start(NOON + timedelta(seconds=second)))])
        assert len(store._ledger._entries) == 3

    def test_a_dropped_interception_is_not_swept(self, clock: Clock) -> None:
        """Nothing of it is left."""
        store = self._store(1)
        store._clock = clock
        store.record([a_start(NOON, worker="dead"), a_start(NOON + timedelta(seconds=1), worker="dead")])
        clock.advance(hours=1)
        store.maintain()
        assert store.interceptions(Query(status="interrupted")).count == 1
        assert store._ledger._running == {}

    def test_matches_are_counted_to_a_bound(self) -> None:
        """As Redis does: exactly where an index tells, else up to ``MAX_COUNTED``."""
        store = MemoryStore()
        many = MAX_COUNTED + 5
        starts = [a_start(NOON + timedelta(milliseconds=number), source="x") for number in range(many)]
        store.record(starts)
        assert store.interceptions(Query(), limit=1).count == many
        assert store.interceptions(Query(initiator="alice"), limit=1).count == many
        assert store.interceptions(Query(source="x"), limit=1).count == MAX_COUNTED
        assert store.interceptions(Query(initiator="alice", source="x"), limit=1).count == MAX_COUNTED
        assert (
            store.interceptions(Query(initiator="alice", model=None, status="running"), limit=1).count
            == MAX_COUNTED
        )
        store.record([an_end(start, "refused") for start in starts])
        assert store.interceptions(Query(status="refused"), limit=1).count == many
        assert store.interceptions(Query(initiator="alice", status="refused"), limit=1).count == many
        assert store.interceptions(Query(source="x", status="refused"), limit=1).count == MAX_COUNTED


class TestClock:
    def test_a_worker_is_dead_when_its_lease_is_over(self, clock: Clock) -> None:
        """To the second, after it renewed last, and after what it left was recorded."""
        store = MemoryStore(lease_seconds=60, clock=clock)
        start = a_start(NOON, worker="w")
        store.record([start])
        clock.advance(seconds=59)
        store.renew("w")
        clock.advance(seconds=59)
        store.maintain()
        assert read(store, start).status == "running"
        clock.advance(seconds=1)
        store.maintain()
        end = read(store, start).end
        assert end is not None
        assert (end.status, end.ended_at) == ("interrupted", NOON + timedelta(seconds=119))

    def test_a_sweep_does_not_end_what_has_not_begun(self, clock: Clock) -> None:
        """A start from a host whose clock is ahead does not end before it."""
        store = MemoryStore(lease_seconds=60, clock=clock)
        start = a_start(NOON + timedelta(hours=1), worker="w")
        store.record([start])
        clock.advance(minutes=2)
        store.maintain()
        end = read(store, start).end
        assert end is not None
        assert end.ended_at == start.started_at

    def test_a_replayed_start_has_a_lease_of_its_own(self, clock: Clock) -> None:
        """What is recorded late is not interrupted at once: its end may be the next record."""
        store = MemoryStore(lease_seconds=60, clock=clock)
        start = a_start(NOON - timedelta(hours=5), worker="w")
        store.record([start])
        store.maintain()
        assert read(store, start).status == "running"

    def test_retention_is_to_the_day(self, clock: Clock) -> None:
        """A roll-up goes with the last of its hour."""
        store = MemoryStore(retention_days=60, content_retention_days=7, clock=clock)
        start = a_full_start(NOON)
        store.record([start, *everything_of(start)])
        clock.advance(days=7)
        store.maintain()
        assert len(read(store, start).prompts) == 1
        clock.advance(seconds=1)
        store.maintain()
        assert read(store, start).prompts == ()
        clock.advance(days=53)
        store.maintain()
        assert store.interception(start.id) is None
        assert len(store.usage(since=NOON, until=clock.moment)) == 1
        clock.advance(hours=1)
        store.maintain()
        assert store.usage(since=NOON, until=clock.moment) == ()

    def test_upkeep_goes_in_batches(self, clock: Clock) -> None:
        """One round deletes so many and no more."""
        store = MemoryStore(retention_days=1, clock=clock)
        store.record([a_start(NOON) for _ in range(UPKEEP_BATCH + 1)])
        clock.advance(days=2)
        store.maintain()
        assert store.interceptions(Query()).count == 1
        store.maintain()
        assert store.interceptions(Query()).count == 0

    def test_content_goes_in_batches(self, clock: Clock) -> None:
        """Those that have none left do not count."""
        store = MemoryStore(content_retention_days=1, clock=clock)
        starts = [a_start(NOON + timedelta(milliseconds=number)) for number in range(UPKEEP_BATCH + 1)]
        store.record([record for start in starts for record in (start, a_prompt(start))])
        clock.advance(days=2)
        store.maintain()
        assert [len(read(store, start).prompts) for start in (starts[0], starts[-1])] == [0, 1]
        store.maintain()
        assert read(store, starts[-1]).prompts == ()

    def test_a_late_record_of_what_is_past_its_retention_goes_too(self, clock: Clock) -> None:
        """Though its start never comes."""
        store = MemoryStore(retention_days=1, clock=clock)
        store.record([a_usage(a_start(NOON - timedelta(days=3)))])
        store.maintain()
        assert store._ledger._entries == {}

    def test_use_is_noted_by_the_clock(self, clock: Clock) -> None:
        """And so are the ends of keys."""
        from flask_aibridge.errors import Unauthorized
        from flask_aibridge.services.interfaces import Credential

        store = MemoryStore(clock=clock)
        store.put_api_key(a_key_row(expires_at=NOON + timedelta(seconds=10)))
        store.authorize(Credential(key_id="key000000001"))
        stored = store.api_key("key000000001")
        assert stored is not None
        assert stored.key.last_used_at == NOON
        clock.advance(seconds=10)
        with pytest.raises(Unauthorized, match="expired"):
            store.authorize(Credential(key_id="key000000001"))


class TestKeeping:
    def test_what_is_kept_is_nobody_elses(self) -> None:
        """A caller that changes what it recorded, or what it read, changes nothing here."""
        metadata: dict[str, Any] = {"list": [1]}
        extra = {"reasoning": 1}
        start = a_start(metadata=metadata)
        store = MemoryStore()
        store.record([start, a_usage(start, extra=extra)])
        metadata["list"].append(2)
        extra["reasoning"] = 5
        assert read(store, start).start.metadata == {"list": [1]}
        assert read(store, start).tokens.extra == {"reasoning": 1}
        rows = store.config_rows("mcp")[1]
        store.put_config_row("mcp", "a", "1")
        assert rows == {}

    def test_a_watch_ends_when_the_store_is_closed(self) -> None:
        """Also for who waits in another thread."""
        store = MemoryStore()
        told: list[int] = []
        with store.watch_config() as versions, ThreadPoolExecutor(1) as threads:
            reading = threads.submit(told.extend, versions)
            store.close()
            reading.result(DEADLINE)
        assert told in ([], [0])
        assert store._config._watches == set()

    def test_records_of_every_kind_may_come_in_any_types_of_sequences(self) -> None:
        """A tuple is as good as a list."""
        start = a_start(now())
        records: tuple[Record, ...] = (start, an_end(start))
        store = MemoryStore()
        store.record(records)
        assert read(store, start).status == "completed"
