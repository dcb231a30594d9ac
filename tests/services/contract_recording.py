"""The contract of a store as a recorder: what is recorded comes back, once, whatever the order it came in."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_aibridge.errors import InvalidRecord
from flask_aibridge.services.records import (
    ENDS,
    MAX_TOKENS,
    SHARDS,
    InterceptionStart,
    Record,
    Status,
    stand_in_end,
)
from flask_aibridge.services.storage import InterceptionView, Query, Store, TokenSums, UsageRow
from tests.services.contract_records import (
    ODD_NAMES,
    TRICKY_TEXTS,
    MakeStore,
    a_full_end,
    a_full_start,
    a_full_tool_call,
    a_full_usage,
    a_prompt,
    a_start,
    a_thought,
    a_usage,
    an_end,
    everything_of,
    forged,
    new_id,
    normal,
    now,
    read,
    summed,
    usage_around,
)

EXAMPLES = 25
"""Orders, repeats and cuts of the records of one interception."""


class RecordingContract:
    """Tests over the fixtures ``store`` and ``make_store``."""

    def test_every_field_of_every_record_comes_back(self, store: Store) -> None:
        """A record is read as it was written, to the microsecond, and sums are those of its usages."""
        start = a_full_start()
        usage, more_usage, prompt, tool_call, thought, end = everything_of(start)
        store.record([start, usage, more_usage, prompt, tool_call, thought, end])
        assert read(store, start) == InterceptionView(
            start=start,
            status="upstream_error",
            end=end,  # type: ignore[arg-type]  # everything_of knows their order, its type does not
            tokens=TokenSums(
                input=9,
                output=15,
                cache_read=21,
                cache_write=33,
                extra={"reasoning_tokens": 39, "web search: requests": 51},
            ),
            usages=(usage, more_usage),  # type: ignore[arg-type]
            prompts=(prompt,),  # type: ignore[arg-type]
            tool_calls=(tool_call,),  # type: ignore[arg-type]
            thoughts=(thought,),  # type: ignore[arg-type]
        )

    def test_what_is_null_or_empty_comes_back_so(self, store: Store) -> None:
        """Null, empty text, an empty mapping and an empty list are four things."""
        start = a_start(metadata={"null": None, "text": "", "mapping": {}, "list": []}, session_id="")
        end = an_end(start)
        store.record([start, a_usage(start), end])
        view = read(store, start)
        assert (view.start, view.end) == (start, end)
        assert view.tokens == TokenSums()
        assert (view.prompts, view.tool_calls, view.thoughts) == ((), (), ())

    @pytest.mark.parametrize("text", TRICKY_TEXTS, ids=ascii)
    def test_text_is_text(self, store: Store, text: str) -> None:
        """Whatever characters there are in content, they come back."""
        start = a_start()
        prompt, thought = a_prompt(start, text), a_thought(start, text)
        tool_call = replace(a_full_tool_call(start), input=text, tool=text)
        store.record([start, prompt, thought, tool_call])
        view = read(store, start)
        assert (view.prompts, view.thoughts, view.tool_calls) == ((prompt,), (thought,), (tool_call,))

    def test_long_content_comes_back_whole(self, store: Store) -> None:
        """A prompt of half a megabyte is stored as it is."""
        start = a_start()
        prompt = a_prompt(start, "Zoë\n" * 128 * 1024)
        store.record([start, prompt])
        assert read(store, start).prompts == (prompt,)

    def test_names_are_told_apart_whatever_is_in_them(self, store: Store) -> None:
        """An interception is found under its own user, model, provider and session, and under nobody else's."""
        starts = {name: _named(name) for name in ODD_NAMES}
        store.record([record for start in starts.values() for record in (start, a_usage(start, input=7))])
        for name, start in starts.items():
            for field in ("initiator", "provider", "model", "client", "source", "session_id"):
                asked: dict[str, Any] = {field: name}
                page = store.interceptions(Query(**asked))
                assert ([view.start for view in page.interceptions], page.count) == ([start], 1), (
                    field,
                    name,
                )
        rows = usage_around(store, now(), group_by=("user", "provider", "model"))
        expected = [
            UsageRow(user=name, provider=name, model=name, requests=1, tokens=TokenSums(input=7))
            for name in ODD_NAMES
        ]
        assert {row.user: row for row in map(normal, rows)} == {row.user: row for row in expected}
        assert store.names("model") == store.names("client") == tuple(sorted(ODD_NAMES))

    def test_sessions_of_odd_names_are_told_apart(self, store: Store) -> None:
        """The same for sessions and for the names of one user."""
        for name in ODD_NAMES:
            store.record([_named(name)])
        for name in ODD_NAMES:
            session = store.session(name, initiator=name)
            assert session is not None, name
            assert (session.id, session.initiator, session.interceptions) == (name, name, 1)
            assert [each.id for each in store.sessions(initiator=name).sessions] == [name]
            assert store.names("model", initiator=name) == store.names("client", initiator=name) == (name,)

    @pytest.mark.parametrize("shard", range(SHARDS))
    def test_every_shard_is_read(self, store: Store, shard: int) -> None:
        """Where an interception is stored makes no difference."""
        start = a_full_start(shard=shard)
        store.record([start, *everything_of(start)])
        assert read(store, start).start == start
        assert store.interceptions(Query()).count == 1
        assert store.sessions().count == 1
        assert store.names("model") == (start.model,)
        assert sum(row.requests for row in usage_around(store, start.started_at)) == 1

    def test_a_batch_may_be_of_many_interceptions(self, store: Store) -> None:
        """Hundreds of records of as many shards as there are go in one call."""
        starts = [a_start(shard=number % SHARDS) for number in range(100)]
        store.record([record for start in starts for record in (start, *everything_of(start))])
        assert store.interceptions(Query()).count == 100
        for start in starts:
            assert read(store, start).tokens.input == 9

    def test_a_batch_may_be_empty(self, store: Store) -> None:
        """Nothing is recorded of nothing."""
        store.record([])
        assert store.interceptions(Query()).count == 0

    def test_records_wait_for_their_start(self, store: Store) -> None:
        """Without a start an interception is not read back; with it everything is there that came before it."""
        start = a_full_start()
        early = everything_of(start)
        store.record(early)
        assert store.interception(start.id) is None
        assert store.interceptions(Query()).interceptions == ()
        assert usage_around(store, start.started_at) == ()
        store.record([start])
        view = read(store, start)
        assert (view.status, len(view.usages), len(view.prompts)) == ("upstream_error", 2, 1)
        assert store.interceptions(Query(status="upstream_error")).count == 1
        (row,) = usage_around(store, start.started_at)
        assert (row.requests, normal(row).tokens) == (1, view.tokens)

    def test_what_is_stored_is_not_stored_again(self, store: Store) -> None:
        """A replay changes neither the view nor the sums nor the roll-ups."""
        start = a_full_start()
        records = [start, *everything_of(start)]
        store.record(records)
        once = _everything_read(store, start)
        store.record(records)
        store.record([*records, *records])
        assert _everything_read(store, start) == once

    def test_the_first_of_two_with_one_id_stays(self, store: Store) -> None:
        """A record whose id is taken changes nothing, whatever else is in it."""
        start = a_full_start()
        records = [start, *everything_of(start)]
        store.record(records)
        once = _everything_read(store, start)
        store.record([forged(record) for record in records])
        assert _everything_read(store, start) == once

    def test_one_record_id_may_serve_several_interceptions(self, store: Store) -> None:
        """Ids of records are told apart within their interception and kind."""
        one, other = a_start(shard=1), a_start(shard=1)
        usages = [replace(a_full_usage(start), id="1") for start in (one, other)]
        prompts = [replace(a_prompt(start), id="1") for start in (one, other)]
        store.record([one, other, *usages, *prompts])
        for start in (one, other):
            view = read(store, start)
            assert (len(view.usages), len(view.prompts), view.tokens.input) == (1, 1, 3)

    def test_the_first_end_counts(self, store: Store) -> None:
        """A second end, under an id of its own, is not taken."""
        start = a_start()
        first, second = an_end(start, "client_closed"), an_end(start, "completed")
        store.record([start, first])
        store.record([second])
        view = read(store, start)
        assert (view.end, view.status) == (first, "client_closed")
        assert store.interceptions(Query(status="completed")).count == 0

    @pytest.mark.parametrize("order", [("start", "stand-in", "real"), ("stand-in", "start", "real")])
    def test_a_real_end_takes_the_place_of_a_stand_in(self, store: Store, order: tuple[str, ...]) -> None:
        """Once, and whether the start was there or not; a stand-in takes nothing's place."""
        start = a_start()
        stand_in, real = stand_in_end(start.id, start.started_at, "It stops."), an_end(start, "interrupted")
        records: dict[str, Record] = {"start": start, "stand-in": stand_in, "real": real}
        for each in order[:2]:
            store.record([records[each]])
        assert (read(store, start).end, read(store, start).status) == (stand_in, "interrupted")
        later = stand_in_end(start.id, start.started_at, "It is gone.")
        for end in (later, real, stand_in, an_end(start, "completed")):
            store.record([end])
        assert read(store, start).end == real
        assert store.interceptions(Query(status="running")).count == 0

    @pytest.mark.parametrize("status", ENDS)
    def test_an_interception_stands_as_its_end_says(self, store: Store, status: Status) -> None:
        """It is running until it has an end, and found by either."""
        start = a_start()
        store.record([start])
        assert (read(store, start).status, read(store, start).end) == ("running", None)
        assert store.interceptions(Query(status="running")).count == 1
        store.record([an_end(start, status)])
        assert read(store, start).status == status
        assert store.interceptions(Query(status="running")).count == 0
        assert store.interceptions(Query(status=status)).count == 1

    def test_sums_are_exact(self, store: Store) -> None:
        """Counts are whole numbers, also where a float would round them."""
        start = a_start()
        count = MAX_TOKENS - 1
        usages = [a_usage(start, input=count, extra={"x": count}) for _ in range(301)]
        store.record([start, *usages])
        store.record([a_usage(start, input=1)])
        expected = 301 * count + 1
        assert read(store, start).tokens.input == expected
        assert read(store, start).tokens.extra == {"x": expected - 1}
        (row,) = usage_around(store, start.started_at)
        assert (row.tokens.input, row.tokens.extra) == (expected, {"x": expected - 1})

    @pytest.mark.parametrize(
        "break_it",
        [
            lambda start: a_usage(start, input=-1),
            lambda start: a_usage(start, output=MAX_TOKENS + 1),
            lambda start: a_usage(start, extra={"x": -1}),
            lambda start: an_end(start, "running"),
            lambda start: an_end(start, "no such status"),
            lambda start: a_prompt(start, created_at=None),
            lambda start: a_prompt(start, created_at=start.started_at.replace(tzinfo=None)),
            lambda start: replace(start, id="not an id"),
            lambda start: replace(start, provider=None),
            lambda start: replace(a_prompt(start), interception_id=""),
            lambda start: replace(a_prompt(start), id=""),
        ],
    )
    def test_a_batch_with_an_impossible_record_is_refused_whole(self, store: Store, break_it: Any) -> None:
        """Nothing of it is stored."""
        start = a_start()
        with pytest.raises(InvalidRecord):
            store.record([start, a_usage(start), break_it(start)])
        assert store.interception(start.id) is None
        store.record([start])
        assert read(store, start).usages == ()

    @pytest.mark.parametrize(
        "unknown", ["", "x", "z" * 32, "0" * 31, "0" * 33, "../../etc", "Zoë", "*", "0189" + "0" * 28]
    )
    def test_what_is_not_there_is_null(self, store: Store, unknown: str) -> None:
        """An id that nothing has, or that is none, finds nothing."""
        assert store.interception(unknown) is None

    def test_without_content_the_accounting_stays(self, make_store: MakeStore) -> None:
        """Where content is not recorded, tokens and the rest are."""
        store = make_store(record_content=False)
        start = a_full_start()
        store.record(everything_of(start)[2:])
        store.record([start, *everything_of(start)])
        view = read(store, start)
        assert (view.prompts, view.tool_calls, view.thoughts) == ((), (), ())
        assert (view.tokens.input, view.status, len(view.usages)) == (9, "upstream_error", 2)

    def test_without_content_a_providers_words_are_not_kept(self, make_store: MakeStore) -> None:
        """Its sentence about an error may quote the prompt; its word for the error stays."""
        store = make_store(record_content=False)
        start = a_start()
        said = "invalid_request_error: 'geheim' is too long (request r-1)"
        end = replace(a_full_end(start), status="upstream_error", error_message=said)
        store.record([start, end])
        view = read(store, start)
        assert view.end is not None
        assert (view.end.error_message, view.end.error_type) == ("invalid_request_error", end.error_type)

    def test_threads_may_record_the_same_at_once(self, store: Store) -> None:
        """Eight that write one batch write it once."""
        starts = [a_start(shard=number % SHARDS) for number in range(20)]
        records = [record for start in starts for record in (start, *everything_of(start))]
        with ThreadPoolExecutor(8) as threads:
            for done in [threads.submit(store.record, records) for _ in range(8)]:
                done.result()
        assert [len(read(store, start).usages) for start in starts] == [2] * 20
        rows = usage_around(store, now())
        assert (sum(row.requests for row in rows), sum(row.tokens.input for row in rows)) == (20, 180)

    def test_any_order_and_any_repetition_give_the_same(self, store: Store) -> None:
        """Permuted, duplicated and split into batches in any way, the records of an interception give one view."""

        @given(seed=st.integers(0, 2**32), repeats=st.integers(0, 6), cuts=st.integers(0, 5))
        @settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
        def check(seed: int, repeats: int, cuts: int) -> None:
            rng = random.Random(seed)
            start = replace(a_full_start(), initiator=f"user-{rng.randrange(2**60)}-{new_id(now())}")
            records = _in_any_order(rng, start, repeats)
            for batch in _in_batches(rng, records, cuts):
                store.record(batch)
            _assert_recorded_once(store, start, {record.id: record for record in records})

        check()


def _named(name: str) -> InterceptionStart:
    return a_start(initiator=name, provider=name, model=name, client=name, source=name, session_id=name)


def _everything_read(store: Store, start: InterceptionStart) -> Any:
    session = store.session(start.session_id or start.id)
    return read(store, start), store.interceptions(Query()), session, usage_around(store, start.started_at)


def _in_any_order(rng: random.Random, start: InterceptionStart, repeats: int) -> list[Record]:
    records: list[Record] = [
        start,
        a_full_end(start),
        *(a_full_usage(start, factor=factor) for factor in (1, 2, 3)),
        *(a_prompt(start, f"prompt {number}") for number in range(3)),
        a_full_tool_call(start),
        a_thought(start),
    ]
    records += rng.choices(records, k=repeats)
    rng.shuffle(records)
    return records


def _in_batches(rng: random.Random, records: list[Record], cuts: int) -> list[list[Record]]:
    bounds = sorted(rng.choices(range(len(records) + 1), k=cuts))
    return [records[begin:end] for begin, end in zip([0, *bounds], [*bounds, len(records)], strict=True)]


def _assert_recorded_once(store: Store, start: InterceptionStart, records: dict[str, Record]) -> None:
    def of_kind(kind: str) -> list[Any]:
        found: list[Any] = [record for record in records.values() if type(record).__name__ == kind]
        return sorted(found, key=lambda record: (record.created_at, record.id))

    view = read(store, start)
    assert view.start == start
    assert view.status == "upstream_error"
    assert list(view.usages) == of_kind("TokenUsage")
    assert list(view.prompts) == of_kind("PromptUsage")
    assert list(view.tool_calls) == of_kind("ToolUsage")
    assert list(view.thoughts) == of_kind("ModelThought")
    assert view.tokens == summed(view.usages)
    (row,) = usage_around(store, start.started_at, user=start.initiator)
    assert (row.requests, row.tokens) == (1, view.tokens)
    page = store.interceptions(Query(initiator=start.initiator))
    assert (page.count, [view.start.id for view in page.interceptions]) == (1, [start.id])
    assert store.sessions(initiator=start.initiator).count == 1
