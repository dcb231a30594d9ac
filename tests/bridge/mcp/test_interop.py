"""The client against the server of the official SDK, which speaks both eras."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_aibridge.bridge.injection.tools import InjectedCall, ToolResult
from flask_aibridge.bridge.mcp.client import MCPClient, mcp_pool
from flask_aibridge.bridge.mcp.toolbox import Toolbox
from flask_aibridge.bridge.mcp.wire import MODERN, SESSION_VERSIONS
from flask_aibridge.bridge.upstream import Upstream
from flask_aibridge.services.interfaces import MCPServerConfig
from tests.bridge.mcp.test_toolbox import Configurator
from tests.services.programs import environment
from tests.services.servers import START_SECONDS, free_port, wait_until

mcp = pytest.importorskip("mcp")

PROGRAM = Path(__file__).with_name("sdk_server.py")


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[int]]:
    """The ports of servers that answer in streams, in JSON, and without sessions in either era."""
    ports, log = [free_port() for _ in range(3)], tmp_path_factory.mktemp("sdk") / "log"
    command = [sys.executable, "-P", str(PROGRAM), *map(str, ports)]
    # It needs the SDK, and its warnings are its own.
    found = Path(mcp.__file__).resolve().parents[1]
    its_environment = {
        **environment(),
        "PYTHONPATH": str(found),
        "PYTHONWARNINGS": "ignore",
        "PYTHONDEVMODE": "",
    }
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env=its_environment, stdout=output, stderr=output) as process,
    ):
        try:
            wait_until(
                lambda: process.poll() is not None or all(map(answers, ports)),
                "MCP servers",
                3 * START_SECONDS,
            )
            assert process.poll() is None, log.read_text()
            yield ports
        finally:
            process.kill()


@pytest.fixture(params=[0, 1, 2], ids=["stream", "json", "stateless"])
def url(request: pytest.FixtureRequest, ports: list[int]) -> str:
    """The address of a server."""
    return f"http://127.0.0.1:{ports[request.param]}/mcp"


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    upstream = Upstream(mcp_pool())
    yield upstream
    upstream.close()


@pytest.fixture(params=["modern", "session"])
def client(
    request: pytest.FixtureRequest, url: str, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> MCPClient:
    """A client of either era: the server speaks both, so one of them cannot hear what it says of the newer."""
    if request.param == "session":
        monkeypatch.setattr("flask_aibridge.bridge.mcp.wire.supports_modern", lambda discovered: False)
    client = MCPClient(url, "tok", pool=upstream)
    client.list_tools()
    assert client._era is not None
    assert client._era.version == (MODERN if request.param == "modern" else SESSION_VERSIONS[-1])
    return client


def test_tools_are_listed_and_called(client: MCPClient) -> None:
    listed = client.list_tools()
    assert [tool["name"] for tool in listed] == ["add", "greet", "fail"]
    assert listed[0]["description"] == "Adds two numbers."
    assert listed[0]["inputSchema"]["required"] == ["a", "b"]
    assert client.call_tool("add", {"a": 2, "b": 3}) == ToolResult("5")
    assert client.call_tool("greet", {"name": "Jürgen "}) == ToolResult("Good day, Jürgen !")


def test_errors_are_results(client: MCPClient) -> None:
    for name, arguments in (("fail", {}), ("nothing", {}), ("add", {"a": "x"})):
        assert client.call_tool(name, arguments).is_error


def test_a_session_that_was_lost(client: MCPClient) -> None:
    """The newer era has none, and goes on as well."""
    era = client._era
    assert era is not None
    if era.session is not None:
        client.end_session()
        client._era = era
    assert client.call_tool("add", {"a": 2, "b": 3}) == ToolResult("5")


def test_a_toolbox(url: str) -> None:
    configurator = Configurator(MCPServerConfig("sdk", url, None, "^fail$"))
    toolbox = Toolbox(lambda: configurator)
    try:
        tools = toolbox.tools_for("alice")
        assert [tool.id for tool in tools.tools] == ["bmcp_sdk_add", "bmcp_sdk_greet"]
        assert tools.tools[0].server_url == url
        assert tools.run(InjectedCall("c", "bmcp_sdk_add", '{"a": 1, "b": 1}')) == ToolResult("2")
    finally:
        toolbox.close()
