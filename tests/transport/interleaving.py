"""Runs two sides of a race so that the one does its part at every single step of the other.

A race that happens once in a million calls happens here every time: the first side runs under a trace function, and
at the chosen bytecode instruction the second side acts, in a thread of its own. Where it has to wait for a lock
that the first holds, the first goes on.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeAlias

from flask_aibridge.transport import cancellation, pipe, workers
from tests.transport.calls import DEADLINE

LOCKED_SECONDS = 0.01
"""How long the first side waits for the second, which may be waiting for a lock of the first."""

TRACED = {pipe.__file__, workers.__file__, cancellation.__file__}

Side: TypeAlias = "Callable[[], object]"


class Interleaving:
    """Runs ``first``, with ``second`` at step ``at`` of it; ``reached`` is whether it has so many.

    ``same_thread`` has the second side act as the garbage collector does: in the very thread, which may hold a lock.
    """

    def __init__(self, at: int, *, same_thread: bool = False) -> None:
        self._at = at
        self._same_thread = same_thread
        self._acted = False
        self._step = 0
        self._thread: threading.Thread | None = None
        self._done = threading.Event()
        self._second: Side = lambda: None
        self.reached = False
        self.errors: list[BaseException] = []
        self.results: dict[str, object] = {}

    def run(self, first: Side, second: Side) -> None:
        self._second = second
        previous = sys.gettrace()
        # Python 3.12 looks for a frame that wants opcodes when a trace function is set, and not again after that.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._trace)
        try:
            self._note("first", first)
        finally:
            sys.settrace(previous)
        if not self._acted:
            self._act()
        if self._thread is not None:
            self._thread.join(DEADLINE)
            assert not self._thread.is_alive(), "the second side hangs"

    def _trace(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename not in TRACED:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            if self._step == self._at:
                self.reached = True
                self._act()
            self._step += 1
        return self._trace

    def _act(self) -> None:
        self._acted = True
        if self._same_thread:
            self._run_second()
            return
        self._thread = threading.Thread(target=self._run_second)
        self._thread.start()
        self._done.wait(LOCKED_SECONDS)

    def _run_second(self) -> None:
        self._note("second", self._second)
        self._done.set()

    def _note(self, name: str, side: Side) -> None:
        try:
            self.results[name] = side()
        except BaseException as error:
            self.errors.append(error)


class Wake:
    """A wake that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1


Case: TypeAlias = "Callable[[Interleaving], None]"


def at_every_step(case: Case, *, same_thread: bool = False) -> None:
    """The case, once for each step of its first side and once with the second side after it."""
    at = 0
    while True:
        interleaving = Interleaving(at, same_thread=same_thread)
        case(interleaving)
        if not interleaving.reached:
            break
        at += 1
    assert at > 5, "nothing was traced"


def either_way(interleaving: Interleaving, one: Side, other: Side, swap: bool) -> None:
    if swap:
        interleaving.run(other, one)
    else:
        interleaving.run(one, other)


def result_of(interleaving: Interleaving, second: bool) -> Any:
    return interleaving.results["second" if second else "first"]
