"""What Claude Code and Codex send, as it was seen on the wire, through both doors: what the provider gets, what the
client gets, and what is recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import pytest

from flask_aibridge.bridge import Bridge
from flask_aibridge.services.records import InterceptionStart
from flask_aibridge.transport import Source, TransportFactory
from tests import recordings
from tests.bridge.compressing import zstd
from tests.bridge.test_admission import KEY
from tests.bridge.test_asked import Both
from tests.bridge.upstreams import JSON_HEAD, SSE_HEAD, Peer, ScriptedUpstream, chunk
from tests.bridge.wsgi import call

SESSION = "0b1f4a3e-7a52-4f3e-9a44-3f0f6f9d8d11"

CLAUDE_CODE = {
    "User-Agent": "claude-cli/2.1.30 (external, cli)",
    "X-App": "cli",
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Anthropic-Version": "2023-06-01",
    "Anthropic-Beta": "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27",
    "Anthropic-Dangerous-Direct-Browser-Access": "true",
    "X-Stainless-Arch": "x64",
    "X-Stainless-Lang": "js",
    "X-Stainless-Os": "Linux",
    "X-Stainless-Package-Version": "0.70.0",
    "X-Stainless-Retry-Count": "0",
    "X-Stainless-Runtime": "node",
    "X-Stainless-Runtime-Version": "v22.19.0",
    "X-Stainless-Timeout": "600",
    "X-Claude-Code-Session-Id": SESSION,
}
CODEX = {
    "User-Agent": "codex_cli_rs/0.144.2 (Ubuntu 24.4.0; x86_64) xterm-256color",
    "Originator": "codex_cli_rs",
    "Accept": "text/event-stream",
    "Session-Id": SESSION,
    "Thread-Id": SESSION,
    "X-Client-Request-Id": SESSION,
    "X-Codex-Beta-Features": "remote_compaction",
    "X-Codex-Turn-Metadata": '{"turn_id": "0199", "sandbox": "none"}',
}
PASSED = {"x-app", "originator", "thread-id", "openai-beta"}
"""Headers that arrive at the provider as they were sent, beside those of the families below."""

TOOL = next(each for each in recordings.ALL if each.name == "messages_single_builtin_tool")
STEP = next(each for each in recordings.ALL if each.name == "responses_codex")


class Got(NamedTuple):
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class Request(NamedTuple):
    """What the provider was asked."""

    line: str
    headers: dict[str, str]
    body: bytes


Door = Callable[..., Got]


class Upstream(ScriptedUpstream):
    """Both providers, as far as these clients ask them."""

    def __init__(self) -> None:
        super().__init__(self._answer)

    def _answer(self, peer: Peer) -> None:
        while peer.read_request():
            path = peer.requests[-1][0].split(b" ")[1].partition(b"?")[0]
            recording = {b"/v1/messages": TOOL, b"/v1/responses": STEP}.get(path)
            if recording is not None:
                peer.send(SSE_HEAD + chunk(recording.body) + chunk(b""))
            else:
                answer = {b"/v1/messages/count_tokens": b'{"input_tokens": 14}'}.get(path, b"{}")
                peer.send(JSON_HEAD + b"Content-Length: %d\r\n\r\n" % len(answer) + answer)

    @property
    def requests(self) -> list[Request]:
        return [_read(head.decode(), body) for peer in self.peers for head, body in peer.requests]


def _read(head: str, body: bytes) -> Request:
    line, *fields = head.strip().split("\r\n")
    pairs = (field.split(": ", 1) for field in fields)
    return Request(line, {name.lower(): value for name, value in pairs}, body)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    with server:
        yield server


@pytest.fixture
def host(upstream: Upstream) -> Both:
    return Both(upstream.base_url)


@pytest.fixture
def bridge(host: Both) -> Iterator[Bridge]:
    with closing(Bridge(recording=lambda: host, hooks=[])) as made:
        yield made


@pytest.fixture(params=["public", "in process"])
def door(request: pytest.FixtureRequest, bridge: Bridge) -> Door:
    """Either door, for a caller with a key: sent with the request, or named by its id."""

    def public(method: str, path: str, body: Any = None, **headers: str) -> Got:
        reply = call(bridge, method, path, body, headers={"Authorization": f"Bearer {KEY}"} | headers)
        return Got(reply.status, reply.headers, reply.body)

    def in_process(method: str, path: str, body: Any = None, **headers: str) -> Got:
        _, provider, rest = path.split("/", 2)
        manager = TransportFactory(bridge).transport_for(provider, Source.AGENTS, key_id="k1")
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sdks = {"Authorization": "Bearer unused", "Content-Type": "application/json"}
        answer = manager.request(
            method, f"https://api.vendor.com/{rest}", body=sent, headers=sdks | headers, decode_content=False
        )
        return Got(
            answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.data
        )

    return public if request.param == "public" else in_process


def started(host: Both) -> list[InterceptionStart]:
    return [start for start, _ in host.admitted if start is not None]


def assert_sent_as_written(request: Request, headers: dict[str, str]) -> None:
    """What the client says of itself and of the API arrives; of who it is nothing does."""
    for name, value in headers.items():
        wanted = name.lower()
        if wanted in PASSED or wanted.startswith(
            ("anthropic-", "x-stainless-", "x-claude-", "x-codex-", "user-")
        ):
            assert request.headers[wanted] == value, name
    assert KEY not in str(request)
    assert "unused" not in str(request.headers)


def question(*results: dict[str, Any]) -> dict[str, Any]:
    """As Claude Code asks: instructions of its own in the user's turn, tools, its session in the metadata."""
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "<system-reminder>Today is Monday.</system-reminder>"},
                {"type": "text", "text": "Fix the test", "cache_control": {"type": "ephemeral"}},
            ],
        }
    ]
    if results:
        messages += [
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "toolu_01", "name": "Bash", "input": {}}],
            },
            {"role": "user", "content": list(results)},
        ]
    return {
        "model": "claude-sonnet-5",
        "messages": messages,
        "system": [{"type": "text", "text": "You are Claude Code."}],
        "tools": [{"name": "Bash", "input_schema": {"type": "object"}}],
        "metadata": {"user_id": json.dumps({"device_id": "d", "account_uuid": "", "session_id": SESSION})},
        "max_tokens": 32000,
        "stream": True,
    }


@pytest.mark.parametrize("path", ["/anthropic", "/anthropic/", "/anthropic/api/hello"])
def test_claude_code_opens_a_connection_before_it_needs_one(
    path: str, bridge: Bridge, upstream: Upstream
) -> None:
    """By a ``HEAD`` without credentials, which fills no log with refusals."""
    reply = call(bridge, "HEAD", path, headers={"User-Agent": "Bun/1.3.0", "Connection": "keep-alive"})
    assert (reply.status, reply.body) == (200, b"")
    assert upstream.requests == []


def test_claude_code_asks_with_a_tool_loop(door: Door, host: Both, upstream: Upstream) -> None:
    """Two turns of one session; the second answers the call that the first one's answer made."""
    result = {"type": "tool_result", "tool_use_id": "toolu_01", "content": "1 passed"}
    for turn in (question(), question(result)):
        got = door("POST", "/anthropic/v1/messages?beta=true", turn, **CLAUDE_CODE)
        assert (got.status, got.body) == (200, TOOL.body)
        assert got.headers["content-type"] == "text/event-stream"
    for request, turn in zip(upstream.requests, (question(), question(result)), strict=True):
        assert request.line == "POST /v1/messages?beta=true HTTP/1.1"
        assert request.headers["x-api-key"] == "sk-host"
        assert request.headers["accept-encoding"] == "identity"
        assert request.body == json.dumps(turn).encode()
        assert_sent_as_written(request, CLAUDE_CODE)
    first, second = started(host)
    assert {(each.client, each.session_id, each.model) for each in (first, second)} == {
        ("Claude Code", SESSION, "claude-sonnet-5")
    }
    assert (first.correlating_tool_call_id, second.correlating_tool_call_id) == (None, "toolu_01")
    prompts = [record.prompt for record in host.records if hasattr(record, "prompt")]
    calls = [record.tool_call_id for record in host.records if hasattr(record, "tool_call_id")]
    assert prompts == ["Fix the test"]
    assert calls[0] == "toolu_01"


def test_claude_code_without_the_header_names_its_session_in_the_body(door: Door, host: Both) -> None:
    """As its versions before the header do."""
    headers = {name: value for name, value in CLAUDE_CODE.items() if "Session" not in name}
    door("POST", "/anthropic/v1/messages?beta=true", question(), **headers)
    assert [start.session_id for start in started(host)] == [SESSION]


def test_claude_code_counts_tokens(door: Door, host: Both, upstream: Upstream) -> None:
    """Before it asks; nothing is recorded of that."""
    asked = {"model": "claude-sonnet-5", "messages": [{"role": "user", "content": "Fix the test"}]}
    got = door("POST", "/anthropic/v1/messages/count_tokens?beta=true", asked, **CLAUDE_CODE)
    assert (got.status, got.body) == (200, b'{"input_tokens": 14}')
    assert upstream.requests[0].line == "POST /v1/messages/count_tokens?beta=true HTTP/1.1"
    assert (started(host), host.records) == ([], [])


@pytest.mark.parametrize("path", ["/api/event_logging/batch", "/api/event_logging/v2/batch"])
def test_claude_code_reports_what_it_did(path: str, door: Door, host: Both, upstream: Upstream) -> None:
    """To its base URL; it goes where it would go without a bridge, for those who may come in alone."""
    events = {"events": [{"event_type": "ClaudeCodeInternalEvent", "event_data": {"session_id": SESSION}}]}
    headers = CLAUDE_CODE | {"User-Agent": "claude-code/2.1.30", "X-Service-Name": "claude-code"}
    assert door("POST", f"/anthropic{path}", events, **headers).status == 200
    (request,) = upstream.requests
    assert request.line == f"POST {path} HTTP/1.1"
    assert json.loads(request.body) == events
    assert_sent_as_written(request, headers)
    assert host.records == []


def step(*more: dict[str, Any]) -> dict[str, Any]:
    """As Codex asks: its instructions, its environment, then what the user said; nothing is stored."""
    environment = {"type": "input_text", "text": "<environment_context>..</environment_context>"}
    said = {"type": "input_text", "text": "Fix the test"}
    history = [{"type": "message", "role": "user", "content": [part]} for part in (environment, said)]
    return {
        "model": "gpt-5",
        "instructions": "You are Codex.",
        "input": [*history, *more],
        "tools": [{"type": "function", "name": "shell", "strict": False, "parameters": {"type": "object"}}],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": SESSION,
    }


def test_codex_tries_a_websocket_and_goes_on_by_http(bridge: Bridge, host: Both, upstream: Upstream) -> None:
    """After a 426, which nothing was started for and no provider asked."""
    socket = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-Websocket-Version": "13",
        "Sec-Websocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Openai-Beta": "responses_websockets=2026-02-06",
    }
    key = {"Authorization": f"Bearer {KEY}"}
    reply = call(bridge, "GET", "/openai/v1/responses", headers=CODEX | socket | key)
    assert reply.status == 426
    assert reply.json["error"]["code"] == "upgrade_required"
    assert (started(host), upstream.requests) == ([], [])
    reply = call(bridge, "POST", "/openai/v1/responses", step(), headers=CODEX | key)
    assert (reply.status, reply.body) == (200, STEP.body)


@pytest.mark.parametrize("compress", [None, zstd], ids=["plain", "zstd"])
def test_codex_asks_with_a_tool_loop(
    compress: Callable[[bytes], bytes] | None, door: Door, host: Both, upstream: Upstream
) -> None:
    """Its bodies arrive as it wrote them, items without ids and all, compressed or not."""
    call_made = {"type": "function_call", "name": "read_file", "arguments": "{}", "call_id": "call_01"}
    result = {"type": "function_call_output", "call_id": "call_01", "output": "ok"}
    bodies = [json.dumps(each).encode() for each in (step(), step(call_made, result))]
    headers = CODEX if compress is None else CODEX | {"Content-Encoding": "zstd"}
    for body in bodies:
        got = door("POST", "/openai/v1/responses", body if compress is None else compress(body), **headers)
        assert (got.status, got.body) == (200, STEP.body)
    for request, body in zip(upstream.requests, bodies, strict=True):
        assert request.line == "POST /v1/responses HTTP/1.1"
        assert request.headers["authorization"] == "Bearer sk-host"
        assert request.headers["session-id"] == SESSION
        assert "content-encoding" not in request.headers
        assert request.body == body
        assert_sent_as_written(request, CODEX)
    first, second = started(host)
    assert {(each.client, each.session_id, each.model) for each in (first, second)} == {
        ("Codex", SESSION, "gpt-5")
    }
    assert (first.correlating_tool_call_id, second.correlating_tool_call_id) == (None, "call_01")


def test_codex_of_before_names_its_session_where_no_server_drops_it(door: Door, host: Both) -> None:
    """WSGI servers drop headers with an underscore; the key of its cache is the same id."""
    headers = {name: value for name, value in CODEX.items() if not name.endswith("-Id")}
    door("POST", "/openai/v1/responses", step(), **headers)
    assert [start.session_id for start in started(host)] == [SESSION]


def test_codex_lists_models(door: Door, upstream: Upstream) -> None:
    """With the version that it is, which passes in the query."""
    assert door("GET", "/openai/v1/models?client_version=0.144.2", **CODEX).status == 200
    assert upstream.requests[0].line == "GET /v1/models?client_version=0.144.2 HTTP/1.1"
