"""``/usage``, ``/models`` and ``/clients``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from flask_aibridge.api import usage as usage_routes
from flask_aibridge.services.storage import Store
from tests.api.management_app import AS_ADMIN, PREFIX, make_app, sent_as, stored_key
from tests.api.stores import KINDS, empty_store, running_redis
from tests.services.contract_records import a_start, a_usage, now

URL = f"{PREFIX}/usage"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MARCH = {"since": "2026-03-01T00:00:00Z", "until": "2026-04-01T00:00:00Z"}


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with running_redis() as url:
        yield url


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store in memory and on Redis, with three days of two users."""
    with empty_store(request.getfixturevalue("redis_url") if request.param == "redis" else None) as store:
        starts = [
            a_start(NOON + timedelta(days=day), initiator=user, model=model, client="Codex", provider="main")
            for day in range(3)
            for user, model in (("alice", "m1"), ("bob", "m2"), ("bob", None))
        ]
        store.record(
            [*starts, *(a_usage(start, input=10, output=1, extra={"images": 2}) for start in starts)]
        )
        yield store


@pytest.fixture
def client(store: Store) -> FlaskClient:
    return make_app(lambda: store, parts=("usage",)).test_client()


def used(client: FlaskClient, headers: Any = AS_ADMIN, **asked: Any) -> Any:
    response = client.get(URL, query_string={**MARCH, **asked}, headers=headers)
    assert response.status_code == 200, response.text
    return response.json


def test_usage_is_summed_by_day(client: FlaskClient) -> None:
    """Unless something else is asked for; what is not grouped by is null."""
    shown = used(client)
    assert (shown["since"], shown["until"]) == ("2026-03-01T00:00:00.000000Z", "2026-04-01T00:00:00.000000Z")
    assert shown["group_by"] == ["day"]
    assert [row["period"] for row in shown["usage"]] == [
        f"2026-03-0{day}T00:00:00.000000Z" for day in (1, 2, 3)
    ]
    assert shown["usage"][0] == {
        "period": "2026-03-01T00:00:00.000000Z",
        "user": None,
        "model": None,
        "provider": None,
        "requests": 3,
        "token_usage": {"input": 30, "output": 3, "cache_read": 0, "cache_write": 0, "extra": {"images": 6}},
    }


def test_usage_is_summed_by_what_is_asked_for(client: FlaskClient) -> None:
    """Sorted by it; a request without a model is of the model with no name."""
    rows = used(client, group_by="user,model")["usage"]
    assert [(row["user"], row["model"], row["requests"]) for row in rows] == [
        ("alice", "m1", 3),
        ("bob", "", 3),
        ("bob", "m2", 3),
    ]
    assert used(client, group_by="hour")["usage"][0]["period"] == "2026-03-01T12:00:00.000000Z"
    (row,) = used(client, group_by="provider", initiator="bob", model="m2")["usage"]
    assert (row["provider"], row["requests"], row["token_usage"]["input"]) == ("main", 3, 30)
    assert used(client, provider="other")["usage"] == []


def test_users_see_their_own(client: FlaskClient, store: Store) -> None:
    """Whether they say so or not; others' they may not ask for."""
    as_alice = sent_as(stored_key(store, "alice"))
    for asked in ({}, {"initiator": "me"}):
        rows = used(client, as_alice, group_by="user", **asked)["usage"]
        assert [(row["user"], row["requests"]) for row in rows] == [("alice", 3)]
    for path in ("usage", "models", "clients"):
        assert client.get(f"{PREFIX}/{path}?initiator=bob", headers=as_alice).status_code == 403
        assert client.get(f"{PREFIX}/{path}").status_code == 401


def test_the_last_thirty_days_are_summed_unless_others_are_named(client: FlaskClient, store: Store) -> None:
    """The hour that is now is in, and whole days are."""
    store.record([a_start(now()), a_start(now() - timedelta(days=29)), a_start(now() - timedelta(days=32))])
    shown: Any = client.get(URL, headers=AS_ADMIN, query_string={"group_by": "provider"}).json
    assert sum(row["requests"] for row in shown["usage"] if row["provider"] == "openai") == 2
    assert shown["since"].endswith("T00:00:00.000000Z")


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        ("group_by=session", "group_by"),
        ("group_by=", "group_by"),
        ("group_by=day,day", "group_by"),
        ("group_by=day,hour", "group_by"),
        ("since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", "until"),
        ("since=2026-01-01T00:00:00Z&until=2026-01-01T00:00:00Z", "until"),
        ("since=2024-01-01T00:00:00Z&until=2026-01-01T00:00:00Z", "until"),
        ("since=2020-01-01T00:00:00Z", "since"),
        ("since=8000-01-01T00:00:00Z", "since"),
        ("until=9500-01-01T00:00:00Z", "until"),
        ("limit=10", "limit"),
    ],
)
def test_a_wrong_parameter_is_named(client: FlaskClient, asked: str, wrong: str) -> None:
    """A year at most is summed, and nothing is passed over."""
    response = client.get(f"{URL}?{asked}", headers=AS_ADMIN)
    problem: Any = response.json
    assert (response.status_code, list(problem["errors"])) == (400, [wrong])


def test_the_first_times_that_there_are_can_be_asked_for(client: FlaskClient) -> None:
    """Nothing was used then."""
    assert used(client, since="1970-01-01T00:00:00Z", until="1970-06-01T00:00:00Z")["usage"] == []
    response = client.get(f"{URL}?until=1970-01-02T00:00:00Z", headers=AS_ADMIN)
    assert response.status_code == 200


def test_more_rows_than_anybody_reads_are_refused(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to do about it."""
    monkeypatch.setattr(usage_routes, "MAX_ROWS", 2)
    response = client.get(URL, query_string=MARCH, headers=AS_ADMIN)
    problem: Any = response.json
    assert (response.status_code, problem["code"]) == (400, "too_many_rows")
    assert "3 rows" in problem["detail"]


def test_names_are_those_seen(client: FlaskClient, store: Store) -> None:
    """Everybody's, or one user's."""
    as_alice = sent_as(stored_key(store, "alice"))
    assert client.get(f"{PREFIX}/models", headers=AS_ADMIN).json == {"count": 2, "models": ["m1", "m2"]}
    assert client.get(f"{PREFIX}/models", headers=as_alice).json == {"count": 1, "models": ["m1"]}
    assert client.get(f"{PREFIX}/models?initiator=bob", headers=AS_ADMIN).json == {
        "count": 1,
        "models": ["m2"],
    }
    assert client.get(f"{PREFIX}/clients", headers=AS_ADMIN).json == {"count": 1, "clients": ["Codex"]}
    assert client.get(f"{PREFIX}/clients?limit=1", headers=AS_ADMIN).status_code == 400
