"""The page of recipes for clients: each runs as it stands there, with an address and a key that exist."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from werkzeug.serving import WSGIRequestHandler, make_server, make_ssl_devcert

from tests.integration.bedrock import BedrockBridge
from tests.integration.replaying import API_KEY, DEADLINE, Host

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "clients.rst"

_TITLE = re.compile(r"^(.+)\n([-=])\2+$", re.MULTILINE)
_BLOCK = re.compile(r"^\.\. code-block:: (\w+)\n\n((?:   .*\n|\n)+)", re.MULTILINE)

# How the two programs ask, in the language that is at hand: what they read of the environment and of their files, where
# they send it, and the headers that tell which program it is, and in which session.
CLAUDE = """\
import json, os, urllib.request
base, token = os.environ["ANTHROPIC_BASE_URL"], os.environ["ANTHROPIC_AUTH_TOKEN"]
body = {"model": "claude-sonnet-5-5", "max_tokens": 99, "stream": True,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "A haiku, please."}]}]}
headers = {"Authorization": f"Bearer {token}", "User-Agent": "claude-cli/2.1.0 (external, cli)",
           "X-Claude-Code-Session-Id": "session-1", "Content-Type": "application/json",
           "anthropic-version": "2023-06-01", "anthropic-beta": "claude-code-20250219"}
url = f"{base}/v1/messages?beta=true"
print(urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)).read().decode())
"""
CODEX = """\
import json, os, pathlib, tomllib, urllib.request
config = tomllib.loads((pathlib.Path.home() / ".codex" / "config.toml").read_text(encoding="utf-8"))
provider = config["model_providers"][config["model_provider"]]
assert (provider["wire_api"], provider["supports_websockets"]) == ("responses", False)
body = {"model": "gpt-5.4-codex", "stream": True, "store": False,
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "A haiku"}]}]}
headers = {"Authorization": f"Bearer {os.environ[provider['env_key']]}", "User-Agent": "codex_cli_rs/0.153.4",
           "session-id": "session-2", "Content-Type": "application/json", "originator": "codex_cli_rs"}
request = urllib.request.Request(f"{provider['base_url']}/responses", json.dumps(body).encode(), headers)
events = urllib.request.urlopen(request).read().decode().split("\\n\\n")
print([event for event in events if event.startswith("event: response.output_text.delta")])
"""
PROGRAMS = {"claude": CLAUDE, "codex": CODEX}

Seen = tuple[str, str | None, str | None, str | None]
"""Of one interception: who asked, the source, the program, the session."""

SDK: Seen = ("alice", None, "Unknown", None)
AGENT: Seen = ("application", "agents", "Unknown", None)

RECIPES: dict[str, tuple[list[str], list[Seen]]] = {
    "Claude Code": ([], [("alice", None, "Claude Code", "session-1")]),
    "Codex": ([], [("alice", None, "Codex", "session-2")]),
    "openai": (["openai", "httpx2"], [SDK, AGENT, AGENT]),
    "anthropic": (["anthropic", "httpx2"], [SDK, AGENT, AGENT]),
    "langchain-openai": (
        ["langchain_openai", "httpx2"],
        [SDK, ("application", "chains", "Unknown", None)],
    ),
    "requests": (["requests"], [SDK, AGENT]),
    "httpx and httpx2": (["httpx2"], [SDK, AGENT, AGENT]),
    "urllib3": ([], [SDK, AGENT]),
    "curl": ([], [SDK]),
    "boto3": (["boto3"], []),
    "Say where a call comes from, and for whom": ([], [("alice", "batch-jobs", "Unknown", None)]),
}
"""Section → what it needs, and what is recorded of it."""


class Block(NamedTuple):
    """A block of code, and its language."""

    language: str
    code: str


def sections() -> dict[str, list[Block]]:
    """Title → the blocks of code below it."""
    first, *rest = _TITLE.split(PAGE.read_text(encoding="utf-8"))
    assert first == ""
    return {
        title: [Block(language, textwrap.dedent(code)) for language, code in _BLOCK.findall(text)]
        for title, _, text in zip(*[iter(rest)] * 3, strict=True)
    }


@contextlib.contextmanager
def served_by_tls(host: Host, folder: Path) -> Iterator[tuple[str, str]]:
    """An application at an address by https, and the file of the certificate."""
    certificate, key = make_ssl_devcert(str(folder / "localhost"), host="localhost")
    server = make_server(
        "localhost",
        0,
        host.app,
        threaded=True,
        request_handler=WSGIRequestHandlerWithoutLog,
        ssl_context=(certificate, key),
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"https://localhost:{server.port}", certificate
    finally:
        server.shutdown()
        thread.join(DEADLINE)
        server.server_close()


class WSGIRequestHandlerWithoutLog(WSGIRequestHandler):
    """Says nothing to stderr."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Nothing."""


class Reader:
    """Somebody who does what the page says, with an application at ``url``."""

    def __init__(self, host: Host, url: str, home: Path) -> None:
        self._url = url
        self._home = home
        self._names: dict[str, Any] = {"aibridge": host.extension}
        self.bedrock = self._names["bedrock_bridge"] = BedrockBridge(["Hello"])

    def do(self, block: Block) -> None:
        """Run a block, as it is but for the address and the key."""
        code = block.code.replace("https://your.app", self._url).replace("aib_…", API_KEY)
        getattr(self, f"_{block.language}")(code)

    def _python(self, code: str) -> None:
        compiled = compile(code, str(PAGE), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        awaitable = eval(compiled, self._names)
        if inspect.iscoroutine(awaitable):
            asyncio.run(asyncio.wait_for(awaitable, DEADLINE))

    def _toml(self, code: str) -> None:
        folder = self._home / ".codex"
        folder.mkdir()
        (folder / "config.toml").write_text(code, encoding="utf-8")

    def _sh(self, code: str) -> None:
        for name, program in PROGRAMS.items():
            file = self._home / name
            file.write_text(f"#!{sys.executable}\n{program}", encoding="utf-8")
            file.chmod(0o700)
        environ = {"PATH": f"{self._home}:{os.environ['PATH']}", "HOME": str(self._home)}
        done = subprocess.run(
            ["sh", "-ec", code], env=environ, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        print(done.stdout)


@pytest.fixture
def host() -> Iterator[Host]:
    with Host(["Hello"]) as host:
        yield host


def test_every_recipe_is_run() -> None:
    """Those that have been added, too."""
    title, *recipes = sections()
    assert len(sections()[title]) == 1
    assert recipes == list(RECIPES)
    blocks = re.findall(r"^\.\. code-block::", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sum(map(len, sections().values())) == len(blocks)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_works(
    host: Host,
    recipe: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every request of it is answered, shown, and recorded as what it is; the provider sees its own key alone."""
    needed, expected = RECIPES[recipe]
    for name in needed:
        pytest.importorskip(name)
    if recipe == "curl" and shutil.which("curl") is None:
        pytest.skip("there is no curl")
    reader = Reader(host, host.url, tmp_path)
    with contextlib.ExitStack() as stack:
        if recipe == "boto3":  # which sends its token by https alone
            url, certificate = stack.enter_context(served_by_tls(host, tmp_path))
            monkeypatch.setenv("AWS_CA_BUNDLE", certificate)
            monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "")  # set by the recipe, and gone after the test
            reader = Reader(host, url, tmp_path)
        everything = sections()
        for block in (*next(iter(everything.values())), *everything[recipe]):
            reader.do(block)

    shown = capsys.readouterr().out
    told = [each.start for each in host.witness.ended(len(expected))]
    assert [(one.initiator, one.source, one.client, one.session_id) for one in told] == expected
    assert shown.count("Hello") == len(expected) or (recipe, shown.count("Hello")) == ("boto3", 2)
    for request in host.provider.requests:
        assert API_KEY not in "".join(request.headers.values())
    if recipe == "boto3":
        (_, _, _, public), (_, _, _, in_process) = reader.bedrock.requests
        assert public["HTTP_AUTHORIZATION"] == f"Bearer {API_KEY}"
        assert "flask_aibridge.source" not in public
        assert in_process["flask_aibridge.source"] == "agents"
