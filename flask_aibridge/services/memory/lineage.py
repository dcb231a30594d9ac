"""Pure: which interception of a memory store goes on with which, worked out by looking at all of them in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from flask_aibridge.services.memory.ledger import Entry, Ledger
from flask_aibridge.services.records import InterceptionStart, shard_of

Scope: TypeAlias = tuple[str, str, int]
"""User, session and shard: what the interceptions of a thread have in common."""


@dataclass(frozen=True, slots=True)
class Traced:
    """An interception that has a start, and where it comes from: null for one that begins a thread."""

    start: InterceptionStart
    entry: Entry
    parent_id: str | None
    root_id: str | None

    @property
    def session(self) -> str:
        """The session it belongs to, told apart from those of the other kind."""
        return f"s:{self.start.session_id}" if self.start.session_id else f"i:{self.root_id or self.start.id}"


def traced(ledger: Ledger) -> list[Traced]:
    """Every interception that has a start, newest first."""
    made: dict[tuple[Scope, str], str] = {}
    found: dict[str, Traced] = {}
    for start, entry in reversed(list(ledger.started())):
        scope = (start.initiator or "", start.session_id or "", shard_of(start.id))
        parent_id = made.get((scope, start.correlating_tool_call_id or ""))
        root_id = None if parent_id is None else found[parent_id].root_id or parent_id
        found[start.id] = Traced(start, entry, parent_id, root_id)
        made |= {(scope, call): start.id for call in entry.calls}
    return list(reversed(found.values()))
