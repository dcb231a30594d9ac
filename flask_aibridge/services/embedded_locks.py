"""The files that the processes of a host agree by on one embedded server: locked with ``flock``, which is free again
when the last copy of the descriptor is closed, by whatever end its process comes to."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from flask_aibridge.errors import ServicesUnavailable

__all__ = ["LockFile", "locked"]

POLL_SECONDS: Final = 0.01
"""How often a lock that another process has is tried. (Waiting in the system has no bound.)"""


class LockFile:
    """A small file that is locked and says where the server is: its process id and its socket's path."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._identity = _identity(os.fstat(self.descriptor))

    def close(self) -> None:
        """Drop the lock, unless a forked process has it too. (Unlocking would take it from that one as well.)"""
        if self._is_open():
            os.close(self.descriptor)
        self._identity = None

    def _is_open(self) -> bool:
        """Whether the descriptor is still this file's: what goes into the background may close all it finds."""
        with suppress(OSError):
            return self._identity is not None and _identity(os.fstat(self.descriptor)) == self._identity
        return False

    def is_at(self, path: Path) -> bool:
        with suppress(OSError):
            return self._is_open() and _identity(path.stat()) == self._identity
        return False

    def try_lock(self) -> bool:
        import fcntl

        with suppress(BlockingIOError):
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def share(self) -> None:
        import fcntl

        fcntl.flock(self.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def is_locked_by_another(self) -> bool:
        """Whether an opening of the file other than this one, which has no lock, has one."""
        import fcntl

        if not self._is_open() or not self.try_lock():
            return True
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        return False

    def write(self, pid: int, path: Path) -> None:
        text = b"%d\0%s\0" % (pid, os.fsencode(path))
        os.pwrite(self.descriptor, text, 0)
        os.ftruncate(self.descriptor, len(text))

    def read(self) -> tuple[int, Path]:
        """The server's process id (0: not known yet) and its socket's path; :raises OSError: there is none yet."""
        pid, end, rest = os.pread(self.descriptor, 8192, 0).partition(b"\0")
        path, end, _ = rest.partition(b"\0")
        if not end:
            raise FileNotFoundError("No server has been started.")
        return int(pid), Path(os.fsdecode(path))


def _identity(status: os.stat_result) -> tuple[int, int] | None:
    return status.st_dev, status.st_ino


@contextmanager
def locked(path: Path, seconds: float) -> Iterator[None]:
    """Hold the lock of a file, waiting so many seconds for it at most."""
    file = LockFile(path)
    try:
        give_up = time.monotonic() + seconds
        while not file.try_lock():
            if time.monotonic() > give_up:
                raise ServicesUnavailable(f"Another process has held {path} for {seconds:g} s: end it.")
            time.sleep(POLL_SECONDS)
        yield
    finally:
        file.close()
