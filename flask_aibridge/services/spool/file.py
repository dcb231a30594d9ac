"""One spool file: open, locked by the process it belongs to, written at its end and read from its beginning.

Who holds the lock (``flock``) owns the file. The kernel lets go of it when the last descriptor is closed, so a file
whose lock can be taken belongs to nobody that lives; a forked child closes its copies of the descriptors at once, else
it would keep its parent's files from being found after the parent's death.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from flask_aibridge.services.spool.format import HEADER

SUFFIX: Final = ".spool"
UNFINISHED: Final = ".new"
"""A file has this name until it is locked and has its header, so that nobody takes it for one that was left behind."""

DAMAGED: Final = ".damaged"
"""What a file is called in the end that held bytes nobody could read. It is left to the administrator."""

_CREATE_ATTEMPTS: Final = 3
"""Another process may sweep an unfinished file away, if it comes in the moment before the lock."""

_files: weakref.WeakSet[SpoolFile] = weakref.WeakSet()


class SpoolFile:
    """An open file of records. Not for several threads at once."""

    def __init__(self, folder: Path, name: str, descriptor: int) -> None:
        self.folder = folder
        self.name = name
        self.length = len(HEADER)
        self.records = 0
        """How many were appended through this object."""
        self._descriptor: int | None = descriptor
        _files.add(self)

    def __repr__(self) -> str:
        return f"<SpoolFile {self.name}, {self.length} bytes{'' if self.is_open else ', closed'}>"

    def __del__(self) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        return self._descriptor is not None

    @property
    def descriptor(self) -> int:
        """The open descriptor.

        :raises ValueError: after ``close()``.
        """
        if self._descriptor is None:
            raise ValueError(f"The spool file {self.name} is closed.")
        return self._descriptor

    def append(self, frames: list[bytes]) -> int:
        """Write whole frames at the end, with one call of the system; how many there was room for.

        What was written of a further one is cut off again, and would be overwritten by the next if it could not be.

        :raises OSError: where not one could be written.
        """
        written = os.pwrite(self.descriptor, b"".join(frames), self.length)
        taken = 0
        for frame in frames:
            if written < len(frame):
                break
            written -= len(frame)
            self.length += len(frame)
            taken += 1
        if taken < len(frames):
            with suppress(OSError):
                os.ftruncate(self.descriptor, self.length)
        self.records += taken
        return taken

    def read(self, size: int, offset: int) -> bytes:
        """At most so many bytes."""
        return os.pread(self.descriptor, size, offset)

    def sync(self) -> None:
        """Have what was written survive a crash of the machine. May run while another thread closes the file."""
        descriptor = os.dup(self.descriptor)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with opened_folder(self.folder) as folder:
            os.fsync(folder)

    def remove(self) -> None:
        """Delete the file, and close it: everything in it is kept elsewhere now.

        :raises OSError: where it cannot be deleted; it is empty then.
        """
        try:
            with opened_folder(self.folder) as folder:
                os.unlink(self.name, dir_fd=folder)
        except OSError:
            os.ftruncate(self.descriptor, len(HEADER))
            raise
        finally:
            self.close()

    def set_aside(self) -> None:
        """Give the file a name that no spool looks for, and close it."""
        try:
            with opened_folder(self.folder) as folder:
                os.rename(self.name, self.name + DAMAGED, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the file. It stays, for any process to find."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def create(folder: Path, max_folder_bytes: int) -> SpoolFile | None:
    """A new file, empty but for its header; null where the folder holds too many bytes already.

    :raises OSError: where the folder or the file cannot be made, or belongs to somebody else.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with opened_folder(folder) as at:
        if _bytes_in(at) >= max_folder_bytes:
            return None
        for _ in range(_CREATE_ATTEMPTS):
            name = f"{secrets.token_hex(8)}-{os.getpid()}{SUFFIX}"
            file = SpoolFile(folder, name, _open(name + UNFINISHED, os.O_CREAT | os.O_EXCL, at))
            try:
                if _lock(file.descriptor):
                    os.pwrite(file.descriptor, HEADER, 0)
                    os.rename(name + UNFINISHED, name, src_dir_fd=at, dst_dir_fd=at)
                    return file
            except FileNotFoundError:
                pass
            except OSError:
                with suppress(OSError):
                    os.unlink(name + UNFINISHED, dir_fd=at)
                file.close()
                raise
            file.close()
    raise OSError(
        f"No spool file could be made in {folder}: another process took each of {_CREATE_ATTEMPTS} away."
    )


def adopt(folder: Path, leave: Collection[str]) -> SpoolFile | None:
    """A file that a dead process left behind, locked by this one now; null where there is none.

    :param leave: names of files that are not wanted.
    :raises OSError: where the folder cannot be read, or belongs to somebody else.
    """
    try:
        with opened_folder(folder) as at:
            for name in sorted(os.listdir(at)):
                if name.endswith(UNFINISHED):
                    _sweep(at, name)
                elif name.endswith(SUFFIX) and name not in leave:
                    descriptor = _adopted(at, name)
                    if descriptor is not None:
                        return _left_behind(folder, name, descriptor)
    except FileNotFoundError:
        pass
    return None


def _left_behind(folder: Path, name: str, descriptor: int) -> SpoolFile:
    file = SpoolFile(folder, name, descriptor)
    file.length = os.fstat(descriptor).st_size
    return file


@contextmanager
def opened_folder(folder: Path) -> Iterator[int]:
    """A descriptor of the folder, which is this user's and nobody else's.

    :raises OSError: where it is a symbolic link, no folder, or somebody else's.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            raise PermissionError(
                f"The spool folder {folder} belongs to another user: name one of this process' own."
            )
        if status.st_mode & 0o077:
            os.fchmod(descriptor, 0o700)
        yield descriptor
    finally:
        os.close(descriptor)


def _open(name: str, flags: int, folder: int) -> int:
    flags |= os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    return os.open(name, flags, 0o600, dir_fd=folder)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _adopted(folder: int, name: str) -> int | None:
    """A locked descriptor of a file that nobody else holds; null where somebody does, or it is none of ours."""
    try:
        descriptor = _open(name, 0, folder)
    except OSError:  # gone meanwhile, a symbolic link, or not to be opened
        return None
    try:
        if _is_ours(descriptor) and _lock(descriptor) and _is_still_there(folder, name, descriptor):
            kept, descriptor = descriptor, -1
            return kept
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return None


def _is_ours(descriptor: int) -> bool:
    status = os.fstat(descriptor)
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def _is_still_there(folder: int, name: str, descriptor: int) -> bool:
    """Whether the name still stands for the file: its last owner may have deleted it before letting go."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


def _sweep(folder: int, name: str) -> None:
    """Delete an unfinished file whose process is gone; there is no record in it."""
    descriptor = _adopted(folder, name)
    if descriptor is not None:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
        os.close(descriptor)


def _bytes_in(folder: int) -> int:
    """The size of all files of the folder, damaged ones too."""
    total = 0
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):
            total += os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
    return total


def _after_fork_in_child() -> None:
    """Let go of the parent's files."""
    for file in list(_files):
        file.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
