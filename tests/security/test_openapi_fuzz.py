"""Schemathesis against the OpenAPI document: every management route, with what its description allows and with what it
does not, by administrators, users and nobody."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, Phase, settings

from tests.security.gateways import ADMIN, AS_ADMIN, KEY, PREFIX, gateway

schemathesis = pytest.importorskip("schemathesis")
response_schema_conformance = pytest.importorskip(
    "schemathesis.specs.openapi.checks"
).response_schema_conformance
pytest.importorskip("apispec", reason="needs the [openapi] extra")
pytestmark = pytest.mark.security

EXAMPLES = 10
"""Requests of each route by an administrator: the rules of the fields have tests of their own."""

PHASES = [Phase.explicit, Phase.generate]
STATUSES: Counter[int] = Counter()

CONFIG: dict[str, Any] = {"AIBRIDGE_SECRET_KEY": "s" * 43}
SECRETS = (KEY, ADMIN, "sk-the-providers-own-key", "s" * 43)
AS_ALICE = {"Authorization": f"Bearer {KEY}"}


def _document() -> dict[str, Any]:
    with gateway("http://127.0.0.1:1", **CONFIG) as app:
        document: dict[str, Any] = (
            app.test_client().get(f"{PREFIX}/openapi.json", headers=AS_ADMIN).get_json()
        )
    return document


DOCUMENT = _document()
schema = schemathesis.openapi.from_dict(DOCUMENT)


@pytest.fixture(scope="module")
def app() -> Iterator[Flask]:
    with gateway("http://127.0.0.1:1", **CONFIG) as app:
        yield app


@schema.parametrize()  # type: ignore[untyped-decorator]
@settings(max_examples=EXAMPLES, phases=PHASES, suppress_health_check=list(HealthCheck))
def test_a_route_keeps_its_word(app: Flask, caplog: pytest.LogCaptureFixture, case: Any) -> None:
    """No failure inside, an answer of the form that the document promises, problems for everything else; and no
    secret in any of them."""
    response = case.call(app=app, headers=AS_ADMIN)
    STATUSES[response.status_code] += 1
    assert response.status_code < 500 or response.status_code in (501, 503), response.text
    assert not any(secret in response.text for secret in SECRETS)
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []
    case.validate_response(response, checks=[response_schema_conformance])


def test_the_requests_were_good_and_bad_ones() -> None:
    """So that they came to the reading of what was sent, and to what is done with it."""
    assert STATUSES[200] > 10
    assert STATUSES[400] > 10


OPERATIONS = [
    (
        method.upper(),
        path.format(
            key_id="a" * 12,
            name="anthropic",
            server_id="x",
            user="y",
            session_id="s",
            license_id="l",
            interception_id="i",
        ),
    )
    for path, item in DOCUMENT["paths"].items()
    for method in item
    if method in ("get", "post", "put", "patch", "delete") and item[method].get("security") != []
]
"""All but those that say that they need no credentials."""


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_a_route_is_for_those_it_is_for(app: Flask, method: str, path: str) -> None:
    """Nobody gets anything but the description; users read, and change nothing but keys of their own."""
    base = "/api/v2" if path.startswith(("/licenses", "/entitlements")) else PREFIX
    for headers, statuses in ((None, (401,)), (AS_ALICE, (200, 403, 404) if method == "GET" else (403, 404))):
        answer = app.test_client().open(base + path, method=method, json={}, headers=headers)
        assert answer.status_code in statuses, answer.text[:500]
