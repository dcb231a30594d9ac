"""A directory in which the metrics of all workers meet, for the host's own ``prometheus_client``.

The library decides when it is imported whether it shares metrics between processes, and the application may be loaded
before any hook is called: so the directory is made when gunicorn reads its configuration.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from typing import Any, Final

__all__ = ["forget", "give_to_workers", "remove_directory", "share_directory"]

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"

_made: list[tuple[int, str]] = []
"""By which process, and where: only what was made here is removed, and only by whom it belongs to."""


def share_directory() -> None:
    """Make a fresh directory and name it in the environment; nothing where gunicorn does not run, the library is not
    installed, or the operator has named one."""
    if _made or "gunicorn.app.base" not in sys.modules or os.environ.get(VARIABLE):
        return
    if find_spec("prometheus_client") is None:
        return
    folder = tempfile.mkdtemp(prefix="aibridge-metrics-")
    os.environ[VARIABLE] = folder
    _made.append((os.getpid(), folder))
    atexit.register(remove_directory)


def give_to_workers(cfg: Any) -> None:
    """In the arbiter: it may have become a daemon since, and its workers may run as another user."""
    for _, folder in _made:
        _made[:] = [(os.getpid(), folder)]
        if cfg.uid != os.geteuid() or cfg.gid != os.getegid():
            os.chown(folder, cfg.uid, cfg.gid)


def forget(pid: int) -> None:
    """Remove what a worker that has ended said of itself alone, such as how many requests it has in hand."""
    if os.environ.get(VARIABLE) and find_spec("prometheus_client") is not None:
        from prometheus_client import multiprocess

        mark_dead: Any = multiprocess.mark_process_dead  # it says nothing of its types
        mark_dead(pid)


def remove_directory() -> None:
    """Remove the directory, in the process that it belongs to."""
    for owner, folder in _made:
        if owner == os.getpid():
            shutil.rmtree(folder, ignore_errors=True)
            _made.clear()
            return
