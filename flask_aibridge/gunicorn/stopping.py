"""How a worker stops: it takes no new requests, lets those that run go on for as long as gunicorn lets it, and stores
what is recorded.

gunicorn has no hook for a worker that is told to stop: on TERM (which the arbiter sends for a HUP too), and after
``max_requests``, it sets ``worker.alive`` to false and waits for its requests. So a thread watches that; TERM wakes
it at once. The arbiter kills a worker ``graceful_timeout`` seconds after it sent TERM, and all has to be done by then.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from flask_aibridge.app_state import AppState, app_states
from flask_aibridge.transport import workers as transport_workers

__all__ = ["ABORT_SECONDS", "QUIT_SECONDS", "Stopping"]

WATCH_SECONDS: Final = 1.0
"""How often it is looked whether the worker stops by itself, as after ``max_requests``: as often as gunicorn's own
loops look."""

HEARTBEAT_SECONDS: Final = 1.0
"""How often a worker that drains tells the arbiter that it is alive: some of gunicorn's workers do not while they
wait for their last requests, and are killed after ``timeout`` seconds."""

MARGIN_SECONDS: Final = 5.0
"""How long before gunicorn's ``graceful_timeout`` streams are ended: so that their last event gets out (the built-in
bridge waits two seconds for slow readers), gunicorn notices that they have ended (a second, with gevent), and the
records are stored (``FLUSH_SECONDS``)."""

MARGIN_SHARE: Final = 0.5
"""Of a ``graceful_timeout`` that is shorter than two margins, so much is left to the streams."""

FLUSH_SECONDS: Final = 1.5
"""How long the last records may take to be stored. What is not by then goes to the spool."""

JOIN_SECONDS: Final = 1.0
"""How long threads may take to end that have nothing to do any more."""

QUIT_SECONDS: Final = 3.0
"""How long a worker that is told to end at once takes, at the most, to end its streams and to store its records."""

ABORT_SECONDS: Final = 0.5
"""The same for one that the arbiter kills: SIGKILL follows within a second."""

LEFTOVER_SECONDS: Final = 3.0
"""How long after that it still waits for threads that nothing could end: Python joins those of gunicorn's pool, and a
bridge of the host's own may leave them waiting for its provider."""

QUITTING: Final = (signal.SIGINT, signal.SIGQUIT)
"""What gunicorn's workers take for the wish that they end at once."""

STREAMS_SHARE: Final = 0.5
"""Of either, so much is for the streams; what is left is for the records."""

_log = logging.getLogger("flask_aibridge.gunicorn")


class Stopping:
    """The end of one worker process.

    :param worker: gunicorn's, after it has loaded the application.
    :param states: gives those of the apps of this process.
    """

    def __init__(self, worker: Any, states: Callable[[], Iterable[AppState]] = app_states) -> None:
        self._worker = worker
        self._states = states
        # Locks and no events, and no thread that is started: signal handlers may release one at any moment. Each is
        # locked until what it is named after has happened.
        self._bell = _locked()
        self._hurried = _locked()
        self._beginning = threading.Lock()
        self._drain_by = 0.0
        self._draining: threading.Thread | None = None
        self._hurry_seconds: float | None = None
        self._ended = False
        self._watching = threading.Thread(target=self._watch, name="flask-aibridge gunicorn", daemon=True)

    def watch(self) -> None:
        """Begin to watch the worker, and to hold it back from ending while calls in process still run."""
        _handle(signal.SIGTERM, self._terminate)
        signal.siginterrupt(signal.SIGTERM, False)  # as gunicorn has it, and as the line above undid
        for number in QUITTING:
            _handle(number, self._quit)
        self._hold_back()
        self._watching.start()

    def begin(self) -> None:
        """Refuse new requests from now on, and wait for the others in a thread of its own."""
        with self._beginning:
            if self._draining is not None:
                return
            grace = float(self._worker.cfg.graceful_timeout)
            self._drain_by = monotonic() + grace - min(MARGIN_SECONDS, grace * MARGIN_SHARE)
            for state in self._states():
                state.draining = True
            self._draining = threading.Thread(target=self._drain, name="flask-aibridge draining", daemon=True)
            self._draining.start()

    def wait(self) -> None:
        """Until all requests have ended, or were ended; the arbiter hears of this worker meanwhile."""
        while self._draining is not None and self._draining.is_alive() and self._hurry_seconds is None:
            with suppress(
                OSError, ValueError
            ):  # gunicorn has closed it: the worker's loop has ended otherwise
                self._worker.tmp.notify()
            self._draining.join(HEARTBEAT_SECONDS)

    def end_now(self, seconds: float) -> None:
        """End the streams, store the records, and return after so many seconds at the latest; a process that has still
        not ended some seconds later is ended here.

        It may be called by a signal handler, whose thread may hold any lock: so the watching thread does it.
        """
        self._hurry(seconds)
        try:
            self._hurried.acquire(timeout=seconds)
        except Exception:  # in gevent's hub nothing can be waited for
            _log.exception("The worker's requests could not be ended before it.")

    def finish(self) -> None:
        """Store the records, and end the threads."""
        self._ended = True
        self._ring()
        if self._watching.ident is not None and self._hurry_seconds is None:
            self._watching.join(JOIN_SECONDS)
        for state in self._states():
            _try(lambda state=state: state.close(FLUSH_SECONDS))  # type: ignore[misc]
        _try(lambda: transport_workers.close(JOIN_SECONDS))

    def _terminate(self, gunicorns: Callable[[], object]) -> None:
        gunicorns()
        self._ring()

    def _quit(self, gunicorns: Callable[[], object]) -> None:
        # The terminal sends one, and the arbiter another, in the middle of what gunicorn does for the first: it shuts
        # its pool down with a lock that it then waits for in vain.
        for number in QUITTING:
            signal.signal(number, signal.SIG_IGN)
        self._hurry(QUIT_SECONDS)
        gunicorns()

    def _hurry(self, seconds: float) -> None:
        if self._hurry_seconds is None:
            self._hurry_seconds = seconds
        self._ring()

    def _hold_back(self) -> None:
        # After this hook gunicorn calls the worker's run(), and ends the process when it returns: its own requests have
        # ended then, but it knows nothing of calls in process.
        run = self._worker.run

        def run_and_drain() -> None:
            run()
            self.begin()
            self.wait()

        self._worker.run = run_and_drain

    def _watch(self) -> None:
        while not self._ended and self._hurry_seconds is None:
            self._bell.acquire(timeout=WATCH_SECONDS)
            if not self._worker.alive and not self._ended and self._hurry_seconds is None:
                self.begin()
                self.wait()
        if self._hurry_seconds is not None:
            self._end(self._hurry_seconds)
            _release(self._hurried)
            time.sleep(LEFTOVER_SECONDS)
            os._exit(0)

    def _ring(self) -> None:
        _release(self._bell)

    def _drain(self) -> None:
        for state in self._states():
            _try(lambda state=state: state.drain(max(0.0, self._drain_by - monotonic())))  # type: ignore[misc]

    def _end(self, seconds: float) -> None:
        until = monotonic() + seconds
        # In a thread, for it waits for the streams, and the one that serves a stream may be waiting for us.
        ending = threading.Thread(target=self._end_streams, name="flask-aibridge ending", daemon=True)
        ending.start()
        ending.join(seconds * STREAMS_SHARE)
        for state in self._states():
            _try(lambda state=state: state.close(max(0.0, until - monotonic())))  # type: ignore[misc]

    def _end_streams(self) -> None:
        for state in self._states():
            _try(lambda state=state: state.drain(0.0))  # type: ignore[misc]


def _handle(number: signal.Signals, handler: Callable[[Callable[[], object]], None]) -> None:
    """Handle a signal; what gunicorn would have done is passed on, to be called."""
    gunicorns: Any = signal.getsignal(number)
    signal.signal(
        number, lambda number, frame: handler(lambda: callable(gunicorns) and gunicorns(number, frame))
    )


def _locked() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


def _release(lock: threading.Lock) -> None:
    with suppress(RuntimeError):  # somebody has done it
        lock.release()


def _try(do: Callable[[], object]) -> None:
    """Do one thing of several, none of which may keep the others from being done."""
    try:
        do()
    except Exception:
        _log.exception("A worker that ends could not do all that it had to.")
