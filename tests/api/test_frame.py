"""``api``: the frame of the management routes: whose a path is, and how it says no."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from io import BytesIO
from types import ModuleType
from typing import Any

import pytest
from flask import Blueprint, Flask, abort, request
from flask.testing import FlaskClient
from marshmallow import Schema, fields
from werkzeug.test import TestResponse

from flask_aibridge.api import frame as api
from flask_aibridge.api.bodies import MAX_BODY, read_body
from flask_aibridge.api.management import Management
from flask_aibridge.errors import ConfigError, ServicesUnavailable
from flask_aibridge.services.memory.store import MemoryStore
from tests.api.management_app import PREFIX, make_app

ERRORS: dict[str, Exception] = {
    "unavailable": ServicesUnavailable("The store is away.", 2.4),
    "soon": ServicesUnavailable("The store is away.", 0.1),
    "no-store": ConfigError(
        "There is no store: set AIBRIDGE_REDIS_URL, or install flask-aibridge[embedded]."
    ),
    "no-secret": ConfigError("Set AIBRIDGE_SECRET_KEY to store provider keys."),
    "defect": ConfigError("AIBRIDGE_URL_PREFIX is wrong."),
    "unexpected": RuntimeError("a defect"),
}


class ThingSchema(Schema):
    size = fields.Integer(required=True, strict=True)


def add_routes(blueprint: Blueprint, _management: Management) -> None:
    @blueprint.get("/things")
    def things() -> dict[str, Any]:
        return {"things": []}

    @blueprint.get("/one")
    @blueprint.get("/other")
    def same_methods() -> dict[str, Any]:
        return {}

    @blueprint.post("/things")
    def make_thing() -> dict[str, Any]:
        return read_body(ThingSchema())

    @blueprint.delete("/things/<thing_id>")
    def delete_thing(thing_id: str) -> dict[str, Any]:
        return {"deleted": thing_id}

    @blueprint.put("/things/<name>")
    def put_thing(name: str) -> dict[str, Any]:
        return {"put": name}

    @blueprint.get("/errors/<name>")
    def error(name: str) -> dict[str, Any]:
        if name.isdecimal():
            abort(int(name))
        raise ERRORS[name]


@pytest.fixture(autouse=True)
def _a_part() -> Iterator[None]:
    """A module with routes, ``things``."""
    name = f"{api.__package__}.things"
    module: Any = ModuleType(name)
    module.add_routes = add_routes
    sys.modules[name] = module
    yield
    del sys.modules[name]


def make(**options: Any) -> Flask:
    return make_app(MemoryStore, parts=("things",), **options)


@pytest.fixture(params=[False, True], ids=["", "host matching"])
def client(request: pytest.FixtureRequest) -> FlaskClient:
    return make(host_matching=request.param).test_client()


def assert_problem(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(response.data)
    assert (response.status_code, document["code"]) == (status, code)
    assert response.content_type == "application/problem+json"
    assert response.headers["Cache-Control"] == "no-store"
    assert document["status"] == status
    assert document["type"] == "about:blank"
    assert document["title"]
    assert document["detail"]
    return document


class TestPaths:
    """The public door takes everything below the prefix that is not a management path, and nothing that is."""

    @pytest.mark.parametrize("path", ["/things", "/things/"])
    def test_management_paths_win(self, client: FlaskClient, path: str) -> None:
        response = client.get(PREFIX + path)
        assert response.json == {"things": []}
        assert response.headers["Cache-Control"] == "no-store"

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", ""),
            ("GET", "/"),
            ("POST", "/anthropic/v1/messages"),
            ("GET", "/thingsandmore"),
            ("GET", "/things/1/2"),
            ("GET", "//things"),
            ("OPTIONS", "/anthropic/v1/messages"),
        ],
    )
    def test_all_others_are_the_bridges(self, client: FlaskClient, method: str, path: str) -> None:
        response = client.open(PREFIX + path, method=method)
        assert response.data == b"the bridge"
        assert "Cache-Control" not in response.headers

    @pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "X-MADE-UP"])
    @pytest.mark.parametrize("path", ["/things", "/things/"])
    def test_other_methods_are_refused_and_never_fall_to_the_bridge(
        self, client: FlaskClient, method: str, path: str
    ) -> None:
        response = client.open(PREFIX + path, method=method)
        assert method in assert_problem(response, 405, "method_not_allowed")["detail"]
        assert response.headers["Allow"] == "GET, HEAD, OPTIONS, POST"

    @pytest.mark.parametrize("path", ["/one", "/other"])
    @pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS"])
    def test_paths_with_the_same_methods_are_not_taken_for_each_other(
        self, client: FlaskClient, method: str, path: str
    ) -> None:
        """None redirects to another."""
        response = client.open(PREFIX + path, method=method)
        assert response.status_code == (204 if method == "OPTIONS" else 405)
        assert response.headers["Allow"] == "GET, HEAD, OPTIONS"

    def test_routes_that_name_an_argument_differently_are_one_path(self, client: FlaskClient) -> None:
        assert client.delete(f"{PREFIX}/things/7").json == {"deleted": "7"}
        assert client.put(f"{PREFIX}/things/7").json == {"put": "7"}
        response = client.get(f"{PREFIX}/things/7")
        assert_problem(response, 405, "method_not_allowed")
        assert response.headers["Allow"] == "DELETE, OPTIONS, PUT"

    def test_options_are_told(self, client: FlaskClient) -> None:
        response = client.options(f"{PREFIX}/things")
        assert (response.status_code, response.data) == (204, b"")
        assert response.headers["Allow"] == "GET, HEAD, OPTIONS, POST"

    def test_head_is_answered(self, client: FlaskClient) -> None:
        response = client.head(f"{PREFIX}/things")
        assert (response.status_code, response.data) == (200, b"")

    def test_they_are_not_behind_the_licence(self) -> None:
        client = make(licensed=False).test_client()
        assert client.get(f"{PREFIX}/things").json == {"things": []}
        assert client.get(f"{PREFIX}/openai/v1/models").status_code == 403

    def test_the_hosts_own_routes_stay_as_they_are(self) -> None:
        app = make()
        app.add_url_rule("/own", view_func=lambda: "own", endpoint="own")
        assert app.test_client().options("/own").allow.as_set() == {"get", "head", "options"}
        assert app.test_client().post("/own").content_type.startswith("text/html")


class TestProblems:
    def test_a_store_that_is_away(self, client: FlaskClient) -> None:
        response = client.get(f"{PREFIX}/errors/unavailable")
        detail = assert_problem(response, 503, "store_unavailable")["detail"]
        assert response.headers["Retry-After"] == "2"
        assert "The store is away." in detail
        assert "AIBRIDGE_REDIS_URL" in detail

    def test_retry_after_is_a_second_at_least(self, client: FlaskClient) -> None:
        assert client.get(f"{PREFIX}/errors/soon").headers["Retry-After"] == "1"

    @pytest.mark.parametrize(
        ("name", "code"), [("no-store", "store_missing"), ("no-secret", "secret_key_missing")]
    )
    def test_what_is_missing_is_said_with_its_remedy(self, client: FlaskClient, name: str, code: str) -> None:
        document = assert_problem(client.get(f"{PREFIX}/errors/{name}"), 503, code)
        assert document["detail"] == str(ERRORS[name])

    @pytest.mark.parametrize("name", ["defect", "unexpected"])
    def test_what_is_unexpected_is_left_to_flask(self, client: FlaskClient, name: str) -> None:
        response = client.get(f"{PREFIX}/errors/{name}")
        assert response.status_code == 500
        assert response.content_type.startswith("text/html")
        client.application.testing = True
        with pytest.raises(type(ERRORS[name])):
            client.get(f"{PREFIX}/errors/{name}")

    def test_the_hosts_handler_of_500_is_called(self) -> None:
        app = make()
        app.register_error_handler(500, lambda _error: ("oh dear", 500))
        assert app.test_client().get(f"{PREFIX}/errors/unexpected").data == b"oh dear"

    @pytest.mark.parametrize("hosts_own", [False, True])
    def test_flasks_own_errors_are_problems_too(self, hosts_own: bool) -> None:
        """Also where the host has pages of its own for them."""
        app = make()
        if hosts_own:
            app.register_error_handler(404, lambda _error: ("a page", 404))
        assert_problem(app.test_client().get(f"{PREFIX}/errors/404"), 404, "not_found")


class TestBodies:
    @pytest.mark.parametrize(
        ("body", "field"),
        [({}, "size"), ({"size": "x"}, "size"), ({"size": 1, "colour": "red"}, "colour"), ([], "_schema")],
    )
    def test_wrong_fields_are_named(self, client: FlaskClient, body: Any, field: str) -> None:
        document = assert_problem(client.post(f"{PREFIX}/things", json=body), 400, "invalid")
        assert list(document["errors"]) == [field]

    def test_no_body_is_an_empty_object(self, client: FlaskClient) -> None:
        assert_problem(client.post(f"{PREFIX}/things"), 400, "invalid")

    @pytest.mark.parametrize("body", [b"{", b"\xff\xfe\xff", b"[" * 100_000, b"secret-secret"])
    def test_what_is_not_json_is_refused_and_not_repeated(self, client: FlaskClient, body: bytes) -> None:
        response = client.post(f"{PREFIX}/things", data=body, content_type="application/json")
        assert_problem(response, 400, "not_json")
        assert b"secret" not in response.data

    @pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", None])
    def test_other_content_types_are_refused(self, client: FlaskClient, content_type: str | None) -> None:
        response = client.post(f"{PREFIX}/things", data=b'{"size": 1}', content_type=content_type)
        assert_problem(response, 415, "json_required")

    def test_the_largest_body_is_taken_and_no_larger_one(self, client: FlaskClient) -> None:
        body = b'{"size": 1' + b" " * (MAX_BODY - 11) + b"}"
        options: dict[str, Any] = {"content_type": "application/json"}
        assert client.post(f"{PREFIX}/things", data=body, **options).json == {"size": 1}
        assert_problem(client.post(f"{PREFIX}/things", data=body + b" ", **options), 413, "too_large")

    def test_a_body_that_the_host_has_read_is_read_again(self) -> None:
        app = make()

        @app.before_request
        def read() -> None:
            request.get_json()

        assert app.test_client().post(f"{PREFIX}/things", json={"size": 1}).json == {"size": 1}

    def test_a_body_that_comes_in_pieces_is_read_whole(self, client: FlaskClient) -> None:
        class Pieces(BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                return super().read(min(3, size or 3))

        response = client.post(
            f"{PREFIX}/things",
            input_stream=Pieces(b'{"size": 1}'),
            content_type="application/json",
            environ_overrides={"wsgi.input_terminated": True},
        )
        assert response.json == {"size": 1}

    @pytest.mark.parametrize(("extra", "status"), [(0, 200), (1, 413)])
    def test_a_body_of_untold_length_is_bounded_too(
        self, client: FlaskClient, extra: int, status: int
    ) -> None:
        body = b'{"size": 1' + b" " * (MAX_BODY - 11) + b"}" + b" " * extra
        environ = {"wsgi.input_terminated": True, "CONTENT_LENGTH": ""}
        response = client.post(
            f"{PREFIX}/things",
            input_stream=BytesIO(body),
            content_type="application/json",
            environ_overrides=environ,
        )
        assert response.status_code == status
