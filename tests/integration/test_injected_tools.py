"""A whole application with an MCP server: its users' requests have tools that the bridge runs, by both doors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_aibridge import AIBridge, Source
from flask_aibridge.errors import ConfigError
from flask_aibridge.license.issuing import SigningKey, issue_license
from tests.bridge.mcp.servers import ECHO, FakeServer, result, send_json
from tests.bridge.upstreams import Peer, ScriptedUpstream, answering
from tests.recordings import injected
from tests.services.servers import wait_until

KEY = "aib_alice_0123456789abcdef"
ADMIN = "a-token-that-an-administrator-was-given"
FIELDS = ("tool", "input", "tool_call_id", "injected", "server_url", "invocation_error")
PREFIX = "/api/v2/aibridge"
FIND = {**ECHO, "name": "find"}
STORIES = [each for each in injected.ALL if len(each.answers) > 1 and not each.name.endswith("refused")]


class Tickets(FakeServer):
    """An MCP server that answers each call with the next of these results."""

    def __init__(self, story: injected.Story) -> None:
        super().__init__(tools=[FIND, {**ECHO, "name": "drop_all"}])
        self._results = list(story.results)
        self.on["tools/call"] = self.call

    def call(self, peer: Peer, message: dict[str, Any]) -> None:
        said = self._results.pop(0)
        answer = result(
            message,
            resultType="complete",
            content=[{"type": "text", "text": said.text}],
            isError=said.is_error,
        )
        send_json(peer, answer)


@contextmanager
def application(provider: str, server: str, folder: Path, **config: Any) -> Iterator[tuple[Flask, AIBridge]]:
    app, signing = Flask("host", instance_path=str(folder)), SigningKey.generate("test")
    app.config.update(
        AIBRIDGE_PROVIDERS={
            "anthropic": {"type": "anthropic", "base_url": provider, "keys": ["sk-a"]},
            "openai": {"type": "openai", "base_url": f"{provider}/v1", "keys": ["sk-o"]},
        },
        AIBRIDGE_API_KEYS={"alice": KEY},
        AIBRIDGE_ADMIN_TOKEN=ADMIN,
        AIBRIDGE_REDIS_URL="memory://",
        AIBRIDGE_MCP_SERVERS={"tickets": {"url": f"{server}/mcp?key=secret", "tool_deny_regex": "^drop"}},
        AIBRIDGE_LICENSE_PUBLIC_KEYS={signing.kid: signing.public_pem},
        AIBRIDGE_LICENSE=issue_license(signing),
        **config,
    )
    extension = AIBridge(app)

    @extension.mcp_token_loader
    def token(user: str, server_id: str) -> str | None:
        return f"token-of-{user}" if user in ("alice", "application") else None

    try:
        yield app, extension
    finally:
        extension.wsgi_app.close()  # type: ignore[union-attr]
        app.extensions["aibridge"].close()


def ask(app: Flask, extension: AIBridge, story: injected.Story, door: str) -> bytes:
    if door == "public":
        answer = app.test_client().post(
            PREFIX + story.path,
            data=story.request,
            headers={"X-Api-Key": KEY},
            content_type="application/json",
        )
        assert answer.status_code == 200
        data: bytes = answer.data
        return data
    _, name, path = story.path.split("/", 2)
    transport = extension.transport_for(name, Source.AGENTS)
    response = transport.request("POST", f"https://provider.invalid/{path}", body=story.request)
    assert response.status == 200
    return response.data


@pytest.mark.parametrize("door", ["public", "in process"])
@pytest.mark.parametrize("story", STORIES, ids=str)
def test_a_request_has_tools_and_no_trace_of_them(
    story: injected.Story, door: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller gets one answer, the MCP server its user's token, and the records every call, but no result."""
    caplog.set_level("DEBUG")
    tickets = Tickets(story)
    with (
        ScriptedUpstream(answering(story.answers)) as provider,
        ScriptedUpstream(tickets) as server,
        application(provider.base_url, server.base_url, tmp_path, AIBRIDGE_INJECT_MCP_TOOLS=True) as (
            app,
            extension,
        ),
    ):
        assert ask(app, extension, story, door) == story.relayed
        known = recorded(app)
        tools = [[each.get(name) for name in FIELDS] for each in known["tool_calls"]]
        expected = [
            [tool, text, call_id, True, f"{server.base_url}/mcp", error]
            for tool, text, call_id, _, _, error in story.expected["tools"]
        ]
        user = "alice" if door == "public" else "application"
    assert tools == expected
    asked = "tools/call" if "invalid" not in story.name else "tools/list"
    assert tickets.head_of(asked)["authorization"] == f"Bearer token-of-{user}"
    sent = [request for peer in provider.peers for request in peer.requests]
    assert len(sent) == len(story.answers)
    for head, body in sent:
        assert b"token-of-" not in head + body
        assert b"drop_all" not in body
        assert b"sk-" in head
    said = [each.text for each in story.results if " " in each.text and not each.is_error]
    written = json.dumps(known) + caplog.text
    assert not [text for text in said if json.dumps(text)[1:-1] in written]
    assert "token-of-" not in written
    heads = "".join(tickets.heads)
    assert KEY not in heads
    assert "sk-" not in heads


def recorded(app: Flask) -> dict[str, Any]:
    """The one interception, when it has ended."""
    client, headers = app.test_client(), {"Authorization": f"Bearer {ADMIN}"}
    found: list[dict[str, Any]] = []

    def ended() -> bool:
        found[:] = client.get(f"{PREFIX}/interceptions?status=completed", headers=headers).get_json()[
            "interceptions"
        ]
        return bool(found)

    wait_until(ended, "the interception's end")
    answer: dict[str, Any] = client.get(
        f"{PREFIX}/interceptions/{found[0]['id']}", headers=headers
    ).get_json()
    return answer


def test_it_is_off_unless_it_is_set(tmp_path: Path) -> None:
    """Then the MCP server hears of nothing."""
    story = STORIES[0]
    tickets = Tickets(story)
    with (
        ScriptedUpstream(answering(story.answers)) as provider,
        ScriptedUpstream(tickets) as server,
        application(provider.base_url, server.base_url, tmp_path) as (app, extension),
    ):
        assert ask(app, extension, story, "public") == story.answers[0][2]
    assert tickets.seen == []
    ((_, body),) = [request for peer in provider.peers for request in peer.requests]
    assert "tools" not in json.loads(body)


def test_it_needs_records(tmp_path: Path) -> None:
    """What was called on whose behalf is to be known."""
    with (
        pytest.raises(ConfigError, match=r"^AIBRIDGE_INJECT_MCP_TOOLS needs the store"),
        application(
            "http://p.invalid",
            "http://s.invalid",
            tmp_path,
            AIBRIDGE_RECORDING="off",
            AIBRIDGE_INJECT_MCP_TOOLS=True,
        ),
    ):
        pass
