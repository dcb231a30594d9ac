"""The contract of listing interceptions: pages, filters, cursors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any, Final, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_aibridge.services.records import ENDS, GONE, SHARDS, InterceptionStart, Status, stand_in_end
from flask_aibridge.services.storage import MAX_LIMIT, Page, Query, SessionPage, Store
from tests.services.contract_population import (
    EXAMPLES,
    all_pages,
    listed,
    matches,
    population,
    queries,
    recorded,
)
from tests.services.contract_records import (
    MakeStore,
    a_full_start,
    a_start,
    an_end,
    everything_of,
    maintained_until,
    now,
    without_usages,
)

DAYS = timedelta(days=2)

ASKED: Final[Mapping[str, Any]] = {
    "initiator": "alice",
    "provider": "openai",
    "model": "gpt-6",
    "client": "Codex",
    "source": "agents",
    "session_id": "one",
    "status": "completed",
}
"""A value of each filter that some of a population have."""


class PageContract:
    """Tests over the fixtures ``store`` and ``make_store``."""

    def test_of_nothing_there_is_nothing(self, store: Store) -> None:
        """Empty pages, no rows, null."""
        assert store.interceptions(Query()) == Page(count=0, interceptions=(), next=None)
        assert store.sessions() == SessionPage(count=0, sessions=(), next=None)
        assert store.session("x") is None
        assert store.usage(since=now() - DAYS, until=now()) == ()
        assert store.usage(since=now() - DAYS, until=now(), group_by=()) == ()
        assert store.names("model") == store.names("client", initiator="alice") == ()

    def test_pages_are_newest_first_and_end(self, store: Store) -> None:
        """The last page has no next one, also where it is full."""
        starts = [a_start(now() - timedelta(seconds=number), shard=number % SHARDS) for number in range(10)]
        store.record(starts)
        first = store.interceptions(Query(), limit=5)
        assert ([view.start for view in first.interceptions], first.count) == (starts[:5], 10)
        second = store.interceptions(Query(), limit=5, cursor=first.next)
        assert ([view.start for view in second.interceptions], second.count) == (starts[5:], 10)
        assert second.next is None
        assert store.interceptions(Query(), limit=10).next is None
        assert store.interceptions(Query()).next is None

    def test_a_list_has_no_content(self, store: Store) -> None:
        """Its interceptions have their start, end and sums."""
        start = a_full_start()
        store.record([start, *everything_of(start)])
        whole = store.interception(start.id)
        assert whole is not None
        (listed,) = store.interceptions(Query()).interceptions
        assert without_usages(listed) == replace(whole, usages=(), prompts=(), tool_calls=(), thoughts=())

    @pytest.mark.parametrize("limit", [0, -1, MAX_LIMIT + 1])
    def test_a_page_has_bounds(self, store: Store, limit: int) -> None:
        """From one to the largest."""
        with pytest.raises(ValueError):
            store.interceptions(Query(), limit=limit)
        with pytest.raises(ValueError):
            store.sessions(limit=limit)
        assert store.interceptions(Query(), limit=MAX_LIMIT).interceptions == ()

    def test_times_are_half_open(self, store: Store) -> None:
        """What starts at the first moment is in, what starts at the last is not."""
        at = now() - timedelta(hours=1)
        starts = [a_start(at + timedelta(milliseconds=number), shard=number) for number in range(10)]
        store.record(starts)
        for begin in range(10):
            for end in range(begin, 11):
                query = Query(
                    started_after=at + timedelta(milliseconds=begin),
                    started_before=at + timedelta(milliseconds=end),
                )
                found = [view.start for view in store.interceptions(query).interceptions]
                assert found[::-1] == starts[begin:end]

    def test_extreme_times_are_no_trouble(self, store: Store) -> None:
        """The first and the last moment that there is."""
        store.record([a_start()])
        earliest, latest = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
        assert store.interceptions(Query(started_after=earliest, started_before=latest)).count == 1
        assert store.interceptions(Query(started_after=latest)).count == 0
        assert store.interceptions(Query(started_before=earliest)).count == 0
        assert store.sessions(active_after=earliest, active_before=latest).count == 1
        (row,) = store.usage(since=earliest, until=latest, group_by=())
        assert row.requests == 1

    @pytest.mark.parametrize(
        "cursor", ["", "x", "Zoë", "bm9uZQ", "AAAA" * 10, "\x00", "{}", "W10", "a" * 10_000]
    )
    def test_what_is_no_cursor_is_refused(self, store: Store, cursor: str) -> None:
        """Text that was not made here."""
        with pytest.raises(ValueError):
            store.interceptions(Query(), cursor=cursor)
        with pytest.raises(ValueError):
            store.sessions(cursor=cursor)

    def test_a_cursor_goes_on_with_its_own_question_only(self, store: Store) -> None:
        """Not with other filters, another listing, or anything changed in it."""
        store.record([a_start(session_id=str(number)) for number in range(5)])
        cursor = store.interceptions(Query(initiator="alice"), limit=2).next
        of_sessions = store.sessions(initiator="alice", limit=2).next
        assert cursor is not None
        assert of_sessions is not None
        for other in (
            Query(),
            Query(initiator="bob"),
            Query(initiator="alice", status="running"),
            Query(model="alice"),
        ):
            with pytest.raises(ValueError):
                store.interceptions(other, cursor=cursor)
        with pytest.raises(ValueError):
            store.interceptions(Query(initiator="alice"), cursor=of_sessions)
        with pytest.raises(ValueError):
            store.sessions(initiator="alice", cursor=cursor)
        with pytest.raises(ValueError):
            store.sessions(initiator="bob", cursor=of_sessions)
        for changed in (cursor[1:], cursor[::-1], f"{cursor}A", cursor.swapcase()):
            with pytest.raises(ValueError):
                store.interceptions(Query(initiator="alice"), cursor=changed)
        page = store.interceptions(Query(initiator="alice"), limit=3, cursor=cursor)
        assert (len(page.interceptions), page.next) == (3, None)

    def test_what_comes_meanwhile_does_not_move_the_pages(self, store: Store) -> None:
        """A cursor stands between two interceptions, not at a number."""
        starts = [a_start(now() - timedelta(minutes=number + 1)) for number in range(6)]
        store.record(starts)
        first = store.interceptions(Query(), limit=3)
        store.record([a_start() for _ in range(5)])
        second = store.interceptions(Query(), limit=100, cursor=first.next)
        assert [view.start for view in second.interceptions] == starts[3:]

    def test_a_cursor_outlives_what_it_was_made_of(self, make_store: MakeStore) -> None:
        """Where the last of a page is deleted, the next page begins behind it."""
        store = make_store(retention_days=30)
        at = now() - timedelta(days=60)
        young = a_start()
        store.record([young, *(a_start(at - timedelta(minutes=number)) for number in range(3))])
        cursor = store.interceptions(Query(), limit=2).next
        maintained_until(store, lambda: store.interceptions(Query()).count == 1, "the end of what is old")
        page = store.interceptions(Query(), limit=2, cursor=cursor)
        assert (page.interceptions, page.next) == ((), None)

    def test_any_two_filters_meet(self, store: Store) -> None:
        """Where both are asked for, both have to match: there are some of each that the other leaves out."""
        members = recorded(store, population(150, seed=1, until=now()))
        for names in combinations(ASKED, 2):
            query = Query(**{name: ASKED[name] for name in names})
            expected = [listed(*member) for member in reversed(members) if matches(query, *member)]
            for name in names:
                alone = Query(**{name: ASKED[name]})
                assert sum(matches(alone, *member) for member in members) > len(expected), names
            assert all_pages(store, query, 1000) == (expected, [len(expected)]), names

    @pytest.mark.parametrize("end", ENDS)
    def test_what_ends_is_listed_by_how_it_ended_last(self, store: Store, end: Status) -> None:
        """Not by an end that only stood in for it; with whatever else is asked for, also where it comes again."""
        start = a_full_start()
        store.record([start, stand_in_end(start.id, now(), GONE)])
        _assert_listed_as(store, start, "interrupted")
        store.record([an_end(start, end), a_start(), start, stand_in_end(start.id, now(), GONE)])
        _assert_listed_as(store, start, end)

    def test_a_status_is_not_taken_for_a_name(self, store: Store) -> None:
        """Nor a name for a status, whatever users and models are called."""
        names = ["refused", "user:alice", "=refused", "refused:user:alice"]
        starts = [a_start(initiator=name, model=name, session_id=name) for name in names]
        store.record([*starts, *(an_end(start, "refused") for start in starts[1:])])
        for start, ended in zip(starts, (0, 1, 1, 1), strict=True):
            name = start.initiator
            for asked in (
                Query(status="refused", initiator=name),
                Query(status="refused", model=name),
                Query(status="refused", initiator=name, session_id=name),
            ):
                page = store.interceptions(asked)
                assert page.count == len(page.interceptions) == ended

    def test_pages_are_what_matches_whatever_is_asked(self, store: Store) -> None:
        """Any filters and any page size give what looking at everything gives, each once and in order."""
        until = now()
        members = recorded(store, population(150, seed=1, until=until))

        @given(query=queries(until), limit=st.sampled_from([1, 2, 7, 50, 1000]))
        @settings(max_examples=EXAMPLES)
        def check(query: Query, limit: int) -> None:
            expected = [listed(*member) for member in reversed(members) if matches(query, *member)]
            views, counts = all_pages(store, query, limit)
            assert views == expected
            assert set(counts) == {len(expected)}

        check()


def _assert_listed_as(store: Store, start: InterceptionStart, status: Status) -> None:
    """By this status and no other, whatever else is asked for."""
    for names in ((), ("initiator",), ("model", "provider"), ("session_id",), ("client", "initiator")):
        filters: dict[str, Any] = {name: getattr(start, name) for name in names}
        for asked in get_args(Status):
            page = store.interceptions(Query(status=asked, **filters))
            assert page.count == len(page.interceptions)
            assert (start in [view.start for view in page.interceptions]) is (asked == status), (asked, names)
