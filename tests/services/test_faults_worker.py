"""A worker that is killed at any step of an interception leaves exactly one record of it, and another ends it.

Tokens are there as far as they had been stored or spooled: what still waited in the memory of a process that was killed
without notice is gone, which ``recording`` bounds to some 50 ms of the accounting.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from flask_aibridge.services.recording.recorder import Recording
from flask_aibridge.services.records import started_at_of
from flask_aibridge.services.spool.spool import Spool
from flask_aibridge.services.storage import InterceptionView, Store
from tests.services.contract_records import a_start, new_id, now
from tests.services.fault_services import redis_store, services_on
from tests.services.fault_worker import INPUT, OUTPUT
from tests.services.programs import environment, python
from tests.services.servers import Running, wait_until

pytestmark = pytest.mark.servers

DEADLINE_SECONDS = 60.0

STEPS: list[tuple[str, str | None, int]] = [
    ("begun", None, 0),
    ("before admit", None, 0),
    ("after admit", "interrupted", 0),
    ("admitted", "interrupted", 0),
    ("first record queued", "interrupted", 0),
    ("before record", "interrupted", 0),
    ("after record", "interrupted", 1),
    ("first record settled", "interrupted", 1),
    ("second record queued", "interrupted", 1),
    ("before end", "interrupted", 1),
    ("end queued", "interrupted", 1),
    ("after end", "completed", 2),
    ("end settled", "completed", 2),
]
"""Where it is killed, with Redis there: how the interception stands in the end, and how many usages are there."""

STEPS_WITHOUT_REDIS: list[tuple[str, str | None, int]] = [
    ("begun", None, 0),
    ("torn write of the header: 1", None, 0),
    ("torn write of the start: 2", None, 0),
    ("admitted", "interrupted", 0),
    ("first record queued", "interrupted", 0),
    ("torn write of a usage: 3", "interrupted", 0),
    ("first record settled", "interrupted", 1),
    ("torn write of the end: 4", "interrupted", 1),
    ("end settled", "completed", 2),
]
"""The same with Redis away until the worker is dead."""

STEPS_OF_REPLAY: list[tuple[str, str | None, int]] = [
    ("before record", "completed", 2),
    ("after record", "completed", 2),
]
"""The same with Redis back after the worker has spooled all of it."""


@pytest.mark.parametrize(("step", "status", "usages"), STEPS, ids=[each[0] for each in STEPS])
def test_killed_with_redis_there(
    one_redis_server: Running, redis_prefix: str, tmp_path: Path, step: str, status: str | None, usages: int
) -> None:
    with _Case(one_redis_server, redis_prefix, tmp_path, step) as case:
        case.wait_until_dead()
        case.check(status, usages)


@pytest.mark.parametrize(
    ("step", "status", "usages"), STEPS_WITHOUT_REDIS, ids=[each[0] for each in STEPS_WITHOUT_REDIS]
)
def test_killed_with_redis_away(
    one_redis_server: Running, redis_prefix: str, tmp_path: Path, step: str, status: str | None, usages: int
) -> None:
    one_redis_server.kill()
    with _Case(one_redis_server, redis_prefix, tmp_path, step) as case:
        case.wait_until_dead()
        one_redis_server.start()
        case.check(status, usages)


@pytest.mark.parametrize(
    ("step", "status", "usages"), STEPS_OF_REPLAY, ids=[each[0] for each in STEPS_OF_REPLAY]
)
def test_killed_while_it_replays(
    one_redis_server: Running, redis_prefix: str, tmp_path: Path, step: str, status: str | None, usages: int
) -> None:
    """What was replayed and not yet struck off is replayed again, and is there once."""
    one_redis_server.kill()
    with _Case(one_redis_server, redis_prefix, tmp_path, step) as case:
        case.wait_until_settled()
        one_redis_server.start()
        case.wait_until_dead()
        case.check(status, usages)


class _Case:
    """A worker that dies at a step, and what is left of its interception."""

    def __init__(self, server: Running, prefix: str, folder: Path, step: str) -> None:
        self._url, self._prefix, self._folder = server.url, prefix, folder / "spool"
        self._id = new_id(now())
        self._process = subprocess.Popen(
            [*python("fault_worker.py"), self._url, prefix, self._folder, self._id, step],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> _Case:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_until_settled(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "settled\n"

    def wait_until_dead(self) -> None:
        """By its own hand; not for a defect of the script, and not since it came to its end."""
        assert self._process.wait(DEADLINE_SECONDS) == -signal.SIGKILL

    def check(self, status: str | None, usages: int) -> None:
        """Another process sweeps and replays; then there is one record with an end, or none of one never admitted."""
        store = redis_store(self._url, self._prefix, lease_seconds=0.05, sweep_grace=0.0)
        with _another_worker(store, self._folder):
            wait_until(lambda: not list(self._folder.glob("*.spool")), "a replayed spool")
            if status is None:
                store.maintain()
                assert store.interception(self._id) is None
            else:
                self._check_ended(store, status, usages)

    def _check_ended(self, store: Store, status: str, usages: int) -> None:
        def ended() -> bool:
            store.maintain()
            return self._read(store).end is not None

        wait_until(ended, "an end")
        view = self._read(store)
        assert view.status == status
        assert view.end is not None
        assert view.end.status == status
        assert len(view.usages) == usages
        assert (view.tokens.input, view.tokens.output) == (INPUT * usages, OUTPUT * usages)
        at = started_at_of(self._id)
        hour = timedelta(hours=1)
        (row,) = store.usage(since=at - hour, until=at + hour, group_by=("user",), user="alice")
        assert (row.requests, row.tokens) == (1, view.tokens)

    def _read(self, store: Store) -> InterceptionView:
        view = store.interception(self._id)
        assert view is not None, "there is no record"
        return view


@contextmanager
def _another_worker(store: Store, folder: Path) -> Iterator[None]:
    """A process that records something of its own, with the same spool folder."""
    recording = Recording(services_on(store), spool=Spool(folder))
    try:
        recording.admit(a_start(initiator="bob"), None)
        yield
    finally:
        recording.close()
        store.close()
