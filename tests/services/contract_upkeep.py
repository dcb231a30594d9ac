"""The contract of a store's upkeep: what dead workers left is ended, what is past its retention is deleted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from flask_aibridge.services.records import SHARDS, InterceptionStart
from flask_aibridge.services.storage import Query, Store
from tests.services.contract_records import (
    MakeStore,
    a_full_start,
    a_full_usage,
    a_prompt,
    a_start,
    a_usage,
    an_end,
    everything_of,
    maintained_until,
    now,
    read,
    usage_around,
)

LEASE_SECONDS = 1.0
"""Long enough that a worker renews in time on a slow machine, short enough to wait for."""

AGO = timedelta(days=100)


class UpkeepContract:
    """Tests over the fixture ``make_store``."""

    def test_what_a_dead_worker_left_is_interrupted(self, make_store: MakeStore) -> None:
        """Once its lease is over, and for no worker that renews."""
        store = make_store(lease_seconds=LEASE_SECONDS)
        dead = [a_start(worker="dead", shard=shard) for shard in range(SHARDS)]
        alive = [a_start(worker="alive", shard=shard) for shard in range(SHARDS)]
        store.renew("dead")
        store.renew("alive")
        # The living first: a store that sweeps them too then does so no later than it sweeps the dead.
        store.record([*alive, *dead, *(a_usage(start, input=1) for start in dead)])

        def all_are_ended() -> bool:
            store.renew("alive")
            return store.interceptions(Query(status="interrupted")).count >= len(dead)

        maintained_until(store, all_are_ended, "the end of what the dead worker left")
        for start in dead:
            view = read(store, start)
            assert (view.status, view.tokens.input) == ("interrupted", 1)
            assert view.end is not None
            assert (view.end.interception_id, view.end.status, view.end.http_status) == (
                start.id,
                "interrupted",
                None,
            )
            assert view.end.ended_at >= start.started_at
        assert [read(store, start).status for start in alive] == ["running"] * SHARDS

    def test_nothing_is_interrupted_before_its_time(self, make_store: MakeStore) -> None:
        """A worker that has just begun has not renewed yet."""
        store = make_store(lease_seconds=1000.0)
        start = a_start(worker="new", started_at=now() - timedelta(hours=3))
        store.record([start])
        for _ in range(10):
            store.maintain()
        assert read(store, start).status == "running"

    def test_what_has_ended_is_not_interrupted(self, make_store: MakeStore) -> None:
        """Nor is what ended before its start was known."""
        store = make_store(lease_seconds=0.05)
        ended, early, left = a_start(worker="dead"), a_start(worker="dead"), a_start(worker="dead")
        store.record([ended, an_end(ended), an_end(early), left])
        store.record([early])
        maintained_until(store, lambda: read(store, left).status == "interrupted", "the sweep")
        assert [read(store, start).status for start in (ended, early)] == ["completed", "completed"]

    def test_a_real_end_takes_the_place_of_a_sweeps(self, make_store: MakeStore) -> None:
        """Once: the next one changes nothing. What is recorded after the sweep counts too."""
        store = make_store(lease_seconds=0.05)
        start = a_start(worker="dead")
        store.record([start])
        maintained_until(store, lambda: read(store, start).status == "interrupted", "the sweep")
        end = an_end(start, "client_closed")
        store.record([end, a_usage(start, input=5)])
        store.record([an_end(start, "completed")])
        view = read(store, start)
        assert (view.end, view.status, view.tokens.input) == (end, "client_closed", 5)
        assert store.interceptions(Query(status="interrupted")).count == 0
        for _ in range(3):
            store.maintain()
        assert read(store, start).end == end

    def test_what_is_past_its_retention_is_deleted(self, make_store: MakeStore) -> None:
        """With all that was kept of it, and nothing else."""
        store = make_store(retention_days=30)
        old = [_old(shard) for shard in range(SHARDS)]
        young = a_full_start(now() - timedelta(days=29))
        store.record([record for start in (*old, young) for record in (start, *everything_of(start))])
        maintained_until(store, lambda: _gone(store, old), "the end of what is old")
        assert store.interceptions(Query()).count == 1
        assert store.interceptions(Query(initiator="old")).count == 0
        assert store.interceptions(Query(session_id="old session")).count == 0
        maintained_until(
            store, lambda: store.names("model") == (young.model,), "the end of the models' names"
        )
        maintained_until(store, lambda: store.sessions().count == 1, "the end of the sessions")
        maintained_until(
            store, lambda: usage_around(store, old[0].started_at) == (), "the end of the roll-ups"
        )
        assert store.session("old session") is None
        assert store.names("client", initiator="old") == ()
        assert len(read(store, young).prompts) == 1
        assert len(usage_around(store, young.started_at)) == 1

    def test_a_name_stays_while_anything_recent_has_it(self, make_store: MakeStore) -> None:
        """A model, a client and a session are as old as their last start."""
        store = make_store(retention_days=30)
        old = [_old(shard) for shard in range(SHARDS)]
        young = a_start(model="old model", client="old client", session_id="old session", initiator="old")
        store.record([*old, young])
        maintained_until(store, lambda: _gone(store, old), "the end of what is old")
        for _ in range(3):
            store.maintain()
        assert store.names("model") == ("old model",)
        assert store.names("client", initiator="old") == ("old client",)
        session = store.session("old session")
        assert session is not None
        assert session.interceptions == 1

    def test_much_is_deleted_in_many_small_steps(self, make_store: MakeStore) -> None:
        """What does not fit one round of upkeep goes in the next."""
        store = make_store(retention_days=30)
        old = [_old(number % SHARDS) for number in range(1500)]
        store.record(old)
        maintained_until(store, lambda: store.interceptions(Query()).count == 0, "the end of what is old")

    def test_content_goes_before_the_accounting(self, make_store: MakeStore) -> None:
        """Where its retention is shorter, tokens and the rest stay."""
        store = make_store(retention_days=0, content_retention_days=30)
        old, young = a_full_start(now() - AGO), a_full_start()
        store.record([record for start in (old, young) for record in (start, *everything_of(start))])
        maintained_until(store, lambda: not read(store, old).prompts, "the end of the content")
        view = read(store, old)
        assert (view.prompts, view.tool_calls, view.thoughts) == ((), (), ())
        assert (view.tokens.input, view.status, len(view.usages)) == (9, "upstream_error", 2)
        assert len(usage_around(store, old.started_at)) == 1
        view = read(store, young)
        assert (len(view.prompts), len(view.tool_calls), len(view.thoughts)) == (1, 1, 1)

    def test_no_retention_is_for_ever(self, make_store: MakeStore) -> None:
        """0 deletes nothing, however old."""
        store = make_store(retention_days=0, content_retention_days=0)
        start = a_full_start(now() - timedelta(days=20 * 365))
        store.record([start, *everything_of(start)])
        for _ in range(5):
            store.maintain()
        assert len(read(store, start).prompts) == 1
        assert len(usage_around(store, start.started_at)) == 1

    def test_what_comes_late_for_what_is_deleted_does_not_come_to_stay(self, make_store: MakeStore) -> None:
        """A replay of what is past its retention is deleted again."""
        store = make_store(retention_days=30)
        start = _old(1)
        store.record([start, a_full_usage(start)])
        maintained_until(store, lambda: _gone(store, [start]), "the end of what is old")
        store.record([a_prompt(start), an_end(start)])
        assert store.interception(start.id) is None
        store.record([start])
        maintained_until(store, lambda: _gone(store, [start]), "the end of what came late")

    def test_upkeep_from_everywhere_at_once_does_no_harm(self, make_store: MakeStore) -> None:
        """Threads maintain while others record."""
        store = make_store(lease_seconds=0.05, retention_days=30)
        starts = [a_start(worker="dead", shard=number % SHARDS) for number in range(50)]
        with ThreadPoolExecutor(8) as threads:
            recorded = [threads.submit(store.record, [start, a_usage(start, input=2)]) for start in starts]
            kept_up = [threads.submit(store.maintain) for _ in range(20)]
            for done in (*recorded, *kept_up):
                done.result()
        maintained_until(
            store,
            lambda: store.interceptions(Query(status="interrupted")).count == 50,
            "the sweep of everything",
        )
        assert [read(store, start).tokens.input for start in starts] == [2] * 50


def _old(shard: int) -> InterceptionStart:
    return a_start(
        now() - AGO,
        shard=shard,
        initiator="old",
        model="old model",
        client="old client",
        session_id="old session",
    )


def _gone(store: Store, starts: list[InterceptionStart]) -> bool:
    return all(store.interception(start.id) is None for start in starts)
