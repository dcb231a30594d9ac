"""``/sessions``: what belongs together, last active first."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from flask_aibridge.api.interceptions import document
from flask_aibridge.services.storage import Query, Store
from tests.api.management_app import AS_ADMIN, PREFIX, make_app, sent_as, stored_key
from tests.api.stores import KINDS, empty_store, running_redis
from tests.services.contract_lineage import a_loop, records_of
from tests.services.contract_records import a_start, a_usage, an_end, now

URL = f"{PREFIX}/sessions"


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
    return make_app(lambda: store, parts=("sessions",)).test_client()


def test_a_session_is_what_its_interceptions_come_to(client: FlaskClient, store: Store) -> None:
    """Every member; tokens and names from all of them."""
    at = now().replace(microsecond=0)
    starts = [
        a_start(at - timedelta(minutes=2), session_id="one", model="m1", client="Codex"),
        a_start(at - timedelta(minutes=1), session_id="one", model="m2", client="Codex", provider="main"),
        a_start(at, session_id="one", client="Codex"),
    ]
    store.record([*starts, *(an_end(start) for start in starts)])
    store.record([a_usage(start, input=2, output=3, extra={"images": 1}) for start in starts])
    page: Any = client.get(URL, headers=AS_ADMIN).json
    text = "%Y-%m-%dT%H:%M:%S.000000Z"
    assert page == {
        "count": 1,
        "next": None,
        "sessions": [
            {
                "id": "one",
                "initiator": "alice",
                "providers": ["main", "openai"],
                "models": ["m1", "m2"],
                "client": "Codex",
                "started_at": starts[0].started_at.strftime(text),
                "ended_at": (at + timedelta(seconds=2)).strftime(text),
                "last_active_at": at.strftime(text),
                "interceptions": 3,
                "threads": 3,
                "token_usage": {
                    "input": 6,
                    "output": 9,
                    "cache_read": 0,
                    "cache_write": 0,
                    "extra": {"images": 3},
                },
            }
        ],
    }
    shown: Any = client.get(f"{URL}/one", headers=AS_ADMIN).json
    timeline = shown.pop("timeline")
    assert shown == page["sessions"][0]
    assert [each["id"] for each in timeline] == [start.id for start in starts]


def test_a_timeline_tells_what_goes_on_with_what(client: FlaskClient, store: Store) -> None:
    """Each interception as in a list, with its parent and root; a thread without a session is one."""
    loop = a_loop(3)
    store.record(records_of(loop))
    first, second, third = (start.id for start, _ in loop)
    shown: Any = client.get(f"{URL}/{third}", headers=AS_ADMIN).json
    assert (shown["id"], shown["interceptions"], shown["threads"]) == (first, 3, 1)
    lineage = [
        (each.pop("correlating_tool_call_id"), each.pop("thread_parent_id"), each.pop("thread_root_id"))
        for each in shown["timeline"]
    ]
    assert lineage == [(None, None, None), ("call_1", first, first), ("call_2", second, first)]
    page = store.interceptions(Query()).interceptions
    assert shown["timeline"] == [document(view) for view in reversed(page)]


@pytest.mark.parametrize("session_id", ["a/b", "a b", "ü", "a:b", "x?y#z", "100%", "%2F"])
def test_a_session_is_found_by_whatever_id_a_client_gave_it(
    client: FlaskClient, store: Store, session_id: str
) -> None:
    """Quoted in the path, slashes too."""
    store.record([a_start(session_id=session_id)])
    response = client.get(f"{URL}/{quote(session_id, safe='')}", headers=AS_ADMIN)
    shown: Any = response.json
    assert (response.status_code, shown["id"]) == (200, session_id)


def test_an_interception_without_a_session_is_one_of_its_own(client: FlaskClient, store: Store) -> None:
    """Under its own id."""
    start = a_start()
    store.record([start])
    shown: Any = client.get(f"{URL}/{start.id}", headers=AS_ADMIN).json
    assert (shown["id"], shown["interceptions"], shown["ended_at"]) == (start.id, 1, None)


def test_pages_follow_one_another(client: FlaskClient, store: Store) -> None:
    """By what was last active, within the times that are asked for."""
    at = now()
    store.record([a_start(at - timedelta(minutes=number), session_id=f"s{number}") for number in range(10)])
    asked = {
        "limit": 3,
        "active_after": (at - timedelta(minutes=7)).isoformat(),
        "active_before": at.isoformat(),
    }
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page: Any = client.get(URL, query_string={**asked, **cursor}, headers=AS_ADMIN).json
        assert page["count"] == 7
        found += [session["id"] for session in page["sessions"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert found == [f"s{number}" for number in range(1, 8)]


def test_users_see_their_own(client: FlaskClient, store: Store) -> None:
    """Others' sessions are unknown, also one with the same id."""
    store.record([a_start(initiator=user, session_id="both") for user in ("alice", "bob", "bob")])
    store.record([a_start(initiator="bob", session_id="bob's")])
    as_alice = sent_as(stored_key(store, "alice"))
    page: Any = client.get(URL, headers=as_alice).json
    assert [(session["id"], session["interceptions"]) for session in page["sessions"]] == [("both", 1)]
    mine: Any = client.get(f"{URL}/both", headers=as_alice).json
    assert (mine["initiator"], mine["interceptions"]) == ("alice", 1)
    assert client.get(f"{URL}/bob's", headers=as_alice).status_code == 404
    assert client.get(f"{URL}?initiator=bob", headers=as_alice).status_code == 403
    assert client.get(f"{URL}/both?initiator=bob", headers=as_alice).status_code == 403
    theirs: Any = client.get(f"{URL}/both?initiator=bob", headers=AS_ADMIN).json
    assert (theirs["initiator"], theirs["interceptions"]) == ("bob", 2)
    everybodys: Any = client.get(URL, headers=AS_ADMIN).json
    assert everybodys["count"] == 3


@pytest.mark.parametrize(
    "asked", ["limit=0", "cursor=x", "active_after=now", "started_after=2026-01-01T00:00:00Z"]
)
def test_a_wrong_parameter_is_named(client: FlaskClient, asked: str) -> None:
    """A problem with a sentence for each."""
    response = client.get(f"{URL}?{asked}", headers=AS_ADMIN)
    problem: Any = response.json
    assert (response.status_code, list(problem["errors"])) == (400, [asked.partition("=")[0]])


def test_an_unknown_session_is_a_problem(client: FlaskClient) -> None:
    """With a stable code."""
    response = client.get(f"{URL}/unknown", headers=AS_ADMIN)
    assert (response.status_code, response.json and response.json["code"]) == (404, "unknown_session")


def test_nobody_sees_nothing(client: FlaskClient) -> None:
    """Credentials come before everything."""
    assert client.get(URL).status_code == client.get(f"{URL}/x").status_code == 401
