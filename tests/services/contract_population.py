"""Interceptions with few values in each field, and what reading them back has to give: worked out by looking at all."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from hypothesis import strategies as st

from flask_aibridge.services.records import ENDS, InterceptionEnd, InterceptionStart, Record, TokenUsage
from flask_aibridge.services.storage import InterceptionView, Query, SessionView, Store, UsageRow
from tests.services.contract_records import (
    a_start,
    a_usage,
    an_end,
    summed,
    to_the_millisecond,
    without_usages,
)

Member: TypeAlias = tuple[InterceptionStart, list[Record]]

EXAMPLES = 60
"""Random questions of one test: enough for each pair of filters to meet."""

USERS = ("alice", "bob", "Zoë: x", "nobody")


def population(count: int, *, seed: int, until: datetime) -> list[Member]:
    """Interceptions with few values in each field, so that filters meet, over two days; oldest first."""
    rng = random.Random(seed)
    offsets = sorted(rng.sample(range(2 * 24 * 3600 * 1000), count))
    return [_member(rng, until - timedelta(milliseconds=offset)) for offset in reversed(offsets)]


def _member(rng: random.Random, at: datetime) -> Member:
    start = a_start(
        at + timedelta(microseconds=rng.randrange(1000)),
        initiator=rng.choice(["alice", "bob", "Zoë: x"]),
        provider=rng.choice(["anthropic", "openai"]),
        model=rng.choice(["claude-fable-5", "gpt-6", "", None]),
        client=rng.choice(["Claude Code", "Codex", None]),
        source=rng.choice(["agents", None]),
        session_id=rng.choice(["one", "two", "three", "a:b", None]),
    )
    records: list[Record] = [
        a_usage(
            start,
            input=rng.randrange(100),
            output=rng.randrange(100),
            extra={"reasoning": rng.randrange(1, 9)},
        )
        for _ in range(rng.randrange(3))
    ]
    if rng.random() < 0.8:
        records.append(an_end(start, rng.choice(ENDS)))
    return start, records


def recorded(store: Store, members: list[Member]) -> list[Member]:
    store.record([record for start, records in members for record in (start, *records)])
    return sorted(members, key=lambda member: member[0].id)


def moments(until: datetime) -> st.SearchStrategy[datetime | None]:
    hours = st.integers(-60, 12).map(lambda number: until + timedelta(hours=number))
    exact = hours.map(lambda moment: moment.replace(minute=0, second=0, microsecond=0))
    return st.one_of(st.none(), hours, exact)


def queries(until: datetime) -> st.SearchStrategy[Query]:
    return st.builds(
        Query,
        initiator=st.sampled_from([None, None, *USERS]),
        provider=st.sampled_from([None, None, "openai", "nothing"]),
        model=st.sampled_from([None, None, "gpt-6", "claude-fable-5", "", "nothing"]),
        client=st.sampled_from([None, None, None, "Codex"]),
        source=st.sampled_from([None, None, None, "agents"]),
        session_id=st.sampled_from([None, None, None, "one", "a:b"]),
        status=st.sampled_from([None, None, None, "running", *ENDS]),
        started_after=moments(until),
        started_before=moments(until),
    )


def matches(query: Query, start: InterceptionStart, records: list[Record]) -> bool:
    wanted: dict[str, Any] = {
        name: getattr(query, name)
        for name in ("initiator", "provider", "model", "client", "source", "session_id")
    }
    return (
        all(value in (None, getattr(start, name) or None) for name, value in wanted.items())
        and query.status in (None, listed(start, records).status)
        and (query.started_after is None or query.started_after <= start.started_at)
        and (query.started_before is None or start.started_at < query.started_before)
    )


def listed(start: InterceptionStart, records: list[Record]) -> InterceptionView:
    end = next((record for record in records if isinstance(record, InterceptionEnd)), None)
    status = "running" if end is None else end.status
    return InterceptionView(start=start, status=status, end=end, tokens=summed(_usages(records)))


def _usages(records: Iterable[Record]) -> list[TokenUsage]:
    return [record for record in records if isinstance(record, TokenUsage)]


def all_pages(store: Store, query: Query, limit: int) -> tuple[list[InterceptionView], list[int]]:
    views: list[InterceptionView] = []
    counts, cursor = [], None
    for _ in range(1000):
        page = store.interceptions(query, limit=limit, cursor=cursor)
        assert len(page.interceptions) <= limit
        views += [without_usages(view) for view in page.interceptions]
        counts.append(page.count)
        cursor = page.next
        if cursor is None:
            return views, counts
    raise AssertionError("the pages do not end")


def expected_sessions(
    members: list[Member], initiator: str | None, after: datetime | None, before: datetime | None
) -> list[SessionView]:
    groups: dict[tuple[str, str | None], list[Member]] = {}
    for start, records in members:
        if initiator in (None, start.initiator):
            groups.setdefault((start.session_id or start.id, start.initiator), []).append((start, records))
    sessions = [_session(name, group) for (name, _), group in groups.items()]
    found = [
        session
        for session in sessions
        if (after is None or to_the_millisecond(after) <= to_the_millisecond(session.last_active_at))
        and (before is None or to_the_millisecond(session.last_active_at) < to_the_millisecond(before))
    ]
    return sorted(found, key=lambda session: session.last_active_at, reverse=True)


def _session(name: str, group: list[Member]) -> SessionView:
    starts = [start for start, _ in group]
    ends = [view.end.ended_at for view in (listed(*member) for member in group) if view.end is not None]
    return SessionView(
        id=name,
        initiator=starts[0].initiator or "",
        providers=tuple(sorted({start.provider for start in starts})),
        models=tuple(sorted({start.model for start in starts if start.model})),
        client=None,
        started_at=min(start.started_at for start in starts),
        ended_at=max(ends) if len(ends) == len(starts) else None,
        last_active_at=max(start.started_at for start in starts),
        interceptions=len(starts),
        threads=len(starts),
        tokens=summed(_usages(record for _, records in group for record in records)),
    )


def comparable(session: SessionView) -> Any:
    """A session without its client, of which there may be several, and with its activity as far as it is kept."""
    activity = to_the_millisecond(session.last_active_at)
    return replace(session, client=None, last_active_at=session.started_at), activity


def expected_usage(
    members: list[Member],
    since: datetime,
    until: datetime,
    group_by: list[str],
    **filters: str | None,
) -> list[UsageRow]:
    groups: dict[tuple[Any, ...], list[Member]] = {}
    for start, records in members:
        hour = start.started_at.replace(minute=0, second=0, microsecond=0)
        facts: dict[str, Any] = {
            "hour": hour,
            "day": hour.replace(hour=0),
            "user": start.initiator,
            "model": start.model or "",
            "provider": start.provider,
        }
        if since <= hour < until and all(filters[name] in (None, facts[name]) for name in filters):
            groups.setdefault(tuple(facts[name] for name in group_by), []).append((start, records))
    names = ["period" if name in ("day", "hour") else name for name in group_by]
    return [
        UsageRow(
            requests=len(groups[key]),
            tokens=summed(_usages(record for _, records in groups[key] for record in records)),
            **dict(zip(names, key, strict=True)),
        )
        for key in sorted(groups)
    ]
