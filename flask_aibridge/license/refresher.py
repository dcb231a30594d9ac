"""The thread that looks for changes of the licences, one per holder and process.

It is started by the first request that asks, never before; again by the first one after a fork or after ``close()``;
and ends with its owner.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from time import monotonic
from typing import Final, TypeAlias

__all__ = ["POLL_SECONDS", "Refresher"]

logger = logging.getLogger("flask_aibridge.license")

THREAD_NAME: Final = "flask-aibridge licences"

POLL_SECONDS: Final = 0.5
"""How often it is looked for a change: a quarter of what one may take to be in force everywhere, so that a call that is
slow, or fails once, is made up for."""

LISTEN_SECONDS: Final = 0.25
"""How long the store is listened to at a time: as long as ``close()`` may have to wait for that."""

LISTEN_AGAIN_SECONDS: Final = 30.0
"""After how long a store that could not be listened to is tried again: an account may have no right to."""

FIRST_LOOK_SECONDS: Final = 1.0
"""How long the first requests of a process wait for what is installed, if what they have without it would refuse them:
a worker that has just been started must not turn away who has a licence. Reading takes milliseconds."""

Listener: TypeAlias = Callable[[float], bool]
"""Waits so many seconds; true where something was heard."""

CLOSE_SECONDS: Final = 2.0
"""How long ``close()`` waits for the thread: it was told to end, and a call that it is in has its own bound."""


class _Run:
    """One life of the thread."""

    def __init__(self) -> None:
        self.begun = monotonic()
        self.looked = threading.Event()
        self.stop = threading.Event()
        self.thread: threading.Thread | None = None
        self.listen_at = float("-inf")

    @property
    def remaining(self) -> float:
        """For how many seconds a request may still wait for the first look."""
        return self.begun + FIRST_LOOK_SECONDS - monotonic()


class Refresher:
    """Calls ``look`` in a daemon thread, at once and then every :data:`POLL_SECONDS`.

    :param look: a bound method that does not raise; its object is not kept alive, and the thread ends with it.
    :param listener: another one: gives what waits so many seconds for a reason to look at once, or ``None``. What it
        gives must not keep the object alive either.
    :param needed: false where there is nothing to look for: then no thread ever starts.
    """

    def __init__(
        self,
        look: Callable[[], None],
        *,
        listener: Callable[[], Listener | None] | None = None,
        needed: bool = True,
    ) -> None:
        self._needed = needed
        self._look = weakref.WeakMethod(look)
        self._listener = None if listener is None else weakref.WeakMethod(listener)
        self._said = False
        self.reset()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'running' if self.is_running else 'not running'}>"

    def reset(self) -> None:
        """Begin anew: for the child of a fork, which has no thread and perhaps a lock that nobody will release."""
        self._lock = threading.Lock()  # held while the thread is started, and not while it works
        self._run: _Run | None = None
        self.is_settled = not self._needed
        """Whether the thread runs and has looked, or has had its time to. A request asks for nothing else."""

    @property
    def is_running(self) -> bool:
        """Whether the thread has been started and has not ended."""
        return self._run is not None

    def settle(self, is_enough: Callable[[], bool]) -> None:
        """Start the thread, if it does not run, and wait for its first look: no longer than
        :data:`FIRST_LOOK_SECONDS` after its start, and not at all if what there is ``is_enough``."""
        run = self._running()
        if run is None:
            return
        if not is_enough():
            run.looked.wait(max(0.0, run.remaining))
        with self._lock:
            self.is_settled = run is self._run and (run.looked.is_set() or run.remaining <= 0)

    def close(self) -> None:
        """End the thread. The next request starts it again."""
        with self._lock:
            run, self._run, self.is_settled = self._run, None, not self._needed
        if run is not None:
            run.stop.set()
            if run.thread is not None and run.thread is not threading.current_thread():
                run.thread.join(CLOSE_SECONDS)

    def _running(self) -> _Run | None:
        return self._run or self._start()

    def _start(self) -> _Run | None:
        with self._lock:
            if self._run is not None:
                return self._run
            run = _Run()
            arguments = (weakref.ref(self), self._look, self._listener, run)
            run.thread = threading.Thread(target=_serve, args=arguments, name=THREAD_NAME, daemon=True)
            try:
                run.thread.start()
            except RuntimeError as error:
                self._cannot_start(error)
                return None
            self._run = run
            return run

    def _cannot_start(self, error: RuntimeError) -> None:
        if not self._said:
            self._said = True
            logger.error(
                "The thread that looks for licences cannot be started, and is tried again: %s", error
            )

    def _ended(self, run: _Run) -> None:
        """The thread has ended by itself, as a greenlet may: the next request starts another."""
        with self._lock:
            if self._run is run:
                self._run, self.is_settled = None, False


def _serve(
    refresher: weakref.ref[Refresher],
    find: weakref.WeakMethod[Callable[[], None]],
    find_listener: weakref.WeakMethod[Callable[[], Listener | None]] | None,
    run: _Run,
) -> None:
    try:
        while not run.stop.is_set() and _look_once(find):
            run.looked.set()
            _pause(_listener(find_listener, run), run)
    finally:
        alive = refresher()
        if alive is not None:
            alive._ended(run)
        run.looked.set()  # nobody needs to wait for what does not come


def _listener(find: weakref.WeakMethod[Callable[[], Listener | None]] | None, run: _Run) -> Listener | None:
    """What to listen with. A function, for the same reason as ``_look_once``."""
    ask = None if find is None or monotonic() < run.listen_at else find()
    return None if ask is None else ask()


def _pause(listen: Listener | None, run: _Run) -> None:
    """Wait until something is heard, the thread is to end, or it is time to look anyway."""
    until = monotonic() + POLL_SECONDS
    while listen is not None and not run.stop.is_set() and monotonic() < until:
        enough = min(monotonic() + LISTEN_SECONDS, until)
        try:
            if listen(LISTEN_SECONDS):
                return
        except Exception:  # whatever it is, the clock does as well
            run.listen_at = monotonic() + LISTEN_AGAIN_SECONDS
            break
        # It may have returned early, for a message that says nothing.
        run.stop.wait(max(0.0, enough - monotonic()))
    run.stop.wait(max(0.0, until - monotonic()))


def _look_once(find: weakref.WeakMethod[Callable[[], None]]) -> bool:
    """Look; false where there is nobody left to look for. A function, so that the owner is not kept by a variable."""
    look = find()
    if look is None:
        return False
    look()
    return True
