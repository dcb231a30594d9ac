"""Every management route there is, for everybody: who may, who may not, and that no route was forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from flask_aibridge import AIBridge

PREFIX = "/api/v2/aibridge"
TOKEN = "a-token-that-an-administrator-was-given"
USERS_KEY = "aib_static_of-a-user"

FOR_EVERYBODY = {("GET", f"{PREFIX}/{name}") for name in ("openapi.json", "healthz", "readyz")}
FOR_USERS = {
    ("GET", f"{PREFIX}/interceptions"),
    ("GET", f"{PREFIX}/interceptions/<>"),
    ("GET", f"{PREFIX}/sessions"),
    ("GET", f"{PREFIX}/sessions/<>"),
    ("GET", f"{PREFIX}/usage"),
    ("GET", f"{PREFIX}/models"),
    ("GET", f"{PREFIX}/clients"),
    ("GET", f"{PREFIX}/keys"),
    ("GET", f"{PREFIX}/keys/<>"),
    ("DELETE", f"{PREFIX}/keys/<>"),
}
"""What users may ask of what is their own. Whatever is not here is for administrators."""


def make_app(folder: Path) -> Flask:
    app = Flask("routes", instance_path=str(folder), static_folder=None)
    app.config.update(
        AIBRIDGE_REDIS_URL="memory://",
        AIBRIDGE_PROVIDERS={},
        AIBRIDGE_ADMIN_TOKEN=TOKEN,
        AIBRIDGE_SECRET_KEY="k" * 32,
        AIBRIDGE_API_KEYS={"alice": USERS_KEY},
    )
    AIBridge(app)
    return app


def routes() -> list[tuple[str, str]]:
    """Method and path of every route, but those of the public door; ``<>`` stands for an argument."""
    rules = make_app(Path("/nowhere")).url_map.iter_rules()
    found = {
        (method, re.sub(r"<[^>]*>", "<>", rule.rule))
        for rule in rules
        if not rule.endpoint.endswith("method_not_allowed") and "public" not in rule.endpoint
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/api/") and not rule.rule.startswith(f"{PREFIX}/<path:")
    }
    return sorted(found - {("GET", PREFIX)})


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    app = make_app(tmp_path_factory.mktemp("instance"))
    yield app
    app.extensions["aibridge"].close()


def status(app: Flask, method: str, path: str, key: str | None) -> int:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    url = path.replace("<>", "unknown")
    json: dict[str, str] | None = {} if method in ("POST", "PUT", "PATCH") else None
    return app.test_client().open(url, method=method, headers=headers, json=json).status_code


def test_the_routes_are_those_that_are_known() -> None:
    """A route that users may ask and that is not there would mean that this test looks at nothing."""
    assert set(routes()) >= FOR_USERS | FOR_EVERYBODY


@pytest.mark.parametrize(("method", "path"), routes())
def test_a_stranger_gets_nothing(app: Flask, method: str, path: str) -> None:
    """Without credentials, or with wrong ones: 401, before anything is said of what is asked for."""
    expected = {200, 501, 503} if (method, path) in FOR_EVERYBODY else {401}
    assert {status(app, method, path, key) for key in (None, "aib_static_wrong", "", "x" * 5000)} <= expected


@pytest.mark.parametrize(("method", "path"), routes())
def test_a_user_changes_nothing(app: Flask, method: str, path: str) -> None:
    """What is not for users is a 403, whatever the body says."""
    found = status(app, method, path, USERS_KEY)
    if (method, path) in FOR_USERS | FOR_EVERYBODY:
        assert found in (200, 404, 501, 503)
    else:
        assert found == 403


@pytest.mark.parametrize(("method", "path"), routes())
def test_an_administrator_is_answered(app: Flask, method: str, path: str) -> None:
    """Never with a refusal of theirs, nor with an error of ours."""
    assert status(app, method, path, TOKEN) not in (401, 403, 405, 500)
