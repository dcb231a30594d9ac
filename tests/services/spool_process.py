"""A process that spools, run as a script: ``<what> <folder> <number of records>``; it says what it did and then waits
to be killed, or for its input to end."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from flask_aibridge.services.spool.spool import Spool
from tests.services.switched_services import end


def fork_one_that_stays() -> None:
    """Return when the child runs Python again, and so has let go of its parent's files."""
    readable, writable = os.pipe()
    if not os.fork():
        os.write(writable, b".")
        sys.stdin.read()
        os._exit(0)
    os.read(readable, 1)


def main(what: str, folder: str, number: str) -> None:
    spool = Spool(Path(folder))
    if what == "limited":  # the kernel's own bound on a file: a short write first, then an error
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    taken = [
        record.id for record in (end(f"{n:032x}") for n in range(int(number))) if spool.append([record]).taken
    ]
    if what == "forking":
        fork_one_that_stays()
    if what == "limited":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        taken += [record.id for record in [end("f" * 32)] if spool.append([record]).taken]
    print(*taken, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
