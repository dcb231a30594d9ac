"""Scenarios that need a process of their own, run by name as ``python -m …``: forks, exits, kills, gevent.

Each begins in an empty folder, given as the second argument, asserts what it can see, and prints what the test is to
compare.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__" and sys.argv[1].startswith("gevent"):
    from gevent import monkey

    monkey.patch_all()

from flask_aibridge.errors import ServicesUnavailable
from flask_aibridge.services.recording.recorder import Recording
from flask_aibridge.services.recording.writer import THREAD_NAME
from flask_aibridge.services.spool.spool import Spool
from tests.services.switched_services import (
    SwitchedServices,
    end,
    new_id,
    prompt,
    start,
    usage,
    wait_for,
)

SCENARIOS: dict[str, Callable[[Path], None]] = {}


def scenario(function: Callable[[Path], None]) -> Callable[[Path], None]:
    SCENARIOS[function.__name__] = function
    return function


def in_child(check: Callable[[], bool]) -> None:
    """The parent goes on when the child has found that ``check`` holds."""
    child = os.fork()
    if not child:
        ok = False
        try:
            ok = check()
        finally:
            os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@scenario
def spool_fork(folder: Path) -> None:
    """The child appends to a file of its own, and the parent goes on with the old one."""
    spool = Spool(folder)
    spool.append([end(new_id())])
    in_child(lambda: spool.records == 0 and spool.append([end(new_id())]).taken == 1)
    assert len(list(folder.iterdir())) == 2
    spool.append([end(new_id())])
    for orphans, expected in ((False, 2), (True, 1)):
        batch = spool.batch(10, 2**20, orphans=orphans)
        assert len(batch) == expected
        spool.stored(batch)
        assert not spool.batch(10, 2**20, orphans=False)


@scenario
def recording_fork(folder: Path) -> None:
    """The child has a thread and a lease of its own, and records nothing of its parent's."""
    services = SwitchedServices()
    recording = Recording(services, spool=Spool(folder), worker="parent")
    services.gate.clear()
    recording.record(usage(new_id(), "parents"))
    recording.record(usage(new_id(), "parents-too"))

    def child() -> bool:
        services.__init__()  # type: ignore[misc]
        recording.record(usage(new_id(), "childs"))
        recording.close()
        stored = [record.id for batch in services.batches for record in batch]
        assert f"renew {recording.worker}" in services.calls
        return stored == ["childs"] and recording.worker != "parent" and recording.state().queued == 0

    in_child(child)
    services.gate.set()
    recording.close()
    assert {record.id for batch in services.batches for record in batch} == {"parents", "parents-too"}
    assert recording.worker == "parent"


@scenario
def exit_spools(folder: Path) -> None:
    """At exit, what the services do not take goes to the spool; so does what comes later still."""
    import atexit

    services = SwitchedServices()
    recording = Recording(services, spool=Spool(folder))
    # Handlers run last in, first out. This one was here before the first record, but after the module's own.
    services.away = True
    for number in range(3):
        recording.record(usage(f"{number:032x}", f"u{number}"))
    import flask_aibridge.services.recording.writer as module

    atexit.unregister(module._flush_at_exit)
    atexit.register(recording.record, end("f" * 32))
    atexit.register(module._flush_at_exit)


@scenario
def exit_stores(folder: Path) -> None:
    """At exit, what waits is stored, if the services take it."""
    import atexit

    services = SwitchedServices()
    recording = Recording(services, spool=Spool(folder))
    recording.record(prompt("a" * 32))
    import flask_aibridge.services.recording.writer as module

    atexit.unregister(module._flush_at_exit)
    atexit.register(lambda: print(*(record.id[0] for batch in services.batches for record in batch)))
    atexit.register(module._flush_at_exit)


@scenario
def exit_hangs(folder: Path) -> None:
    """At exit, with a store that does not answer, nothing is waited for longer than the deadline, and nothing lost."""
    import flask_aibridge.services.recording.writer as module

    module.EXIT_SECONDS = 0.2  # type: ignore[misc]
    services = SwitchedServices()
    services.gate.clear()
    recording = Recording(services, spool=Spool(folder))
    recording.record(end("f" * 32))
    services.wait_for(lambda: not recording._writer.queue or services.calls)
    recording.record(prompt("f" * 32))


@scenario
def killed(folder: Path) -> None:
    """A process with the services away that is killed after it has said what the spool took."""
    services = SwitchedServices()
    services.away = True
    recording = Recording(services, spool=Spool(folder))
    ids = [new_id() for _ in range(20)]
    for each in ids:
        recording.admit(start(each), None)
        recording.record(usage(each, f"u-{each}"))
        recording.record(end(each))
    wait_for(lambda: recording.state().spooled_records == 60)
    print(*ids, flush=True)
    sys.stdin.read()


@scenario
def gevent_records(folder: Path) -> None:
    """In a process of greenlets: outage, spool, replay and end."""
    services = SwitchedServices()
    recording = Recording(services, spool=Spool(folder))
    ids = [new_id() for _ in range(10)]
    services.away = True
    for each in ids:
        recording.admit(start(each), None)
        recording.record(end(each))
    wait_for(lambda: recording.state().spooled_records == 20)
    services.away = False
    wait_for(lambda: recording.state().spooled_records == 0)
    recording.close()
    views = [services.store.interception(each) for each in ids]
    assert all(view is not None and view.status == "completed" for view in views)
    assert not any(thread.name == THREAD_NAME for thread in threading.enumerate())


@scenario
def given_up(folder: Path) -> None:
    """A recording that is dropped without ``close()`` stores what waits, and its thread ends."""
    services = SwitchedServices()
    recording = Recording(services, spool=Spool(folder))
    recording.record(prompt(new_id()))
    del recording
    gc.collect()
    services.wait_for(lambda: services.batches)
    wait_for(lambda: not any(thread.name == THREAD_NAME for thread in threading.enumerate()))


@scenario
def no_threads(folder: Path) -> None:
    """Where no thread can be started, records go to the spool."""
    services = SwitchedServices()
    recording = Recording(services, spool=Spool(folder))
    threading.Thread.start = lambda _: (_ for _ in ()).throw(RuntimeError("no more"))  # type: ignore[assignment, method-assign]
    recording.record(end("f" * 32))
    assert recording.state().spooled_records == 1
    services.away = True
    try:
        recording.admit(start("e" * 32), None)
    except ServicesUnavailable:
        raise AssertionError from None
    assert recording.state().spooled_records == 2


if __name__ == "__main__":
    SCENARIOS[sys.argv[1]](Path(sys.argv[2]))
