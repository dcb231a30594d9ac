"""The thread that stores what is recorded, off the path of the responses.

One for each recording, started by the first record, and again by the first one after a fork or after ``close()``. It
is a daemon: what it has not stored when the process exits is stored, or spooled, by an exit handler with a deadline.
"""

from __future__ import annotations

import atexit
import logging
import random
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final

from flask_aibridge.errors import ServicesUnavailable
from flask_aibridge.services.interfaces import Services
from flask_aibridge.services.recording.availability import Availability
from flask_aibridge.services.recording.bell import Bell
from flask_aibridge.services.recording.delivery import Delivery, Losses, log_unexpected
from flask_aibridge.services.recording.queue import RecordQueue
from flask_aibridge.services.recording.running import Running
from flask_aibridge.services.records import STOPPED, InterceptionEnd, Record, stand_in_end
from flask_aibridge.services.spool.spool import Spool
from flask_aibridge.services.storage import LEASE_SECONDS

_jitter = random.Random()  # noqa: S311 - nothing secret; of its own, since a host may have seeded the shared one  # nosec B311
_log = logging.getLogger("flask_aibridge.services")

THREAD_NAME: Final = "flask-aibridge recording"

RENEW_SECONDS: Final = LEASE_SECONDS / 4
"""How often the lease is renewed: three calls in a row may fail."""

MAINTAIN_SECONDS: Final = 5.0
"""How often upkeep is done, at the least; at random twice as often, so that processes do not all do it at once."""

ORPHANS_SECONDS: Final = 30.0
"""How often it is looked whether dead processes left spool files behind."""

SYNC_SECONDS: Final = 1.0
"""How often the spool is synchronised with the disk: what a crash of the machine costs, about."""

REST_SECONDS: Final = 1.0
"""How long the thread rests after an error that nobody expected, so that it does not go round for nothing."""

EXIT_SECONDS: Final = 5.0
"""How long an exiting process waits for its records to be stored. What is not by then goes to the spool."""


class Writer:
    """Takes records from a queue and brings them to the services, or to the spool while those are away.

    :param worker: the process' name in leases; changed after a fork.
    """

    def __init__(
        self, services: Services, spool: Spool | None, worker: str, clock: Callable[[], float] = monotonic
    ) -> None:
        self.worker = worker
        self.queue = RecordQueue(self._is_due_sooner, clock)
        self.availability = Availability(clock)
        self.losses = Losses()
        self.running = Running()
        self._services = services
        self._spool = spool
        self._delivery = Delivery(services.recorder, spool, self.availability, self.losses)
        self._clock = clock
        self.reset(worker)
        _writers.add(self)

    def reset(self, worker: str) -> None:
        """Begin anew, as ``worker``: for the child of a fork. What waits is the parent's, which will see to it."""
        self.worker = worker
        self.queue.clear()
        self.running.clear()
        self.availability.reset()
        self._lock = threading.RLock()
        self._bell = Bell()
        self._thread: threading.Thread | None = None
        self._is_running = self._is_closing = self._is_exiting = False
        self._in_flight: Sequence[Record] = ()
        self._spool_refuses = False
        self._wakes_at = float("inf")  # until when the thread waits; no time at all while it works
        self._renew_at = self._maintain_at = self._orphans_at = self._sync_at = float("-inf")

    @property
    def is_running(self) -> bool:
        return self._is_running

    def wake(self) -> None:
        """Have the thread look at once whether there is something to do."""
        self._bell.ring()

    def _is_due_sooner(self) -> None:
        # Content can wait for longer than the thread ever does, and while it works it is about to look anyway: to wake
        # it for nothing would cost a request two changes of threads.
        if self.queue.due_at < self._wakes_at:
            self._bell.ring()

    def put(self, record: Record) -> None:
        """Have a record stored soon. Where the queue is full, it goes to the spool at once; where that is, too, it is
        lost."""
        if isinstance(record, InterceptionEnd):
            self.running.discard(record.interception_id)
        if not self.queue.put(record):
            self.wake()
            if not self._delivery.spool_one(record):
                self.losses.drop(record)
        if not self._is_running:
            self.ensure_running()

    def ensure_running(self) -> None:
        """Start the thread, if it does not run. Where none can be started, what waits goes to the spool."""
        with self._lock:
            if self._is_running:
                return
            self._is_running, self._is_closing = not self._is_exiting, False
            self._orphans_at = float("-inf")  # what close() let go of is one
            thread = threading.Thread(target=self._serve, name=THREAD_NAME, daemon=True)
            try:
                if self._is_running:
                    thread.start()
                    self._thread = thread
                    return
            except RuntimeError as error:
                self._is_running = False
                _log.error("The recording thread cannot be started: %s", error)
        self._rescue(())

    def ask_to_end(self) -> None:
        """Have the thread store what waits and end; return at once."""
        self._is_closing = True
        self._bell.ring()

    def close(self, timeout: float) -> None:
        """Store what waits, and end the thread, within ``timeout`` seconds. What is not stored by then is spooled.

        What runs is ended as interrupted: whoever closes stops, and then nobody else would say so for a long time.
        """
        deadline = monotonic() + timeout
        self._interrupt()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            self._flush_here(deadline)
        else:
            self.ask_to_end()
            thread.join(max(0.0, timeout))
        if self.queue or self._in_flight:
            self._rescue(self._in_flight)
        self._release_spool()

    def _interrupt(self) -> None:
        now = datetime.now(UTC)
        for interception_id in self.running.take():
            with suppress(ValueError):  # an id that is none was never recorded
                end = stand_in_end(interception_id, now, STOPPED)
                if not self.queue.put(end) and not self._delivery.spool_one(end):
                    self.losses.drop(end)

    def exit(self, deadline: float) -> None:
        """As ``close()``, and for good: records that come later go to the spool."""
        self._is_exiting = True
        self.close(max(0.0, deadline - monotonic()))

    def turn(self) -> None:
        """Do what is due: at most one batch of new records, and one out of the spool."""
        now = self._clock()
        if self.availability.is_away and not self._is_found_again(now):
            self._spool_queue(now)
        else:
            self._store_queue(now)
            self._do_upkeep(now)
            self._replay(now)
        self._sync(now)

    def _serve(self) -> None:
        try:
            while not self._may_end():
                try:
                    self._wait()
                    self.turn()
                except Exception as error:
                    log_unexpected("The recording thread", error)
                    self._bell.wait(REST_SECONDS)
        except BaseException as error:  # such as a greenlet's exit: the next record starts another thread
            log_unexpected("The recording thread", error)
            raise
        finally:
            self._has_ended()

    def _may_end(self) -> bool:
        if not self._is_closing or self.queue:
            return False
        self._release_spool()
        with self._lock:
            ends = not self.queue
            if ends:
                self._has_ended()
        return ends

    def _has_ended(self) -> None:
        with self._lock:
            if self._thread in (None, threading.current_thread()):
                self._thread, self._is_running = None, False

    def _wait(self) -> None:
        while not self._is_closing:
            self._wakes_at = float("inf")  # before the queue is looked at: what comes from now on rings
            due_at = self._due_at()
            if (seconds := due_at - self._clock()) <= 0:
                break
            self._wakes_at = due_at
            self._bell.wait(seconds)
        self._wakes_at = float("-inf")

    def _due_at(self) -> float:
        spool, queue_due_at = self._spool, self.queue.due_at
        if self.availability.is_away:
            due_at = self.availability.try_at
            if spool is not None and not self._spool_refuses:
                due_at = min(due_at, queue_due_at)
        else:
            due_at = min(queue_due_at, self._renew_at, self._maintain_at)
            if spool is not None:
                due_at = float("-inf") if spool.has_own() else min(due_at, self._orphans_at)
        return min(due_at, self._sync_at) if spool is not None and spool.has_unsynced else due_at

    def _is_found_again(self, now: float) -> bool:
        """Whether the services, if it is time to try them, answer."""
        if now < self.availability.try_at:
            return False
        self._spool_refuses = False
        self._renew_at = self._orphans_at = now
        self._renew(now)
        return not self.availability.is_away

    def _store_queue(self, now: float) -> None:
        if self.queue.due_at > now and not self._is_closing:
            return
        batch = self._in_flight = self.queue.take()
        try:
            left = self._delivery.store(batch) if batch else ()
            if left:
                self._put_back(self._delivery.spool(left))
        except BaseException:
            self._put_back(batch)
            raise
        finally:
            self._in_flight = ()

    def _spool_queue(self, now: float) -> None:
        """Spool all that waits. What the spool does not take goes on waiting, or, at the end, is lost."""
        if self.queue.due_at > now and not self._is_closing:
            return
        while batch := self.queue.take():
            left = self._delivery.spool(batch)
            if left and not self._is_closing:
                self._spool_refuses = True
                self._put_back(left)
                return
            self._drop(left)

    def _put_back(self, records: Sequence[Record]) -> None:
        self._drop(self.queue.put_back(records))

    def _drop(self, records: Sequence[Record]) -> None:
        for record in records:
            self.losses.drop(record)

    def _do_upkeep(self, now: float) -> None:
        if now >= self._renew_at and not self.availability.is_away:
            self._renew(now)
        if now >= self._maintain_at and not self.availability.is_away:
            self._maintain_at = now + MAINTAIN_SECONDS * (1 - _jitter.random() / 2)
            self._call(self._services.recorder.maintain)

    def _renew(self, now: float) -> None:
        self._renew_at = now + RENEW_SECONDS
        self._call(self._services.recorder.renew, self.worker)

    def _call(self, method: Callable[..., Any], *arguments: Any) -> None:
        was_away = self.availability.is_away
        try:
            method(*arguments)
        except ServicesUnavailable as error:
            self.availability.lost(error)
        except Exception as error:
            log_unexpected(f"The call of {method.__name__}", error)
            if was_away:
                self.availability.lost(error)
        else:
            self.availability.found()

    def _replay(self, now: float) -> None:
        orphans = now >= self._orphans_at
        if self._spool is None or self.availability.is_away or not (orphans or self._spool.has_own()):
            return
        if not self._delivery.replay(orphans=orphans) and orphans:
            self._orphans_at = now + ORPHANS_SECONDS

    def _sync(self, now: float) -> None:
        if self._spool is not None and self._spool.has_unsynced and now >= self._sync_at:
            self._sync_at = now + SYNC_SECONDS
            self._spool.sync()

    def _flush_here(self, deadline: float) -> None:
        """What the thread does at its end, where there is none."""
        while self.queue and not self.availability.is_away and monotonic() < deadline:
            self._is_closing = True
            self._store_queue(self._clock())

    def _rescue(self, in_flight: Sequence[Record]) -> None:
        """Spool everything. What is on its way may be stored as well, which does no harm."""
        self._delivery.spool(in_flight)
        while batch := self.queue.take():
            self._drop(self._delivery.spool(batch))

    def _release_spool(self) -> None:
        if self._spool is not None:
            self._spool.sync()
            self._spool.close()


_writers: weakref.WeakSet[Writer] = weakref.WeakSet()


def _flush_at_exit() -> None:
    deadline = monotonic() + EXIT_SECONDS
    writers = list(_writers)
    for writer in writers:
        writer.ask_to_end()
    for writer in writers:
        writer.exit(deadline)


atexit.register(_flush_at_exit)
