"""Licences of a whole application: installed over HTTP, in force at its public door, and out of force again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_aibridge import AIBridge
from flask_aibridge.license.issuing import SigningKey, issue_license

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

KEY = SigningKey.generate("k1")
TOKEN = "a-token-that-an-administrator-was-given"
AS_ADMIN = {"Authorization": f"Bearer {TOKEN}"}
DOOR = "/api/v2/aibridge"
LICENSES = "/api/v2/licenses"


def bridge(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the bridge"]


def make_app(**config: Any) -> Flask:
    app = Flask("host")
    app.config.update(
        AIBRIDGE_ADMIN_TOKEN=TOKEN,
        AIBRIDGE_LICENSE_PUBLIC_KEYS={"k1": KEY.public_pem},
        AIBRIDGE_REDIS_URL="memory://",
        AIBRIDGE_PROVIDERS={"claude-eu": {"type": "anthropic", "keys": ["sk-1"]}},
        **config,
    )
    AIBridge(app, bridge)
    return app


@pytest.fixture
def client() -> Iterator[FlaskClient]:
    app = make_app()
    yield app.test_client()
    app.extensions["aibridge"].gate.holder.close()


def test_a_licence_comes_and_goes(client: FlaskClient) -> None:
    """The door follows at once, in this process."""
    assert client.get(DOOR).status_code == 403
    response = client.post(LICENSES, json={"license": issue_license(KEY, jti="one")}, headers=AS_ADMIN)
    assert response.status_code == 201, response.text
    assert client.get(DOOR).data == b"the bridge"
    assert client.get("/api/v2/entitlements", headers=AS_ADMIN).get_json()["has_license"] is True
    assert client.delete(f"{LICENSES}/one", headers=AS_ADMIN).status_code == 200
    assert client.get(DOOR).status_code == 403


def test_a_refusal_has_the_shape_of_the_configured_provider(client: FlaskClient) -> None:
    """Whatever its name is."""
    document = json.loads(client.post(f"{DOOR}/claude-eu/v1/messages").data)
    assert document["error"]["type"] == "permission_error"


def test_the_status_may_be_chosen() -> None:
    """402, for those who sell."""
    response = make_app(AIBRIDGE_LICENSE_STATUS=402).test_client().get(DOOR)
    assert (response.status_code, response.get_json()["code"]) == (402, "license_required")


def test_the_document_of_the_routes_has_them(client: FlaskClient) -> None:
    """Where they are."""
    pytest.importorskip("apispec", reason="needs the [openapi] extra")
    paths = client.get(f"{DOOR}/openapi.json").get_json()["paths"]
    assert paths["/licenses"]["post"]["servers"] == [{"url": "/api/v2"}]
