"""Waiting until a process has no more requests of its bridges': by their own count, where they keep one, and else by
that of the in-process door."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

from flask_aibridge.transport import workers

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["MAX_REPLACED", "drain", "replaced_by"]

MAX_REPLACED: Final = 8
"""Bridges that were replaced and are still drained, the latest: their streams may run on, and agents keep transports to
them. A host wraps its bridge, or replaces it, once or twice."""

POLL_SECONDS: Final = 0.05
"""How often calls in process are counted, where nobody says that the last has ended."""

_log = logging.getLogger("flask_aibridge")

_Drain: TypeAlias = Callable[[float], object]


def replaced_by(
    bridge: WSGIApplication, before: Iterable[WSGIApplication | None]
) -> tuple[WSGIApplication, ...]:
    """Of those that were mounted before a bridge, oldest first, the ones that are to be drained with it."""
    return tuple(each for each in before if each is not None and each is not bridge)[-MAX_REPLACED:]


def drain(bridges: Iterable[WSGIApplication | None], timeout: float) -> bool:
    """Wait for the requests of bridges, of all at the same time: whether they ended by themselves within ``timeout``
    seconds.

    A bridge with a method ``drain(timeout) -> bool``, as the built-in one, is asked to do it: it refuses new requests
    and ends those that are late. For any other one, calls in process are waited for here, and requests that came by
    the server by the server."""
    mounted = [bridge for bridge in bridges if bridge is not None]
    drains: list[_Drain] = [own for bridge in mounted if callable(own := getattr(bridge, "drain", None))]
    if len(drains) < len(mounted) or not mounted:
        drains.append(_wait_for_calls)
    first, *others = drains
    threads = [_Draining(other, timeout) for other in others]
    results = [_run(first, timeout), *[thread.result() for thread in threads]]
    return all(results)


def _wait_for_calls(timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while workers.running() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return not workers.running()


def _run(drain_one: _Drain, timeout: float) -> bool:
    try:
        return bool(drain_one(timeout))
    except Exception:  # none of them keeps the others from being drained
        _log.exception("A bridge could not be drained.")
        return False


class _Draining:
    """One that is drained in a thread of its own: none may take the time of the others."""

    def __init__(self, drain_one: _Drain, timeout: float) -> None:
        self._one, self._timeout = drain_one, timeout
        self._results: list[bool] = []
        self._thread = threading.Thread(target=self._drain, name="flask-aibridge draining", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the system has no thread to spare: it comes last then
            self._thread = threading.current_thread()

    def _drain(self) -> None:
        self._results.append(_run(self._one, self._timeout))

    def result(self) -> bool:
        """Whether all ended by themselves, when that is known."""
        if self._thread is threading.current_thread():
            self._drain()
        else:
            self._thread.join()
        return self._results == [True]
