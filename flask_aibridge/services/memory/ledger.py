"""Pure: the interceptions of a memory store: what is kept of each, and what follows from one more record.

Everything here is given the time and called by one thread at once.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from flask_aibridge.services.records import (
    GONE,
    InterceptionEnd,
    InterceptionStart,
    ModelThought,
    PromptUsage,
    Record,
    Status,
    TokenUsage,
    ToolUsage,
    id_prefix,
    interception_of,
    is_stand_in,
    stand_in_end,
    without_content,
)
from flask_aibridge.services.redis.keys import hour_of
from flask_aibridge.services.storage import TokenSums

MAX_INTERCEPTIONS: Final = 100_000
"""Interceptions that are kept, the oldest going first: some hundred MB with what a coding agent says in them."""

UPKEEP_BATCH: Final = 1000
"""Interceptions that one round of upkeep ends or deletes of each kind: milliseconds under the store's lock."""

Group: TypeAlias = tuple[str, str, str]
"""User, provider and model of a roll-up; empty where unknown."""


@dataclass(slots=True)
class Entry:
    """One interception, by the ids of its records. Without a start it waits for it and is not read back. ``calls`` are
    the ids of the tool calls it made, which stay when the content goes."""

    id: str
    start: InterceptionStart | None = None
    end: InterceptionEnd | None = None
    swept: bool = False
    running_since: float = 0.0
    usages: dict[str, TokenUsage] = field(default_factory=dict)
    prompts: dict[str, PromptUsage] = field(default_factory=dict)
    tool_calls: dict[str, ToolUsage] = field(default_factory=dict)
    calls: set[str] = field(default_factory=set)
    thoughts: dict[str, ModelThought] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        return "running" if self.end is None else self.end.status

    @property
    def tokens(self) -> TokenSums:
        return token_sums(sum_of(self.usages.values()))

    def clear_content(self) -> bool:
        """Forget what was said; tell whether there was anything."""
        kinds = (self.prompts, self.tool_calls, self.thoughts)
        found = any(kinds)
        for kind in kinds:
            kind.clear()
        return found


class Ledger:
    """Every interception, and the roll-ups of their usage."""

    def __init__(self, *, record_content: bool, max_interceptions: int = MAX_INTERCEPTIONS) -> None:
        self.roll_ups: dict[str, dict[Group, Counter[str]]] = {}
        self._record_content = record_content
        self._max_interceptions = max_interceptions
        self._entries: dict[str, Entry] = {}
        self._ids: list[str] = []
        self._running: dict[str, Entry] = {}

    def get(self, interception_id: str) -> Entry | None:
        """What is kept under an id, with or without a start."""
        return self._entries.get(interception_id)

    def started(self) -> Iterator[tuple[InterceptionStart, Entry]]:
        """Every interception that has a start, newest first."""
        for interception_id in reversed(self._ids):
            entry = self._entries[interception_id]
            if entry.start is not None:
                yield entry.start, entry

    def put(self, record: Record, now: float) -> None:
        """Keep a record, unless it is kept already."""
        entry = self._entry(interception_of(record))
        kept = record if self._record_content else without_content(record)
        if kept is not None:
            self._keep(entry, kept, now)

    def _keep(self, entry: Entry, record: Record, now: float) -> None:
        if isinstance(record, InterceptionStart):
            self._start(entry, record, now)
        elif isinstance(record, InterceptionEnd):
            self._end(entry, record, stands_in=is_stand_in(record))
        elif isinstance(record, TokenUsage):
            self._use(entry, record)
        else:
            _keep_content(entry, record)

    def _entry(self, interception_id: str) -> Entry:
        if interception_id not in self._entries:
            self._entries[interception_id] = Entry(interception_id)
            insort(self._ids, interception_id)
            if len(self._ids) > self._max_interceptions:
                self._drop(self._ids[0])
        return self._entries.get(interception_id) or Entry(interception_id)

    def _drop(self, interception_id: str) -> None:
        self._ids.remove(interception_id)
        self._running.pop(interception_id, None)
        del self._entries[interception_id]

    def _start(self, entry: Entry, start: InterceptionStart, now: float) -> None:
        if entry.start is not None:
            return
        entry.start, entry.running_since = start, now
        if entry.end is None and entry.id in self._entries:
            self._running[entry.id] = entry
        self._roll_up(start, {"requests": 1})
        self._roll_up(start, sum_of(entry.usages.values()))

    def _end(self, entry: Entry, end: InterceptionEnd, *, stands_in: bool) -> None:
        if entry.end is None or (entry.swept and not stands_in):
            entry.end, entry.swept = end, stands_in
            self._running.pop(entry.id, None)

    def _use(self, entry: Entry, usage: TokenUsage) -> None:
        if usage.id in entry.usages:
            return
        entry.usages[usage.id] = usage
        if entry.start is not None:
            self._roll_up(entry.start, sum_of([usage]))

    def _roll_up(self, start: InterceptionStart, counts: dict[str, int]) -> None:
        group = (start.initiator or "", start.provider, start.model or "")
        hour = self.roll_ups.setdefault(hour_of(start.started_at), {})
        hour.setdefault(group, Counter()).update(counts)

    def sweep(self, now: float, lease_seconds: float, is_alive: Callable[[str], bool], at: datetime) -> None:
        """End what has been running for a lease or longer and whose worker is dead."""
        overdue = [entry for entry in self._running.values() if entry.running_since + lease_seconds <= now]
        for entry in overdue[:UPKEEP_BATCH]:
            if entry.start is not None and not is_alive(entry.start.worker):
                self._end(entry, stand_in_end(entry.id, at, GONE), stands_in=True)

    def delete_before(self, moment: datetime) -> None:
        """Forget a batch of the interceptions that started earlier, and the roll-ups of hours that ended earlier."""
        first_kept = id_prefix(moment)
        for interception_id in self._older(first_kept)[:UPKEEP_BATCH]:
            self._drop(interception_id)
        for hour in [hour for hour in self.roll_ups if hour < hour_of(moment)]:
            del self.roll_ups[hour]

    def clear_content_before(self, moment: datetime) -> None:
        """Forget what was said in a batch of the interceptions that started earlier."""
        left = UPKEEP_BATCH
        for interception_id in self._older(id_prefix(moment)):
            left -= self._entries[interception_id].clear_content()
            if not left:
                return

    def _older(self, first_kept: str) -> list[str]:
        return [interception_id for interception_id in self._ids if interception_id < first_kept]


def _keep_content(entry: Entry, record: PromptUsage | ToolUsage | ModelThought) -> None:
    if isinstance(record, PromptUsage):
        entry.prompts.setdefault(record.id, record)
    elif isinstance(record, ToolUsage):
        if entry.tool_calls.setdefault(record.id, record) is record and record.tool_call_id:
            entry.calls.add(record.tool_call_id)
    else:
        entry.thoughts.setdefault(record.id, record)


def sum_of(usages: Iterable[TokenUsage]) -> Counter[str]:
    """The counts of usages by name; those under a provider's own name begin with ``x:``."""
    counts: Counter[str] = Counter()
    for usage in usages:
        counts.update(
            input=usage.input,
            output=usage.output,
            cache_read=usage.cache_read,
            cache_write=usage.cache_write,
        )
        counts.update({f"x:{name}": count for name, count in usage.extra.items()})
    return counts


def token_sums(counts: Counter[str]) -> TokenSums:
    """The sums that :func:`sum_of` counted, as they are read."""
    return TokenSums(
        input=counts["input"],
        output=counts["output"],
        cache_read=counts["cache_read"],
        cache_write=counts["cache_write"],
        extra={name[2:]: count for name, count in counts.items() if name.startswith("x:")},
    )


def days_before(moment: datetime, days: float) -> datetime:
    """The moment from which on everything is kept."""
    return moment - timedelta(days=days)
