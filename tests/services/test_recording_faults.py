"""Whatever fails, and in whatever order: nothing that was taken is lost, and nothing is stored twice."""

from __future__ import annotations

import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_aibridge.errors import InvalidRecord, NotRecorded
from flask_aibridge.services.recording.recorder import Recording
from flask_aibridge.services.recording.writer import Writer
from flask_aibridge.services.records import InterceptionStart, Record, interception_of
from flask_aibridge.services.spool.spool import Spool
from tests.conftest import DEADLINE_SECONDS
from tests.services.switched_services import (
    SwitchedServices,
    end,
    new_id,
    prompt,
    run_beside_the_tests,
    start,
    usage,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_leaks")]


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Process:
    """A process as far as records go: its writer is driven by hand, so that what happens when is decided here."""

    def __init__(self, services: SwitchedServices, folder: Path, clock: Clock) -> None:
        self.spool = Spool(folder)
        self.writer = Writer(services, self.spool, "worker", clock)
        self.writer._is_running = True  # no thread is started: the test takes its turns
        self.waiting: list[Record] = []

    def turn(self) -> None:
        self.writer.turn()

    def die(self) -> list[Record]:
        """SIGKILL: the kernel closes its files, and what waits in memory is gone."""
        lost = [record for _, _, record in self.writer.queue._entries]
        for file in self.spool._opened_files():
            file.close()
        self.spool._reset()
        return lost


STEPS = st.sampled_from(
    [
        "interception",
        "interception",
        "turn",
        "turn",
        "turn",
        "away",
        "back",
        "kill",
        "close",
        "invalid",
        "torn",
    ]
)
PAUSES = st.sampled_from([0.01, 0.06, 1.0, 20.0])


@settings(max_examples=150)
@given(st.lists(st.tuples(STEPS, PAUSES), max_size=40))
def test_whatever_happens_everything_is_stored_once(steps: list[tuple[str, float]]) -> None:
    """Outages, kills, restarts, torn files and bad records between the records of interceptions: in the end the store
    has all that was neither in the memory of a killed process nor refused, each once."""
    services, clock = SwitchedServices(), Clock()
    expected: dict[str, Record] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "spool"
        process = Process(services, folder, clock)
        for step, pause in steps:
            clock.now += pause
            if step == "interception":
                for record in interception(process, services):
                    expected[record.id] = record
            elif step == "turn":
                process.turn()
            elif step in ("away", "back"):
                services.away = step == "away"
            elif step == "kill":
                for record in process.die():
                    expected.pop(record.id, None)
                process = Process(services, folder, clock)
            elif step == "close":
                process.writer._is_running = False
                process.writer.close(5)
                process = Process(services, folder, clock)
            elif step == "invalid":
                bad = usage(new_id(), f"bad{len(services.invalid)}")
                services.invalid.add(bad.id)
                process.writer.put(bad)
            else:
                tear_what_is_left_behind(folder)
        services.away = False
        for _ in range(60):
            clock.now += 60
            process.turn()
        process.writer.close(5)
        assert not folder.exists() or list(folder.iterdir()) == []
    check(services, expected)


def interception(process: Process, services: SwitchedServices) -> list[Record]:
    """The records of a whole interception; its start goes to the store, or, as in an outage, to the spool."""
    begun = start()
    if services.away:
        assert process.spool.append([begun]).taken
    else:
        services.admit(begun, None)
    rest: list[Record] = [prompt(begun.id), usage(begun.id, tokens=5), end(begun.id)]
    for record in rest:
        process.writer.put(record)
    return [begun, *rest]


def tear_what_is_left_behind(folder: Path) -> None:
    """A frame that was begun when its process was killed."""
    if folder.exists():
        for file in folder.glob("*.spool"):
            with file.open("ab") as end_of_file:
                if file.stat().st_nlink and not _is_held(file):
                    end_of_file.write(b"\xff\xa1\x00\x00\x10")


def _is_held(file: Path) -> bool:
    import fcntl

    with file.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def check(services: SwitchedServices, expected: dict[str, Record]) -> None:
    """The store has exactly what is expected: every record, and no sum counts one twice."""
    interceptions: dict[str, list[Record]] = {}
    for record in expected.values():
        interceptions.setdefault(interception_of(record), []).append(record)
    for each, records in interceptions.items():
        view = services.store.interception(each)
        assert view is not None
        kept: list[Record] = [view.start, *view.prompts, *view.usages, *([view.end] if view.end else [])]
        assert {record.id for record in kept} == {record.id for record in records}
        assert view.tokens.input == 5 * len(view.usages)
        assert any(isinstance(record, InterceptionStart) for record in records)


def test_threads_outages_and_close_under_load(tmp_path: Path) -> None:
    """Many threads record while the services come and go and the recording is closed again and again."""
    services = SwitchedServices()
    recording = Recording(services, spool=Spool(tmp_path / "spool"))
    ids: list[str] = []
    done = threading.Event()

    def work() -> None:
        for _ in range(60):
            interception = new_id()
            recording.admit(start(interception), None)
            for record in (prompt(interception), usage(interception, tokens=5), end(interception)):
                recording.record(record)
            ids.append(interception)

    def disturb() -> None:
        while not done.wait(0.003):
            services.away = not services.away
            recording.close(DEADLINE_SECONDS)

    threads = [threading.Thread(target=work) for _ in range(8)]
    disturber = threading.Thread(target=disturb)
    for thread in [*threads, disturber]:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    done.set()
    disturber.join(DEADLINE_SECONDS)
    services.away = False
    recording.record(end(new_id()))  # a closed recording finds what it left behind when it is used again
    wait_for(lambda: all(is_whole(services, each) for each in ids))
    recording.close()

    assert len(ids) == 480
    assert recording.state().dropped == 0


def is_whole(services: SwitchedServices, interception: str) -> bool:
    view = services.store.interception(interception)
    return (
        view is not None and view.status == "completed" and (view.tokens.input, len(view.prompts)) == (5, 1)
    )


def test_a_store_that_fails_in_between_halves(tmp_path: Path) -> None:
    """The services go away while a bad record is searched for: the others wait in the spool, and none is lost."""
    services, clock = SwitchedServices(), Clock()
    process = Process(services, tmp_path / "spool", clock)
    records = [usage(new_id()) for _ in range(8)]
    services.invalid = {records[5].id}
    calls = 0

    def record(part: list[Record]) -> None:
        nonlocal calls
        calls += 1
        services.away = calls == 3
        SwitchedServices.record(services, part)

    services.record = record  # type: ignore[assignment,method-assign]
    for each in records:
        process.writer.put(each)
    clock.now += 1
    process.turn()
    assert process.spool.records == 4
    services.away = False
    for _ in range(5):
        clock.now += 10
        process.turn()
    process.writer.close(5)

    stored = [record.id for batch in services.batches for record in batch]
    assert sorted(stored) == sorted(each.id for each in records if each is not records[5])
    assert process.writer.losses.refused == 1


def test_fresh_records_do_not_wait_for_old_ones(tmp_path: Path) -> None:
    """Between two batches of a long replay, what is new is stored."""
    services, clock = SwitchedServices(), Clock()
    process = Process(services, tmp_path / "spool", clock)
    process.spool.append([usage(new_id()) for _ in range(1700)])
    for number in range(3):
        process.writer.put(usage(new_id(), f"fresh{number}"))
        clock.now += 1
        process.turn()

    assert [(len(batch), batch[0].id[:5]) for batch in services.batches[0:6:2]] == [(1, "fresh")] * 3
    assert [len(batch) for batch in services.batches[1:6:2]] == [500] * 3
    process.writer.close(5)


def test_an_outage_of_records_alone_is_not_a_busy_loop(tmp_path: Path) -> None:
    """Services that answer the lease and take no record are tried less and less often."""
    services, clock = SwitchedServices(), Clock()
    process = Process(services, tmp_path / "spool", clock)
    services.unexpected = {"u1": OSError()}
    process.writer.put(usage(new_id(), "u1"))
    for _ in range(6000):
        clock.now += 0.01
        process.turn()

    assert services.count("record") < 30
    services.unexpected = {}
    for _ in range(10):
        clock.now += 10
        process.turn()
    assert len(services.batches) == 1
    process.writer.close(5)


def test_a_spool_that_takes_nothing_is_not_a_busy_loop(tmp_path: Path) -> None:
    """The records wait in memory; the thread sleeps until the services are tried again."""
    services, clock = SwitchedServices(), Clock()
    process = Process(services, tmp_path / "spool", clock)
    (tmp_path / "spool").write_text("a file where the folder should be")
    services.away = True
    process.writer.put(usage(new_id()))
    for _ in range(5):
        clock.now += 0.01
        process.turn()
    clock.now += 0.06
    process.turn()

    assert process.writer._due_at() > clock.now
    assert len(process.writer.queue) == 1
    services.away = False
    for _ in range(3):
        clock.now += 10
        process.turn()
    assert len(services.batches) == 1
    process.writer.close(5)


def test_a_record_put_by_a_finaliser_does_not_lock(tmp_path: Path) -> None:
    """A garbage collection may end an interception while this thread is in the midst of recording another."""
    services = SwitchedServices()
    recording = Recording(services, spool=Spool(tmp_path / "spool"))
    writer = recording._writer
    with writer._lock, writer.queue._lock, recording._lock:
        recording.record(end(new_id()))
    writer._bell.ring()
    writer._bell.ring()
    recording.close()

    assert len(services.batches) == 1


def test_a_nested_append_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One by a finaliser, in the midst of another: it would write in the same place."""
    spool = Spool(tmp_path / "spool")
    nested: list[int] = []
    write = spool._write

    def write_with_a_collection(frames: list[bytes]) -> int:
        nested.append(spool.append([end(new_id())]).taken)
        return write(frames)

    monkeypatch.setattr(spool, "_write", write_with_a_collection)

    assert spool.append([end(new_id())]).taken == 1
    assert nested == [0]
    spool.close()


def test_a_start_that_the_spool_cannot_hold_is_not_admitted(tmp_path: Path) -> None:
    """A defect of the request, found while the services are away."""
    services = SwitchedServices()
    services.away = True
    recording = Recording(services, spool=Spool(tmp_path / "spool"))
    with pytest.raises(NotRecorded) as refused:
        recording.admit(start("no id"), None)

    assert isinstance(refused.value.__cause__, InvalidRecord)
    recording.close()


# Processes


@contextmanager
def scenario(name: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    with run_beside_the_tests("recording_scenarios", name, str(folder)) as running:
        try:
            yield running
        finally:
            running.kill()


def run(name: str, folder: Path) -> str:
    """What a scenario prints, once it has succeeded."""
    with scenario(name, folder) as running:
        out, errors = running.communicate(timeout=3 * DEADLINE_SECONDS)
        assert running.returncode == 0, errors
        assert "Traceback" not in errors
    return out


def left_in(folder: Path) -> list[str]:
    """The records of every file: a process may have begun another one while its first was replayed."""
    spool = Spool(folder)
    found: list[str] = []
    while batch := spool.batch(1000, 2**20, orphans=True):
        found += [record.id for record in batch]
        spool.stored(batch)
    spool.close()
    return found


@pytest.mark.parametrize("name", ["spool_fork", "recording_fork", "given_up", "no_threads"])
def test_in_a_process_of_its_own(name: str, tmp_path: Path) -> None:
    """Forks, the garbage collector, and a process that may start no thread."""
    run(name, tmp_path / "spool")


def test_in_greenlets(tmp_path: Path) -> None:
    """Patched by gevent, the thread is a greenlet, and all is the same."""
    pytest.importorskip("gevent")
    run("gevent_records", tmp_path / "spool")


def test_an_exit_spools_what_cannot_be_stored(tmp_path: Path) -> None:
    """And what other exit handlers record after that."""
    run("exit_spools", tmp_path / "spool")

    assert set(left_in(tmp_path / "spool")) >= {"u0", "u1", "u2"}


def test_an_exit_stores_what_can_be(tmp_path: Path) -> None:
    """Even content, which would have waited longer."""
    assert run("exit_stores", tmp_path / "spool").split() == ["p"]


def test_an_exit_does_not_wait_for_a_store_that_hangs(tmp_path: Path) -> None:
    """What was on its way is in the spool, too."""
    run("exit_hangs", tmp_path / "spool")

    assert [each[0] for each in left_in(tmp_path / "spool")] == ["e", "p"]


def test_a_killed_process_is_replayed_by_another(tmp_path: Path) -> None:
    """Everything that its spool took."""
    with scenario("killed", tmp_path / "spool") as running:
        assert running.stdout is not None
        ids = running.stdout.readline().split()
        running.kill()
        running.wait()
        running.communicate()
    services = SwitchedServices()
    recording = Recording(services, spool=Spool(tmp_path / "spool"))
    recording.record(end(new_id()))
    wait_for(lambda: sum(len(batch) for batch in services.batches) == 61)
    recording.close()

    assert len(ids) == 20
    for each in ids:
        view = services.store.interception(each)
        assert view is not None
        assert (view.status, view.tokens.input) == ("completed", 1)
