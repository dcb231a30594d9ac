"""What wakes the writer: when it must be woken it is, and not for what it finds by itself in time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from flask_aibridge.services.recording import queue as recording_queue
from flask_aibridge.services.recording import writer as recording_writer
from flask_aibridge.services.recording.bell import Bell
from flask_aibridge.services.recording.writer import Writer
from flask_aibridge.services.records import Record
from tests.services.switched_services import SwitchedServices, end, new_id, prompt, usage

pytestmark = pytest.mark.usefixtures("no_leaks")

FAR = 1000.0
"""Seconds that no test lives to see the end of."""


def is_rung(bell: Bell) -> bool:
    """Whether the next wait would end at once; it has been waited for then."""
    return bell._lock.acquire(blocking=False)


def test_a_bell_that_was_rung_before_ends_the_next_wait_and_no_other() -> None:
    """However often it was."""
    bell = Bell()
    bell.wait(0.0)
    bell.ring()
    bell.ring()
    bell.wait(FAR)
    assert not is_rung(bell)


def test_a_bell_ends_the_wait_of_another_thread(deadline: float) -> None:
    """For ever is no time too long to be waited for."""
    bell = Bell()
    waiting = threading.Thread(target=bell.wait, args=(float("inf"),))
    waiting.start()
    bell.ring()
    waiting.join(deadline)
    assert not waiting.is_alive()


class WatchedBell(Bell):
    """Tells how long the writer waits, 0 while it does not, and how often it was rung."""

    def __init__(self) -> None:
        super().__init__()
        self.rung = 0
        self.seconds = 0.0
        self._changed = threading.Condition()

    def ring(self) -> None:
        self.rung += 1
        super().ring()

    def wait(self, seconds: float) -> None:
        self._is_waited_for(seconds)
        super().wait(seconds)
        self._is_waited_for(0.0)

    def _is_waited_for(self, seconds: float) -> None:
        with self._changed:
            self.seconds = seconds
            self._changed.notify_all()

    def assert_waits(self, deadline: float) -> None:
        """For a long time, as a writer does that has nothing to do."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.seconds > FAR / 3, deadline)


class AskedServices(SwitchedServices):
    """Tells when it is asked to store something."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()

    def record(self, records: Sequence[Record]) -> None:
        self.asked.set()
        super().record(records)


class Watched:
    """A writer whose thread has nothing to do by itself for a long time, and waits."""

    def __init__(self, deadline: float) -> None:
        self.services = AskedServices()
        self.writer = Writer(self.services, None, "w-1")
        self.bell = self.writer._bell = WatchedBell()
        self.writer.ensure_running()
        self.bell.assert_waits(deadline)
        assert self.bell.rung == 0

    @property
    def stored(self) -> list[str]:
        return [record.id for batch in self.services.batches for record in batch]

    def put(self, *records: Record) -> int:
        """How often it rang."""
        before = self.bell.rung
        for record in records:
            self.writer.put(record)
        return self.bell.rung - before

    def wait_until_stored(self, *records: Record) -> None:
        self.services.wait_for(lambda: {record.id for record in records} <= set(self.stored))


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, deadline: float) -> Iterator[Watched]:
    for name in ("MAINTAIN_SECONDS", "RENEW_SECONDS", "ORPHANS_SECONDS"):
        monkeypatch.setattr(recording_writer, name, FAR)
    monkeypatch.setattr(recording_queue, "CONTENT_LINGER_SECONDS", 10 * FAR)
    watched = Watched(deadline)
    yield watched
    watched.services.gate.set()
    watched.writer.close(deadline)


def test_a_waiting_writer_is_woken_for_the_accounting(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once; what comes meanwhile goes with it."""
    monkeypatch.setattr(recording_queue, "LINGER_SECONDS", 0.5)
    records: list[Record] = [usage(new_id()), end(new_id()), usage(new_id())]
    assert watched.put(*records) == 1
    watched.wait_until_stored(*records)
    assert len(watched.services.batches) == 1


def test_a_waiting_writer_is_not_woken_for_content(watched: Watched) -> None:
    """Which goes with the accounting that follows it."""
    content, accounting = prompt(new_id()), usage(new_id())
    assert watched.put(content) == 0
    assert watched.bell.seconds > FAR / 3
    assert watched.put(accounting) == 1
    watched.wait_until_stored(content, accounting)
    assert len(watched.services.batches) == 1


def test_a_working_writer_is_not_woken_and_finds_what_came(watched: Watched, deadline: float) -> None:
    """It looks again before it waits."""
    watched.services.gate.clear()
    first, second = usage(new_id()), end(new_id())
    watched.put(first)
    assert watched.services.asked.wait(deadline)
    assert watched.put(second) == 0
    watched.services.gate.set()
    watched.wait_until_stored(first, second)


def test_a_writer_that_has_stored_everything_waits_again(watched: Watched, deadline: float) -> None:
    """Until the next upkeep, and is woken as before."""
    for _ in range(3):
        record = usage(new_id())
        assert watched.put(record) == 1
        watched.wait_until_stored(record)
        watched.bell.assert_waits(deadline)


def test_a_full_batch_is_due_at_once(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of content too."""
    monkeypatch.setattr(recording_queue, "BATCH_RECORDS", 3)
    records = [prompt(new_id()) for _ in range(3)]
    assert watched.put(*records) == 1
    watched.wait_until_stored(*records)
