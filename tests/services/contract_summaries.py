"""The contract of what is summed up: sessions, usage and names."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_aibridge.services.storage import Grouping, Query, Store
from tests.services.contract_population import (
    EXAMPLES,
    USERS,
    comparable,
    expected_sessions,
    expected_usage,
    moments,
    population,
    recorded,
)
from tests.services.contract_records import (
    a_prompt,
    a_start,
    a_usage,
    an_end,
    normal,
    now,
)

DAYS = timedelta(days=2)


class SummaryContract:
    """Tests over the fixture ``store``."""

    def test_sessions_are_what_they_hold_whatever_is_asked(self, store: Store) -> None:
        """Any filters and any page size give what grouping everything gives, last active first."""
        until = now()
        members = recorded(store, population(120, seed=2, until=until))

        @given(
            initiator=st.sampled_from([None, *USERS]),
            bounds=st.tuples(moments(until), moments(until)),
            limit=st.sampled_from([1, 3, 1000]),
        )
        @settings(max_examples=EXAMPLES)
        def check(initiator: str | None, bounds: tuple[datetime | None, datetime | None], limit: int) -> None:
            expected = expected_sessions(members, initiator, *bounds)
            found, cursor = [], None
            for _ in range(len(members) + 2):
                page = store.sessions(
                    initiator=initiator,
                    active_after=bounds[0],
                    active_before=bounds[1],
                    limit=limit,
                    cursor=cursor,
                )
                found += [comparable(session) for session in page.sessions]
                assert page.count == len(expected)
                assert len(page.sessions) <= limit
                cursor = page.next
                if cursor is None:
                    break
            assert found == [comparable(session) for session in expected]

        check()

    def test_a_session_is_found_by_its_id(self, store: Store) -> None:
        """Or by the id of an interception that carries none; of one user where one is named."""
        mine = a_start(session_id="both", initiator="alice")
        later = a_start(
            now() + timedelta(seconds=1), session_id="both", initiator="alice", provider="anthropic"
        )
        theirs = a_start(now() - timedelta(hours=1), session_id="both", initiator="bob")
        single = a_start(initiator="alice")
        store.record([mine, later, theirs, single, an_end(mine), a_usage(later, input=4)])
        session = store.session("both", initiator="alice")
        assert session is not None
        assert (session.id, session.initiator, session.interceptions) == ("both", "alice", 2)
        assert (session.providers, session.ended_at, session.tokens.input) == (
            ("anthropic", "openai"),
            None,
            4,
        )
        theirs_alone = store.session("both", initiator="bob")
        assert theirs_alone is not None
        assert (theirs_alone.initiator, theirs_alone.interceptions) == ("bob", 1)
        of_one = store.session(single.id)
        assert of_one is not None
        assert (of_one.id, of_one.interceptions) == (single.id, 1)
        assert store.session("both") is not None
        for unknown, user in (
            (mine.id, None),
            ("both", "carol"),
            (single.id, "bob"),
            ("", None),
            ("nothing", None),
        ):
            assert store.session(unknown, initiator=user) is None, (unknown, user)

    def test_a_session_of_two_users_is_two_sessions(self, store: Store) -> None:
        """One session id says nothing about who else has it."""
        for user in ("alice", "bob"):
            store.record([a_start(session_id="both", initiator=user) for _ in range(3)])
        page = store.sessions()
        assert page.count == 2
        assert sorted((session.initiator, session.interceptions) for session in page.sessions) == [
            ("alice", 3),
            ("bob", 3),
        ]

    def test_usage_is_what_was_used_however_it_is_grouped(self, store: Store) -> None:
        """Any grouping, any filters and any time give what summing everything gives."""
        until = now()
        members = recorded(store, population(150, seed=3, until=until))
        groupings = st.lists(st.sampled_from(get_args(Grouping)), unique=True, max_size=4).filter(
            lambda chosen: not {"day", "hour"} <= set(chosen)
        )

        @given(
            group_by=groupings,
            bounds=st.tuples(moments(until), moments(until)),
            user=st.sampled_from([None, *USERS]),
            model=st.sampled_from([None, None, "gpt-6", "nothing"]),
            provider=st.sampled_from([None, None, "openai", "nothing"]),
        )
        @settings(max_examples=EXAMPLES)
        def check(group_by: list[Any], bounds: tuple[Any, Any], **filters: Any) -> None:
            since, end = bounds[0] or until - 2 * DAYS, bounds[1] or until + DAYS
            rows = store.usage(since=since, until=end, group_by=group_by, **filters)
            expected = expected_usage(members, since, end, group_by, **filters)
            assert [normal(row) for row in rows] == expected

        check()

    def test_usage_cannot_be_grouped_by_what_is_unknown(self, store: Store) -> None:
        """A grouping that there is not is refused."""
        with pytest.raises(ValueError):
            store.usage(since=now() - DAYS, until=now(), group_by=("session",))  # type: ignore[arg-type]

    def test_usage_counts_what_is_running(self, store: Store) -> None:
        """A request is one from its start."""
        start = a_start()
        store.record([start, a_usage(start, input=1), a_prompt(start)])
        (row,) = store.usage(since=now() - DAYS, until=now() + DAYS, group_by=("user",))
        assert (row.user, row.period, row.requests, row.tokens.input) == ("alice", None, 1, 1)

    def test_what_is_empty_is_as_what_is_null(self, store: Store) -> None:
        """An empty model, client, source or session is none: it is not listed, found, or shared with anyone."""
        starts = [a_start(model="", client="", source="", session_id="") for _ in range(2)]
        store.record(starts)
        for query in (Query(model=""), Query(client=""), Query(source=""), Query(session_id="")):
            assert store.interceptions(query).count == 0
        assert store.names("model") == store.names("client") == ()
        assert {session.id for session in store.sessions().sessions} == {start.id for start in starts}

    def test_names_are_those_seen(self, store: Store) -> None:
        """Sorted, each once, of one user where one is named."""
        for user, model, client in (
            ("a", "m2", "c1"),
            ("a", "m1", None),
            ("b", "m3", "c2"),
            ("b", None, "c1"),
        ):
            store.record([a_start(initiator=user, model=model, client=client) for _ in range(2)])
        assert store.names("model") == ("m1", "m2", "m3")
        assert store.names("client") == ("c1", "c2")
        assert (store.names("model", initiator="a"), store.names("client", initiator="a")) == (
            ("m1", "m2"),
            ("c1",),
        )
        assert (store.names("model", initiator="b"), store.names("client", initiator="b")) == (
            ("m3",),
            ("c1", "c2"),
        )
        assert store.names("model", initiator="c") == ()
