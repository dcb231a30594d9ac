"""``api.keys`` and ``api.key_changes``: API keys over HTTP."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_aibridge.api import key_changes, keys
from flask_aibridge.api.signals import configuration_changed
from flask_aibridge.errors import ServicesUnavailable, Unauthorized
from flask_aibridge.services import api_keys
from flask_aibridge.services.interfaces import Credential, Scopes
from flask_aibridge.services.memory.store import MemoryStore
from flask_aibridge.services.storage import APIKeyRow, Store
from tests.api.management_app import AS_ADMIN, PREFIX, id_of, make_app, sent_as, stored_key

KEYS = f"{PREFIX}/keys"
SHOWN = {
    *("id", "owner", "display_name", "scopes", "status"),
    *("created_at", "expires_at", "revoked_at", "last_used_at", "rate_limit"),
}
NOBODY = "aaaaaaaaaaaa"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def app(store: MemoryStore) -> Flask:
    return make_app(lambda: store)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def changes() -> Iterator[list[dict[str, Any]]]:
    """What the signal said."""
    seen: list[dict[str, Any]] = []

    def receive(sender: Flask, **change: Any) -> None:
        seen.append({"sender": sender.name, **change})

    with configuration_changed.connected_to(receive):
        yield seen


def assert_problem(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(response.data)
    assert (response.status_code, document["code"]) == (status, code)
    assert response.content_type == "application/problem+json"
    return document


def reason_of(store: Store, key: str) -> str | None:
    try:
        store.authorize(Credential(key=key))
    except Unauthorized as refused:
        return refused.reason
    return None


def create(client: FlaskClient, **fields: Any) -> dict[str, Any]:
    response = client.post(KEYS, json={"owner": "ada", **fields}, headers=AS_ADMIN)
    assert response.status_code == 201, response.text
    document: dict[str, Any] = json.loads(response.data)
    return document


class TestCreate:
    def test_the_key_is_shown_once_and_works(self, client: FlaskClient, store: MemoryStore) -> None:
        response = client.post(KEYS, json={"owner": "ada", "display_name": "laptop"}, headers=AS_ADMIN)
        document = json.loads(response.data)
        assert response.status_code == 201
        assert set(document) == {*SHOWN, "key"}
        assert document["owner"] == "ada"
        assert document["display_name"] == "laptop"
        assert document["status"] == "active"
        assert document["scopes"] == {"providers": None, "models": None}
        assert id_of(document["key"]) == document["id"]
        assert store.authorize(Credential(key=document["key"])).user == "ada"

        shown = client.get(response.headers["Location"], headers=AS_ADMIN)
        secret = api_keys.parse(document["key"])[1]
        assert shown.json is not None
        assert set(shown.json) == SHOWN
        for answer in (shown, client.get(KEYS, headers=AS_ADMIN)):
            assert secret not in answer.text
            assert api_keys.secret_hash(secret) not in answer.text

    def test_no_two_keys_are_alike(self, client: FlaskClient) -> None:
        assert len({create(client)["key"] for _ in range(20)}) == 20

    def test_it_may_be_limited(self, client: FlaskClient, store: MemoryStore) -> None:
        scopes = {"providers": ["openai", "anthropic-*"], "models": ["gpt-*"]}
        document = create(client, scopes=scopes)
        assert document["scopes"] == scopes
        authorization = store.authorize(Credential(key=document["key"]))
        assert authorization.scopes == Scopes(("openai", "anthropic-*"), ("gpt-*",))

    @pytest.mark.parametrize("scopes", [None, {}, {"models": ["x"]}])
    def test_limits_may_be_left_out(self, client: FlaskClient, scopes: Any) -> None:
        assert create(client, scopes=scopes)["scopes"]["providers"] is None

    def test_it_may_expire_at_a_time(self, client: FlaskClient) -> None:
        moment = (datetime.now(UTC) + timedelta(days=3)).replace(microsecond=0)
        document = create(client, expires_at=moment.isoformat())
        assert datetime.fromisoformat(document["expires_at"]) == moment
        assert document["expires_at"].endswith("Z")

    def test_it_may_expire_after_a_time(self, client: FlaskClient) -> None:
        document = create(client, expires_in=3600)
        lifetime = datetime.fromisoformat(document["expires_at"]) - datetime.fromisoformat(
            document["created_at"]
        )
        assert timedelta(minutes=59) < lifetime < timedelta(minutes=61)

    @pytest.mark.parametrize(
        ("fields", "wrong"),
        [
            ({"owner": ""}, "owner"),
            ({"owner": "   "}, "owner"),
            ({"owner": None}, "owner"),
            ({"owner": 7}, "owner"),
            ({"owner": "ada\nroot"}, "owner"),
            ({"owner": "\ud800"}, "owner"),
            ({"owner": "x" * 257}, "owner"),
            ({"display_name": "x" * 257}, "display_name"),
            ({"display_name": "\x1b[2J"}, "display_name"),
            ({"expires_in": 0}, "expires_in"),
            ({"expires_in": -1}, "expires_in"),
            ({"expires_in": 10**12}, "expires_in"),
            ({"expires_in": "30d"}, "expires_in"),
            ({"expires_in": 60, "expires_at": "2999-01-01T00:00:00Z"}, "expires_in"),
            ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
            ({"expires_at": "2999-01-01T00:00:00Z"}, "expires_at"),
            ({"expires_at": "2030-01-01"}, "expires_at"),
            ({"expires_at": "tomorrow"}, "expires_at"),
            ({"expires_at": 7}, "expires_at"),
            ({"scopes": []}, "scopes"),
            ({"scopes": {"users": ["ada"]}}, "scopes"),
            ({"scopes": {"providers": []}}, "scopes"),
            ({"scopes": {"providers": ["*x"]}}, "scopes"),
            ({"scopes": {"providers": ["Open AI"]}}, "scopes"),
            ({"scopes": {"providers": ["x"] * 101}}, "scopes"),
            ({"scopes": {"models": [""]}}, "scopes"),
            ({"scopes": {"models": ["a*b"]}}, "scopes"),
            ({"scopes": {"models": [7]}}, "scopes"),
            ({"key": "aib_mine"}, "key"),
            ({"id": NOBODY}, "id"),
        ],
    )
    def test_wrong_fields_are_refused(
        self, client: FlaskClient, store: MemoryStore, fields: dict[str, Any], wrong: str
    ) -> None:
        response = client.post(KEYS, data=json.dumps({"owner": "ada", **fields}), headers=AS_ADMIN, **JSON)
        assert list(assert_problem(response, 400, "invalid")["errors"]) == [wrong]
        assert store.api_keys().rows == ()

    def test_an_owner_is_needed(self, client: FlaskClient) -> None:
        response = client.post(KEYS, json={}, headers=AS_ADMIN)
        assert "owner" in assert_problem(response, 400, "invalid")["errors"]


JSON: Any = {"content_type": "application/json"}


class TestList:
    def test_an_administrator_sees_every_key_newest_first(
        self, client: FlaskClient, store: MemoryStore
    ) -> None:
        ids = [
            id_of(stored_key(store, owner, number)) for number, owner in enumerate(["ada", "bob", "ada"], 1)
        ]
        document = json.loads(client.get(KEYS, headers=AS_ADMIN).data)
        assert [key["id"] for key in document["keys"]] == ids[::-1]
        assert document["count"] == 3
        assert all(set(key) == SHOWN for key in document["keys"])

    def test_the_owner_may_be_given(self, client: FlaskClient, store: MemoryStore) -> None:
        stored_key(store, "ada", 1)
        stored_key(store, "bob", 2)
        document = json.loads(client.get(f"{KEYS}?owner=bob", headers=AS_ADMIN).data)
        assert [key["owner"] for key in document["keys"]] == ["bob"]

    def test_a_list_comes_in_pages(self, client: FlaskClient, store: MemoryStore) -> None:
        """Of a size that is bounded, with the same filters."""
        ids = [id_of(stored_key(store, "ada" if number % 2 else "bob", number)) for number in range(1, 8)][
            ::-1
        ]
        seen: list[str] = []
        url = f"{KEYS}?limit=3"
        while True:
            document = json.loads(client.get(url, headers=AS_ADMIN).data)
            assert document["count"] == 7
            seen += [key["id"] for key in document["keys"]]
            if document["next"] is None:
                break
            url = f"{KEYS}?limit=3&cursor={document['next']}"
        assert seen == ids
        url = f"{KEYS}?owner=ada&limit=2"
        document = json.loads(client.get(url, headers=AS_ADMIN).data)
        assert [key["id"] for key in document["keys"]] == [ids[0], ids[2]]
        document = json.loads(client.get(f"{url}&cursor={document['next']}", headers=AS_ADMIN).data)
        assert [key["id"] for key in document["keys"]] == [ids[4], ids[6]]
        assert (document["count"], document["next"]) == (4, None)

    @pytest.mark.parametrize(
        "query", ["limit=0", "limit=1001", "limit=" + "9" * 5000, "cursor=x", "cursor=", "page=2"]
    )
    def test_a_page_that_there_cannot_be_is_400(self, client: FlaskClient, query: str) -> None:
        assert_problem(client.get(f"{KEYS}?{query}", headers=AS_ADMIN), 400, "invalid")

    def test_a_user_sees_their_own(self, client: FlaskClient, store: MemoryStore) -> None:
        adas = stored_key(store, "ada", 1)
        stored_key(store, "bob", 2)
        for query in ("", "?owner=ada"):
            document = json.loads(client.get(KEYS + query, headers=sent_as(adas)).data)
            assert [key["owner"] for key in document["keys"]] == ["ada"]
        assert client.get(f"{KEYS}?owner=bob", headers=sent_as(adas)).json == {
            "count": 0,
            "keys": [],
            "next": None,
        }

    def test_how_a_key_stands_and_when_it_was_used(self, client: FlaskClient, store: MemoryStore) -> None:
        used = stored_key(store, "ada", 1)
        stored_key(store, "ada", 2, expires_in=timedelta(seconds=-1))
        revoked = stored_key(store, "ada", 3)
        store.authorize(Credential(key=used))
        client.delete(f"{KEYS}/{id_of(revoked)}", headers=AS_ADMIN)
        document = json.loads(client.get(KEYS, headers=AS_ADMIN).data)
        assert [key["status"] for key in document["keys"]] == ["revoked", "expired", "active"]
        assert [key["last_used_at"] is None for key in document["keys"]] == [True, True, False]


class TestShow:
    def test_one_key(self, client: FlaskClient, store: MemoryStore) -> None:
        adas = stored_key(store, "ada")
        for headers in (AS_ADMIN, sent_as(adas)):
            document = client.get(f"{KEYS}/{id_of(adas)}", headers=headers).json
            assert document is not None
            assert (document["id"], document["owner"]) == (id_of(adas), "ada")

    def test_other_peoples_keys_are_unknown(self, client: FlaskClient, store: MemoryStore) -> None:
        """The answer is that for a key that is not there, to the letter."""
        adas, bobs = stored_key(store, "ada", 1), stored_key(store, "bob", 2)
        for method in ("GET", "DELETE"):
            answers = [
                client.open(f"{KEYS}/{key_id}", method=method, headers=sent_as(adas))
                for key_id in (id_of(bobs), NOBODY)
            ]
            assert_problem(answers[0], 404, "unknown_key")
            assert answers[0].data == answers[1].data
        assert reason_of(store, bobs) is None


class TestRevoke:
    def test_a_revoked_key_stays_in_the_list_and_admits_nobody(
        self, client: FlaskClient, store: MemoryStore
    ) -> None:
        adas = stored_key(store, "ada")
        response = client.delete(f"{KEYS}/{id_of(adas)}", headers=AS_ADMIN)
        assert response.status_code == 200
        assert response.json is not None
        assert response.json["status"] == "revoked"
        assert reason_of(store, adas) == "revoked"
        assert store.api_keys().count == 1

    def test_a_user_may_revoke_their_own(self, client: FlaskClient, store: MemoryStore) -> None:
        adas = stored_key(store, "ada", 1)
        other = stored_key(store, "ada", 2)
        assert client.delete(f"{KEYS}/{id_of(other)}", headers=sent_as(adas)).status_code == 200
        assert reason_of(store, other) == "revoked"
        assert reason_of(store, adas) is None

    def test_revoking_again_changes_nothing(
        self, client: FlaskClient, store: MemoryStore, changes: list[dict[str, Any]]
    ) -> None:
        path = f"{KEYS}/{id_of(stored_key(store, 'ada'))}"
        first, second = (client.delete(path, headers=AS_ADMIN) for _ in range(2))
        assert first.data == second.data
        assert [change["action"] for change in changes] == ["revoked"]

    def test_an_unknown_key(self, client: FlaskClient) -> None:
        assert_problem(client.delete(f"{KEYS}/{NOBODY}", headers=AS_ADMIN), 404, "unknown_key")


class TestRotate:
    def test_without_an_overlap_the_old_secret_ends_at_once(
        self, client: FlaskClient, store: MemoryStore
    ) -> None:
        old = stored_key(store, "ada")
        response = client.post(f"{KEYS}/{id_of(old)}/rotate", headers=AS_ADMIN)
        assert response.json is not None
        new = response.json["key"]
        assert id_of(new) == id_of(old)
        assert new != old
        assert reason_of(store, new) is None
        assert reason_of(store, old) == "wrong_secret"

    def test_with_an_overlap_both_are_accepted_for_a_time(
        self, client: FlaskClient, store: MemoryStore
    ) -> None:
        old = stored_key(store, "ada")
        path = f"{KEYS}/{id_of(old)}/rotate"
        response = client.post(path, json={"overlap_seconds": 3600}, headers=AS_ADMIN)
        assert response.json is not None
        assert reason_of(store, response.json["key"]) is None
        assert reason_of(store, old) is None
        row = store.api_key(id_of(old))
        assert row is not None
        assert row.old_until is not None
        assert row.old_until - datetime.now(UTC) < timedelta(hours=1)

    @pytest.mark.parametrize("overlap", [-1, 7 * 86400 + 1, "1h", None, 1.5])
    def test_a_wrong_overlap_is_refused(self, client: FlaskClient, store: MemoryStore, overlap: Any) -> None:
        old = stored_key(store, "ada")
        path = f"{KEYS}/{id_of(old)}/rotate"
        response = client.post(path, json={"overlap_seconds": overlap}, headers=AS_ADMIN)
        assert_problem(response, 400, "invalid")
        assert reason_of(store, old) is None

    def test_a_revoked_key_is_not_brought_back(self, client: FlaskClient, store: MemoryStore) -> None:
        old = stored_key(store, "ada")
        client.delete(f"{KEYS}/{id_of(old)}", headers=AS_ADMIN)
        assert_problem(client.post(f"{KEYS}/{id_of(old)}/rotate", headers=AS_ADMIN), 409, "key_revoked")
        assert reason_of(store, old) == "revoked"

    def test_an_expired_key_is_not_brought_back(self, client: FlaskClient, store: MemoryStore) -> None:
        old = stored_key(store, "ada", expires_in=timedelta(seconds=-1))
        assert_problem(client.post(f"{KEYS}/{id_of(old)}/rotate", headers=AS_ADMIN), 409, "key_expired")

    def test_an_unknown_key(self, client: FlaskClient) -> None:
        assert_problem(client.post(f"{KEYS}/{NOBODY}/rotate", headers=AS_ADMIN), 404, "unknown_key")

    @pytest.mark.parametrize(
        "overlap", [timedelta(seconds=-1), key_changes.MAX_OVERLAP + timedelta(seconds=1)]
    )
    def test_the_overlap_is_bounded_for_every_caller(self, store: MemoryStore, overlap: timedelta) -> None:
        with pytest.raises(ValueError, match="7 days"):
            key_changes.rotate_key(store, NOBODY, by="x", overlap=overlap)


ROUTES = [
    ("GET", "/keys"),
    ("POST", "/keys"),
    ("GET", f"/keys/{NOBODY}"),
    ("DELETE", f"/keys/{NOBODY}"),
    ("POST", f"/keys/{NOBODY}/rotate"),
]


class TestAccess:
    @pytest.mark.parametrize(("method", "path"), ROUTES)
    @pytest.mark.parametrize("headers", [{}, sent_as("nonsense"), sent_as("aib_a_b")])
    def test_nobody_gets_in_without_credentials(
        self, client: FlaskClient, method: str, path: str, headers: dict[str, str]
    ) -> None:
        response = client.open(PREFIX + path, method=method, headers=headers)
        assert_problem(response, 401, "unauthorized")
        assert response.headers["WWW-Authenticate"]

    @pytest.mark.parametrize("path", ["/keys", f"/keys/{NOBODY}/rotate"])
    def test_users_neither_make_nor_rotate_keys(
        self, client: FlaskClient, store: MemoryStore, path: str
    ) -> None:
        """Who has a key could otherwise have one for ever."""
        adas = stored_key(store, "ada")
        response = client.post(PREFIX + path, json={"owner": "ada"}, headers=sent_as(adas))
        assert_problem(response, 403, "administrator_required")

    @pytest.mark.parametrize(("method", "path"), ROUTES)
    def test_a_store_that_is_away_is_a_503(self, method: str, path: str) -> None:
        def away() -> Store:
            raise ServicesUnavailable("The store is away.")

        client = make_app(away).test_client()
        body = {"owner": "ada"} if path == "/keys" else {}
        response = client.open(PREFIX + path, method=method, json=body, headers=AS_ADMIN)
        assert_problem(response, 503, "store_unavailable")

    def test_changes_by_a_session_need_json(self, store: MemoryStore) -> None:
        client = make_app(lambda: store, admin_loader=lambda: "boss").test_client()
        assert_problem(client.post(KEYS, data={"owner": "eve"}), 415, "json_required")
        assert_problem(client.delete(f"{KEYS}/{NOBODY}"), 415, "json_required")
        assert client.post(KEYS, json={"owner": "ada"}).status_code == 201


class TestAnnouncements:
    def test_each_change_is_announced(
        self, client: FlaskClient, store: MemoryStore, changes: list[dict[str, Any]]
    ) -> None:
        key_id = create(client)["id"]
        client.post(f"{KEYS}/{key_id}/rotate", headers=AS_ADMIN)
        client.delete(f"{KEYS}/{key_id}", headers=sent_as(stored_key(store, "ada")))
        assert changes == [
            {"sender": "host", "action": action, "kind": "api_key", "name": key_id, "by": by}
            for action, by in (("created", "administrator"), ("rotated", "administrator"), ("revoked", "ada"))
        ]

    def test_each_change_is_logged_without_its_secret(
        self, client: FlaskClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG):
            created = create(client)
            rotated = client.post(f"{KEYS}/{created['id']}/rotate", headers=AS_ADMIN).json
        assert rotated is not None
        logged = [record for record in caplog.records if record.name == "flask_aibridge.configuration"]
        assert [record.getMessage() for record in logged] == [
            f"api_key '{created['id']}' was {action} by 'administrator'." for action in ("created", "rotated")
        ]
        assert vars(logged[0])["object_name"] == created["id"]
        for key in (created["key"], rotated["key"]):
            secret = api_keys.parse(key)[1]
            assert all(secret not in str(vars(record)) for record in caplog.records)

    def test_a_name_cannot_forge_lines_of_the_log(
        self, store: MemoryStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = make_app(lambda: store, admin_loader=lambda: "boss\nERROR forged").test_client()
        with caplog.at_level(logging.INFO):
            client.post(KEYS, json={"owner": "ada"})
        assert "\n" not in caplog.records[-1].getMessage()

    def test_a_receiver_that_fails_takes_nothing_back(
        self, client: FlaskClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The key would be lost, for it is shown in this answer alone."""

        def receive(_sender: Flask, **_change: Any) -> None:
            raise RuntimeError("a defect of the host's")

        with configuration_changed.connected_to(receive):
            assert create(client)["key"]
        assert "a defect of the host's" in caplog.text


def test_an_issued_key_shows_no_secret_by_itself(store: MemoryStore, app: Flask) -> None:
    with app.app_context():
        issued = key_changes.create_key(store, owner="ada", by="x")
    assert api_keys.parse(issued.text)[1] not in repr(issued)


def test_the_paths_are_those_that_there_are(app: Flask) -> None:
    """OpenAPI names every route and every method, and no others."""
    routes = {
        (rule.rule.removeprefix(PREFIX).replace("<", "{").replace(">", "}"), method.lower())
        for rule in app.url_map.iter_rules()
        if rule.endpoint.startswith("aibridge_management.")
        for method in rule.methods or ()
        if method not in ("HEAD", "OPTIONS")
    }
    described = {
        (path, method)
        for path, operations in keys.PATHS.items()
        for method in operations
        if method != "parameters"
    }
    assert described == routes


class ChangingStore(MemoryStore):
    """Somebody else changes a key while it is changed."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: list[Any] = []

    def put_api_key(self, row: APIKeyRow) -> None:
        super().put_api_key(row)
        if self.meanwhile:
            super().put_api_key(self.meanwhile.pop()(row))


@pytest.mark.parametrize(
    ("meanwhile", "code"),
    [
        (lambda row: api_keys.revoked(row, key_changes.now()), "key_revoked"),
        (lambda row: api_keys.rotated(row, "another", None), "key_changed"),
    ],
)
def test_a_secret_that_does_not_work_is_not_handed_out(meanwhile: Any, code: str) -> None:
    """The key was revoked, or rotated, by somebody else between the reading and the end of a rotation."""
    store = ChangingStore()
    key_id = id_of(stored_key(store, "ada"))
    store.meanwhile.append(meanwhile)
    response = make_app(lambda: store).test_client().post(f"{KEYS}/{key_id}/rotate", headers=AS_ADMIN)
    assert_problem(response, 409, code)
