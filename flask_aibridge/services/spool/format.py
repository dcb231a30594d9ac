"""Pure: the bytes of a spool file.

::

    file     = header *frame
    header   = "aibspool" version                    ; version: u32
    frame    = %xFF %xA1 length checksum payload     ; length: u32, of the payload
    payload  = kind LF record                        ; the record's type, and the record as JSON in UTF-8
    checksum = CRC-32 of length and payload          ; u32

Numbers are big-endian. The two bytes that a frame begins with occur nowhere in UTF-8, so that after damaged bytes the
next whole frame is found.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final
from zlib import crc32

VERSION: Final = 1
_HEADER: Final = struct.Struct(">8sI")
_MAGIC: Final = b"aibspool"
HEADER: Final = _HEADER.pack(_MAGIC, VERSION)

_MARK: Final = b"\xff\xa1"
_FRAME: Final = struct.Struct(">2sII")
_LENGTH: Final = struct.Struct(">I")

MAX_PAYLOAD: Final = 8 * 2**20
"""Bytes of one record: far more than a prompt has. It bounds what a reader holds, whatever a damaged length says."""


def frame(kind: str, text: str) -> bytes:
    """A record as a frame.

    :raises ValueError: for one that is larger than ``MAX_PAYLOAD``.
    """
    payload = b"%b\n%b" % (kind.encode("ascii"), text.encode())
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(
            f"A record of {len(payload)} bytes is too large to be spooled; {MAX_PAYLOAD} are allowed."
        )
    return _FRAME.pack(_MARK, len(payload), _checksum(payload)) + payload


def unpack(payload: bytes) -> tuple[str, str]:
    """The kind and the JSON text of a payload.

    :raises ValueError: for what is not UTF-8.
    """
    kind, _, text = payload.partition(b"\n")
    return kind.decode("ascii"), text.decode()


def version_of(head: bytes) -> int | None:
    """The format version that a file's first bytes name; null where they are no header."""
    if len(head) < _HEADER.size:
        return None
    magic, version = _HEADER.unpack_from(head)
    return int(version) if magic == _MAGIC else None


def _checksum(payload: bytes) -> int:
    return crc32(payload, crc32(_LENGTH.pack(len(payload))))


@dataclass(slots=True)
class FrameReader:
    """Finds the whole frames in the bytes after a header, in pieces of any size.

    ``damaged`` counts bytes that are part of no frame although more came after them, ``torn`` those of a frame that was
    begun at the end and is not complete. The reader holds at most one frame and the last piece.
    """

    damaged: int = 0
    torn: int = 0
    _rest: bytes = b""
    """Empty, or what begins with a mark, or with the first half of one."""

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads of the frames that ``data`` completes."""
        self._rest += data
        return self._scan(0)

    def finish(self) -> list[bytes]:
        """There is no more: the payloads that a damaged length had hidden, usually none."""
        found = []
        torn, damaged = len(self._rest), self.damaged
        while self._rest:
            payloads = self._scan(1)
            if payloads:
                found += payloads
                torn, damaged = len(self._rest), self.damaged
        self.torn, self.damaged = torn, damaged
        return found

    def _scan(self, begin: int) -> list[bytes]:
        """Take the whole frames off, looking for a mark from ``begin`` on."""
        found = []
        rest, at = self._rest, 0
        while True:
            at = self._skip_to_mark(at, begin)
            if len(rest) - at < _FRAME.size:
                break
            _, length, checksum = _FRAME.unpack_from(rest, at)
            payload = rest[at + _FRAME.size : at + _FRAME.size + length] if length <= MAX_PAYLOAD else b""
            if len(payload) < length <= MAX_PAYLOAD:
                break
            begin = at + 1
            if length <= MAX_PAYLOAD and _checksum(payload) == checksum:
                found.append(payload)
                at = begin = at + _FRAME.size + length
        self._rest = rest[at:]
        return found

    def _skip_to_mark(self, at: int, begin: int) -> int:
        """Where the next mark, or the first half of one at the end, is; what lies before it is damaged."""
        mark = self._rest.find(_MARK, begin)
        if mark < 0:
            mark = len(self._rest) - (1 if self._rest.endswith(_MARK[:1]) and len(self._rest) > begin else 0)
        self.damaged += mark - at
        return mark
