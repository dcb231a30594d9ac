"""Reading back from Redis: what the contract of all stores does not ask: bounds, shards, and rows that are broken."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from flask_aibridge.services.records import SHARDS
from flask_aibridge.services.redis import pages as redis_pages
from flask_aibridge.services.redis import sessions as redis_sessions
from flask_aibridge.services.redis import usage as redis_usage
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.redis.store import RedisStore
from flask_aibridge.services.redis.walks import MAX_ROUNDS
from flask_aibridge.services.storage import Query
from tests.services.contract_records import a_prompt, a_start, a_usage, an_end, now
from tests.services.redis_contents import Client, calls_of
from tests.services.servers import Running, Server


class Counting(RedisConnection):
    """Counts calls of scripts."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.round_trips = 0

    def run_many(self, calls: Any) -> list[Any]:
        self.round_trips += bool(calls)
        return super().run_many(calls)


@pytest.fixture
def connection(one_redis_url: str) -> Iterator[Counting]:
    connection = Counting(one_redis_url)
    yield connection
    connection.close()


@pytest.fixture
def store(connection: Counting, redis_prefix: str) -> RedisStore:
    return RedisStore(connection, keys=Keys(redis_prefix))


@pytest.fixture
def client(one_redis_server: Running) -> Iterator[Client]:
    """Looks at the server past the store."""
    assert isinstance(one_redis_server, Server)
    with one_redis_server.client() as client:
        yield client


@pytest.fixture
def keys(redis_prefix: str) -> Keys:
    return Keys(redis_prefix)


def test_a_page_takes_few_round_trips(store: RedisStore, connection: Counting) -> None:
    """One for the ids, one for the accounting; one more counts on the first page."""
    at = now()
    store.record([a_start(at - timedelta(seconds=number), shard=number % SHARDS) for number in range(500)])
    connection.round_trips = 0
    first = store.interceptions(Query())
    assert connection.round_trips <= 4
    connection.round_trips = 0
    store.interceptions(Query(), cursor=first.next)
    assert connection.round_trips <= 3


def test_a_page_that_filters_leave_little_of_is_short_and_goes_on(
    store: RedisStore, connection: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page looks at so much and no more; its cursor finds the rest, each once."""
    monkeypatch.setattr(redis_pages, "MAX_EXAMINED", 2)
    at = now()
    starts = [a_start(at - timedelta(seconds=number), shard=number % 3) for number in range(300)]
    ended = {start.id for start in starts[::40]}
    store.record([*starts, *(an_end(start) for start in starts if start.id in ended)])
    query, found, cursor, short = Query(status="completed"), [], None, 0
    for _ in range(100):
        connection.round_trips = 0
        page = store.interceptions(query, limit=5, cursor=cursor)
        assert connection.round_trips <= MAX_ROUNDS + 1 + 1 + redis_pages.MAX_COUNT_ROUNDS
        found += [view.start.id for view in page.interceptions]
        assert page.count == len(ended)
        cursor = page.next
        short += len(page.interceptions) < 5
        if cursor is None:
            break
    assert found == [start.id for start in starts if start.id in ended]
    assert short > 1


def test_a_count_looks_no_further_than_its_bound(
    store: RedisStore, connection: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an index does not tell the number, the newest are looked at; where one does, it is exact."""
    monkeypatch.setattr(redis_pages, "MAX_COUNTED", 50)
    monkeypatch.setattr(redis_pages, "MAX_COUNTED_AT_ONCE", 10)
    at = now()
    store.record([a_start(at - timedelta(seconds=number), shard=number % SHARDS) for number in range(400)])
    assert store.interceptions(Query(status="running"), limit=1).count <= 50
    assert store.interceptions(Query(initiator="alice"), limit=1).count == 400
    assert (
        store.interceptions(Query(initiator="alice", started_after=at - timedelta(seconds=99)), limit=1).count
        == 100
    )


def test_a_page_by_cursor_does_not_ask_how_long_its_index_is(store: RedisStore, client: Client) -> None:
    """There is no other to choose, and its number of matches came with the cursor."""
    store.record([a_start(now() - timedelta(seconds=number)) for number in range(20)])
    first = store.interceptions(Query(initiator="alice"), limit=5)
    before = calls_of(client, "zlexcount")
    page = store.interceptions(Query(initiator="alice"), limit=5, cursor=first.next)
    assert (len(page.interceptions), page.count) == (5, 20)
    assert calls_of(client, "zlexcount") == before


@pytest.mark.parametrize("filters", [{}, {"model": "m"}, {"initiator": "alice"}, {"session_id": "one"}])
def test_a_page_of_errors_looks_at_errors_alone(
    store: RedisStore, client: Client, monkeypatch: pytest.MonkeyPatch, filters: dict[str, Any]
) -> None:
    """However many others there are: it reads what it shows, and counts all of them without reading any."""
    monkeypatch.setattr(redis_pages, "MAX_COUNTED", 5)
    at = now()
    starts = [
        a_start(at - timedelta(seconds=number), shard=number % SHARDS, model="m", session_id="one")
        for number in range(400)
    ]
    failed = starts[3::5]
    store.record([*starts, *(an_end(start, status="upstream_error") for start in failed)])
    query = Query(status="upstream_error", **filters)
    before = calls_of(client, "hmget")
    page = store.interceptions(query, limit=20)
    assert calls_of(client, "hmget") - before == 20
    assert ([view.start for view in page.interceptions], page.count) == (failed[:20], len(failed))
    newest = replace(query, started_after=starts[50].started_at)
    assert store.interceptions(newest, limit=1).count == 10


def test_of_indexes_of_errors_the_shortest_is_walked(store: RedisStore, client: Client) -> None:
    """Where a user and a model are asked for too, and a client, which has no index."""
    starts = [
        a_start(
            now() - timedelta(seconds=number),
            shard=0,
            model="m" if number % 2 else "rare",
            client="Codex" if number % 4 else None,
        )
        for number in range(40)
    ]
    fine = [a_start(shard=0, initiator="bob", model="m", client="Codex") for _ in range(40)]
    alone = a_start(shard=0, initiator="bob", model="m", client="Codex")
    store.record([*starts, *fine, alone])
    store.record([an_end(start, status="refused") for start in (*starts, alone)])
    before = calls_of(client, "hmget")
    page = store.interceptions(Query(initiator="bob", model="m", client="Codex", status="refused"))
    assert [view.start for view in page.interceptions] == [alone]
    assert calls_of(client, "hmget") - before == 3  # walked, counted, shown


def test_the_count_of_a_listing_is_that_of_its_first_page(store: RedisStore) -> None:
    """It goes with the cursor: later pages do not count again."""
    store.record([a_start(now() - timedelta(seconds=number)) for number in range(4)])
    first = store.interceptions(Query(), limit=2)
    store.record([a_start()])
    assert store.interceptions(Query(), limit=2, cursor=first.next).count == first.count == 4


def test_what_was_deleted_meanwhile_is_passed_over(
    store: RedisStore, connection: Counting, keys: Keys
) -> None:
    """An index that is a moment older than what it points to does no harm."""
    starts = [a_start(now() - timedelta(seconds=number)) for number in range(3)]
    store.record(starts)
    connection.execute("DEL", keys.interception(starts[1].id))
    page = store.interceptions(Query())
    assert [view.start for view in page.interceptions] == [starts[0], starts[2]]
    assert store.interception(starts[1].id) is None


@pytest.mark.parametrize("field", ["start", "end", "t"])
def test_a_corrupt_row_takes_no_other_with_it(
    store: RedisStore, connection: Counting, keys: Keys, caplog: pytest.LogCaptureFixture, field: str
) -> None:
    """It is left out and logged, without what is in it."""
    starts = [a_start(now() - timedelta(seconds=number), session_id="one") for number in range(2)]
    store.record([record for start in starts for record in (start, an_end(start), a_usage(start))])
    connection.execute("HSET", keys.interception(starts[0].id), field, '{"secret": ')
    with caplog.at_level(logging.ERROR, "flask_aibridge.services.redis.pages"):
        assert [view.start for view in store.interceptions(Query()).interceptions] == [starts[1]]
        assert store.interception(starts[0].id) is None
        session = store.session("one")
    assert session is not None
    assert session.interceptions == 1
    assert "corrupt" in caplog.text
    assert "secret" not in caplog.text


def test_a_corrupt_record_takes_no_other_with_it(
    store: RedisStore, connection: Counting, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    """The rest of the content is shown."""
    (start,) = starts = [a_start()]
    store.record([*starts, a_prompt(start)])
    connection.execute("HSET", keys.content(start.id), "p:broken", "[]", "m:broken", "x")
    with caplog.at_level(logging.ERROR, "flask_aibridge.services.redis.pages"):
        view = store.interception(start.id)
    assert view is not None
    assert (len(view.prompts), view.thoughts) == (1, ())
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    "text", ["", "x", "../..", "0" * 31, "0" * 33, "G" * 32, "A" * 32, "é" * 32, " " * 32, "0_" * 16]
)
def test_what_is_no_id_is_unknown(store: RedisStore, connection: Counting, text: str) -> None:
    """Without a question to Redis."""
    connection.round_trips = 0
    assert store.interception(text) is None
    assert connection.round_trips == 0
    assert store.session(text) is None


def test_a_session_in_several_shards_is_one(store: RedisStore) -> None:
    """It stands where it was last active, on one page alone, and is summed from all of them."""
    at = now()
    spread = [
        a_start(at - timedelta(minutes=number), shard=number, session_id="spread") for number in range(8)
    ]
    others = [
        a_start(at - timedelta(minutes=number, seconds=30), shard=3, session_id=f"o{number}")
        for number in range(8)
    ]
    store.record([*spread, *others])
    for initiator in (None, "alice"):
        found, cursor = [], None
        while True:
            page = store.sessions(initiator=initiator, limit=2, cursor=cursor)
            assert page.count == 9
            found += [(session.id, session.interceptions) for session in page.sessions]
            cursor = page.next
            if cursor is None:
                break
        assert found == [("spread", 8), *((f"o{number}", 1) for number in range(8))]


def test_a_session_that_went_on_later_was_not_last_active_before(store: RedisStore) -> None:
    """A shard that it left early does not bring it back."""
    at = now()
    store.record(
        [a_start(at - timedelta(hours=2), shard=1, session_id="one"), a_start(at, shard=2, session_id="one")]
    )
    page = store.sessions(active_before=at - timedelta(hours=1))
    assert (page.count, page.sessions, page.next) == (0, (), None)
    assert store.sessions(active_after=at).count == 1


def test_a_page_of_long_sessions_has_fewer_of_them(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is summed for a page has a bound; at least one session is on it."""
    monkeypatch.setattr(redis_sessions, "MAX_SUMMED", 25)
    at = now()
    store.record(
        [
            a_start(at - timedelta(minutes=session, milliseconds=number), session_id=f"s{session}")
            for session, length in enumerate((10, 10, 10, 40, 1, 1))
            for number in range(length)
        ]
    )
    pages, cursor = [], None
    for _ in range(10):
        page = store.sessions(cursor=cursor)
        pages.append([(session.id, session.interceptions) for session in page.sessions])
        cursor = page.next
        if cursor is None:
            break
    assert pages == [[("s0", 10), ("s1", 10)], [("s2", 10)], [("s3", 40)], [("s4", 1), ("s5", 1)]]


def test_a_very_long_session_is_summed_from_its_newest(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each shard, in steps."""
    monkeypatch.setattr(redis_sessions, "MAX_SESSION", 20)
    monkeypatch.setattr(redis_sessions, "MAX_READ", 7)
    at = now()
    store.record(
        [a_start(at - timedelta(seconds=number), shard=5, session_id="long") for number in range(60)]
    )
    store.record([a_start(at - timedelta(days=1), shard=5, session_id="short")])
    long, short = store.sessions().sessions
    assert 20 <= long.interceptions < 27
    assert long.last_active_at == at
    assert (short.id, short.interceptions) == ("short", 1)


def test_sessions_beyond_what_is_counted_are_not_looked_at(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then one in two shards counts twice."""
    monkeypatch.setattr(redis_sessions, "MAX_COUNTED", 3)
    store.record([a_start(shard=shard, session_id="one") for shard in range(4)])
    page = store.sessions()
    assert (page.count, len(page.sessions)) == (4, 1)


def test_usage_is_read_in_steps(
    store: RedisStore, connection: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of hours that there are, however few fields one call may read."""
    monkeypatch.setattr(redis_usage, "MAX_FIELDS", 1)
    at = now().replace(minute=0, second=0, microsecond=0)
    starts = [a_start(at - timedelta(hours=number), shard=3) for number in range(5)]
    store.record([*starts, *(a_usage(start, input=7, extra={"images": 2}) for start in starts)])
    connection.round_trips = 0
    (row,) = store.usage(since=at - timedelta(days=3000), until=at + timedelta(days=3000), group_by=())
    assert (row.requests, row.tokens.input, row.tokens.extra) == (5, 35, {"images": 10})
    assert connection.round_trips == 5


def test_sums_beyond_what_lua_counts_exactly_are_whole_numbers(store: RedisStore) -> None:
    """No exponent comes back as a fraction."""
    start = a_start()
    store.record([start, *(a_usage(start, input=10**12, extra={"x": 10**12}) for _ in range(150))])
    (view,) = store.interceptions(Query()).interceptions
    assert (view.tokens.input, view.tokens.extra) == (150 * 10**12, {"x": 150 * 10**12})


def test_two_prefixes_are_two_stores(store: RedisStore, connection: Counting) -> None:
    """What is recorded under one is not read under the other."""
    store.record([a_start()])
    other = RedisStore(connection, keys=Keys("another"))
    assert other.interceptions(Query()).count == 0
    assert other.sessions().sessions == ()
    assert other.names("model") == ()
