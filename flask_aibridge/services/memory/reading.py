"""Pure: what is read back from a memory store: pages, sessions, usage and names.

It looks at every interception each time, which is what makes it simple enough to compare others with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, get_args

from flask_aibridge.services.cursors import (
    Cursor,
    Place,
    check_limit,
    decode_cursor,
    encode_cursor,
    first_id,
    first_score,
)
from flask_aibridge.services.memory.ledger import Entry, Group, Ledger, token_sums
from flask_aibridge.services.memory.lineage import Traced, traced
from flask_aibridge.services.records import RARE_ENDS, InterceptionStart, milliseconds_of
from flask_aibridge.services.storage import (
    MAX_COUNTED,
    APIKeyPage,
    APIKeyRow,
    Grouping,
    InterceptionView,
    Page,
    Query,
    SessionPage,
    SessionView,
    UsageRow,
)
from flask_aibridge.services.summaries import session_of

EQUAL_FIELDS: Final = ("initiator", "provider", "model", "client", "source", "session_id")
INDEXED_FIELDS: Final = ("initiator", "provider", "model", "session_id")


def page(ledger: Ledger, query: Query, limit: int, cursor: str | None) -> Page:
    """A page of the interceptions that match, newest first."""
    check_limit(limit)
    question = ("interceptions", query)
    after = None if cursor is None else decode_cursor(cursor, question).place[0]
    matching = [each for each in traced(ledger) if matches(query, each.start, each.entry)]
    rest = [each for each in matching if after is None or each.start.id < after]
    shown, count = rest[:limit], _count(query, len(matching))
    more = len(rest) > limit
    return Page(
        count=count,
        interceptions=tuple(map(_summary, shown)),
        next=encode_cursor(Cursor((shown[-1].start.id,), count), question) if more else None,
    )


def matches(query: Query, start: InterceptionStart, entry: Entry) -> bool:
    """Tell whether an interception is asked for."""
    for name in EQUAL_FIELDS:
        wanted = getattr(query, name)
        if wanted is not None and wanted != (getattr(start, name) or None):  # empty is as null
            return False
    if query.status is not None and query.status != entry.status:
        return False
    since, until = query.started_after, query.started_before
    return (since is None or start.id >= first_id(since)) and (until is None or start.id < first_id(until))


def _count(query: Query, count: int) -> int:
    fields = EQUAL_FIELDS if query.status in RARE_ENDS else (*EQUAL_FIELDS, "status")
    asked = [name for name in fields if getattr(query, name) is not None]
    told_by_an_index = not asked or (len(asked) == 1 and asked[0] in INDEXED_FIELDS)
    return count if told_by_an_index else min(count, MAX_COUNTED)


def _summary(each: Traced) -> InterceptionView:
    return InterceptionView(
        start=each.start,
        status=each.entry.status,
        end=each.entry.end,
        tokens=each.entry.tokens,
        thread_parent_id=each.parent_id,
        thread_root_id=each.root_id,
    )


def view(ledger: Ledger, interception_id: str) -> InterceptionView | None:
    """One interception with everything, or null where there is none or no start of it."""
    found = next((each for each in traced(ledger) if each.start.id == interception_id), None)
    if found is None:
        return None
    entry = found.entry
    return replace(
        _summary(found),
        usages=_in_order(entry.usages.values()),
        prompts=_in_order(entry.prompts.values()),
        tool_calls=_in_order(entry.tool_calls.values()),
        thoughts=_in_order(entry.thoughts.values()),
    )


def _in_order(records: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(sorted(records, key=lambda record: (record.created_at, record.id)))


def api_keys(rows: Iterable[APIKeyRow], owner: str | None, limit: int, cursor: str | None) -> APIKeyPage:
    """A page of API keys, newest first."""
    check_limit(limit)
    question = ("keys", owner)
    after = None if cursor is None else decode_cursor(cursor, question).place
    found = sorted(
        ((_key_order(row), row) for row in rows if owner in (None, row.key.owner)),
        key=lambda pair: pair[0],
        reverse=True,
    )
    rest = [pair for pair in found if after is None or pair[0] < after]
    return APIKeyPage(
        count=len(found),
        rows=tuple(row for _, row in rest[:limit]),
        next=encode_cursor(Cursor(rest[limit - 1][0], len(found)), question) if len(rest) > limit else None,
    )


def _key_order(row: APIKeyRow) -> Place:
    return milliseconds_of(row.key.created_at), row.key.id


def sessions(
    ledger: Ledger,
    *,
    initiator: str | None,
    active_after: datetime | None,
    active_before: datetime | None,
    limit: int,
    cursor: str | None,
) -> SessionPage:
    """A page of sessions, last active first."""
    check_limit(limit)
    question = ("sessions", initiator, active_after, active_before)
    after = None if cursor is None else decode_cursor(cursor, question).place
    found = [
        (_session_order(key, group), group)
        for key, group in _sessions_of(ledger, initiator).items()
        if _is_active(group, active_after, active_before)
    ]
    found.sort(key=lambda pair: pair[0], reverse=True)
    rest = [pair for pair in found if after is None or pair[0] < after]
    more = len(rest) > limit
    return SessionPage(
        count=len(found),
        sessions=tuple(session_of([_summary(each) for each in group]) for _, group in rest[:limit]),
        next=encode_cursor(Cursor(rest[limit - 1][0], len(found)), question) if more else None,
    )


def session(ledger: Ledger, session_id: str, initiator: str | None) -> SessionView | None:
    """One session; of several users', the one that was last active."""
    found = [
        (_session_order(key, group), group)
        for key, group in _sessions_of(ledger, initiator).items()
        if key[0] == f"s:{session_id}"
        or (key[0][0] == "i" and session_id in {each.start.id for each in group})
    ]
    if not found:
        return None
    return session_of([_summary(each) for each in max(found, key=lambda pair: pair[0])[1]], timeline=True)


def _sessions_of(ledger: Ledger, initiator: str | None) -> dict[tuple[str, str], list[Traced]]:
    """Interceptions, newest first, by session and user."""
    groups: dict[tuple[str, str], list[Traced]] = {}
    for each in traced(ledger):
        if initiator is None or each.start.initiator == initiator:
            groups.setdefault((each.session, each.start.initiator or ""), []).append(each)
    return groups


def _session_order(key: tuple[str, str], group: Sequence[Traced]) -> Place:
    return milliseconds_of(_last_active(group)), *key


def _last_active(group: Sequence[Traced]) -> datetime:
    return max(each.start.started_at for each in group)


def _is_active(group: Sequence[Traced], after: datetime | None, before: datetime | None) -> bool:
    last = milliseconds_of(_last_active(group))
    return (after is None or first_score(after) <= last) and (before is None or last < first_score(before))


def usage(
    ledger: Ledger,
    *,
    since: datetime,
    until: datetime,
    group_by: Sequence[Grouping],
    user: str | None,
    model: str | None,
    provider: str | None,
) -> tuple[UsageRow, ...]:
    """The roll-ups of a time, summed by group."""
    _check_grouping(group_by)
    sums: dict[tuple[Any, ...], Counter[str]] = {}
    for name, groups in ledger.roll_ups.items():
        hour = datetime.strptime(name, "%Y%m%d%H").replace(tzinfo=UTC)
        for group, counts in groups.items() if since <= hour < until else ():
            if all(wanted in (None, got) for wanted, got in zip((user, provider, model), group, strict=True)):
                labels = tuple(_LABELS[grouping](hour, group) for grouping in group_by)
                sums.setdefault(labels, Counter()).update(counts)
    return tuple(_usage_row(group_by, labels, sums[labels]) for labels in sorted(sums))


_LABELS: Final[dict[str, Callable[[datetime, Group], Any]]] = {
    "day": lambda hour, group: hour - timedelta(hours=hour.hour),
    "hour": lambda hour, group: hour,
    "user": lambda hour, group: group[0],
    "provider": lambda hour, group: group[1],
    "model": lambda hour, group: group[2],
}


def _check_grouping(group_by: Sequence[Grouping]) -> None:
    unknown = [grouping for grouping in group_by if grouping not in get_args(Grouping)]
    if unknown:
        raise ValueError(f"Usage cannot be grouped by {unknown[0]!r}: use {', '.join(get_args(Grouping))}.")
    if {"day", "hour"} <= set(group_by):
        raise ValueError("Usage is grouped by day or by hour: leave one of them out.")


def _usage_row(group_by: Sequence[Grouping], labels: tuple[Any, ...], counts: Counter[str]) -> UsageRow:
    named = {
        "period" if grouping in ("day", "hour") else grouping: label
        for grouping, label in zip(group_by, labels, strict=True)
    }
    return UsageRow(requests=counts["requests"], tokens=token_sums(counts), **named)


def names(ledger: Ledger, kind: Literal["model", "client"], initiator: str | None) -> tuple[str, ...]:
    """Every model or client seen."""
    seen = {getattr(start, kind) for start, _ in ledger.started() if initiator in (None, start.initiator)}
    return tuple(sorted(seen - {None, ""}))
