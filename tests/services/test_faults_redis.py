"""Redis is killed under load, again and again; hosts have clocks that differ. Every interception that was admitted has
one record, with its end and its tokens, and none is counted twice."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from flask_aibridge.services.recording import availability
from flask_aibridge.services.recording.recorder import Recording
from flask_aibridge.services.records import Record, TokenUsage
from flask_aibridge.services.redis import breaker as redis_breaker
from flask_aibridge.services.spool.spool import Spool
from flask_aibridge.services.storage import Query, Store
from tests.services.contract_records import a_prompt, a_start, a_usage, an_end, now
from tests.services.fault_services import redis_store, services_on
from tests.services.servers import Server, redis_binary, started, valkey_binary, wait_until

pytestmark = pytest.mark.servers

ROUNDS = 100
"""How often Redis is killed."""

THREADS = 4
"""How many threads record."""

PACE_SECONDS = 0.02
"""How long a thread rests after an interception: the load is to be there all the time, not to be heavy."""

BETWEEN = 3
"""Interceptions that are admitted between a kill and a start, and a start and a kill."""

CATCH_UP_SECONDS = 60.0
"""How long the recording may take, in the end, to store all that it kept."""


@pytest.fixture
def durable_server() -> Iterator[Server]:
    """A server that keeps what it has answered when it is killed.

    In production, with ``everysec``, it may lose what it answered in the last two seconds while its disk is slow to
    sync: no client can know. That loss is the server's, and not what is tested here.
    """
    binary = valkey_binary() or redis_binary()
    if binary is None:
        pytest.skip("needs a Redis or Valkey server")
    server = Server(binary)
    with started(server):
        yield server


class Load:
    """Threads that record one interception after the other, and the account of what was admitted."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.admitted: dict[str, list[TokenUsage]] = {}
        self.failures: list[Exception] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(THREADS)]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def wait_for_more(self, number: int) -> None:
        """Return when so many further interceptions have been admitted."""
        enough = len(self.admitted) + number
        wait_until(lambda: len(self.admitted) >= enough or bool(self.failures), "more interceptions")
        assert not self.failures

    def _run(self, number: int) -> None:
        numbers = random.Random(number)
        while not self._stop.wait(PACE_SECONDS * numbers.random() * 2):
            try:
                self._intercept(numbers)
            except Exception as error:
                self.failures.append(error)
                return

    def _intercept(self, numbers: random.Random) -> None:
        start = a_start(initiator=f"user-{numbers.randrange(3)}", model="model")
        self.recording.admit(start, None)
        usages = [
            a_usage(
                start, input=numbers.randrange(1000), output=numbers.randrange(1000), extra={"seconds": 1}
            )
            for _ in range(numbers.randrange(1, 4))
        ]
        self.admitted[start.id] = usages
        records: list[Record] = [a_prompt(start), *usages, an_end(start)]
        for record in records:
            self.recording.record(record)


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that is there again is found within 50 ms and not seconds, so that it is in use when it is killed."""
    monkeypatch.setattr(availability, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(availability, "MAX_PAUSE", 0.05)
    monkeypatch.setattr(redis_breaker, "PROBE_SECONDS", 0.02)


@pytest.mark.usefixtures("short_pauses")
def test_redis_is_killed_under_load(durable_server: Server, redis_prefix: str, tmp_path: Path) -> None:
    """It is killed while it is in use, and in some rounds again before anybody knows that it is back."""
    began = now()
    store = redis_store(durable_server.url, redis_prefix)
    recording = Recording(services_on(store), spool=Spool(tmp_path / "spool"))
    load = Load(recording)
    with closing(store):
        with load.running():
            for number in range(ROUNDS):
                load.wait_for_more(BETWEEN)
                durable_server.kill()
                load.wait_for_more(BETWEEN)
                durable_server.start()
                if number % 4:
                    wait_until(
                        lambda: recording.state().services_away_since is None, "services that are back"
                    )
        assert not load.failures
        wait_until(lambda: _has_caught_up(recording), "a recording that has caught up", CATCH_UP_SECONDS)
        recording.close()
        assert recording.state().dropped == 0
        assert not list((tmp_path / "spool").glob("*"))
        _check_accounts(store, load, began)


def _has_caught_up(recording: Recording) -> bool:
    state = recording.state()
    return (state.services_away_since, state.queued, state.spooled_records) == (None, 0, 0)


def _check_accounts(store: Store, load: Load, began: datetime) -> None:
    for interception_id, usages in load.admitted.items():
        view = store.interception(interception_id)
        assert view is not None, f"{interception_id} is lost"
        assert view.status == "completed"
        assert view.end is not None
        assert len(view.prompts) == 1
        assert {usage.id: usage for usage in view.usages} == {usage.id: usage for usage in usages}
        assert len(view.usages) == len(usages)
        assert view.tokens.input == sum(usage.input for usage in usages)
        assert view.tokens.output == sum(usage.output for usage in usages)
    everything = [usage for usages in load.admitted.values() for usage in usages]
    rows = store.usage(since=began - timedelta(hours=1), until=now() + timedelta(hours=1))
    assert sum(row.requests for row in rows) == len(load.admitted) >= 2 * BETWEEN * ROUNDS
    assert sum(row.tokens.input for row in rows) == sum(usage.input for usage in everything)
    assert sum(row.tokens.output for row in rows) == sum(usage.output for usage in everything)
    assert sum(row.tokens.extra["seconds"] for row in rows) == len(everything)
    assert store.interceptions(Query(), limit=1).count == min(len(load.admitted), 10_000)
    assert store.interceptions(Query(status="running"), limit=1).count == 0


@pytest.mark.parametrize("hours", [-30, 0, 30])
def test_a_sweep_does_not_believe_the_clocks_of_hosts(
    one_redis_url: str, redis_prefix: str, hours: int
) -> None:
    """One whose worker is alive goes on, however long ago it says it began; one whose worker is dead is ended, though
    it says that it begins tomorrow, and its end is not before its start."""
    at = now() + timedelta(hours=hours)
    host = redis_store(one_redis_url, redis_prefix, lease_seconds=600.0)
    sweeper = redis_store(one_redis_url, redis_prefix, lease_seconds=0.05, sweep_grace=0.0)
    with closing(host), closing(sweeper):
        alive, dead = a_start(at, worker="alive"), a_start(at, worker="dead")
        host.renew("alive")
        for start in (alive, dead):
            host.admit(start, None)

        def swept() -> bool:
            sweeper.maintain()
            view = sweeper.interception(dead.id)
            return view is not None and view.status == "interrupted"

        wait_until(swept, "the end of the dead worker's")
        ended, running = sweeper.interception(dead.id), sweeper.interception(alive.id)
        assert ended is not None
        assert ended.end is not None
        assert ended.end.ended_at >= dead.started_at
        assert running is not None
        assert (running.status, running.end) == ("running", None)
        host.record([an_end(alive)])
        finished = host.interception(alive.id)
        assert finished is not None
        assert finished.status == "completed"
