"""``/openapi.json``: a document of the routes that there are."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from flask_aibridge.api.frame import BLUEPRINT, PARTS
from flask_aibridge.services.memory.store import MemoryStore
from tests.api.management_app import PREFIX, make_app

URL = f"{PREFIX}/openapi.json"


@pytest.fixture
def document() -> Any:
    pytest.importorskip("apispec", reason="needs the [openapi] extra")
    app = make_app(MemoryStore, parts=PARTS)
    response = app.test_client().get(URL)
    assert (response.status_code, response.mimetype) == (200, "application/json"), response.text
    return response.json


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_the_document_names_itself(document: Any) -> None:
    """OpenAPI 3.1, with where the routes are and how to authenticate."""
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"]
    assert document["servers"] == [{"url": PREFIX}]
    assert document["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}


def test_every_reading_route_is_described(document: Any) -> None:
    """With its parameters and the shape of its answer."""
    paths = {"/interceptions", "/interceptions/{interception_id}", "/sessions", "/sessions/{session_id}"}
    assert paths | {"/usage", "/models", "/clients", "/openapi.json"} <= set(document["paths"])
    described = document["paths"]["/interceptions"]["get"]
    parameters = {each["name"]: each for each in described["parameters"]}
    assert set(parameters) == {
        "initiator",
        "provider",
        "model",
        "client",
        "source",
        "session_id",
        "status",
        "started_after",
        "started_before",
        "limit",
        "cursor",
        "format",
    }
    assert parameters["started_after"]["schema"]["format"] == "date-time"
    assert (parameters["limit"]["schema"]["minimum"], parameters["limit"]["schema"]["maximum"]) == (1, 1000)
    assert "running" in parameters["status"]["schema"]["enum"]
    assert set(described["responses"]["200"]["content"]) == {"application/json", "text/csv"}


def test_a_shape_is_the_answers_own(document: Any) -> None:
    """An interception has the members of the design."""
    shape = document["components"]["schemas"]["Interception"]["properties"]
    assert set(shape) == {
        "id",
        "initiator",
        "provider",
        "provider_type",
        "model",
        "client",
        "source",
        "session_id",
        "status",
        "started_at",
        "ended_at",
        "token_usage",
    }
    assert shape["source"]["type"] == ["string", "null"]


def test_every_reference_leads_somewhere(document: Any) -> None:
    """Within the document."""
    found = set(references(document))
    assert "#/components/schemas/Problem" in found
    for reference in found:
        target = document
        for name in reference.removeprefix("#/").split("/"):
            target = target[name]


def test_every_operation_says_how_it_refuses(document: Any) -> None:
    """As a problem document; and each parameter of a path is declared."""
    for path, item in document["paths"].items():
        declared = {each["name"] for each in item.get("parameters", ()) if each["in"] == "path"}
        assert declared == {part[1:-1] for part in path.split("/") if part.startswith("{")}, path
        for name, operation in item.items():
            if name != "parameters":
                assert "application/problem+json" in operation["responses"]["default"]["content"]
                assert operation["summary"].endswith(".")


def test_what_has_no_route_is_not_described() -> None:
    """An app with fewer parts has a shorter document."""
    pytest.importorskip("apispec", reason="needs the [openapi] extra")
    app = make_app(MemoryStore, parts=("usage", "openapi"))
    shown: Any = app.test_client().get(URL).json
    assert set(shown["paths"]) == {"/usage", "/models", "/clients", "/openapi.json"}


def test_every_route_of_the_app_is_described() -> None:
    """But those that only say no."""
    pytest.importorskip("apispec", reason="needs the [openapi] extra")
    app = make_app(MemoryStore, parts=PARTS)
    shown: Any = app.test_client().get(URL).json
    described = {
        (path.replace("{", "<").replace("}", ">"), name.upper())
        for path, item in shown["paths"].items()
        for name in item
        if name != "parameters"
    }
    routed = {
        (rule.rule.removeprefix(PREFIX).replace("<path:", "<"), method)
        for rule in app.url_map.iter_rules()
        if rule.endpoint.startswith(f"{BLUEPRINT}.")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert routed - described == set()


def test_asked_twice_it_says_the_same() -> None:
    """What the document is made of is not changed by making it."""
    pytest.importorskip("apispec", reason="needs the [openapi] extra")
    client = make_app(MemoryStore, parts=PARTS).test_client()
    assert client.get(URL).json == client.get(URL).json


def test_below_a_script_root_the_servers_are_there() -> None:
    """Where the app is mounted under a path."""
    pytest.importorskip("apispec", reason="needs the [openapi] extra")
    app = make_app(MemoryStore, parts=("openapi",))
    shown: Any = app.test_client().get(URL, environ_overrides={"SCRIPT_NAME": "/app"}).json
    assert shown["servers"] == [{"url": f"/app{PREFIX}"}]


def test_without_the_extra_the_answer_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """501: this server cannot."""
    monkeypatch.setitem(sys.modules, "apispec", None)
    response = make_app(MemoryStore, parts=("openapi",)).test_client().get(URL)
    problem = json.loads(response.text)
    assert (response.status_code, problem["code"]) == (501, "openapi_missing")
    assert "Flask-AIBridge[openapi]" in problem["detail"]
