"""Where the embedded server keeps what is its own: folders that nobody else may look into, and a socket of a path that
systems take."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Final

from flask_aibridge.errors import ConfigError

__all__ = ["open_private", "require_private", "socket_path_in"]

SOCKET_PATH_BYTES: Final = 103
"""The longest path of a socket that every system takes (macOS: 104 with the closing zero; Linux: 108)."""

_log = logging.getLogger("flask_aibridge.services")


def socket_path_in(folder: Path) -> Path:
    """Where the server of a folder may listen: in it, unless its path is too long for a socket, or no UTF-8.

    :raises ConfigError: the folder in its place is another user's.
    """
    path = folder / "valkey.sock"
    if _is_for_sockets(path):
        return path
    name = f"aibridge-{os.geteuid()}-{sha256(os.fsencode(folder)).hexdigest()[:16]}"
    short = Path(tempfile.gettempdir()) / name
    if not _is_for_sockets(short / path.name):
        short = Path("/tmp") / name  # noqa: S108 - of mode 0700 and checked to be ours  # nosec B108
    short.mkdir(mode=0o700, exist_ok=True)
    # Anybody may write to the folder it is in: what has this name must be ours, and no link to somewhere.
    require_private(short, short.lstat())
    _log.warning("%s is not possible as a socket's path: the embedded server's is in %s", path, short)
    return short / path.name


def require_private(folder: Path, status: os.stat_result) -> None:
    """Take care that a folder is this user's, and nobody else's to look into.

    :raises ConfigError: it is another user's.
    """
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise ConfigError(
            f"The embedded server needs {folder} as a folder of its own user ({os.geteuid()}), and it is user "
            f"{status.st_uid}'s: run this command as that user, or give the folder to this one."
        )
    if status.st_mode & 0o077:
        folder.chmod(0o700)


def open_private(path: str, flags: int) -> int:
    """An opener of files that nobody else may read."""
    return os.open(path, flags, 0o600)


def _is_for_sockets(path: Path) -> bool:
    try:
        # Addresses are UTF-8.
        return len(str(path).encode()) <= SOCKET_PATH_BYTES
    except UnicodeEncodeError:
        return False
