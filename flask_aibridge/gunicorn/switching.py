"""How often a worker's threads ask each other for the interpreter.

A thread that waits for the interpreter's lock wakes up once in each of Python's switch intervals, 5 ms, to demand it.
That is nothing for a few threads. But a burst that hundreds of streams are woken for leaves hundreds waiting, and a
thousand of them wake 200,000 times a second: those wakings alone are more than a processor can do, so nobody gets on,
and it does not end. Threads that relay streams give the lock up by themselves with every read and write, and need not
be made to. So the interval grows with the number of threads.
"""

from __future__ import annotations

import sys
from typing import Any, Final

__all__ = ["MAX_SECONDS", "WAKES_PER_SECOND", "space_out"]

WAKES_PER_SECOND: Final = 10_000
"""How often all threads of a worker together may wake for nothing: a few hundredths of a processor's time. Up to 50
threads keep Python's own interval with that."""

MAX_SECONDS: Final = 0.1
"""The longest interval: for so long a thread that computes keeps the others waiting, and no longer."""


def space_out(cfg: Any) -> None:
    """In a worker: set the interval for the threads that gunicorn's configuration gives it.

    One that is longer already is left alone, and so are workers without threads.
    """
    if cfg.worker_class_str == "gthread":
        seconds = min(MAX_SECONDS, cfg.threads / WAKES_PER_SECOND)
        if seconds > sys.getswitchinterval():
            sys.setswitchinterval(seconds)
