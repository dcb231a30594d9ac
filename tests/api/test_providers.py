"""``api.providers``: providers, seen and changed by administrators."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from flask_aibridge.api.providers import MAX_KEYS, PATHS
from flask_aibridge.api.signals import configuration_changed
from flask_aibridge.errors import ServicesUnavailable
from flask_aibridge.services.configuration.providers import TABLE
from flask_aibridge.services.storage import Store
from tests.api.configured_app import KEY, ConfiguredApp, no_store
from tests.api.management_app import AS_ADMIN, PREFIX, NoConfigurator, make_app

ANTHROPIC = {
    "name": "anthropic",
    "type": "anthropic",
    "base_url": "https://api.anthropic.com",
    "enabled": True,
    "keys": {"count": 1, "hints": ["sk-a…6789"]},
    "error": None,
}


@pytest.fixture
def configured() -> ConfiguredApp:
    return ConfiguredApp()


@pytest.fixture
def client(configured: ConfiguredApp) -> FlaskClient:
    return configured.app.test_client()


@pytest.fixture
def changes() -> Iterator[list[dict[str, Any]]]:
    """What is announced."""
    seen: list[dict[str, Any]] = []

    def receive(_sender: object, **change: Any) -> None:
        seen.append(change)

    with configuration_changed.connected_to(receive):
        yield seen


def ask(client: FlaskClient, method: str, path: str, body: object = None) -> Any:
    return client.open(f"{PREFIX}{path}", method=method, json=body, headers=AS_ADMIN)


def code(response: Any) -> tuple[int, str]:
    assert response.mimetype == "application/problem+json"
    return response.status_code, response.json["code"]


ROUTES = [
    ("GET", "/providers"),
    ("PUT", "/providers/x"),
    ("PATCH", "/providers/x"),
    ("DELETE", "/providers/x"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_they_are_for_administrators(configured: ConfiguredApp, method: str, path: str) -> None:
    """Nobody else learns even which there are."""
    client = configured.app.test_client()
    assert code(client.open(f"{PREFIX}{path}", method=method, json={}))[0] in (401, 403)
    store = configured.store()
    assert store.config_version() == 0


def test_the_list_shows_how_many_keys_and_no_key(client: FlaskClient) -> None:
    """Hints are there to recognise them by."""
    response = ask(client, "GET", "/providers")
    assert response.json == {"count": 1, "providers": [ANTHROPIC]}
    assert KEY not in response.text


def test_putting_a_new_one(client: FlaskClient, changes: list[dict[str, Any]]) -> None:
    """Its keys go in and do not come out; the change is announced."""
    body = {"type": "openai", "base_url": "http://10.0.0.1/v1/", "keys": [KEY], "enabled": False}
    response = ask(client, "PUT", "/providers/local", body)

    assert response.status_code == 201
    assert response.json == {
        "name": "local",
        "type": "openai",
        "base_url": "http://10.0.0.1/v1",
        "enabled": False,
        "keys": {"count": 1, "hints": ["sk-a…6789"]},
        "error": None,
    }
    assert KEY not in response.text
    assert changes == [{"action": "created", "kind": "provider", "name": "local", "by": "administrator"}]
    assert [one["name"] for one in ask(client, "GET", "/providers").json["providers"]] == [
        "anthropic",
        "local",
    ]


def test_putting_what_is_there_changes_what_is_given(
    client: FlaskClient, changes: list[dict[str, Any]]
) -> None:
    """An interface that does not know the keys can change the rest."""
    response = ask(client, "PUT", "/providers/anthropic", {"enabled": False})
    assert (response.status_code, response.json) == (200, ANTHROPIC | {"enabled": False})
    assert [change["action"] for change in changes] == ["updated"]


def test_keys_that_cannot_be_seen_cannot_be_sent_elsewhere(client: FlaskClient) -> None:
    """Another base URL needs its own."""
    response = ask(client, "PUT", "/providers/anthropic", {"base_url": "https://elsewhere.example"})
    assert code(response) == (400, "invalid")
    assert "give its keys again" in response.json["detail"]


def test_disabling_and_enabling(client: FlaskClient, changes: list[dict[str, Any]]) -> None:
    """Keys stay."""
    assert ask(client, "PATCH", "/providers/anthropic", {"enabled": False}).json == ANTHROPIC | {
        "enabled": False
    }
    assert ask(client, "PATCH", "/providers/anthropic", {"enabled": True}).json == ANTHROPIC
    assert [change["action"] for change in changes] == ["updated", "updated"]


def test_removing(client: FlaskClient, changes: list[dict[str, Any]]) -> None:
    """For good; a second time there is nothing to remove."""
    response = ask(client, "DELETE", "/providers/anthropic")
    assert (response.status_code, response.data) == (204, b"")
    assert code(ask(client, "DELETE", "/providers/anthropic")) == (404, "unknown_provider")
    assert [change["action"] for change in changes] == ["deleted"]
    assert ask(client, "GET", "/providers").json["count"] == 0


def test_what_is_not_there(client: FlaskClient, changes: list[dict[str, Any]]) -> None:
    """Is not changed, and nothing is announced."""
    assert code(ask(client, "PATCH", "/providers/x", {"enabled": True})) == (404, "unknown_provider")
    assert changes == []


@pytest.mark.parametrize(
    ("method", "name", "body"),
    [
        ("PUT", "x", {}),
        ("PUT", "x", {"type": "gopher"}),
        ("PUT", "x", {"type": "openai", "base_url": ""}),
        ("PUT", "x", {"type": "openai", "base_url": f"https://u:{KEY}@h"}),
        ("PUT", "x", {"type": "openai", "keys": KEY}),
        ("PUT", "x", {"type": "openai", "keys": [""]}),
        ("PUT", "x", {"type": "openai", "keys": [KEY + "\n"]}),
        ("PUT", "x", {"type": "openai", "keys": [KEY * 1000]}),
        ("PUT", "x", {"type": "openai", "keys": [KEY] * (MAX_KEYS + 1)}),
        ("PUT", "x", {"type": "openai", "kyes": [KEY]}),
        ("PUT", "x", {"type": "openai", "enabled": "yes"}),
        ("PUT", "UPPER", {"type": "openai"}),
        ("PUT", "x" * 65, {"type": "openai"}),
        ("PATCH", "anthropic", {}),
        ("PATCH", "anthropic", {"enabled": None}),
        ("PATCH", "anthropic", {"enabled": "off"}),
    ],
)
def test_what_cannot_work_is_a_400(
    client: FlaskClient, changes: list[dict[str, Any]], method: str, name: str, body: dict[str, Any]
) -> None:
    """That shows no secret, and changes nothing."""
    response = ask(client, method, f"/providers/{name}", body)
    assert code(response) == (400, "invalid")
    assert KEY not in response.text
    assert changes == []


class TestWithoutASecretKey:
    def test_they_can_be_seen(self) -> None:
        """As the config says, and with no store at all."""
        client = ConfiguredApp(sealed=False, store=no_store).app.test_client()
        assert ask(client, "GET", "/providers").json == {"count": 1, "providers": [ANTHROPIC]}

    @pytest.mark.parametrize(
        ("method", "body"), [("PUT", {"type": "openai"}), ("PATCH", {"enabled": True}), ("DELETE", None)]
    )
    def test_they_cannot_be_changed(self, method: str, body: object) -> None:
        """The problem names the key, and says how to make one."""
        client = ConfiguredApp(sealed=False).app.test_client()
        response = ask(client, method, "/providers/anthropic", body)
        assert code(response) == (503, "secret_key_missing")
        assert "AIBRIDGE_SECRET_KEY" in response.json["detail"]
        assert "secrets.token_urlsafe(32)" in response.json["detail"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_a_store(method: str, path: str) -> None:
    """A missing one is the installation's matter, not the request's."""
    client = ConfiguredApp(store=no_store).app.test_client()
    response = ask(client, method, path, {"enabled": True} if method == "PATCH" else {"type": "openai"})
    assert code(response) == (503, "store_missing")


def test_with_the_store_away() -> None:
    """It is said when to try again."""

    def away() -> Store:
        raise ServicesUnavailable("The store is away.", 2.0)

    client = ConfiguredApp(store=away).app.test_client()
    assert code(ask(client, "GET", "/providers")) == (503, "store_unavailable")


def test_a_damaged_one_is_shown_with_what_is_wrong(configured: ConfiguredApp, client: FlaskClient) -> None:
    """It can be set anew, and not enabled."""
    configured.store().put_config_row(TABLE, "x", KEY)
    (_, shown) = ask(client, "GET", "/providers").json["providers"]

    assert shown["error"] == "it is not JSON"
    assert (shown["type"], shown["enabled"], shown["keys"]) == (None, None, {"count": 0, "hints": []})
    assert code(ask(client, "PATCH", "/providers/x", {"enabled": True})) == (409, "damaged")
    assert ask(client, "PUT", "/providers/x", {"type": "openai"}).json["error"] is None


class TestAConfiguratorOfTheHosts:
    def test_it_is_shown_and_not_changed(self, configured: ConfiguredApp, client: FlaskClient) -> None:
        """It has its providers from where we cannot write."""
        configured.providers = NoConfigurator()
        assert ask(client, "GET", "/providers").json == {"count": 0, "providers": []}
        assert code(ask(client, "DELETE", "/providers/x")) == (501, "configured_elsewhere")

    def test_so_is_one_behind_the_services(self, configured: ConfiguredApp) -> None:
        """Where the services are another host's."""
        client = make_app(configured.store, parts=("providers",)).test_client()
        assert ask(client, "GET", "/providers").json == {"count": 0, "providers": []}
        assert code(ask(client, "PUT", "/providers/x", {"type": "openai"})) == (501, "configured_elsewhere")


def test_nothing_secret_is_logged(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    """Who changed what is."""
    caplog.set_level(logging.DEBUG)
    ask(client, "PUT", "/providers/local", {"type": "openai", "keys": [KEY]})
    ask(client, "PUT", "/providers/local", {"type": "openai", "keys": [KEY + " "]})

    assert "provider 'local' was created by 'administrator'." in caplog.text
    assert KEY not in caplog.text


def test_every_route_is_described() -> None:
    """And no other."""
    described = {
        (method.upper(), path) for path, of in PATHS.items() for method in of if method != "parameters"
    }
    assert described == {(method, path.replace("/x", "/{name}")) for method, path in ROUTES}
