"""What the scripts write, and that they write it once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_aibridge.errors import ServicesUnavailable, Unauthorized
from flask_aibridge.services.api_keys import generate, new_row, revoked, spell
from flask_aibridge.services.interfaces import Credential, Scopes
from flask_aibridge.services.records import (
    ENDS,
    GONE,
    MAX_TOKENS,
    SHARDS,
    Record,
    milliseconds_of,
    shard_of_key,
    stand_in_end,
)
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Keys, hour_of
from flask_aibridge.services.redis.recording import RECORDS_PER_CALL
from flask_aibridge.services.redis.store import RedisStore
from flask_aibridge.services.storage import APIKeyRow, Query
from tests.services.contract_lineage import a_loop
from tests.services.contract_records import (
    a_full_start,
    a_full_tool_call,
    a_prompt,
    a_start,
    a_usage,
    an_end,
    everything_of,
    now,
)
from tests.services.deployments import Cluster
from tests.services.redis_contents import Client, calls_of, contents
from tests.services.servers import Running, Server, wait_until

KEY_ID, SECRET = generate(bytes(range(40)))
SHARD = shard_of_key(KEY_ID)
CREDENTIAL = Credential(key=spell(KEY_ID, SECRET))


@pytest.fixture
def connection(one_redis_url: str) -> Iterator[RedisConnection]:
    with closing(RedisConnection(one_redis_url)) as connection:
        yield connection


@pytest.fixture
def client(one_redis_server: Running) -> Iterator[Client]:
    """Looks at the server past the store."""
    assert isinstance(one_redis_server, Server)
    with one_redis_server.client() as client:
        yield client


@pytest.fixture
def store(connection: RedisConnection, redis_prefix: str) -> RedisStore:
    return RedisStore(connection, keys=Keys(redis_prefix))


def a_row(**fields: Any) -> APIKeyRow:
    row = new_row(KEY_ID, SECRET, owner="bob/é", now=now(), display_name="Bob's", **fields)
    return replace(row, key=replace(row.key, scopes=Scopes(("main",), ("gpt-*",))))


def test_an_interception_is_stored_as_the_keys_say(
    store: RedisStore, client: Client, redis_prefix: str
) -> None:
    """The table in ``keys`` is what other programs read by."""
    start = a_full_start(shard=10)
    records = everything_of(start)
    store.record([start, *records])
    found = contents(client, redis_prefix)
    shard = {name.removeprefix("{s10}:"): value for name, value in found.items()}
    interception = shard.pop(f"i:{start.id}")
    assert interception["start"]["initiator"] == start.initiator
    assert interception["end"]["status"] == interception["status"] == "upstream_error"
    assert {name: interception[name] for name in ("user", "provider", "model", "client", "source")} == {
        "user": start.initiator,
        "provider": start.provider,
        "model": start.model,
        "client": start.client,
        "source": start.source,
    }
    assert interception["t"]["input"] == 9
    assert set(shard.pop(f"c:{start.id}")) == {
        f"{letter}:{record.id}"
        for letter, record in zip(
            "ptm",
            [r for r in records if hasattr(r, "prompt") or hasattr(r, "tool") or hasattr(r, "content")],
            strict=True,
        )
    }
    assert [kind for kind, _ in shard.pop("stream")] == [
        "InterceptionStart",
        *(type(record).__name__ for record in records),
    ]
    roll_up = shard.pop(f"r:{hour_of(start.started_at)}")
    assert roll_up.pop('["alice","main","claude-fable-5","requests"]') == "1"
    assert roll_up.pop('["alice","main","claude-fable-5","x:web search: requests"]') == "51"
    milliseconds = float(milliseconds_of(start.started_at))
    session = f"s:{start.session_id}"
    link, call = interception["line"], interception["calls"]
    assert (len(link), len(call)) == (20, 20)
    (made,) = shard.pop("calls")
    assert len(made) == 52
    assert made.endswith(start.id)
    assert shard == {
        "answers": {f"{link}{start.id}": 0},
        "x": {start.id: 0},
        "x:user:alice": {start.id: 0},
        "x:provider:main": {start.id: 0},
        "x:model:claude-fable-5": {start.id: 0},
        f"x:session:{start.session_id}": {start.id: 0},
        "x=upstream_error": {start.id: 0},
        "x=upstream_error:user:alice": {start.id: 0},
        "x=upstream_error:provider:main": {start.id: 0},
        "x=upstream_error:model:claude-fable-5": {start.id: 0},
        f"x=upstream_error:session:{start.session_id}": {start.id: 0},
        "sessions": {f'["{session}","alice"]': milliseconds},
        "sessions:alice": {session: milliseconds},
        "names:model": {start.model: milliseconds},
        "names:model:alice": {start.model: milliseconds},
        "names:client": {start.client: milliseconds},
        "names:client:alice": {start.client: milliseconds},
        "content": {start.id: 0},
        "hours": {hour_of(start.started_at): 0},
    }


def _stored(client: Client, prefix: str) -> dict[str, Any]:
    """The stored form, without what tells the order in which it came."""
    found = contents(client, prefix)
    return {
        name: set(value) if name.endswith(":running") else value
        for name, value in found.items()
        if not name.endswith(":stream")
    }


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_records_may_come_in_any_order_and_any_number_of_times(
    data: st.DataObject, connection: RedisConnection, client: Client, redis_prefix: str
) -> None:
    """In whatever batches: what is stored in the end is the same."""
    client.flushall()
    at, session = now(), data.draw(st.sampled_from([None, "s"]), "session")
    starts = [
        a_start(
            at + timedelta(milliseconds=number),
            shard=shard,
            session_id=session,
            model="m",
            correlating_tool_call_id="call_1",  # as those of everything_of
        )
        for number, shard in enumerate((0, 0, 0, 7))
    ]
    records: list[Record] = [*starts]
    for start in starts:
        records += everything_of(start)
    records = [each for each in records if data.draw(st.booleans(), "is there")]
    expected = f"{redis_prefix}-expected"
    RedisStore(connection, keys=Keys(expected)).record(records)
    repeated = records + data.draw(st.lists(st.sampled_from(records)) if records else st.just([]), "twice")
    store = RedisStore(connection, keys=Keys(redis_prefix))
    left = data.draw(st.permutations(repeated), "order")
    while left:
        size = data.draw(st.integers(1, len(left)), "batch")
        store.record(left[:size])
        left = left[size:]
    assert _stored(client, redis_prefix) == _stored(client, expected)


def test_an_admission_is_one_round_trip(store: RedisStore, client: Client) -> None:
    """Authorisation, start and version together, in each of its forms."""
    store.put_api_key(a_row())
    store.admit(None, None)
    before = calls_of(client, "evalsha")
    store.admit(a_start(shard=SHARD), CREDENTIAL)
    store.admit(a_start(), None)
    store.admit(None, Credential(key_id=KEY_ID))
    store.authorize(CREDENTIAL)
    assert calls_of(client, "evalsha") - before == 4


def test_a_key_s_turns_are_traced_in_the_round_trips_that_there_are(
    store: RedisStore, client: Client
) -> None:
    """One admits, one records; under the key's owner, whom the start does not name yet."""
    store.put_api_key(a_row())
    first, second = (replace(start, initiator=None) for start, _ in a_loop(2, shard=SHARD))
    store.admit(None, None)
    store.record([a_start(shard=SHARD)])
    before = calls_of(client, "evalsha")
    store.admit(first, CREDENTIAL)
    store.record([replace(a_full_tool_call(first), tool_call_id="call_1"), an_end(first)])
    store.admit(second, CREDENTIAL)
    assert calls_of(client, "evalsha") - before == 3
    view = store.interception(second.id)
    assert view is not None
    assert (view.thread_parent_id, view.start.initiator) == (first.id, "bob/é")


def test_a_batch_is_one_call_for_each_shard(store: RedisStore, client: Client) -> None:
    """However many interceptions it is of, up to what a call may take."""
    store.record([a_start(shard=0)])
    before = calls_of(client, "evalsha")
    store.record([record for _ in range(10) for record in everything_of(a_start(shard=3))])
    assert calls_of(client, "evalsha") - before == 1
    store.record([a_usage(a_start(shard=5)) for _ in range(2 * RECORDS_PER_CALL)])
    assert calls_of(client, "evalsha") - before == 3


@pytest.mark.parametrize("shard", [SHARD, (SHARD + 1) % SHARDS])
def test_a_start_is_recorded_under_its_key_s_owner(store: RedisStore, shard: int) -> None:
    """In whatever shard the caller has put it, and whatever initiator it named; a second time changes nothing."""
    store.put_api_key(a_row())
    start = a_start(shard=shard, initiator="mallory", key_id="other")
    admission = store.admit(start, CREDENTIAL)
    assert store.admit(start, CREDENTIAL) == admission
    assert admission.authorization is not None
    assert (admission.authorization.user, admission.authorization.key_id) == ("bob/é", KEY_ID)
    assert admission.authorization.scopes == Scopes(("main",), ("gpt-*",))
    view = store.interception(start.id)
    assert view is not None
    assert view.start == replace(start, initiator="bob/é", key_id=KEY_ID)


@pytest.mark.parametrize("shard", [SHARD, (SHARD + 1) % SHARDS])
def test_nothing_is_recorded_for_a_key_that_is_refused(
    store: RedisStore, client: Client, redis_prefix: str, shard: int
) -> None:
    """Not even its last use."""
    store.put_api_key(revoked(a_row(), now()))
    before = contents(client, redis_prefix)
    with pytest.raises(Unauthorized) as refused:
        store.admit(a_start(shard=shard), CREDENTIAL)
    assert refused.value.reason == "revoked"
    assert contents(client, redis_prefix) == before


def test_a_key_s_last_use_is_written_once_a_minute(
    store: RedisStore, client: Client, redis_prefix: str
) -> None:
    """By the server's clock."""
    store.put_api_key(a_row())
    name, field = Keys(redis_prefix).api_key(KEY_ID), "used"
    store.authorize(CREDENTIAL)
    used = client.hget(name, field)
    assert used is not None
    recent, old = int(used) - 50_000, int(used) - 61_000
    for before, is_written in ((recent, False), (old, True)):
        client.hset(name, field, before)
        store.authorize(CREDENTIAL)
        assert (int(client.hget(name, field) or 0) > before) is is_written


def test_a_retry_after_a_lost_answer_is_the_same_admission(
    store: RedisStore, client: Client, redis_prefix: str
) -> None:
    """Also when the interception has gone on meanwhile."""
    start = a_start()
    first = store.admit(start, None)
    store.record([an_end(start)])
    before = contents(client, redis_prefix)
    assert store.admit(start, None) == first
    assert contents(client, redis_prefix) == before


def test_a_swept_end_gives_way_to_a_real_one(store: RedisStore) -> None:
    """But not the other way round, and a sweep ends nothing twice or that never began."""
    late, ended, unknown = a_start(), a_start(), a_start()
    store.record([late, ended, an_end(ended)])
    for _ in range(2):
        store.record_swept([an_end(each, "interrupted") for each in (late, ended, unknown)])
    assert [_status(store, each.id) for each in (late, ended)] == ["interrupted", "completed"]
    store.record([an_end(late, "client_closed")])
    store.record_swept([an_end(late, "interrupted")])
    store.record([an_end(late, "completed")])
    assert _status(store, late.id) == "client_closed"
    assert store.interception(unknown.id) is None


def _status(store: RedisStore, interception_id: str) -> str:
    view = store.interception(interception_id)
    assert view is not None
    return view.status


@pytest.mark.parametrize("end", ENDS)
def test_what_ends_anew_is_stored_as_if_it_had_never_ended_otherwise(
    store: RedisStore, connection: RedisConnection, client: Client, redis_prefix: str, end: str
) -> None:
    """Whether a sweep or a worker that stopped ended it first, before its start came or after, and however often."""
    swept, stopped, late = (a_start(session_id=session) for session in ("one", None, "two"))
    ends = [an_end(start, end) for start in (swept, stopped, late)]
    store.record([swept, stopped])
    store.record_swept([an_end(swept, "interrupted")])
    store.record([stand_in_end(stopped.id, now(), GONE), stand_in_end(late.id, now(), GONE), late])
    assert store.interceptions(Query(status="interrupted")).count == 3
    for _ in range(2):
        store.record(ends)
        store.record_swept([an_end(swept, "interrupted")])
    expected = f"{redis_prefix}-expected"
    RedisStore(connection, keys=Keys(expected)).record([swept, stopped, late, *ends])
    assert _stored(client, redis_prefix) == _stored(client, expected)


def test_what_completes_costs_no_index_of_its_own(
    store: RedisStore, client: Client, redis_prefix: str
) -> None:
    """Nor does what runs: of the commands of its end none is for an index."""
    start = a_start(shard=0)
    store.record([start])
    before = calls_of(client, "zadd")
    store.record([an_end(start)])
    assert calls_of(client, "zadd") == before
    assert not [name for name in contents(client, redis_prefix) if ":x=" in name]


def test_what_runs_is_known_by_the_server_s_clock(
    store: RedisStore, client: Client, redis_prefix: str
) -> None:
    """A host whose clock is a day off is not taken for one whose worker died."""
    starts = [a_start(now() + timedelta(days=days), shard=1) for days in (-1, 0, 1)]
    store.record(starts)
    seconds = float(client.time()[0])
    running = contents(client, redis_prefix)["{s1}:running"]
    assert set(running) == {start.id for start in starts}
    assert all(abs(since / 1000 - seconds) < 60 for since in running.values())


def test_hours_are_those_of_the_calendar(store: RedisStore, client: Client, redis_prefix: str) -> None:
    """Leap years and centuries too; Lua has no calendar of its own."""
    draw = random.Random(0)
    moments = [
        datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=draw.randrange(8_000_000)) for _ in range(300)
    ]
    moments += [
        datetime(year, month, day, hour, 59, 59, 999000, UTC)
        for year in (1999, 2000, 2024, 2026, 2100)
        for month, day in ((1, 1), (2, 28), (3, 1), (12, 31))
        for hour in (0, 23)
    ]
    store.record([a_start(moment, shard=2) for moment in moments])
    found = contents(client, redis_prefix)
    assert set(found["{s2}:hours"]) == {hour_of(moment) for moment in moments}


def test_sums_are_exact(store: RedisStore) -> None:
    """Beyond what Lua shows of a number by itself."""
    start = a_start()
    store.record(
        [start, *(a_usage(start, input=MAX_TOKENS - 1, extra={"x": MAX_TOKENS - 1}) for _ in range(999))]
    )
    view = store.interception(start.id)
    assert view is not None
    assert view.tokens.input == view.tokens.extra["x"] == 999 * (MAX_TOKENS - 1)
    (row,) = store.usage(
        since=start.started_at - timedelta(hours=2), until=start.started_at + timedelta(hours=2)
    )
    assert (row.requests, row.tokens) == (1, view.tokens)


def test_content_that_is_not_wanted_is_nowhere(
    connection: RedisConnection, client: Client, redis_prefix: str
) -> None:
    """Neither stored nor streamed."""
    store = RedisStore(connection, keys=Keys(redis_prefix), record_content=False)
    start = a_start(shard=0)
    store.record([start, a_prompt(start, "geheim"), *everything_of(start)])
    found = contents(client, redis_prefix)
    assert {kind for kind, _ in found["{s0}:stream"]} == {
        "InterceptionStart",
        "TokenUsage",
        "InterceptionEnd",
    }
    assert "geheim" not in str(found)
    assert f"{{s0}}:c:{start.id}" not in found


def test_a_slot_that_moves_takes_no_halves(
    server_of_kind: Callable[[str], Running], redis_prefix: str
) -> None:
    """While a cluster moves a shard to another node, records are refused (and go to the spool), not split."""
    cluster = server_of_kind("cluster")
    assert isinstance(cluster, Cluster)
    cluster.start()
    keys, start = Keys(redis_prefix), a_start(shard=3)
    with closing(RedisConnection(cluster.url)) as connection, cluster.nodes[0].client() as any_node:
        store = RedisStore(connection, keys=keys)
        store.record([start])
        slot = int(any_node.cluster("keyslot", keys.shard(3)))
        owners = [node for node in cluster.nodes if _owns(node, slot)]
        source, target = owners[0], next(node for node in cluster.nodes if node not in owners)
        with source.client() as old, target.client() as new:
            old_id, new_id_ = old.cluster("myid"), new.cluster("myid")
            new.cluster("setslot", slot, "importing", old_id)
            old.cluster("setslot", slot, "migrating", new_id_)
            try:
                with pytest.raises(ServicesUnavailable, match="moving"):
                    store.record([a_usage(start)])
                with pytest.raises(ServicesUnavailable, match="moving"):
                    store.admit(a_start(shard=3), None)
                assert not list(new.scan_iter(f"{redis_prefix}:*"))
            finally:
                for node in (new, old):
                    node.cluster("setslot", slot, "stable")
        wait_until(lambda: _records(store, a_usage(start)), "the shard")


def _owns(node: Server, slot: int) -> bool:
    with node.client() as client:
        nodes = client.execute_command("CLUSTER NODES")
    mine = next(each for each in nodes.values() if "myself" in each["flags"])
    return any(int(first) <= slot <= int(last) for first, last in mine["slots"])


def _records(store: RedisStore, record: Record) -> bool:
    try:
        store.record([record])
    except ServicesUnavailable:
        return False
    return True


def test_ids_of_interceptions_are_refused_before_anything_is_sent(
    store: RedisStore, client: Client, redis_prefix: str
) -> None:
    """None of a batch is stored then."""
    with pytest.raises(ValueError, match="InterceptionStart.id"):
        store.record([a_start(), a_start(id="no-id")])
    assert contents(client, redis_prefix) == {}


def test_what_is_long_is_not_repeated_in_the_stream(
    store: RedisStore, client: Client, redis_prefix: str
) -> None:
    """It is bounded in entries, so an entry must not be of any size; a consumer finds the rest by the id."""
    start = a_start(shard=0)
    store.record([start, a_prompt(start, "x" * 5000), a_prompt(start, "short")])
    with_ids = [fields for kind, fields in _stream(client, redis_prefix) if "interception" in fields]
    assert with_ids == [{"kind": "PromptUsage", "interception": start.id}]
    assert [kind for kind, fields in _stream(client, redis_prefix) if "record" in fields] == [
        "InterceptionStart",
        "PromptUsage",
    ]


def _stream(client: Client, prefix: str) -> list[tuple[str, dict[str, str]]]:
    entries = client.xrange(f"{prefix}:{{s0}}:stream")
    return [(fields["kind"], fields) for _, fields in entries]


def test_what_was_evicted_is_not_hung_anywhere(store: RedisStore, client: Client, redis_prefix: str) -> None:
    """A server that is short of memory may leave indexes without what they list; the rest is recorded all the same."""
    (first, calls), (second, _), (third, _) = a_loop(3, shard=2)
    answer = replace(third, correlating_tool_call_id="call_1")
    store.record([first, second, answer])
    name = Keys(redis_prefix).interception(second.id)
    client.delete(name)
    store.record([*calls])
    assert not client.exists(name)
    view = store.interception(answer.id)
    assert view is not None
    assert view.thread_root_id == first.id
