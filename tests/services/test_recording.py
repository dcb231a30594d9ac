"""The recorder that a bridge holds: who is admitted, what is stored, in how many calls, and never in the way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import pytest

from flask_aibridge.config import parse_rate_limit
from flask_aibridge.errors import InvalidRecord, NotRecorded, RateLimited, ServicesUnavailable, Unauthorized
from flask_aibridge.services.interfaces import Admission, Authorization, Credential, Scopes
from flask_aibridge.services.recording import queue as recording_queue
from flask_aibridge.services.recording import writer as recording_writer
from flask_aibridge.services.recording.delivery import MAX_REPLAYS
from flask_aibridge.services.recording.recorder import Recording, RecordingMode
from flask_aibridge.services.records import (
    InterceptionEnd,
    InterceptionStart,
    ModelThought,
    ToolUsage,
    without_content,
)
from flask_aibridge.services.spool.spool import Spool
from tests.services.switched_services import (
    STARTED,
    SwitchedServices,
    end,
    new_id,
    prompt,
    start,
    usage,
    wait_for,
)

pytestmark = pytest.mark.usefixtures("no_leaks")

KEY = Credential(key=f"aib_{'a' * 12}_{'S' * 43}")
OTHER = Credential(key=f"aib_{'b' * 12}_{'S' * 43}")
ADA = Authorization("ada", "a" * 12, "laptop", Scopes(models=("gpt-*",)))


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def services() -> SwitchedServices:
    services = SwitchedServices()
    services.authorizations = {str(KEY.key): ADA}
    return services


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def recording(services: SwitchedServices, spool: Spool) -> Iterator[Recording]:
    recording = Recording(services, spool=spool)
    yield recording
    services.gate.set()
    recording.close()


def stored_ids(services: SwitchedServices) -> set[str]:
    return {record.id for batch in services.batches for record in batch}


def test_nothing_is_started_before_the_first_record(services: SwitchedServices, spool: Spool) -> None:
    """Neither a thread nor a call nor a file."""
    before = threading.active_count()
    recording = Recording(services, spool=spool)
    recording.state()
    recording.admit(None, None)

    assert threading.active_count() == before
    assert services.calls == ["admit"]
    recording.close()
    assert not spool.folder.exists()


def test_an_admission_is_one_call(services: SwitchedServices, recording: Recording) -> None:
    """It records the start under this process' name, and says whose credential it is and which version there is."""
    services.version = 7
    interception = new_id()
    admission = recording.admit(start(interception), KEY)

    assert (admission.authorization, admission.config_version) == (ADA, 7)
    assert services.count("admit") == 1
    assert services.count("authorize") == 0
    view = services.store.interception(interception)
    assert view is not None
    assert view.start.worker == recording.worker


def test_an_interceptions_records_are_stored_in_one_call(
    services: SwitchedServices, recording: Recording
) -> None:
    """The prompt, which is known early, waits for the usage and the end."""
    interception = new_id()
    recording.admit(start(interception), None)
    for record in (prompt(interception), usage(interception), end(interception)):
        recording.record(record)
    services.wait_for(lambda: services.batches)

    assert [type(record).__name__ for record in services.batches[0]] == [
        "PromptUsage",
        "TokenUsage",
        "InterceptionEnd",
    ]
    assert services.count("record") == 1


def test_a_hundred_interceptions_take_no_more_calls_than_that(
    services: SwitchedServices, recording: Recording
) -> None:
    """At most one round trip for each, besides its admission; at once, far fewer."""
    for _ in range(100):
        interception = new_id()
        recording.admit(start(interception), None)
        for record in (prompt(interception), usage(interception), end(interception)):
            recording.record(record)
    recording.close()

    assert sum(len(batch) for batch in services.batches) == 300
    assert services.count("record") <= 100
    assert services.count("admit") == 100


def test_batches_are_bounded(services: SwitchedServices, recording: Recording) -> None:
    """In records and in bytes."""
    services.gate.clear()
    interception = new_id()
    for _ in range(1200):
        recording.record(usage(interception))
    for _ in range(6):
        recording.record(prompt(interception, "x" * 500_000))
    services.gate.set()
    recording.close()

    sizes = [len(batch) for batch in services.batches]
    assert max(sizes) <= recording_queue.BATCH_RECORDS
    assert sum(sizes) == 1206
    assert (
        max(sum(map(recording_queue.size_of, batch)) for batch in services.batches)
        < 2 * recording_queue.BATCH_BYTES
    )


def test_a_lone_prompt_does_not_wait_for_ever(services: SwitchedServices, clock: Clock) -> None:
    """Content goes alone after a while; the accounting does not wait so long."""
    queue = recording_queue.RecordQueue(lambda: None, clock)
    queue.put(prompt(new_id()))
    assert queue.due_at == clock.now + recording_queue.CONTENT_LINGER_SECONDS
    queue.put(usage(new_id()))
    assert queue.due_at == clock.now + recording_queue.LINGER_SECONDS


def test_content_is_not_recorded_where_it_is_not_wanted(services: SwitchedServices, spool: Spool) -> None:
    """The accounting is."""
    recording = Recording(services, spool=spool, record_content=False)
    interception = new_id()
    recording.record(prompt(interception))
    recording.record(ToolUsage(id="t", interception_id=interception, tool="ls", created_at=STARTED))
    recording.record(ModelThought(id="m", interception_id=interception, content="Hm.", created_at=STARTED))
    recording.record(usage(interception))
    recording.close()

    assert [type(record).__name__ for batch in services.batches for record in batch] == ["TokenUsage"]


@pytest.mark.parametrize(
    ("status", "message", "kept"),
    [
        ("upstream_error", "overloaded_error: too many secrets", "overloaded_error"),
        ("upstream_error", "overloaded_error", "overloaded_error"),
        ("upstream_error", "'secrets' is too long", None),
        ("upstream_error", "secrets that go on and on: for a word", None),
        ("upstream_error", None, None),
        ("upstream_truncated", "InvalidChunkLength: b'secrets'", "InvalidChunkLength"),
        ("refused", "This API key is not for that.", "This API key is not for that."),
        ("interrupted", "internal error", "internal error"),
    ],
)
def test_without_content_a_providers_sentence_is_none_either(
    status: Any, message: str | None, kept: str | None
) -> None:
    """It may quote the prompt. The bridge's own sentences quote nothing."""
    end = InterceptionEnd(
        id="e", interception_id=new_id(), status=status, error_message=message, ended_at=STARTED
    )
    stripped = without_content(end)
    assert isinstance(stripped, InterceptionEnd)
    assert stripped == replace(end, error_message=kept)


def test_the_services_refusal_is_the_callers(services: SwitchedServices, recording: Recording) -> None:
    """Nothing is recorded then."""
    with pytest.raises(Unauthorized) as refused:
        recording.admit(start(), OTHER)

    assert refused.value.reason == "unknown"


# The services are away


def test_a_key_seen_lately_is_accepted_while_they_are_away(
    services: SwitchedServices, recording: Recording, spool: Spool
) -> None:
    """With its scopes, under the last version seen; the start is spooled on the key's behalf, and stored later."""
    services.version = 7
    recording.admit(start(), KEY)
    services.away = True
    interception = new_id()
    admission = recording.admit(start(interception), KEY)

    assert (admission.authorization, admission.config_version) == (ADA, 7)
    assert recording.state().services_away_since is not None
    services.away = False
    wait_for(lambda: spool.records == 0)
    view = services.store.interception(interception)
    assert view is not None
    assert (view.start.initiator, view.start.key_id, view.start.worker) == ("ada", "a" * 12, recording.worker)
    assert recording.state().services_away_since is None


def test_a_key_that_was_not_seen_waits_for_them(services: SwitchedServices, recording: Recording) -> None:
    """503 for its owner; nothing is spooled for a caller that nobody knows."""
    services.away = True
    with pytest.raises(ServicesUnavailable):
        recording.admit(start(), KEY)

    assert recording.state().spooled_records == 0


def test_a_key_that_was_seen_refused_is_not_accepted(
    services: SwitchedServices, recording: Recording
) -> None:
    """Revoked, and then the store goes away."""
    recording.admit(start(), KEY)
    services.refused = Unauthorized("revoked")
    with pytest.raises(Unauthorized):
        recording.admit(start(), KEY)
    services.away = True

    with pytest.raises(ServicesUnavailable):
        recording.admit(start(), KEY)


def test_ten_minutes_later_a_key_is_not_accepted(
    services: SwitchedServices, spool: Spool, clock: Clock
) -> None:
    """However often it was meanwhile."""
    recording = Recording(services, spool=spool, clock=clock)
    recording.admit(None, KEY)
    services.away = True
    for _ in range(10):
        clock.now += 60
        assert recording.admit(None, KEY).authorization == ADA
    clock.now += 1

    with pytest.raises(ServicesUnavailable):
        recording.admit(None, KEY)


def test_a_key_that_needs_no_store_is_accepted(services: SwitchedServices, recording: Recording) -> None:
    """The authorizer itself knows the keys of the configuration."""
    services.away = True
    services.authorize = lambda credential: Authorization("static")  # type: ignore[method-assign]

    assert recording.admit(start(), OTHER).authorization == Authorization("static")
    assert recording.state().spooled_records == 1


def test_a_rate_limit_is_kept_by_each_process_while_they_are_away(
    services: SwitchedServices, spool: Spool
) -> None:
    """Its own, or else the gateway's; not for callers in process. Nothing of what is refused is spooled."""
    own = Authorization("alice", "own", rate_limit=parse_rate_limit("1/day"))
    services.authorizations = {"own": own, "other": Authorization("bob", "other")}
    now = [1000.0]
    recording = Recording(
        services, spool=spool, rate_limit=parse_rate_limit("2/minute"), clock=lambda: now[0]
    )
    try:
        for key in ("own", "other"):
            recording.admit(None, Credential(key=key))
        services.away = True
        for key, allowed in (("own", 1), ("other", 2)):
            remaining = [recording.admit(start(), Credential(key=key)).rate for _ in range(allowed)]
            assert [each and each.remaining for each in remaining] == [*range(allowed)][::-1]
            spooled = recording.state().spooled_records
            with pytest.raises(RateLimited):
                recording.admit(start(), Credential(key=key))
            assert recording.state().spooled_records == spooled
        now[0] += 30
        assert recording.admit(start(), Credential(key="other")).rate is not None
        services.away = False
    finally:
        recording.close()


def test_a_credential_is_checked_without_asking_where_it_was_accepted_lately(
    recording: Recording, services: SwitchedServices
) -> None:
    """Else it is asked for once; one that is refused is refused each time."""
    services.authorizations = {"mine": Authorization("alice", "k1")}
    mine, wrong = Credential(key="mine"), Credential(key="wrong")
    for _ in range(3):
        recording.check(mine)
        with pytest.raises(Unauthorized):
            recording.check(wrong)
    assert [call for call in services.calls if call == "authorize"] == ["authorize"] * 4
    services.away = True
    recording.check(mine)
    with pytest.raises(ServicesUnavailable):
        recording.check(wrong)


def test_services_that_are_away_are_not_asked_with_every_request(
    services: SwitchedServices, recording: Recording
) -> None:
    """The writer tries them now and then; requests pass at once."""
    recording.admit(start(), KEY)
    services.away = True
    recording.admit(start(), KEY)
    asked, begun = services.count("admit"), perf_counter()
    for _ in range(200):
        recording.admit(start(), KEY)

    assert services.count("admit") == asked
    assert perf_counter() - begun < 200 * 0.005  # 5 ms each is what an outage may cost
    assert recording.state().spooled_records == 201


def test_records_are_spooled_and_stored_later(
    services: SwitchedServices, recording: Recording, spool: Spool
) -> None:
    """Each once."""
    ids = [new_id() for _ in range(50)]
    services.away = True
    for each in ids:
        recording.admit(start(each), None)
        recording.record(usage(each, tokens=3))
        recording.record(end(each))
    wait_for(lambda: recording.state().spooled_records == 150)
    services.away = False
    wait_for(lambda: spool.records == 0)

    for each in ids:
        view = services.store.interception(each)
        assert view is not None
        assert (view.status, view.tokens.input) == ("completed", 3)


@pytest.mark.parametrize("mode", ["required", "best-effort"])
def test_without_a_spool_an_outage_refuses_requests_or_loses_starts(
    services: SwitchedServices, mode: RecordingMode
) -> None:
    """Required: not recorded, and coming again does not help. Best effort: it passes, and is counted."""
    recording = Recording(services, spool=None, mode=mode)
    services.away = True
    if mode == "required":
        with pytest.raises(NotRecorded) as refused:
            recording.admit(start(), None)
        assert refused.value.retry_after is None
    else:
        recording.admit(start(), None)
        assert recording.state().dropped == 1
    recording.admit(None, None)  # what is not recorded is not refused
    recording.close()


def test_a_full_spool_refuses_starts_and_takes_ends(services: SwitchedServices, tmp_path: Path) -> None:
    """Until the services are back, clients are told when to come again; what runs can still be ended."""
    spool = Spool(tmp_path / "spool", max_bytes=8000)
    recording = Recording(services, spool=spool)
    services.away = True
    ids: list[str] = []

    def admit_many() -> None:
        for _ in range(100):
            interception = new_id()
            recording.admit(start(interception), None)
            ids.append(interception)

    with pytest.raises(NotRecorded) as refused:
        admit_many()
    assert refused.value.retry_after
    assert len(ids) > 10
    for each in ids[:4]:
        recording.record(end(each))
    wait_for(lambda: spool.records == len(ids) + 4)
    services.away = False
    wait_for(lambda: spool.records == 0)

    recording.admit(start(), None)
    recording.close()
    assert [services.store.interception(each) is not None for each in ids] == [True] * len(ids)


def test_a_full_queue_overflows_into_the_spool_and_then_drops_the_newest(
    services: SwitchedServices, tmp_path: Path
) -> None:
    """A store that hangs: everything is bounded, what is lost is counted, and new requests are refused meanwhile."""
    spool = Spool(tmp_path / "spool", max_bytes=4000)
    recording = Recording(services, spool=spool)
    queue = recording._writer.queue
    queue._max_records = 100
    services.gate.clear()
    records = [usage(new_id()) for _ in range(300)]
    recording.record(records[0])
    wait_for(lambda: len(queue) == 0)
    for record in records[1:]:
        recording.record(record)
    state = recording.state()

    assert state.queued == 100
    assert state.spooled_records > 5
    assert state.spooled_bytes <= 4000
    assert state.dropped == 300 - 1 - 100 - state.spooled_records
    assert state.oldest_age >= 0
    with pytest.raises(NotRecorded) as refused:
        recording.admit(start(), None)
    assert refused.value.retry_after
    services.gate.set()
    recording.close()
    stored = stored_ids(services)
    assert stored >= {record.id for record in records[:101]}
    assert len(stored | {record.id for record in Spool(spool.folder).batch(100, 2**20, orphans=True)}) == (
        300 - state.dropped
    )


def test_bytes_are_bounded_too(clock: Clock) -> None:
    """However few records there are; metadata counts."""
    queue = recording_queue.RecordQueue(lambda: None, clock, max_bytes=100_000)
    interception = new_id()
    assert queue.put(prompt(interception, "x" * 60_000))
    assert not queue.put(prompt(interception, "x" * 60_000))
    large = usage(interception)
    object.__setattr__(large, "metadata", {"a": ["x" * 60_000, {"b": None}]})
    assert not queue.put(large)
    assert queue.put(usage(interception))
    assert len(queue.take()) == 2
    assert queue.size == 0


# Admitted, or not, and stopped


def lose_the_answer(services: SwitchedServices, *, not_asked: bool = False) -> None:
    """The start is stored, and nobody is told."""
    admit = services.admit

    def admit_and_fail(start: InterceptionStart | None, credential: Credential | None) -> Admission:
        admit(start, credential)
        services.away = True
        raise ServicesUnavailable("The answer did not come in time.", not_asked=not_asked)

    services.admit = admit_and_fail  # type: ignore[method-assign]


def test_a_start_that_may_be_stored_is_ended_where_the_request_is_refused(
    services: SwitchedServices, recording: Recording
) -> None:
    """Nothing stays running for a request that did not go on."""
    lose_the_answer(services)
    interception = new_id()
    with pytest.raises(ServicesUnavailable):
        recording.admit(start(interception), KEY)
    services.away = False
    services.wait_for(lambda: services.batches)
    view = services.store.interception(interception)

    assert view is not None
    assert (view.status, view.start.worker) == ("refused", recording.worker)
    recording.close()
    after = services.store.interception(interception)
    assert after is not None
    assert after.status == "refused"


def test_a_start_that_may_be_stored_is_ended_where_nothing_takes_it(services: SwitchedServices) -> None:
    """The key is known, and there is no spool."""
    recording = Recording(services, spool=None)
    recording.admit(None, KEY)
    lose_the_answer(services)
    interception = new_id()
    with pytest.raises(NotRecorded):
        recording.admit(start(interception), KEY)
    services.away = False
    services.wait_for(lambda: services.batches)
    recording.close()
    view = services.store.interception(interception)

    assert view is not None
    assert view.status == "refused"


def test_a_request_that_is_ended_from_outside_ends_its_start_too(
    services: SwitchedServices, recording: Recording
) -> None:
    """As the greenlet of one can be, while it waits for the services."""

    def fail(start: InterceptionStart | None, credential: Credential | None) -> Admission:
        raise GeneratorExit

    services.admit = fail  # type: ignore[method-assign]
    with pytest.raises(GeneratorExit):
        recording.admit(start(), KEY)
    recording.close()

    assert [type(record).__name__ for batch in services.batches for record in batch] == ["InterceptionEnd"]


def test_services_that_were_not_asked_leave_nothing_to_end(
    services: SwitchedServices, recording: Recording
) -> None:
    """So that a flood of requests that are refused does not fill the spool."""
    lose_the_answer(services, not_asked=True)
    with pytest.raises(ServicesUnavailable):
        recording.admit(start(), KEY)

    assert recording.state().queued == 0
    services.away = False
    recording.close()
    assert services.batches == []


def test_what_is_refused_is_not_recorded(services: SwitchedServices, recording: Recording) -> None:
    """Neither its start nor an end."""
    with pytest.raises(Unauthorized):
        recording.admit(start(), OTHER)
    recording.close()

    assert services.batches == []


@pytest.mark.parametrize("exits", [False, True])
def test_what_runs_when_the_process_stops_is_interrupted(
    services: SwitchedServices, recording: Recording, exits: bool
) -> None:
    """Stored, spooled or ended alike; a real end that comes later takes its place."""
    running, ended, late = new_id(), new_id(), new_id()
    for each in (running, ended, late):
        recording.admit(start(each), KEY)
    recording.admit(None, KEY)
    recording.record(end(ended))
    if exits:
        recording._writer.exit(monotonic() + 20)
    else:
        recording.close()

    def statuses() -> list[str]:
        views = [services.store.interception(each) for each in (running, ended, late)]
        return [view.status for view in views if view is not None]

    assert statuses() == ["interrupted", "completed", "interrupted"]
    recording.record(end(late))
    recording._writer._is_exiting = False
    recording.close()
    recording.record(usage(new_id()))  # starts the thread, which replays what was spooled
    services.wait_for(lambda: statuses() == ["interrupted", "completed", "completed"])


def test_what_runs_while_the_services_are_away_is_interrupted_in_the_spool(
    services: SwitchedServices, recording: Recording, spool: Spool
) -> None:
    """The next process stores both."""
    recording.admit(start(), KEY)
    services.away = True
    interception = new_id()
    recording.admit(start(interception), KEY)
    recording.close()
    services.away = False
    later = Recording(services, spool=Spool(spool.folder))
    later.record(usage(interception))

    def is_interrupted() -> bool:
        view = services.store.interception(interception)
        return view is not None and view.status == "interrupted"

    services.wait_for(is_interrupted)
    later.close()


# Records that cannot be stored


def test_a_record_that_is_refused_costs_no_other(
    services: SwitchedServices, recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named in the log, without what is in it."""
    interception = new_id()
    services.invalid = {"bad1", "bad\n2"}
    ids = [f"u{number}" for number in range(40)]
    for each in [*ids[:10], "bad1", *ids[10:], "bad\n2"]:
        recording.record(usage(interception, each))
    recording.close()

    assert sorted(record.id for batch in services.batches for record in batch) == sorted(ids)
    assert recording.state().dropped == 2
    assert f"TokenUsage bad1 of interception {interception} cannot be stored" in caplog.text
    assert "TokenUsage bad\\n2 of" in caplog.text
    assert recording.state().spooled_records == 0


def test_a_record_that_breaks_the_store_costs_no_other(
    services: SwitchedServices, recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that no recorder should raise, for one record in many."""
    interception = new_id()
    services.unexpected = {"bad": TypeError("my secret prompt")}
    for each in ["bad", *(f"u{number}" for number in range(40))]:
        recording.record(usage(interception, each))
    recording.close()

    assert sum(len(batch) for batch in services.batches) == 40
    assert recording.state().dropped == 1
    assert "please report this" in caplog.text
    assert "secret" not in caplog.text


def test_a_store_that_breaks_with_everything_is_away(
    services: SwitchedServices, recording: Recording, spool: Spool
) -> None:
    """Nothing is given up: the records wait in the spool."""
    records = [usage(new_id(), f"u{number}") for number in range(40)]
    services.unexpected = {record.id: TypeError() for record in records}
    for record in records:
        recording.record(record)
    wait_for(lambda: recording.state().spooled_records == 40)
    services.unexpected = {}
    wait_for(lambda: recording.state().spooled_records == 0)

    assert recording.state().dropped == 0
    assert len(stored_ids(services)) == 40


def test_a_record_that_breaks_the_spool_costs_no_other(
    services: SwitchedServices, recording: Recording
) -> None:
    """An error that no record should raise, in the midst of a batch."""

    class Odd(dict[str, object]):
        def keys(self) -> Any:
            raise RuntimeError("a defect")

    services.away = True
    odd = usage(new_id())
    object.__setattr__(odd, "metadata", Odd(a=1))
    for record in (usage(new_id(), "first"), odd, usage(new_id(), "last")):
        recording.record(record)
    wait_for(lambda: recording.state().spooled_records == 2)
    services.away = False
    services.wait_for(lambda: stored_ids(services) == {"first", "last"})

    assert recording.state().dropped == 1


def test_a_record_that_breaks_the_store_alone_does_not_hold_up_the_spool(
    services: SwitchedServices, spool: Spool, clock: Clock
) -> None:
    """It is set aside once others are stored and it never is."""
    writer = recording_writer.Writer(services, spool, "w", clock)
    services.unexpected = {"bad": TypeError()}
    spool.append([usage(new_id(), "bad")])
    for number in range(100):
        clock.now += 6
        writer.turn()
        assert spool.records or number >= MAX_REPLAYS - 1
        writer.queue.put(usage(new_id(), f"u{number}"))
    assert spool.records == 0
    assert stored_ids(services) >= {f"u{number}" for number in range(98)}
    assert [path.suffix for path in spool.folder.iterdir()] == [".damaged"]
    assert writer.losses.dropped == writer.losses.refused == 0
    writer.exit(monotonic())


@pytest.mark.parametrize("mode", ["required", "best-effort"])
def test_a_start_that_cannot_be_stored(services: SwitchedServices, spool: Spool, mode: RecordingMode) -> None:
    """Required: the request is refused. Best effort: it passes, if its credential is good."""
    recording = Recording(services, spool=spool, mode=mode)
    bad = start()
    services.invalid = {bad.id}
    if mode == "required":
        with pytest.raises(NotRecorded) as refused:
            recording.admit(bad, KEY)
        assert isinstance(refused.value.__cause__, InvalidRecord)
    else:
        assert recording.admit(bad, KEY).authorization == ADA
        with pytest.raises(Unauthorized):
            recording.admit(bad, OTHER)
    assert recording.state().dropped >= 1
    recording.close()


def test_what_is_no_record_does_not_raise(
    services: SwitchedServices, recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does it stop anything else, with the services away or not."""
    for away in (True, False):
        services.away = away
        recording.record(object())  # type: ignore[arg-type]
        recording.record(usage(new_id(), f"after-{away}"))
        wait_for(lambda: recording.state().queued == 0)
    wait_for(lambda: stored_ids(services) == {"after-True", "after-False"})


# The thread


def test_the_lease_is_renewed_at_once_and_upkeep_done(
    services: SwitchedServices, recording: Recording
) -> None:
    """From the first admission on, before anybody could believe this process dead."""
    recording.admit(start(), None)
    services.wait_for(lambda: services.count("renew") and services.count("maintain"))

    assert f"renew {recording.worker}" in services.calls


def test_upkeep_is_regular(services: SwitchedServices, spool: Spool, clock: Clock) -> None:
    """The lease four times in its life; never while the services are away, but to see whether they are back."""
    writer = recording_writer.Writer(services, spool, "w", clock)
    for _ in range(600):
        clock.now += 0.1
        writer.turn()
    assert services.count("renew") == 4
    assert 12 <= services.count("maintain") <= 25
    services.away = True
    services.calls.clear()
    for _ in range(600):
        clock.now += 0.1
        writer.turn()
    assert services.count("maintain") <= 1
    assert 12 <= services.count("renew") <= 40


def test_an_error_that_nobody_expected_does_not_stop_the_thread(
    services: SwitchedServices,
    recording: Recording,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged, and the records are stored after a rest."""
    broken = threading.Event()

    def break_once(*_: object) -> None:
        monkeypatch.undo()
        broken.set()
        raise LookupError("a defect")

    monkeypatch.setattr(recording._writer, "_do_upkeep", break_once)
    recording.record(usage(new_id()))
    assert broken.wait(20)
    services.wait_for(lambda: services.batches)

    assert "LookupError" in caplog.text


def test_a_thread_that_was_ended_is_started_again(
    services: SwitchedServices, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a greenlet can be, from outside."""
    ended = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: ended.set())
    services.record = lambda records: (_ for _ in ()).throw(SystemExit(3))  # type: ignore[method-assign]
    recording.record(usage(new_id(), "first"))
    wait_for(lambda: not recording._writer.is_running and recording._writer._renew_at > 0)
    del services.record
    recording.record(usage(new_id(), "second"))
    services.wait_for(lambda: services.batches)
    recording.close()

    assert stored_ids(services) == {"first", "second"}


def test_close_stores_what_waits_and_ends_the_thread(services: SwitchedServices, spool: Spool) -> None:
    """Even what would have waited for more; a record that comes later starts another thread."""
    recording = Recording(services, spool=spool)
    recording.record(prompt(new_id()))
    recording.close()
    assert len(services.batches) == 1
    assert not recording._writer.is_running
    recording.close()
    recording.record(end(new_id()))
    recording.close()

    assert len(services.batches) == 2


def test_close_spools_what_cannot_be_stored(services: SwitchedServices, spool: Spool) -> None:
    """For whichever process comes next."""
    recording = Recording(services, spool=spool)
    services.away = True
    for _ in range(10):
        recording.record(usage(new_id()))
    recording.close()
    services.away = False
    later = Recording(services, spool=Spool(spool.folder))
    later.record(end(new_id()))
    services.wait_for(lambda: sum(len(batch) for batch in services.batches) == 11)
    later.close()


def test_close_does_not_wait_for_a_store_that_hangs(services: SwitchedServices, spool: Spool) -> None:
    """What is on its way is spooled as well: nobody can tell whether it arrives."""
    recording = Recording(services, spool=spool)
    services.gate.clear()
    recording.record(usage(new_id(), "under-way"))
    wait_for(lambda: len(recording._writer.queue) == 0)
    recording.record(usage(new_id(), "waiting"))
    begun = perf_counter()
    recording.close(0.05)
    assert perf_counter() - begun < 5
    batch = Spool(spool.folder).batch(10, 2**20, orphans=True)
    services.gate.set()
    wait_for(lambda: not recording._writer.is_running)

    assert [record.id for record in batch] == ["under-way", "waiting"]


def test_without_a_spool_close_counts_what_is_lost(services: SwitchedServices) -> None:
    """It does not hang for it."""
    recording = Recording(services, spool=None, mode="best-effort")
    services.away = True
    for _ in range(10):
        recording.record(usage(new_id()))
    recording.close()

    assert recording.state().dropped == 10


def test_without_a_spool_records_wait_in_memory(services: SwitchedServices) -> None:
    """Up to the bound; they are stored when the services are back."""
    recording = Recording(services, spool=None, mode="best-effort")
    services.away = True
    for _ in range(10):
        recording.record(usage(new_id()))
    services.wait_for(lambda: services.count("renew") > 2)
    assert recording.state().queued == 10
    services.away = False
    services.wait_for(lambda: services.batches)
    recording.close()

    assert len(services.batches[0]) == 10


def test_recording_is_cheap(services: SwitchedServices, recording: Recording) -> None:
    """Some microseconds for the caller; a hundred is what a busy machine may make of it."""
    interception = new_id()
    records = [usage(interception) for _ in range(2000)]
    begun = perf_counter()
    for record in records:
        recording.record(record)

    assert (perf_counter() - begun) / 2000 < 100e-6


def test_no_secret_is_shown(
    services: SwitchedServices, recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither keys nor prompts: in representations, logs and errors."""
    caplog.set_level(logging.DEBUG)
    recording.admit(start(), KEY)
    services.away = True
    recording.record(prompt(new_id(), "my secret"))
    with pytest.raises(ServicesUnavailable) as failed:
        recording.admit(start(), OTHER)
    recording.close()

    assert "S" * 43 not in caplog.text + repr(recording) + str(failed.value)
    assert "my secret" not in caplog.text + repr(recording) + repr(vars(recording))


def test_the_state_is_zero_at_rest(recording: Recording) -> None:
    """What a readiness check reads as: nothing is behind."""
    state = recording.state()

    assert (state.queued, state.queued_bytes, state.spooled_records, state.spooled_bytes) == (0, 0, 0, 0)
    assert (state.dropped, state.oldest_age, state.services_away_since) == (0, 0.0, None)
