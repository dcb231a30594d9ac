"""Pure: the interceptions that this process has admitted and that have not ended yet."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

MAX_RUNNING: Final = 10_000
"""How many are known: more than a process answers at once. Those beyond it are ended by a sweep, should the process
stop before they do."""


class Running:
    """A set of ids. Any thread may call it, also a finaliser at any moment: each step is one of a dictionary's own."""

    def __init__(self, max_ids: int = MAX_RUNNING) -> None:
        self._max_ids = max_ids
        self._ids: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, interception_id: str) -> None:
        """Note that an interception was admitted."""
        if len(self._ids) < self._max_ids:
            self._ids[interception_id] = None

    def discard(self, interception_id: str) -> None:
        """Note that it has ended; any number of times."""
        self._ids.pop(interception_id, None)

    def take(self) -> list[str]:
        """All of them; they are known no more."""
        taken = []
        with suppress(KeyError):
            while True:
                taken.append(self._ids.popitem()[0])
        return taken[::-1]

    def clear(self) -> None:
        """Forget all of them: for the child of a fork."""
        self._ids = {}
