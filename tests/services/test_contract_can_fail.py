"""The contract suite finds stores that break it: each mutant is a memory store with one defect."""

from __future__ import annotations

import inspect
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import pytest
from hypothesis import Phase, settings

from flask_aibridge.services.interfaces import Admission, Authorization, Credential
from flask_aibridge.services.memory import ledger as memory_ledger
from flask_aibridge.services.memory.ledger import Entry, Ledger
from flask_aibridge.services.memory.store import MemoryStore
from flask_aibridge.services.records import InterceptionEnd, InterceptionStart, Record, TokenUsage
from flask_aibridge.services.storage import APIKeyRow, InterceptionView, Page, Query, SessionPage
from tests.services.contract import StoreContract

pytestmark = pytest.mark.servers


class _CountsReplays(MemoryStore):
    """Rolls a usage up each time it comes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._ledger = _CountingLedger(record_content=options.get("record_content", True))


class _CountingLedger(Ledger):
    def _use(self, entry: Entry, usage: TokenUsage) -> None:
        super()._use(entry, usage)
        if entry.start is not None:
            self._roll_up(entry.start, Counter(input=0 if len(entry.usages) == 1 else 1))


class _LastEndWins(MemoryStore):
    """Takes whatever end comes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._ledger = _ForgetfulLedger(record_content=True)


class _ForgetfulLedger(Ledger):
    def _end(self, entry: Entry, end: InterceptionEnd, *, stands_in: bool) -> None:
        entry.end = None
        super()._end(entry, end, stands_in=stands_in)


class _SweepStays(MemoryStore):
    """Keeps the end that a sweep wrote."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._ledger = _StubbornLedger(record_content=True)


class _StubbornLedger(Ledger):
    def _end(self, entry: Entry, end: InterceptionEnd, *, stands_in: bool) -> None:
        if entry.end is None:
            super()._end(entry, end, stands_in=stands_in)


class _KnowsNoCalls(MemoryStore):
    """Does not look for what a request goes on with."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._ledger = _CallessLedger(record_content=options.get("record_content", True))


class _CallessLedger(Ledger):
    def _keep(self, entry: Entry, record: Record, now: float) -> None:
        super()._keep(entry, record, now)
        entry.calls.clear()


class _WantsCallsFirst(MemoryStore):
    """Finds a call only where it is recorded before the request that answers it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._ledger = _ImpatientLedger(record_content=options.get("record_content", True))


class _ImpatientLedger(Ledger):
    def _start(self, entry: Entry, start: InterceptionStart, now: float) -> None:
        known = {call for each in self._entries.values() for call in each.calls}
        if start.correlating_tool_call_id not in known:
            start = replace(start, correlating_tool_call_id=None)
        super()._start(entry, start, now)


class _TrustsCalls(MemoryStore):
    """Whoever names a call goes on with it, whosever it was."""

    def interception(self, interception_id: str) -> InterceptionView | None:
        view = super().interception(interception_id)
        if view is None or view.start.correlating_tool_call_id is None:
            return view
        parents = [
            entry.id
            for _, entry in self._ledger.started()
            if view.start.correlating_tool_call_id in entry.calls and entry.id < interception_id
        ]
        return replace(view, thread_parent_id=parents[0] if parents else None)


class _SweepsTheLiving(MemoryStore):
    """Does not ask for leases."""

    def renew(self, worker: str) -> None:
        super().renew("")


class _DropsEarlyRecords(MemoryStore):
    """Forgets what comes before its start."""

    def record(self, records: Sequence[Record]) -> None:
        known = [record.id for record in records if isinstance(record, InterceptionStart)]
        super().record(
            [
                record
                for record in records
                if isinstance(record, InterceptionStart)
                or record.interception_id in known
                or self.interception(record.interception_id)
            ]
        )


class _StoresHalfABatch(MemoryStore):
    """Stores records up to the first impossible one."""

    def record(self, records: Sequence[Record]) -> None:
        for record in records:
            super().record([record])


class _RoundsTimes(MemoryStore):
    """Loses the microseconds."""

    def record(self, records: Sequence[Record]) -> None:
        super().record([_rounded(record) for record in records])


def _rounded(record: Record) -> Record:
    times: dict[str, Any] = {
        name: getattr(record, name).replace(microsecond=0)
        for name in ("started_at", "created_at", "ended_at")
        if isinstance(getattr(record, name, None), datetime)
    }
    return replace(record, **times)


class _KeepsContent(MemoryStore):
    """Does not ask whether content is wanted."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "record_content": True})


class _KeepsAllContent(MemoryStore):
    """Has no retention of content."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "content_retention_days": 0})


class _KeepsRollUps(MemoryStore):
    """Deletes interceptions, and not what was summed of them."""

    def maintain(self) -> None:
        kept = dict(self._ledger.roll_ups)
        super().maintain()
        self._ledger.roll_ups.update(kept)


class _ForgetsStatusWithUser(MemoryStore):
    """Where a user is asked for, other filters are not looked at."""

    def interceptions(self, query: Query, *, limit: int = 100, cursor: str | None = None) -> Page:
        if query.initiator is not None:
            query = replace(query, status=None, client=None)
        return super().interceptions(query, limit=limit, cursor=cursor)


class _AsksOncePerPage(MemoryStore):
    """Ends each page with a cursor, though nothing comes behind it."""

    def interceptions(self, query: Query, *, limit: int = 100, cursor: str | None = None) -> Page:
        page = super().interceptions(query, limit=limit, cursor=cursor)
        return replace(page, next=page.next or "more")


class _TakesAnyCursor(MemoryStore):
    """Begins again where a cursor is none."""

    def interceptions(self, query: Query, *, limit: int = 100, cursor: str | None = None) -> Page:
        try:
            return super().interceptions(query, limit=limit, cursor=cursor)
        except ValueError:
            return super().interceptions(query, limit=min(max(limit, 1), 1000))


class _SharesSessions(MemoryStore):
    """Shows a user what others did under the same session id."""

    def sessions(self, *, initiator: str | None = None, **question: Any) -> SessionPage:
        return super().sessions(initiator=None, **question)


class _RefusesRevokedFirst(MemoryStore):
    """Tells who has no secret that the key was revoked."""

    def _authorize(self, credential: Credential) -> Authorization:
        for row in self._keys.values():
            if row.key.revoked_at is not None:
                credential = Credential(key_id=row.key.id)
        return super()._authorize(credential)


class _RecordsTheRefused(MemoryStore):
    """Records before it authorises."""

    def admit(
        self, start: InterceptionStart | None, credential: Credential | None, **counting: Any
    ) -> Admission:
        if start is not None:
            self.record([start])
        return super().admit(start, credential, **counting)


class _TrustsTheStart(MemoryStore):
    """Keeps the initiator that the caller wrote."""

    def admit(
        self, start: InterceptionStart | None, credential: Credential | None, **counting: Any
    ) -> Admission:
        super().admit(start, None)
        return super().admit(None, credential, **counting)


class _ForgetsUse(MemoryStore):
    """Putting a key again forgets its last use."""

    def put_api_key(self, row: APIKeyRow) -> None:
        self._keys.pop(row.key.id, None)
        super().put_api_key(row)


class _SeedsAlways(MemoryStore):
    """Stores what it is seeded with, each time."""

    def seed_config(self, table: str, rows: Mapping[str, str], digest: str) -> str | None:
        before = super().seed_config(table, rows, digest)
        for name, text in rows.items():
            self.put_config_row(table, name, text)
        return before


class _WatchBeginsWithAChange(MemoryStore):
    """A watch says nothing of the version on subscribing."""

    @contextmanager
    def watch_config(self) -> Iterator[Iterator[int]]:
        with super().watch_config() as versions:
            yield itertools.islice(versions, 1, None)


class _NeverMaintains(MemoryStore):
    """Has no upkeep."""

    def maintain(self) -> None:
        pass


MUTANTS: tuple[tuple[type[MemoryStore], str], ...] = (
    (_CountsReplays, "test_any_order_and_any_repetition_give_the_same"),
    (_LastEndWins, "test_the_first_end_counts"),
    (_SweepStays, "test_a_real_end_takes_the_place_of_a_sweeps"),
    (_SweepsTheLiving, "test_what_a_dead_worker_left_is_interrupted"),
    (_DropsEarlyRecords, "test_records_wait_for_their_start"),
    (_DropsEarlyRecords, "test_any_order_and_any_repetition_give_the_same"),
    (_StoresHalfABatch, "test_a_batch_with_an_impossible_record_is_refused_whole"),
    (_RoundsTimes, "test_every_field_of_every_record_comes_back"),
    (_KeepsContent, "test_without_content_the_accounting_stays"),
    (_KeepsAllContent, "test_content_goes_before_the_accounting"),
    (_KeepsRollUps, "test_what_is_past_its_retention_is_deleted"),
    (_NeverMaintains, "test_what_is_past_its_retention_is_deleted"),
    (_ForgetsStatusWithUser, "test_any_two_filters_meet"),
    (_AsksOncePerPage, "test_pages_are_newest_first_and_end"),
    (_TakesAnyCursor, "test_what_is_no_cursor_is_refused"),
    (_TakesAnyCursor, "test_a_cursor_goes_on_with_its_own_question_only"),
    (_SharesSessions, "test_sessions_are_what_they_hold_whatever_is_asked"),
    (_KnowsNoCalls, "test_the_turns_of_a_loop_are_a_thread"),
    (_WantsCallsFirst, "test_an_admission_finds_what_it_goes_on_with"),
    (_WantsCallsFirst, "test_any_order_of_any_turns_gives_the_same_threads"),
    (_TrustsCalls, "test_threads_are_of_one_user_one_session_and_one_shard"),
    (_RefusesRevokedFirst, "test_a_credential_is_refused_for_the_first_reason_there_is"),
    (_RecordsTheRefused, "test_a_credential_is_refused_for_the_first_reason_there_is"),
    (_TrustsTheStart, "test_an_admission_records_on_whose_behalf"),
    (_ForgetsUse, "test_use_is_noted_and_outlives_a_change"),
    (_SeedsAlways, "test_a_table_is_seeded_once"),
    (_WatchBeginsWithAChange, "test_a_watch_of_an_untouched_store_begins_with_0"),
)


SEARCHED = 500
"""Examples of a property, until one finds the defect: what a suite finds in most of its runs, it finds here in all."""


@pytest.fixture
def first_failure(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """That a test fails is enough here: no smaller example is looked for."""
    for module in ("contract_lineage", "contract_pages", "contract_recording", "contract_summaries"):
        monkeypatch.setattr(f"tests.services.{module}.EXAMPLES", SEARCHED)
    before = settings.get_current_profile_name()
    settings.register_profile("first failure", settings.get_profile(before), phases=[Phase.generate])
    settings.load_profile("first failure")
    yield
    settings.load_profile(before)


@pytest.mark.usefixtures("first_failure")
@pytest.mark.parametrize(("mutant", "test"), MUTANTS)
def test_a_store_that_breaks_the_contract_fails_the_suite(
    mutant: type[MemoryStore], test: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the test that is for it."""
    monkeypatch.setattr("tests.services.contract_records.DEADLINE", 1.5)
    monkeypatch.setattr("tests.services.contract_config.DEADLINE", 1.5)
    assert [error for call in _calls(test) for error in [_error_of(call, mutant)] if error], "no test failed"


@pytest.mark.parametrize("test", sorted({test for _, test in MUTANTS}))
def test_the_same_calls_pass_without_a_defect(test: str) -> None:
    """What finds a mutant finds nothing in the store that it is made of."""
    assert [_error_of(call, MemoryStore) for call in _calls(test)] == [None] * len(_calls(test))


Call = Callable[[type[MemoryStore]], None]


def _calls(test: str) -> list[Call]:
    """A test of the contract with each of its parameters, given a kind of store."""
    method = getattr(StoreContract(), test)
    wanted = inspect.signature(method).parameters

    def call(arguments: dict[str, Any], kind: type[MemoryStore]) -> None:
        fixtures = {"make_store": kind} if "make_store" in wanted else {"store": kind()}
        method(**fixtures, **arguments)

    return [partial(call, arguments) for arguments in _parameters(method)]


def _parameters(method: Any) -> list[dict[str, Any]]:
    marks = [mark for mark in getattr(method, "pytestmark", []) if mark.name == "parametrize"]
    if not marks:
        return [{}]
    (mark,) = marks
    names = mark.args[0].split(",") if isinstance(mark.args[0], str) else list(mark.args[0])
    rows = mark.args[1]
    return [dict(zip(names, row if len(names) > 1 else (row,), strict=True)) for row in rows]


def _error_of(call: Call, kind: type[MemoryStore]) -> BaseException | None:
    try:
        call(kind)
    except (Exception, pytest.fail.Exception) as error:
        return error
    return None


def test_a_mutant_differs_from_the_store_it_is_made_of() -> None:
    """The overridden private methods are still there to be overridden."""
    for name in ("_use", "_end", "_start", "_roll_up"):
        assert callable(getattr(memory_ledger.Ledger, name))
