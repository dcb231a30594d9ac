"""Run as a program: a worker that records one interception and is killed on the way.

Its arguments are the address of a Redis, a prefix of keys, a spool folder, the interception's id and the step at which
it kills itself with SIGKILL. After the last step it waits, so that what was spooled is replayed when Redis is back.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from flask_aibridge.services.interfaces import Admission, Credential
from flask_aibridge.services.recording.recorder import Recording
from flask_aibridge.services.records import (
    InterceptionEnd,
    InterceptionStart,
    Record,
    TokenUsage,
    started_at_of,
)
from flask_aibridge.services.spool.spool import Spool
from tests.services.contract_records import a_start
from tests.services.fault_services import redis_store, services_on
from tests.services.servers import wait_until

LEASE_SECONDS: Final = 0.5
"""How long the worker is believed to be alive after its last word."""

INPUT: Final = 7
OUTPUT: Final = 11
"""What each of the two usages counts."""


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


class Dying:
    """A store that kills the process before it admits or records, or after; ``end`` is the batch with the end."""

    def __init__(self, store: Any, step: str) -> None:
        self._store = store
        self._step = step
        self.stored = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def admit(
        self, start: InterceptionStart | None, credential: Credential | None, **counting: Any
    ) -> Admission:
        self._reach("before", "admit")
        admission: Admission = self._store.admit(start, credential, **counting)
        self._reach("after", "admit")
        return admission

    def record(self, records: Sequence[Record]) -> None:
        names = ["record", *(["end"] if any(isinstance(each, InterceptionEnd) for each in records) else [])]
        self._reach("before", *names)
        self._store.record(records)
        self._reach("after", *names)
        self.stored += len(records)

    def _reach(self, when: str, *names: str) -> None:
        if self._step in {f"{when} {name}" for name in names}:
            die()


def tear_writes(number: int) -> None:
    """Have the ``number``-th write to a spool file be cut off in the middle by the process's death."""
    count, write = 0, os.pwrite

    def pwrite(descriptor: int, data: Any, offset: int) -> int:
        nonlocal count
        count += 1
        if count == number:
            write(descriptor, data[: len(data) // 2], offset)
            die()
        return write(descriptor, data, offset)

    os.pwrite = pwrite


def main(url: str, prefix: str, folder: str, interception_id: str, step: str) -> None:
    if step.startswith("torn write"):
        tear_writes(int(step.rsplit(" ", 1)[1]))
    store = Dying(redis_store(url, prefix, lease_seconds=LEASE_SECONDS), step)
    spool = Spool(Path(folder))
    recording = Recording(services_on(store), spool=spool)

    def reach(point: str) -> None:
        if point == step:
            die()

    def settled(records: int) -> bool:
        """Whether everything so far is in the store or in the spool."""
        state = recording.state()
        return store.stored >= records or state.spooled_records > records

    at = started_at_of(interception_id)
    usages, end = records_of(interception_id)
    reach("begun")
    recording.admit(a_start(at, id=interception_id, initiator="alice"), None)
    reach("admitted")
    recording.record(usages[0])
    reach("first record queued")
    wait_until(lambda: settled(1), "a first record that is stored")
    reach("first record settled")
    recording.record(usages[1])
    reach("second record queued")
    recording.record(end)
    reach("end queued")
    wait_until(lambda: settled(3), "an end that is stored")
    reach("end settled")
    print("settled", flush=True)
    sys.stdin.readline()


def records_of(interception_id: str) -> tuple[list[TokenUsage], InterceptionEnd]:
    """What is recorded of the interception: two usages and its end."""
    at = started_at_of(interception_id)
    usages = [
        TokenUsage(
            id=f"usage-{number}", interception_id=interception_id, input=INPUT, output=OUTPUT, created_at=at
        )
        for number in (1, 2)
    ]
    end = InterceptionEnd(id="end", interception_id=interception_id, status="completed", ended_at=at)
    return usages, end


if __name__ == "__main__":
    main(*sys.argv[1:])
