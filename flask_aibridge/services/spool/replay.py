"""Reading a spool file back, in batches of bounded size."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from flask_aibridge.errors import InvalidRecord
from flask_aibridge.services.records import Record
from flask_aibridge.services.schemas.messages import RECORD_KINDS, decode
from flask_aibridge.services.spool.file import SpoolFile
from flask_aibridge.services.spool.format import HEADER, VERSION, FrameReader, unpack, version_of

_log = logging.getLogger("flask_aibridge.services")

READ_BYTES: Final = 256 * 1024
"""Read at once: large enough to be quick, small enough to hold."""

Verdict: TypeAlias = Literal["done", "damaged", "foreign"]
"""What becomes of a file that was read to its end: all of it is stored; some of it cannot be read; it is of a later
version of this package, which will read it."""


class Replay:
    """One file on its way back into the store. It holds the batch, and at most one piece of the file besides."""

    def __init__(self, file: SpoolFile) -> None:
        self.file = file
        self._reader = FrameReader()
        self._payloads: deque[bytes] = deque()
        self._batch: list[Record] = []
        self._unreadable = 0
        self._offset = len(HEADER)
        self._at_end = False
        self._is_begun = False
        self._is_later = False
        self._is_unknown = False

    def batch(self, max_records: int, max_bytes: int) -> Sequence[Record]:
        """The next records: the same ones until ``stored()`` is called; none at the end of the file."""
        if not self._is_begun:
            self._begin()
        if not self._batch:
            size = 0
            while len(self._batch) < max_records and size < max_bytes:
                payload = self._next()
                if payload is None:
                    break
                if self._add(payload):
                    size += len(payload)
        return self._batch

    def stored(self, batch: Sequence[Record]) -> None:
        """The batch, if it is this file's present one, is stored."""
        if batch is self._batch:
            self._batch = []

    def give_up(self, batch: Sequence[Record]) -> None:
        """The batch, if it is this file's present one, cannot be stored: the file is kept for the administrator."""
        if batch is self._batch:
            self._unreadable += len(batch)
            self._batch = []

    def verdict(self) -> Verdict:
        """What is to become of the file, at its end; the log says so where it is not simply deleted."""
        name, reader = self.file.name, self._reader
        if self._is_later:
            _log.warning("The spool file %s is of a later version, and is left to it.", name)
            return "foreign"
        if reader.damaged or self._unreadable or self._is_unknown:
            _log.error(
                "The spool file %s is damaged: %d bytes and %d records could not be read or stored, the others were "
                "replayed. "
                "It is set aside.",
                name,
                self.file.length if self._is_unknown else reader.damaged + reader.torn,
                self._unreadable,
            )
            return "damaged"
        if reader.torn:
            _log.warning(
                "The spool file %s ends in a record that was never finished: %d bytes are left out.",
                name,
                reader.torn,
            )
        return "done"

    def _begin(self) -> None:
        head = self.file.read(len(HEADER), 0)
        version = version_of(head)
        self._is_later = version is not None and version > VERSION
        self._is_unknown = version != VERSION and not self._is_later and not HEADER.startswith(head)
        self._at_end = version != VERSION
        self._is_begun = True

    def _next(self) -> bytes | None:
        while not self._payloads and not self._at_end:
            data = self.file.read(READ_BYTES, self._offset)
            self._offset += len(data)
            self._at_end = not data
            self._payloads.extend(self._reader.feed(data) if data else self._reader.finish())
        return self._payloads.popleft() if self._payloads else None

    def _add(self, payload: bytes) -> bool:
        try:
            kind, text = unpack(payload)
            if kind not in RECORD_KINDS:
                raise InvalidRecord(f"There are no records of kind {kind[:40]!r}.")
            self._batch.append(decode(kind, text))
        except ValueError as error:
            self._unreadable += 1
            _log.error("A record in the spool file %s cannot be read: %s", self.file.name, error)
            return False
        return True
