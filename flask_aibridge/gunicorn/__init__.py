"""Hooks for gunicorn: ``from flask_aibridge.gunicorn import *`` in a ``gunicorn.conf.py``.

What they do:

* a worker that is told to stop (TERM, HUP, ``max_requests``) refuses new requests at once, lets those that run go on
  until shortly before ``graceful_timeout``, ends the rest with an error that their caller can read, and stores what
  is recorded;
* the embedded store runs until the arbiter ends, whatever its workers do;
* where ``prometheus_client`` is installed, the workers share a directory for their metrics, and dead ones leave it;
* a worker of hundreds of threads is not brought down by their waiting for each other;
* settings that cut streams are warned of when gunicorn starts.

A hook of your own takes the place of the one of its name, so it calls ours::

    from flask_aibridge import gunicorn as aibridge
    from flask_aibridge.gunicorn import *

    def post_worker_init(worker):
        aibridge.post_worker_init(worker)
        ...
"""

from __future__ import annotations

import os
from typing import Any, Final

from flask_aibridge.gunicorn import advice, embedded, prometheus, switching
from flask_aibridge.gunicorn.stopping import ABORT_SECONDS, QUIT_SECONDS, Stopping

__all__ = [
    "child_exit",
    "on_exit",
    "post_worker_init",
    "when_ready",
    "worker_abort",
    "worker_exit",
    "worker_int",
]

# gunicorn takes every name of this module that is one of its settings: no module or constant here may have such a name.

_stopping: Final[dict[int, Stopping]] = {}
"""Of this process, by its id."""

prometheus.share_directory()


def when_ready(server: Any) -> None:
    """In the arbiter, before the first worker is started."""
    advice.warn(server.cfg, server.log)
    prometheus.give_to_workers(server.cfg)
    embedded.prepare(server.cfg, server.log)


def post_worker_init(worker: Any) -> None:
    """In a worker that has loaded the application."""
    switching.space_out(worker.cfg)
    _stopping.clear()
    stopping = _stopping[os.getpid()] = Stopping(worker)
    stopping.watch()


def worker_int(worker: Any) -> None:
    """In a worker that is to end at once (INT, QUIT)."""
    _end_now(QUIT_SECONDS)


def worker_abort(worker: Any) -> None:
    """In a worker that the arbiter kills, because it has not been heard of for ``timeout`` seconds."""
    _end_now(ABORT_SECONDS)


def worker_exit(server: Any, worker: Any) -> None:
    """In a worker that ends; gunicorn also calls it in the arbiter, for one that had gone before."""
    stopping = _stopping.pop(os.getpid(), None)
    if stopping is not None:
        stopping.finish()
        embedded.leave_to_arbiter()


def child_exit(server: Any, worker: Any) -> None:
    """In the arbiter, after a worker has ended in whatever way."""
    prometheus.forget(worker.pid)
    embedded.take_over(server.cfg, server.log)


def on_exit(server: Any) -> None:
    """In the arbiter, at its end."""
    prometheus.remove_directory()


def _end_now(seconds: float) -> None:
    stopping = _stopping.get(os.getpid())
    if stopping is not None:
        stopping.end_now(seconds)
