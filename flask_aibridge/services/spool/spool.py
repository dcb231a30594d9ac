"""Records on disk, for while the store is away.

Each process appends to files of its own in one folder (mode 0700, files 0600). A record that was appended survives the
death of the process at once, and a crash of the machine after ``sync()``. When the store is back, files are replayed in
batches and deleted once all of it is stored: this process' own, and those that dead processes left behind. A batch that
is replayed twice, since a process died between, does no harm: records have ids.

A frame that was begun and never finished, at the end of a file, is left out with a warning. A file with other bytes
that cannot be read is replayed as far as it can be and then set aside (``….damaged``), never deleted.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

from flask_aibridge.errors import InvalidRecord
from flask_aibridge.services.records import Record
from flask_aibridge.services.schemas.messages import encode, kind_of
from flask_aibridge.services.spool.file import SpoolFile, adopt, create
from flask_aibridge.services.spool.format import HEADER, frame
from flask_aibridge.services.spool.replay import Replay, Verdict

__all__ = ["MAX_BYTES", "Appended", "Spool"]

_log = logging.getLogger("flask_aibridge.services")

MAX_BYTES: Final = 64 * 2**20
"""Bytes that one process spools: the accounts of some 50,000 interceptions."""

MAX_PROCESSES: Final = 16
"""A folder holds so many times ``max_bytes``, before no further file is begun: what processes leave that die one after
another while the store is away has to end somewhere, too."""

RETRY_SECONDS: Final = 1.0
"""How long the spool is left alone after no file could be made: finding out anew costs more than a request may."""

WARN_SECONDS: Final = 10.0
"""How often it is said that a write failed."""

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE})
"""What comes and goes: a disk or a quota that is full, a process or a system that has no descriptor left."""


class Appended(NamedTuple):
    """How many of the records were taken, from the first on, and whether it was lack of room that kept out the next: a
    bound, a full disk, no descriptor left."""

    taken: int
    full: bool


class Spool:
    """The spool of one process, in a folder that it shares with others. Nothing is opened before it is needed.

    Any thread may append; replaying is for one thread at a time. After a fork, the child begins with files of its own.

    :param folder: made when it is needed; a symbolic link is refused.
    :param max_bytes: of this process' own files together.
    """

    def __init__(
        self, folder: Path, *, max_bytes: int = MAX_BYTES, clock: Callable[[], float] = monotonic
    ) -> None:
        if max_bytes <= len(HEADER):
            raise ValueError(
                f"max_bytes must be more than the {len(HEADER)} bytes of a header, not {max_bytes}."
            )
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self._clock = clock
        self._reset()
        _spools.add(self)

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._replay_lock = threading.RLock()
        self._pid = os.getpid()
        self._file: SpoolFile | None = None
        self._unsynced: set[SpoolFile] = set()
        self._replayed: Replay | None = None
        self._own_replay: SpoolFile | None = None
        self._left_alone: set[str] = set()
        self._retry_at = self._warn_at = float("-inf")
        self._folder_full = self._no_room = False
        self._is_appending = False

    def __repr__(self) -> str:
        return f"<Spool {self.folder}, {self.records} records, {self.size} bytes>"

    @property
    def records(self) -> int:
        """How many of this process' records are in files, those being replayed included."""
        return sum(file.records for file in self._own())

    @property
    def size(self) -> int:
        """The size of this process' own files."""
        return sum(file.length for file in self._own())

    @property
    def room(self) -> int:
        """Bytes that can still be appended, as far as the bounds go."""
        return 0 if self._folder_full else max(0, self.max_bytes - self.size)

    @property
    def has_unsynced(self) -> bool:
        """Whether ``sync()`` has something to do."""
        return bool(self._unsynced)

    def _own(self) -> list[SpoolFile]:
        return [file for file in (self._file, self._own_replay) if file is not None]

    def _opened_files(self) -> list[SpoolFile]:
        return [*self._own(), *self._unsynced, *([self._replayed.file] if self._replayed else [])]

    def append(self, records: Sequence[Record], *, leaving: int = 0) -> Appended:
        """Append records, in one call of the system, as many as there is room for.

        Never raises for what the disk does: a record that cannot be written is not taken, and the log says why.

        :param leaving: bytes of the bound that are to be left for others.
        :raises InvalidRecord: for a record that has no stored form, or one too large; nothing is appended then.
        """
        frames = [_frame(record) for record in records]
        self._leave_to_parent()
        with self._lock:
            if self._is_appending:  # by a finaliser, in the midst of another append of this thread
                return Appended(0, False)
            self._is_appending = True
            try:
                fitting = self._fitting(frames, leaving)
                taken = self._write(fitting) if fitting else 0
            finally:
                self._is_appending = False
            is_full = taken == len(fitting) or self._folder_full or self._no_room
            return Appended(taken, is_full and taken < len(frames))

    def sync(self) -> None:
        """Have everything appended survive a crash of the machine."""
        self._leave_to_parent()
        with self._lock:
            files, self._unsynced = self._unsynced, set()
        for file in files:
            try:
                if file.is_open:
                    file.sync()
            except (OSError, ValueError) as error:  # a ValueError where it has just been replayed and closed
                self._complain("A spool file could not be synchronised with the disk: %s", error)

    def has_own(self) -> bool:
        """Whether this process has records to replay."""
        return bool(self.records) or self._replayed is not None

    def batch(self, max_records: int, max_bytes: int, *, orphans: bool) -> Sequence[Record]:
        """The next records to store: the same ones until ``stored()`` is called with it. Empty where there are no more.

        :param max_bytes: after which the batch ends, so that it may be larger by one record.
        :param orphans: look for files of dead processes, too.
        """
        self._leave_to_parent()
        with self._replay_lock:
            while self._replayed is not None or self._take_file(orphans):
                assert self._replayed is not None
                try:
                    if batch := self._replayed.batch(max_records, max_bytes):
                        return batch
                    self._finish_file(self._replayed, self._replayed.verdict())
                except OSError as error:
                    self._complain("A spool file could not be read, and is left alone: %s", error)
                    self._finish_file(self._replayed, "foreign")
            return ()

    def stored(self, batch: Sequence[Record]) -> None:
        """The batch is stored: the next one, please. Without effect where the spool was closed since it was given."""
        with self._replay_lock:
            if self._replayed is not None:
                self._replayed.stored(batch)

    def give_up(self, batch: Sequence[Record]) -> None:
        """The batch can never be stored: the next one, please. Its file is set aside at its end, not deleted."""
        with self._replay_lock:
            if self._replayed is not None:
                self._replayed.give_up(batch)

    def close(self) -> None:
        """Let go of every file. What is in them is left to any process that looks for it; so is this one, which can go
        on using the spool."""
        with self._replay_lock, self._lock:
            if self._file is not None and not self._file.records:
                self._discard(self._file)
            for file in self._opened_files():
                file.close()
            self._file = self._own_replay = self._replayed = None
            self._unsynced = set()

    def _leave_to_parent(self) -> None:
        """A fork that Python was not told of: as in ``_after_fork_in_child``."""
        if self._pid != os.getpid():
            files = self._opened_files()
            self._reset()
            for file in files:
                file.close()

    def _fitting(self, frames: list[bytes], leaving: int) -> list[bytes]:
        room = self.max_bytes - self.size - leaving - (0 if self._file else len(HEADER))
        for count, each in enumerate(frames):
            room -= len(each)
            if room < 0:
                return frames[:count]
        return frames

    def _write(self, frames: list[bytes]) -> int:
        file = self._opened()
        if file is None:
            return 0
        try:
            taken = file.append(frames)
        except OSError as error:
            self._no_room = error.errno in NO_ROOM
            self._complain("The spool cannot be written: %s", error)
            return 0
        self._no_room = taken < len(frames)
        if taken < len(frames):
            self._complain("The spool cannot be written: %s", "the disk is full")
        self._unsynced.add(file)
        return taken

    def _opened(self) -> SpoolFile | None:
        """The file to append to; null where none can be made, which is not tried again for a while."""
        if self._file is not None:
            return self._file
        now = self._clock()
        if now < self._retry_at:
            return None
        try:
            self._file = create(self.folder, MAX_PROCESSES * self.max_bytes)
        except OSError as error:
            self._folder_full, self._no_room = False, error.errno in NO_ROOM
            self._retry_at = now + RETRY_SECONDS
            self._complain("No spool file can be made: %s", error)
            return None
        self._folder_full = self._file is None
        if self._file is None:
            self._retry_at = now + RETRY_SECONDS
            self._complain(
                "The spool folder %s is full: have its files replayed, or delete them.", self.folder
            )
        return self._file

    def _take_file(self, orphans: bool) -> bool:
        """Begin to replay a file, if there is one: this process' own first; further records go to a new one."""
        with self._lock:
            if self._file is not None and self._file.records:
                self._own_replay, self._file = self._file, None
                self._replayed = Replay(self._own_replay)
                return True
        if not orphans:
            return False
        try:
            file = adopt(self.folder, self._left_alone)
        except OSError as error:
            self._complain("The spool folder cannot be searched: %s", error)
            return False
        if file is not None:
            _log.info("Replaying the spool file %s of a process that is gone.", file.name)
            self._replayed = Replay(file)
        return file is not None

    def _finish_file(self, replay: Replay, verdict: Verdict) -> None:
        file, self._replayed = replay.file, None
        with self._lock:
            if verdict == "done":
                self._discard(file)
            elif verdict == "damaged":
                self._set_aside(file)
            else:
                self._left_alone.add(file.name)
                file.close()
            if self._own_replay is file:
                self._own_replay = None
            self._unsynced.discard(file)
            self._folder_full = False

    def _discard(self, file: SpoolFile) -> None:
        try:
            file.remove()
        except OSError as error:
            self._left_alone.add(file.name)
            self._complain("A spool file that is replayed could not be deleted: %s", error)

    def _set_aside(self, file: SpoolFile) -> None:
        try:
            file.set_aside()
        except OSError as error:
            self._left_alone.add(file.name)
            self._complain("A damaged spool file could not be renamed: %s", error)

    def _complain(self, message: str, detail: object) -> None:
        now = self._clock()
        if now >= self._warn_at:
            self._warn_at = now + WARN_SECONDS
            _log.error(message, detail)


def _frame(record: Record) -> bytes:
    text = encode(record)
    try:
        return frame(kind_of(record), text)
    except ValueError as error:
        raise InvalidRecord(str(error)) from None


_spools: weakref.WeakSet[Spool] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """Begin anew: the records and files are the parent's, which will see to them. (The files are closed already, by
    ``spool_file``.)"""
    for spool in list(_spools):
        spool._reset()


os.register_at_fork(after_in_child=_after_fork_in_child)
