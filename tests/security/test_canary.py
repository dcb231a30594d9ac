"""Secrets in every position, with content not recorded: then everything that was sent, answered, logged, recorded or
shown is searched for them. ``tests/api/test_canary.py`` does so for the commands, what Redis writes, and the spool."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from flask_aibridge.bridge import Bridge
from flask_aibridge.bridge.interception import Interception
from flask_aibridge.bridge.options import BridgeOptions
from flask_aibridge.config import ProviderSettings
from flask_aibridge.observability import InterceptionEnded
from flask_aibridge.services.interfaces import Credential
from flask_aibridge.services.storage import Query
from flask_aibridge.testing import (
    AnswerWith,
    DropAfter,
    ErrorAfter,
    Failure,
    StandInProvider,
    serve_stand_in,
)
from tests.bridge.wsgi import call
from tests.logs import everything_logged
from tests.security.gateways import LICENSE, PREFIX, gateway

MARKED = (
    *(
        "provider key",
        "second provider key",
        "stored provider key",
        "admin token",
        "static key",
        "secret key",
        "MCP token",
    ),
    *("wrong key", "wrong admin token", "basic password", "cookie", "identity token", "CSRF token"),
)
CONTENT = ("prompt", "system prompt", "tool argument", "tool result", "answer", "provider's sentence")
"""What is said. It goes to the provider and back, and nowhere else where it is not recorded."""


class Trial:
    """Everything is tried once; ``seen`` has, by place, what was there."""

    def __init__(self) -> None:
        self.marks = {
            name: f"canary{number:02}x{secrets.token_hex(20)}"
            for number, name in enumerate((*MARKED, *CONTENT))
        }
        self.seen: dict[str, list[str]] = {
            place: [] for place in ("upstream", "answers", "records", "reprs", "log")
        }
        marks = self.marks
        self.key = f"aib_static00000_{marks['static key']}"
        self.config = {
            "AIBRIDGE_RECORD_CONTENT": False,
            "AIBRIDGE_ADMIN_TOKEN": marks["admin token"],
            "AIBRIDGE_SECRET_KEY": marks["secret key"],
            "AIBRIDGE_API_KEYS": {"alice": self.key},
            "AIBRIDGE_MCP_SERVERS": {"tickets": {"url": "https://tickets.example/mcp"}},
        }

    def run(self) -> None:
        """Ask both wire formats, well and ill; administer; read back; show objects."""
        quoted = {"error": {"type": "invalid_request_error", "message": f"too long: {self.marks['prompt']}"}}
        failures: list[Failure | None] = [
            *([None] * 6),
            AnswerWith(400, {"type": "error", **quoted}),
            AnswerWith(
                429, {"error": {"message": self.marks["provider's sentence"], "type": None, "code": "x"}}
            ),
            AnswerWith(500, self.marks["provider's sentence"].encode(), {"Content-Type": "text/html"}),
            ErrorAfter(1, self.marks["provider's sentence"]),
            DropAfter(1),
        ]
        keys = [self.marks["provider key"], self.marks["second provider key"]]
        stand_in = StandInProvider(answer=["Hello ", self.marks["answer"]], failures=failures)
        with serve_stand_in(stand_in) as served:
            providers = {
                kind: {"type": kind, "base_url": served.base_url + path, "keys": keys}
                for kind, path in (("anthropic", ""), ("openai", "/v1"))
            }
            with gateway(served.base_url, **self.config, AIBRIDGE_PROVIDERS=providers) as app:
                self._ask(app)
                self._administer(app)
                app.extensions["aibridge"].recording().close()
                self._read(app)
                self._show(app)
        self.seen["upstream"] = [
            f"{each.path} {each.query} {each.headers} {each.body!r}" for each in stand_in.requests
        ]

    def _ask(self, app: Flask) -> None:
        for number in range(11):
            path, document = self._question(number)
            self._open(app, "POST", path, json=document, headers=self._headers(number))
        path, document = self._question(0)
        for headers in (
            {"Authorization": f"Bearer aib_wrong0000000_{self.marks['wrong key']}"},
            {"X-Api-Key": self.marks["wrong key"]},
            {"Authorization": f"Basic {self.marks['basic password']}"},
        ):
            self._open(app, "POST", path, json=document, headers=headers)
        for method, target in (
            ("PUT", path),
            ("GET", "/anthropic/v1/none"),
            ("GET", "/none/v1/messages"),
            ("GET", "/"),
        ):
            self._open(app, method, target, headers={"X-Api-Key": self.key})

    def _headers(self, number: int) -> dict[str, str]:
        """The gateway's key where it belongs, and in a place where it does not; with what proxies and browsers add."""
        marks = self.marks
        right = {"X-Api-Key": self.key} if number % 2 else {"Authorization": f"Bearer {self.key}"}
        wrong = [
            "X-Custom",
            "X-Auth-Token",
            "Api-Key",
            "Cookie",
            "Proxy-Authorization",
            "X-Litellm-Api-Key",
            "Openai-Project",
        ]
        return right | {
            wrong[number % len(wrong)]: self.key,
            "X-Goog-IAP-JWT-Assertion": marks["identity token"],
            "CF-Access-Jwt-Assertion": marks["identity token"],
            "X-Forwarded-Access-Token": marks["identity token"],
            "X-CSRFToken": marks["CSRF token"],
            "User-Agent": f"claude-cli/1 {self.key}",
            "X-Claude-Code-Session-Id": self.key,
            **({} if wrong[number % len(wrong)] == "Cookie" else {"Cookie": f"session={marks['cookie']}"}),
        }

    def _question(self, number: int) -> tuple[str, dict[str, Any]]:
        marks = self.marks
        user = {"role": "user", "content": f"Say {marks['prompt']}."}
        call = {"type": "tool_use", "id": "t", "name": "n", "input": {"a": marks["tool argument"]}}
        result = {"type": "tool_result", "tool_use_id": "t", "content": marks["tool result"]}
        messages = [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
        ]
        asked = {"model": "m", "max_tokens": 9, "stream": number in (1, 3, 5, 9, 10)}
        return [
            ("/anthropic/v1/messages", {**asked, "system": marks["system prompt"], "messages": [user]}),
            (
                "/openai/v1/chat/completions",
                {**asked, "messages": [{"role": "system", "content": marks["system prompt"]}, user]},
            ),
            ("/openai/v1/responses", {**asked, "instructions": marks["system prompt"], "input": [user]}),
            ("/anthropic/v1/messages", {**asked, "messages": [*messages, user]}),
        ][number % 4]

    def _administer(self, app: Flask) -> None:
        headers = {"Authorization": f"Bearer {self.marks['admin token']}"}
        stored = {
            "type": "openai",
            "base_url": "http://127.0.0.1:1/v1",
            "keys": [self.marks["stored provider key"]],
        }
        self._open(app, "PUT", "/providers/stored", json=stored, headers=headers)
        self._open(
            app,
            "PUT",
            "/mcp/servers/tickets/tokens/alice",
            json={"token": self.marks["MCP token"]},
            headers=headers,
        )
        for path in (
            "/providers",
            "/mcp/servers",
            "/keys",
            "/usage",
            "/models",
            "/clients",
            "/sessions",
            "/openapi.json",
        ):
            for key in (self.marks["admin token"], self.marks["wrong admin token"], self.key):
                self._open(app, "GET", path, headers={"X-Api-Key": key})

    def _read(self, app: Flask) -> None:
        store = app.extensions["aibridge"].store()
        page = store.interceptions(Query(started_before=datetime.now(UTC) + timedelta(days=1)), limit=100)
        assert len(page.interceptions) >= 11
        views = [store.interception(each.start.id) for each in page.interceptions]
        self.seen["records"] = [repr(each) for each in (*views, *store.api_keys().rows)]
        for table in ("providers", "mcp", "mcp-tokens:alice"):
            self.seen["records"].append(repr(store.config_rows(table)))
        headers = {"Authorization": f"Bearer {self.marks['admin token']}"}
        for view in views:
            self._open(app, "GET", f"/interceptions/{view.start.id}", headers=headers)

    def _show(self, app: Flask) -> None:
        state = app.extensions["aibridge"]
        services = state.services()
        settings = ProviderSettings("p", "openai", "http://h", (self.marks["provider key"],))
        bridge = Bridge([settings], api_keys={"alice": self.key})
        credential = Credential(key=self.key)
        shown = [
            state,
            state.settings,
            state.settings.providers,
            state.access,
            state.callbacks,
            state.gate,
            state.licenses,
        ]
        shown += [
            state.store(),
            services,
            services.authorizer,
            services.authorizer.authorize(credential),
            state.recording(),
        ]
        shown += [
            state.provider_configurator(),
            services.provider_configurator.providers(),
            state.mcp_configurator(),
        ]
        shown += [
            services.mcp_configurator.mcp_access_tokens("alice", ["tickets"]),
            settings,
            bridge,
            credential,
        ]
        shown += [BridgeOptions(), Interception((), {}, credential), state.mounted, state.mounted.wsgi_app]
        self.seen["reprs"] = [f"{each!r} {each}" for each in shown]

    def _open(self, app: Flask, method: str, path: str, **sent: Any) -> None:
        answer = app.test_client().open(PREFIX + path, method=method, **sent)
        try:
            shown = answer.get_data(as_text=True)
        except Exception as error:  # a body that breaks off
            shown = repr(error)
        self.seen["answers"].append(f"{method} {path} {answer.status} {answer.headers!r} {shown}")


@pytest.fixture(scope="module")
def trial() -> Trial:
    trial = Trial()
    with everything_logged() as trial.seen["log"]:
        trial.run()
    return trial


def found(trial: Trial, name: str, places: tuple[str, ...]) -> list[str]:
    mark = trial.marks[name]
    return [f"{place}: {each[:300]}" for place in places for each in trial.seen[place] if mark in each]


@pytest.mark.parametrize("name", MARKED)
def test_a_secret_is_nowhere(trial: Trial, name: str) -> None:
    """Not in an answer, a log at DEBUG, a record, or a repr; and no key but the provider's own goes to it."""
    upstream = () if name in ("provider key", "second provider key") else ("upstream",)
    assert found(trial, name, ("answers", "log", "records", "reprs", *upstream)) == []


@pytest.mark.parametrize("name", CONTENT)
def test_what_is_said_is_not_kept(trial: Trial, name: str) -> None:
    """Not in a record, where content is not recorded, and never in a log: not even quoted by the provider's error."""
    assert found(trial, name, ("log", "records", "reprs")) == []


def test_the_licence_is_nowhere(trial: Trial) -> None:
    """Its text, with which another installation could be licensed: administrators see what it says."""
    assert [place for place, shown in trial.seen.items() for each in shown if LICENSE[-60:] in each] == []


def test_there_was_something_to_find(trial: Trial) -> None:
    """The provider's key went to the provider, prompts too, errors came back; all of it is where it was looked for."""
    assert all(trial.seen.values())
    assert found(trial, "provider key", ("upstream",))
    assert all(
        found(trial, name, ("upstream",))
        for name in ("prompt", "system prompt", "tool argument", "tool result")
    )
    assert all(found(trial, name, ("answers",)) for name in ("answer", "provider's sentence", "prompt"))
    assert any("invalid_request_error" in each for each in trial.seen["records"])
    assert any("urllib3" in each for each in trial.seen["log"])


HEADERS = [
    *(
        "Authorization",
        "X-Api-Key",
        "Api-Key",
        "X-Goog-Api-Key",
        "X-Auth-Token",
        "Cookie",
        "Proxy-Authorization",
        "X-Custom",
    ),
    *(
        "User-Agent",
        "X-Title",
        "Helicone-Auth",
        "Anthropic-Beta",
        "X-Stainless-Lang",
        "Referer",
        "Origin",
    ),
]


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("form", ["{}", "Bearer {}", "x; {}, y", "key={}"])
@pytest.mark.parametrize("secret", ["S" * 43, "of-the-config"])
def test_a_gateway_key_does_not_reach_the_provider(header: str, form: str, secret: str) -> None:
    """In whatever header somebody puts it, beside the one where it belongs, and in whatever words."""
    key = "aib_alice0000000_" + secret
    hook = Hook()
    with serve_stand_in() as served:
        settings = ProviderSettings("p", "openai", f"{served.base_url}/v1", ("sk-provider",))
        bridge = Bridge([settings], api_keys={"alice": key}, hooks=[hook])
        belongs = "Authorization" if header == "X-Api-Key" else "X-Api-Key"
        sent = {belongs: f"Bearer {key}" if belongs == "Authorization" else key, header: form.format(key)}
        assert call(bridge, "GET", "/p/v1/models", headers=sent).status == 200
        bridge.close()
    (received,) = served.stand_in.requests
    assert secret not in repr(dict(received.headers))
    assert received.headers["authorization"] == "Bearer sk-provider"
    assert secret not in repr(hook.records)


@pytest.mark.parametrize("query", ["key={}&x=1", "x=a%20{}", "x=aib%5Falice0000000%5F" + "S" * 43])
def test_a_gateway_key_in_a_query_is_refused(query: str) -> None:
    """Its owner has to learn that it is known to every log on the way."""
    key = "aib_alice0000000_" + "S" * 43
    with serve_stand_in() as served:
        settings = ProviderSettings("p", "openai", f"{served.base_url}/v1", ("sk-provider",))
        bridge = Bridge([settings], api_keys={"alice": key}, hooks=[])
        reply = call(bridge, "GET", f"/p/v1/models?{query.format(key)}", headers={"X-Api-Key": key})
        assert (reply.status, served.stand_in.requests) == (400, [])
        assert "S" * 43 not in reply.body.decode()
        assert call(bridge, "GET", "/p/v1/models?after=aib_x", headers={"X-Api-Key": key}).status == 200
        bridge.close()


@pytest.mark.parametrize("header", ["Authorization", "X-Api-Key", "X-Custom", "Cookie"])
@pytest.mark.parametrize("form", ["{}", "Bearer {}", "sk-own, {}"])
def test_a_gateway_key_is_no_key_of_ones_own(header: str, form: str) -> None:
    """Nor does it reach the provider of somebody who brings a key, where the key is meant to be or beside it."""
    key, own = "aib_alice0000000_" + "S" * 43, "sk-own-key-of-alice"
    with serve_stand_in() as served:
        settings = ProviderSettings("p", "openai", f"{served.base_url}/v1", ("sk-provider",))
        bridge = Bridge([settings], api_keys={"alice": key}, hooks=[], options=BridgeOptions(allow_byok=True))
        sent = {"X-AIBridge-Token": key, "Authorization": f"Bearer {own}", header: form.format(key)}
        status = call(bridge, "GET", "/p/v1/models", headers=sent).status
        bridge.close()
    received = [dict(each.headers) for each in served.stand_in.requests]
    assert "S" * 43 not in repr(received)
    assert (status, len(received)) in ((200, 1), (401, 0))
    if header != "Authorization":
        assert received[0]["authorization"] == f"Bearer {own}"


class Hook:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[InterceptionEnded] = []

    def interception_ended(self, record: InterceptionEnded) -> None:
        self.records.append(record)
