"""Pure: how far behind the records of a process are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = ["RecordingState"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingState:
    """How far behind the records are. ``queued`` wait in memory, the first of them for ``oldest_age`` seconds;
    ``spooled`` ones are in this process' spool files; ``dropped`` ones are lost, for lack of room or because the
    store can never take them. ``services_away_since`` is null while the services answer."""

    queued: int
    queued_bytes: int
    spooled_records: int
    spooled_bytes: int
    dropped: int
    oldest_age: float
    services_away_since: datetime | None
