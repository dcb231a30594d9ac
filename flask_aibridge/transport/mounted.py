"""A mounted app: what every face calls, whatever client library it belongs to."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .environ import Mount
from .workers import Slots, process_slots

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["MountedApp"]


class MountedApp:
    """A WSGI app with its mount point and its bound on concurrent calls.

    ``max_concurrency=None`` shares the bound of the process. Raises :exc:`TypeError` and :exc:`ValueError`
    for what no request could be made with, and :exc:`RuntimeError` on Windows, whose pipes cannot be polled.
    """

    __slots__ = ("app", "mount", "slots")

    def __init__(
        self,
        app: WSGIApplication,
        *,
        script_name: str = "",
        path_prefix: str = "",
        environ: Mapping[str, Any] | None = None,
        max_concurrency: int | None = None,
    ) -> None:
        if sys.platform == "win32":
            raise RuntimeError(
                "The in-process transport needs pipes that can be polled, which Windows lacks; use Linux or macOS."
            )
        if not callable(app):
            raise TypeError(
                f"A WSGI app must be callable; {app!r} is not. Pass the app itself, such as your Flask object."
            )
        self.app = app
        self.mount = Mount(script_name, path_prefix, environ)
        self.slots = process_slots if max_concurrency is None else Slots(_checked_bound(max_concurrency))


def _checked_bound(bound: int) -> int:
    if not isinstance(bound, int) or isinstance(bound, bool):
        raise TypeError(f"max_concurrency must be an int or None, not {type(bound).__name__}.")
    return bound
