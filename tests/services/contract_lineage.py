"""The contract of lineage: the turns of an agent's loop are one thread, whatever the order their records came in."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_aibridge.services.records import InterceptionStart, Record, ToolUsage, shard_of
from flask_aibridge.services.storage import InterceptionView, SessionView, Store
from tests.services.contract_records import (
    MakeStore,
    a_full_tool_call,
    a_start,
    a_usage,
    an_end,
    maintained_until,
    new_record_id,
    now,
    read,
)

Turn: TypeAlias = tuple[InterceptionStart, list[ToolUsage]]

EXAMPLES = 25
"""Random forests and orders: a shuffle of three turns meets every order of a call and its answer in a few of them."""


def a_call(start: InterceptionStart, call_id: str | None) -> ToolUsage:
    """A tool that the model called, of which nothing else matters."""
    return replace(a_full_tool_call(start), id=new_record_id(), tool_call_id=call_id)


def a_loop(turns: int, *, begin: datetime | None = None, shard: int = 3, **fields: Any) -> list[Turn]:
    """The turns of a loop, a second apart: each answers what the one before it called, and the last calls nothing."""
    begin = begin or now() - timedelta(hours=1)
    loop: list[Turn] = []
    for number in range(turns):
        answers = f"call_{number}" if number else None
        start = a_start(
            begin + timedelta(seconds=number), shard=shard, correlating_tool_call_id=answers, **fields
        )
        loop.append((start, [a_call(start, f"call_{number + 1}")] if number < turns - 1 else []))
    return loop


def records_of(turns: Sequence[Turn]) -> list[Record]:
    """Every record, in order of time."""
    records: list[Record] = []
    for start, calls in turns:
        records += [start, *calls]
    return records


def lineage(store: Store, start: InterceptionStart) -> tuple[str | None, str | None]:
    """The parent and the root that a store names."""
    view = read(store, start)
    return view.thread_parent_id, view.thread_root_id


def found(store: Store, session_id: str, **question: Any) -> SessionView:
    """A session that must be there."""
    session = store.session(session_id, **question)
    assert session is not None, "the session is not there"
    return session


class LineageContract:
    """Tests over the fixtures ``store`` and ``make_store``."""

    def test_the_turns_of_a_loop_are_a_thread(self, store: Store) -> None:
        """Each goes on with the one before it, and all began with the first; in a list and by itself."""
        loop = a_loop(4)
        store.record(records_of(loop))
        first, second, third, fourth = (start for start, _ in loop)
        expected = [(None, None), (first.id, first.id), (second.id, first.id), (third.id, first.id)]
        assert [lineage(store, start) for start in (first, second, third, fourth)] == expected
        for query in ({"initiator": "alice"}, {}):
            (session,) = store.sessions(**query).sessions  # type: ignore[arg-type]  # one key that it has
            assert (session.id, session.interceptions, session.threads) == (first.id, 4, 1)
            assert (session.started_at, session.last_active_at) == (first.started_at, fourth.started_at)
            assert session.timeline == ()

    def test_a_thread_is_a_session_where_the_client_names_none(self, store: Store) -> None:
        """Found by its root, and by any other of its interceptions; its timeline has them all, with their lineage."""
        loop, other = a_loop(3), a_start(shard=3)
        store.record([*records_of(loop), other, a_usage(loop[2][0], input=5), an_end(loop[0][0])])
        root = loop[0][0].id
        for asked in (start.id for start, _ in loop):
            session = found(store, asked)
            assert (session.id, session.tokens.input, session.ended_at) == (root, 5, None)
            assert [view.start for view in session.timeline] == [start for start, _ in loop]
            assert [view.thread_parent_id for view in session.timeline] == [
                None,
                root,
                loop[1][0].id,
            ]
        assert {each.id for each in store.sessions().sessions} == {root, other.id}
        assert store.sessions().count == 2
        assert store.session(root, initiator="bob") is None

    def test_a_session_of_the_clients_own_has_its_threads(self, store: Store) -> None:
        """As many as there are roots."""
        first, second = a_loop(3, session_id="both"), a_loop(2, session_id="both", shard=5)
        store.record(records_of([*first, *second]))
        session = found(store, "both")
        assert (session.id, session.interceptions, session.threads) == ("both", 5, 2)
        roots = [view.thread_root_id or view.start.id for view in session.timeline]
        assert sorted(roots) == sorted([first[0][0].id] * 3 + [second[0][0].id] * 2)
        assert (store.sessions().count, store.session(first[0][0].id)) == (1, None)

    def test_an_admission_finds_what_it_goes_on_with(self, store: Store) -> None:
        """As a record of it does; and a call that is recorded later finds the admission."""
        (first, calls), (second, more_calls), (third, _) = a_loop(3)
        store.admit(first, None)
        store.record(calls)
        store.admit(second, None)
        store.admit(third, None)
        assert lineage(store, second) == (first.id, first.id)
        assert lineage(store, third) == (None, None)
        assert store.sessions().count == 2
        store.record(more_calls)
        assert lineage(store, third) == (second.id, first.id)
        (session,) = store.sessions(initiator="alice").sessions
        assert (session.id, session.interceptions) == (first.id, 3)

    def test_what_is_below_comes_along(self, store: Store) -> None:
        """Where the first call is known last, the whole thread gets its root."""
        loop = a_loop(5)
        records = records_of(loop)
        late = records.pop(1)
        store.record(records)
        assert store.sessions().count == 2
        assert found(store, loop[4][0].id).id == loop[1][0].id
        store.record([late])
        assert [lineage(store, start)[1] for start, _ in loop[1:]] == [loop[0][0].id] * 4
        assert [each.id for each in store.sessions().sessions] == [loop[0][0].id]
        assert store.session(loop[1][0].id) == store.session(loop[0][0].id)

    def test_a_call_has_many_answers_and_an_interception_many_calls(self, store: Store) -> None:
        """Calls of one answer may be answered one by one, and a request may be sent twice."""
        parent = a_start(now() - timedelta(minutes=1), shard=2)
        calls = [a_call(parent, f"call_{number}") for number in range(3)]
        answers = [a_start(shard=2, correlating_tool_call_id=f"call_{number % 3}") for number in range(6)]
        store.record([*answers[:3], parent, *calls, *answers[3:]])
        assert {lineage(store, start) for start in answers} == {(parent.id, parent.id)}
        assert found(store, parent.id).interceptions == 7

    def test_threads_are_of_one_user_one_session_and_one_shard(self, store: Store) -> None:
        """Who answers another's call, by an id that was guessed or chosen, goes on with nothing of theirs."""
        parent = a_start(now() - timedelta(minutes=1), shard=2, session_id="one")
        others: list[dict[str, Any]] = [
            {"initiator": "bob", "session_id": "one", "shard": 2},
            {"session_id": "two", "shard": 2},
            {"session_id": None, "shard": 2},
            {"session_id": "one", "shard": 3},
            {"initiator": "a", "session_id": "lice", "shard": 2},
        ]
        starts = [a_start(correlating_tool_call_id="call", **fields) for fields in others]
        store.record([*starts[:2], parent, a_call(parent, "call"), *starts[2:]])
        assert {lineage(store, start) for start in starts} == {(None, None)}

    def test_of_calls_with_one_id_the_last_before_counts(self, store: Store) -> None:
        """Some providers only number their calls; nothing goes on with itself, or with what began later."""
        at = now() - timedelta(hours=1)
        turns = [
            a_start(
                at + timedelta(seconds=number), shard=1, correlating_tool_call_id="call_0" if number else None
            )
            for number in range(4)
        ]
        calls = [a_call(start, "call_0") for start in turns]
        store.record([*turns, calls[0]])
        assert [lineage(store, start)[0] for start in turns[1:]] == [turns[0].id] * 3
        store.record([calls[2], calls[3], calls[1]])
        assert [lineage(store, start)[0] for start in turns] == [None, turns[0].id, turns[1].id, turns[2].id]
        assert found(store, turns[3].id).threads == 1

    def test_what_is_empty_is_no_call(self, store: Store) -> None:
        """An id that is empty or not there answers nothing and is answered by nothing."""
        for call_id in ("", None):
            parent = a_start(now() - timedelta(minutes=1), shard=2)
            answer = a_start(shard=2, correlating_tool_call_id=call_id)
            store.record([parent, a_call(parent, call_id), answer])
            assert lineage(store, answer) == (None, None)

    def test_ids_of_calls_may_be_anything(self, store: Store) -> None:
        """However long or odd; those that are longer than is kept are the same up to there."""
        parent = a_start(now() - timedelta(minutes=1), shard=2)
        ids = ["x" * 5000, "ü\x00{s1}", "\ud800", "*", "call:1"]
        answers = [a_start(shard=2, correlating_tool_call_id=each) for each in ids]
        store.record([parent, *(a_call(parent, each) for each in ids), *answers])
        assert {lineage(store, start) for start in answers} == {(parent.id, parent.id)}

    def test_a_thread_outlives_its_content(self, make_store: MakeStore) -> None:
        """Tool usages that are deleted leave it as it was."""
        store = make_store(retention_days=0, content_retention_days=30)
        loop = a_loop(2, begin=now() - timedelta(days=100))
        store.record(records_of(loop))
        first, second = (start for start, _ in loop)
        maintained_until(store, lambda: not read(store, first).tool_calls, "the end of the content")
        assert lineage(store, second) == (first.id, first.id)
        assert found(store, second.id).id == first.id

    def test_without_content_there_are_no_threads(self, make_store: MakeStore) -> None:
        """For the tool usages are not recorded that would tell them."""
        store = make_store(record_content=False)
        store.record(records_of(a_loop(3)))
        assert store.sessions().count == 3

    def test_threads_of_execution_may_record_a_loop_at_once(self, store: Store) -> None:
        """Its turns come from several processes."""
        loop = a_loop(12)
        with ThreadPoolExecutor(8) as threads:
            for done in [threads.submit(store.record, [record]) for record in records_of(loop)]:
                done.result()
        assert {lineage(store, start)[1] for start, _ in loop[1:]} == {loop[0][0].id}
        assert found(store, loop[0][0].id).interceptions == 12

    def test_any_order_of_any_turns_gives_the_same_threads(self, make_store: MakeStore) -> None:
        """Permuted, repeated, in batches: with few ids of calls, users and sessions, and what is expected by looking at
        all."""
        store, runs = make_store(), itertools.count()

        @given(seed=st.integers(0, 2**32))
        @settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
        def check(seed: int) -> None:
            rng = random.Random(seed)
            turns = some_turns(rng, rng.randrange(2, 9), f"run-{next(runs)}")
            records = records_of(turns)
            records += rng.choices(records, k=rng.randrange(4))
            rng.shuffle(records)
            while records:
                size = rng.randrange(1, len(records) + 1)
                store.record(records[:size])
                records = records[size:]
            assert_traced(store, turns)

        check()


def some_turns(rng: random.Random, count: int, run: str) -> list[Turn]:
    """Interceptions that answer and make calls of a few ids, for two users of this run alone."""
    begin, turns = now() - timedelta(hours=1), list[Turn]()
    for number in range(count):
        start = a_start(
            _moment(rng, begin, number),
            shard=rng.choice([4, 4, 4, 9]),
            initiator=f"{run}-{rng.choice('aab')}",
            session_id=rng.choice([None, None, f"{run}-session"]),
            correlating_tool_call_id=rng.choice([None, f"{run}-x", f"{run}-x", f"{run}-y"]),
        )
        turns.append((start, [a_call(start, f"{run}-{each}") for each in "xyz" if rng.random() < 0.4]))
    return turns


def _moment(rng: random.Random, begin: datetime, number: int) -> datetime:
    """Some in the same millisecond."""
    return begin + timedelta(milliseconds=number // rng.choice([1, 1, 2]))


def expected_parent(turns: Sequence[Turn], start: InterceptionStart) -> str | None:
    """By looking at every turn."""
    return max(
        (
            other.id
            for other, calls in turns
            if other.id < start.id
            and start.correlating_tool_call_id in {call.tool_call_id for call in calls}
            and (other.initiator, other.session_id) == (start.initiator, start.session_id)
            and shard_of(other.id) == shard_of(start.id)
        ),
        default=None,
    )


def assert_traced(store: Store, turns: Sequence[Turn]) -> None:
    """Every way of reading tells the lineage that there is."""
    parents = {start.id: expected_parent(turns, start) for start, _ in turns}
    roots = {start.id: _root(parents, start.id) for start, _ in turns}
    sessions: dict[tuple[str, str], set[str]] = {}
    for start, _ in turns:
        assert start.initiator is not None
        root = roots[start.id]
        assert lineage(store, start) == (parents[start.id], None if root == start.id else root)
        sessions.setdefault((start.initiator, start.session_id or root), set()).add(start.id)
    for user in {user for user, _ in sessions}:
        page = store.sessions(initiator=user)
        listed = {each.id: each for each in page.sessions}
        assert set(listed) == {session for owner, session in sessions if owner == user}
        assert page.count == len(listed)
        for session_id, each in listed.items():
            ids = sessions[user, session_id]
            assert (each.interceptions, each.threads) == (len(ids), len({roots[each] for each in ids}))
            _assert_alone(each, found(store, session_id, initiator=user), ids)


def _assert_alone(listed: SessionView, alone: SessionView, ids: set[str]) -> None:
    assert replace(alone, timeline=()) == listed
    assert [view.start.id for view in alone.timeline] == sorted(ids)
    assert listed.last_active_at == max(map(_started, alone.timeline))


def _started(view: InterceptionView) -> datetime:
    return view.start.started_at


def _root(parents: dict[str, str | None], each: str) -> str:
    while (parent := parents[each]) is not None:
        each = parent
    return each
