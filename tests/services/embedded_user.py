"""Run as a program: a process that uses the embedded server and does what it is told, a line at a time.

``acquire``: prints the address, or the error on one line. ``fork``: goes on in a child; the parent exits at once.
``close``: closes every descriptor but the standard ones, as what goes into the background does. The end of the input
is its normal exit. With ``gevent`` as second argument everything is patched first, and many greenlets acquire at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

GREENLETS = 20


def main(instance_path: str, gevent_is_asked_for: bool) -> None:
    if gevent_is_asked_for:
        from gevent import monkey

        monkey.patch_all()
    from flask_aibridge.services.embedded import acquire

    with open(0, "rb", buffering=0, closefd=False) as commands:
        print("ready", flush=True)
        while command := commands.readline():
            if command == b"fork\n":
                if os.fork():
                    sys.exit()
            elif command == b"close\n":
                os.closerange(3, 1000)
            elif gevent_is_asked_for:
                print(*_many(lambda: acquire(instance_path)), flush=True)
            else:
                print(_said(lambda: acquire(instance_path)), flush=True)


def _said(acquire: Callable[[], str]) -> str:
    try:
        return acquire()
    except Exception as error:
        return f"{type(error).__name__}: {error}".replace("\n", " | ")


def _many(acquire: Callable[[], str]) -> set[str]:
    import gevent

    jobs = [gevent.spawn(_said, acquire) for _ in range(GREENLETS)]
    gevent.joinall(jobs)
    return {job.value for job in jobs}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] == ["gevent"])
