"""``/interceptions``: pages of what was asked, in memory and on Redis alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_aibridge.errors import ConfigError, ServicesUnavailable
from flask_aibridge.services.records import ENDS, InterceptionStart
from flask_aibridge.services.storage import Query, Store
from tests.api.management_app import AS_ADMIN, PREFIX, make_app, sent_as, stored_key
from tests.api.stores import KINDS, empty_store, running_redis
from tests.services.contract_records import a_full_end, a_full_start, a_start, an_end, everything_of, now

PARTS = ("interceptions", "sessions", "usage")
URL = f"{PREFIX}/interceptions"


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with running_redis() as url:
        yield url


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """An empty store, in memory and on Redis."""
    with empty_store(request.getfixturevalue("redis_url") if request.param == "redis" else None) as store:
        yield store


@pytest.fixture
def client(store: Store) -> FlaskClient:
    return make_app(lambda: store, parts=PARTS).test_client()


def listed(browser: FlaskClient, headers: Mapping[str, str] = AS_ADMIN, /, **asked: Any) -> Any:
    response = browser.get(URL, query_string=asked, headers=headers)
    assert response.status_code == 200, response.text
    return response.json


def test_an_interception_has_the_shape_of_the_design(client: FlaskClient, store: Store) -> None:
    """Every member by its name; nothing else."""
    start = a_full_start()
    store.record([start, *everything_of(start)])
    (shown,) = listed(client)["interceptions"]
    began = start.started_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    ended = a_full_end(start).ended_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert shown == {
        "id": start.id,
        "initiator": "alice",
        "provider": "main",
        "provider_type": "anthropic",
        "model": "claude-fable-5",
        "client": "Claude Code",
        "source": "agents",
        "session_id": "f0c1b6a2-8f5e-4a0f-9b58-6a2f5cf0e4a1",
        "status": "upstream_error",
        "started_at": began,
        "ended_at": ended,
        "token_usage": {
            "input": 9,
            "output": 15,
            "cache_read": 21,
            "cache_write": 33,
            "extra": {"reasoning_tokens": 39, "web search: requests": 51},
        },
    }


def test_a_single_one_has_its_content_too(client: FlaskClient, store: Store) -> None:
    """Prompts, tool calls, thoughts and what went wrong."""
    start = a_full_start()
    store.record([start, *everything_of(start)])
    response = client.get(f"{URL}/{start.id}", headers=AS_ADMIN)
    shown: Any = response.json
    (of_list,) = listed(client)["interceptions"]
    content = {name: shown.pop(name) for name in ("prompts", "tool_calls", "thoughts", "error")}
    lineage = [shown.pop(f"thread_{of}_id") for of in ("parent", "root")]
    assert (shown.pop("correlating_tool_call_id"), lineage) == ("toolu_1", [None, None])
    assert shown == of_list
    assert content["error"] == {"type": "overloaded", "message": "Overloaded. Try again.", "http_status": 529}
    assert [prompt["prompt"] for prompt in content["prompts"]] == ["Why is the sky blue?"]
    assert [thought["content"] for thought in content["thoughts"]] == ["Rayleigh."]
    (call,) = content["tool_calls"]
    assert (call["tool"], call["input"], call["injected"]) == ("search", '{"query": "sky"}', True)
    assert response.headers["Cache-Control"] == "no-store"


def test_what_is_not_known_is_null(client: FlaskClient, store: Store) -> None:
    """A running interception by the public door, of which little is said."""
    start = a_start()
    store.record([start])
    shown: Any = client.get(f"{URL}/{start.id}", headers=AS_ADMIN).json
    nulls = {name for name, value in shown.items() if value is None}
    lineage = {"correlating_tool_call_id", "thread_parent_id", "thread_root_id"}
    assert nulls == {"model", "client", "source", "session_id", "ended_at", "error", *lineage}
    assert (shown["status"], shown["prompts"], shown["tool_calls"], shown["thoughts"]) == (
        "running",
        [],
        [],
        [],
    )


def test_pages_are_a_hundred_long_and_follow_one_another(client: FlaskClient, store: Store) -> None:
    """Until next is null."""
    store.record([a_start(now() - timedelta(seconds=number)) for number in range(130)])
    first = listed(client)
    assert (first["count"], len(first["interceptions"])) == (130, 100)
    second = listed(client, cursor=first["next"], limit=1000)
    assert (len(second["interceptions"]), second["next"]) == (30, None)
    ids = [each["id"] for each in (*first["interceptions"], *second["interceptions"])]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 130


USERS, MODELS, SESSIONS = ("alice", "bob"), ("m1", "m2"), ("s1", None)


def test_any_filters_and_any_page_size_give_what_looking_at_each_gives(
    client: FlaskClient, store: Store
) -> None:
    """By the API, with its own spelling of everything."""
    at = now().replace(microsecond=0)
    starts = [
        a_start(
            at - timedelta(seconds=number),
            initiator=USERS[number % 2],
            model=MODELS[number // 2 % 2],
            session_id=SESSIONS[number // 4 % 2],
            client="Codex" if number % 3 else None,
            source=None if number % 5 else "agents",
        )
        for number in range(60)
    ]
    statuses = {start.id: ("running", *ENDS)[number % 7] for number, start in enumerate(starts)}
    store.record(
        [*starts, *(an_end(start, statuses[start.id]) for start in starts if statuses[start.id] != "running")]
    )

    @given(
        limit=st.sampled_from([1, 7, 100]),
        asked=st.fixed_dictionaries(
            {},
            optional={
                "initiator": st.sampled_from([*USERS, "nobody"]),
                "model": st.sampled_from(MODELS),
                "session_id": st.just("s1"),
                "client": st.just("Codex"),
                "source": st.just("agents"),
                "status": st.sampled_from(["running", *ENDS]),
                "started_after": st.integers(0, 70).map(lambda n: at - timedelta(seconds=n)),
                "started_before": st.integers(0, 70).map(lambda n: at - timedelta(seconds=n)),
            },
        ),
    )
    @settings(max_examples=40)
    def check(limit: int, asked: dict[str, Any]) -> None:
        expected = [start.id for start in starts if _matches(asked, start, statuses[start.id])]
        spelled = {
            name: each.isoformat() if isinstance(each, datetime) else each for name, each in asked.items()
        }
        found: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = listed(client, limit=limit, **spelled, **cursor)
            assert page["count"] == len(expected)
            found += [each["id"] for each in page["interceptions"]]
            if page["next"] is None:
                break
            cursor = {"cursor": page["next"]}
        assert found == expected

    check()


def _matches(asked: dict[str, Any], start: InterceptionStart, status: str) -> bool:
    after, before = asked.get("started_after"), asked.get("started_before")
    return (
        all(
            asked[name] == getattr(start, name)
            for name in ("initiator", "model", "session_id", "client", "source")
            if name in asked
        )
        and asked.get("status") in (None, status)
        and (after is None or after <= start.started_at)
        and (before is None or start.started_at < before)
    )


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("status=done", "status"),
        ("started_after=yesterday", "started_after"),
        ("started_after=2026-11-22T10:00:00", "started_after"),
        ("started_after=1969-12-31T23:59:59Z", "started_after"),
        ("started_before=9999-12-31T23:59:59Z", "started_before"),
        ("initiator=", "initiator"),
        ("model=" + "x" * 257, "model"),
        ("cursor=x", "cursor"),
        ("cursor=" + "x" * 9000, "cursor"),
        ("format=xml", "format"),
        ("user=alice", "user"),
        ("model=a&model=b", "model"),
    ],
)
def test_a_wrong_parameter_is_named(client: FlaskClient, asked: str, wrong: str) -> None:
    """A problem with a sentence for each; parameters that nobody knows are not passed over."""
    response = client.get(f"{URL}?{asked}", headers=AS_ADMIN)
    problem: Any = response.json
    assert (response.status_code, response.mimetype) == (400, "application/problem+json")
    assert problem["code"] == "invalid"
    assert list(problem["errors"]) == [wrong]
    assert problem["errors"][wrong]


def test_a_cursor_belongs_to_its_filters(client: FlaskClient, store: Store) -> None:
    """With others it is wrong, and so it is with another user's."""
    store.record([a_start(initiator=user) for user in ("alice", "bob") for _ in range(3)])
    cursor = listed(client, limit=2)["next"]
    assert client.get(URL, query_string={"cursor": cursor, "model": "m"}, headers=AS_ADMIN).status_code == 400
    as_alice = sent_as(stored_key(store, "alice"))
    response = client.get(URL, query_string={"cursor": cursor}, headers=as_alice)
    assert response.status_code == 400


def test_users_see_their_own(client: FlaskClient, store: Store) -> None:
    """Others' are not in the list, and as unknown as what there is not."""
    mine, theirs = a_start(initiator="alice"), a_start(initiator="bob")
    store.record([mine, theirs])
    as_alice = sent_as(stored_key(store, "alice"))
    for asked in ({}, {"initiator": "me"}, {"initiator": "alice"}):
        page = listed(client, as_alice, **asked)
        assert (page["count"], [each["id"] for each in page["interceptions"]]) == (1, [mine.id])
    assert client.get(f"{URL}/{mine.id}", headers=as_alice).status_code == 200
    foreign = client.get(f"{URL}/{theirs.id}", headers=as_alice)
    unknown = client.get(f"{URL}/{'0' * 32}", headers=as_alice)
    assert (foreign.status_code, foreign.json) == (unknown.status_code, unknown.json)
    problem: Any = foreign.json
    assert (problem["status"], problem["code"]) == (404, "unknown_interception")
    refused = client.get(f"{URL}?initiator=bob", headers=as_alice)
    assert (refused.status_code, refused.json and refused.json["code"]) == (403, "administrator_required")


def test_administrators_see_everybodys(client: FlaskClient, store: Store) -> None:
    """Or one user's, or their own."""
    store.record([a_start(initiator=user) for user in ("alice", "bob", "administrator")])
    assert listed(client)["count"] == 3
    assert listed(client, initiator="bob")["count"] == 1
    assert listed(client, initiator="me")["interceptions"][0]["initiator"] == "administrator"


@pytest.mark.parametrize("path", ["", f"/{'0' * 32}"])
def test_nobody_sees_nothing(client: FlaskClient, path: str) -> None:
    """Without credentials, also where the parameters are wrong."""
    assert client.get(f"{URL}{path}").status_code == 401
    assert client.get(f"{URL}{path}?nonsense=1").status_code == 401


@pytest.mark.parametrize("text", ["x", "0" * 31, "0" * 33, "G" * 32, "%00", "..%2f", "é"])
def test_what_is_no_id_is_not_found(client: FlaskClient, text: str) -> None:
    """With the same answer as an id that is not there."""
    response = client.get(f"{URL}/{text}", headers=AS_ADMIN)
    assert response.status_code == 404


@pytest.mark.parametrize("path", ["", f"/{'0' * 32}", "?format=csv"])
@pytest.mark.parametrize(
    "error", [ServicesUnavailable("The store is away.", 7.0), ConfigError("AIBRIDGE_REDIS_URL names none.")]
)
def test_without_a_store_the_answer_names_the_remedy(path: str, error: Exception) -> None:
    """503; with the time to come back where time helps."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    response = make_app(fail, parts=PARTS).test_client().get(f"{URL}{path}", headers=AS_ADMIN)
    problem: Any = response.json
    assert (response.status_code, response.mimetype) == (503, "application/problem+json")
    assert "AIBRIDGE_REDIS_URL" in problem["detail"]
    if isinstance(error, ServicesUnavailable):
        assert response.headers["Retry-After"] == "7"


def test_times_in_other_zones_are_understood(client: FlaskClient, store: Store) -> None:
    """What counts is the moment."""
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    store.record([a_start(at), a_start(at + timedelta(hours=1))])
    assert listed(client, started_before="2026-03-01T17:30:00+05:00")["count"] == 1
    assert store.interceptions(Query(started_before=at + timedelta(minutes=30))).count == 1
