"""The records that wait for the writer: bounded in number and bytes, and when they are due."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from sys import getsizeof
from typing import Any, Final

from flask_aibridge.services.records import ModelThought, PromptUsage, Record, ToolUsage

MAX_RECORDS: Final = 10_000
"""Records that wait: seconds of the traffic of a busy process, which is what a slow store takes."""

MAX_BYTES: Final = 32 * 2**20
"""What they may take of the memory, about."""

BATCH_RECORDS: Final = 500
"""Records that are stored in one round trip: more gain nothing, and hold up the store's other clients."""

BATCH_BYTES: Final = 2**20
"""Bytes after which a batch ends; a single record may be larger."""

LINGER_SECONDS: Final = 0.05
"""How long a record of the accounting waits for others to go with it. Its loss, should the process be killed
meanwhile, is what this bounds."""

CONTENT_LINGER_SECONDS: Final = 10.0
"""How long content waits for the accounting of its interception, so that a prompt, which is known early, costs no round
trip of its own."""

_RECORD_BYTES: Final = 1024
"""What a record takes besides its content and its metadata, about."""

_VALUE_BYTES: Final = 64
"""What a value in metadata takes besides its text, about."""

_MAX_DEPTH: Final = 32
"""How deep metadata is looked into; schemas allow less."""

_CONTENT: Final = (PromptUsage, ToolUsage, ModelThought)


class RecordQueue:
    """Records in the order they came. Any thread may put, one takes.

    ``put`` may be called by a finaliser at any moment, so also in a thread that is inside the queue: the lock lets it
    in, and every method keeps the sums right wherever it is interrupted.

    :param sooner: called, outside of the lock, when the queue is due sooner than it was.
    """

    def __init__(
        self,
        sooner: Callable[[], object],
        clock: Callable[[], float],
        *,
        max_records: int = MAX_RECORDS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._sooner = sooner
        self._clock = clock
        self._max_records = max_records
        self._max_bytes = max_bytes
        self.clear()

    def clear(self) -> None:
        """Forget everything, the lock too: for the child of a fork."""
        self._lock = threading.RLock()
        self._entries: deque[tuple[float, int, Record]] = deque()
        self.size = 0
        self.due_at = float("inf")
        """When there is something to be taken."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_full(self) -> bool:
        return len(self._entries) >= self._max_records or self.size >= self._max_bytes

    def oldest_age(self) -> float:
        """Seconds that the first record has waited; 0 where there is none."""
        try:
            return max(0.0, self._clock() - self._entries[0][0])
        except IndexError:
            return 0.0

    def put(self, record: Record) -> bool:
        """Whether there was room for the record."""
        now, size = self._clock(), size_of(record)
        with self._lock:
            if len(self._entries) >= self._max_records or self.size + size > self._max_bytes:
                return False
            self._entries.append((now, size, record))
            self.size += size
            due_at = now + (CONTENT_LINGER_SECONDS if isinstance(record, _CONTENT) else LINGER_SECONDS)
            if len(self._entries) >= BATCH_RECORDS or self.size >= BATCH_BYTES:
                due_at = now
            sooner = due_at < self.due_at
            if sooner:
                self.due_at = due_at
        if sooner:
            self._sooner()
        return True

    def take(self) -> list[Record]:
        """The next batch. What stays has waited for it, and is due at once."""
        taken: list[Record] = []
        size = 0
        with self._lock:
            while self._entries and len(taken) < BATCH_RECORDS and size < BATCH_BYTES:
                _, each, record = self._entries.popleft()
                self.size -= each
                size += each
                taken.append(record)
            self.due_at = self._clock() if self._entries else float("inf")
        return taken

    def put_back(self, records: Sequence[Record]) -> Sequence[Record]:
        """Put a batch that was not stored before the others; those that there is no room for any more."""
        with self._lock:
            now = self._clock()
            for index in range(len(records) - 1, -1, -1):
                if self.is_full:
                    return records[: index + 1]
                size = size_of(records[index])
                self._entries.appendleft((now, size, records[index]))
                self.size += size
                self.due_at = min(self.due_at, now)
        return ()


def size_of(record: Record) -> int:
    """Bytes of memory that a record takes, about: what comes from outside in any length is counted."""
    size = _RECORD_BYTES
    if isinstance(record, PromptUsage):
        size += getsizeof(record.prompt)
    elif isinstance(record, ModelThought):
        size += getsizeof(record.content)
    elif isinstance(record, ToolUsage):
        size += getsizeof(record.input) + getsizeof(record.invocation_error)
    metadata: Mapping[str, Any] | None = getattr(record, "metadata", None)
    return size + _size_of_value(metadata, 0) if metadata else size


def _size_of_value(value: object, depth: int) -> int:
    if isinstance(value, str):
        return _VALUE_BYTES + getsizeof(value)
    if depth >= _MAX_DEPTH:
        return _VALUE_BYTES
    if isinstance(value, Mapping):
        return _VALUE_BYTES + sum(getsizeof(k) + _size_of_value(v, depth + 1) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return _VALUE_BYTES + sum(_size_of_value(each, depth + 1) for each in value)
    return _VALUE_BYTES
