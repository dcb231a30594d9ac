"""``bridge.mcp.toolbox``: what a user's tools are, and what becomes of a call."""

from __future__ import annotations

import json
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import MappingProxyType

import pytest

from flask_aibridge.bridge.injection.tools import InjectedCall, ToolResult
from flask_aibridge.bridge.mcp import discovery, toolbox
from flask_aibridge.bridge.mcp.toolbox import RETRY_SECONDS, TOOLS_SECONDS, Toolbox, Tools
from flask_aibridge.errors import ServicesUnavailable
from flask_aibridge.services.interfaces import AccessTokens, MCPServerConfig
from tests.bridge.mcp.servers import ECHO, TOKEN, Document, FakeServer, send_body, serving
from tests.bridge.upstreams import Peer

pytestmark = pytest.mark.usefixtures("no_leaks")


class Configurator:
    """Servers and tokens, as a test wants them; counts what it is asked."""

    def __init__(self, *servers: MCPServerConfig) -> None:
        self.servers = list(servers)
        self.tokens = {server.id: TOKEN for server in servers}
        self.asked: list[str] = []
        self.failure: Exception | None = None
        self.may_answer = threading.Event()
        self.may_answer.set()

    def mcp_servers(self, user: str) -> tuple[MCPServerConfig, ...]:
        self.asked.append(user)
        assert self.may_answer.wait(10)
        if self.failure is not None:
            raise self.failure
        return tuple(self.servers)

    def mcp_access_tokens(self, user: str, server_ids: Sequence[str]) -> AccessTokens:
        return AccessTokens(
            MappingProxyType({name: self.tokens[name] for name in server_ids if name in self.tokens})
        )


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A toolbox, and what it works with."""

    def __init__(self, *servers: FakeServer, urls: Sequence[str]) -> None:
        self.configs = [MCPServerConfig(f"s{n}", url) for n, url in enumerate(urls)]
        self.configurator = Configurator(*self.configs)
        self.clock = Clock()
        self.toolbox = Toolbox(lambda: self.configurator, clock=self.clock)

    def ids(self, user: str = "alice") -> list[str]:
        return [tool.id for tool in self.toolbox.tools_for(user).tools]


@contextmanager
def bench(*servers: FakeServer) -> Iterator[Bench]:
    with serving(*servers) as urls:
        made = Bench(*servers, urls=urls)
        try:
            yield made
        finally:
            made.toolbox.close()


def call(tool: str, arguments: str = "{}") -> InjectedCall:
    return InjectedCall("call_1", tool, arguments)


def refuse(peer: Peer, message: Document) -> None:
    send_body(peer, b"", "503 Busy")


def unauthorized(peer: Peer, message: Document) -> None:
    send_body(peer, b"", "401 Unauthorized")


class TestKeeping:
    def test_the_tools_of_all_servers(self) -> None:
        with bench(FakeServer(), FakeServer(modern=False)) as bench_:
            tools = bench_.toolbox.tools_for("alice")
            assert [tool.id for tool in tools.tools] == ["bmcp_s0_echo", "bmcp_s1_echo"]
            assert tools.tools[1].server_url == bench_.configs[1].url
            for tool in tools.tools:
                assert tools.run(call(tool.id, '{"x": 1}')) == ToolResult('{"x": 1}')

    def test_they_are_kept(self) -> None:
        server = FakeServer()
        with bench(server) as bench_:
            bench_.ids()
            bench_.clock.now += TOOLS_SECONDS - 1
            assert bench_.ids() == ["bmcp_s0_echo"]
            assert server.methods.count("tools/list") == 1
            server.tools.append({**ECHO, "name": "more"})
            bench_.clock.now += 1
            assert bench_.ids() == ["bmcp_s0_echo", "bmcp_s0_more"]
            assert server.methods.count("tools/list") == 2
            assert server.methods.count("server/discover") == 1
            assert bench_.configurator.asked == ["alice"] * 2

    def test_each_user_has_their_own(self) -> None:
        with bench(FakeServer()) as bench_:
            bench_.ids("alice")
            bench_.configurator.tokens.clear()
            assert bench_.ids("bob") == []
            assert bench_.ids("alice") == ["bmcp_s0_echo"]

    def test_no_more_users_than_there_may_be(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who has not been seen for longest goes, and their session."""
        monkeypatch.setattr(toolbox, "MAX_USERS", 2)
        server = FakeServer(modern=False)
        with bench(server) as bench_:
            for user in ("alice", "bob", "alice", "carol"):
                bench_.ids(user)
            assert bench_.configurator.asked == ["alice", "bob", "carol"]
            bench_.ids("alice")
            assert bench_.configurator.asked == ["alice", "bob", "carol"]
            bench_.ids("bob")
            assert bench_.configurator.asked == ["alice", "bob", "carol", "bob"]
        assert server.sessions == []

    def test_many_requests_ask_once(self) -> None:
        server = FakeServer()
        with bench(server) as bench_:
            bench_.configurator.may_answer.clear()
            told: list[list[str]] = []
            threads = [threading.Thread(target=lambda: told.append(bench_.ids())) for _ in range(6)]
            for thread in threads:
                thread.start()
            bench_.configurator.may_answer.set()
            for thread in threads:
                thread.join()
            assert told == [["bmcp_s0_echo"]] * 6
            assert bench_.configurator.asked == ["alice"]
            assert server.methods == ["server/discover", "tools/list"]

    def test_another_token_is_another_client(self) -> None:
        """And the session of the old one is ended."""
        server = FakeServer(modern=False)
        with bench(server) as bench_:
            bench_.ids()
            bench_.configurator.tokens["s0"] = "tok-2"
            bench_.clock.now += TOOLS_SECONDS
            assert bench_.ids() == ["bmcp_s0_echo"]
            assert server.head_of("tools/list")["authorization"] == "Bearer tok-2"
        assert server.sessions == []

    def test_a_closed_one_forgets_and_can_be_used_again(self) -> None:
        server = FakeServer(modern=False)
        with bench(server) as bench_:
            first = bench_.ids()
            bench_.toolbox.close()
            assert server.sessions == []
            assert bench_.ids() == first
            assert bench_.configurator.asked == ["alice", "alice"]

    def test_a_child_starts_with_nothing(self) -> None:
        with bench(FakeServer()) as bench_:
            bench_.ids()
            with bench_.toolbox._lock, warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", DeprecationWarning
                )  # of a fork with threads; this child starts none
                pid = os.fork()
                if not pid:
                    os._exit(
                        0 if not bench_.toolbox._users and bench_.toolbox._lock.acquire(timeout=1) else 1
                    )
            assert os.waitpid(pid, 0)[1] == 0
            assert bench_.ids() == ["bmcp_s0_echo"]


class TestFailures:
    def test_a_server_that_fails_costs_its_own_tools(self, caplog: pytest.LogCaptureFixture) -> None:
        good, bad = FakeServer(), FakeServer()
        bad.on["tools/list"] = refuse
        with bench(good, bad) as bench_, caplog.at_level(logging.WARNING, "flask_aibridge.bridge"):
            assert bench_.ids() == ["bmcp_s0_echo"]
            assert bench_.ids() == ["bmcp_s0_echo"]
            assert [("'s1'" in record.message, "503" in record.message) for record in caplog.records] == [
                (True, True)
            ]
            bad.on.clear()
            bench_.clock.now += RETRY_SECONDS
            assert bench_.ids() == ["bmcp_s0_echo", "bmcp_s1_echo"]
            assert good.methods.count("tools/list") == 1
        assert len(caplog.records) == 1

    def test_a_slow_one_too(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        monkeypatch.setattr(discovery.Discovery.__init__, "__defaults__", (0.3,))
        slow = FakeServer()
        slow.on["tools/list"] = lambda peer, message: (peer.is_gone(), None)[1]
        with bench(FakeServer(), slow) as bench_:
            assert bench_.ids() == ["bmcp_s0_echo"]
        assert "'s1'" in caplog.text
        assert "0.3 s" in caplog.text

    def test_more_than_are_asked_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(discovery, "AT_ONCE", 2)
        with bench(*[FakeServer() for _ in range(5)]) as bench_:
            assert bench_.ids() == [f"bmcp_s{n}_echo" for n in range(5)]

    def test_a_system_without_threads(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        server = FakeServer()
        with bench(server) as bench_, monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            assert bench_.ids() == []
        assert "'s0'" in caplog.text

    def test_no_token_no_tools(self, caplog: pytest.LogCaptureFixture) -> None:
        server = FakeServer()
        with bench(FakeServer(), server) as bench_:
            del bench_.configurator.tokens["s1"]
            assert bench_.ids() == ["bmcp_s0_echo"]
        assert server.seen == []
        assert not caplog.records

    @pytest.mark.parametrize("failure", [ServicesUnavailable("away", 5.0), RuntimeError("what?")])
    def test_services_that_are_away(self, failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
        """What was known stays, and whoever is new has none."""
        with bench(FakeServer()) as bench_:
            bench_.ids()
            bench_.clock.now += TOOLS_SECONDS
            bench_.configurator.failure = failure
            assert bench_.ids() == ["bmcp_s0_echo"]
            assert bench_.ids("bob") == []
            assert bench_.ids() == ["bmcp_s0_echo"]
            assert bench_.configurator.asked == ["alice", "alice", "bob"]
            assert len(caplog.records) == 2
            bench_.configurator.failure = None
            bench_.clock.now += RETRY_SECONDS
            assert bench_.ids("bob") == ["bmcp_s0_echo"]

    def test_a_filter_that_is_none(self, caplog: pytest.LogCaptureFixture) -> None:
        with bench(FakeServer()) as bench_:
            bench_.configurator.servers = [MCPServerConfig("s0", bench_.configs[0].url, "(")]
            assert bench_.ids() == []
        assert "'s0'" in caplog.text

    def test_too_many_tools(self, caplog: pytest.LogCaptureFixture) -> None:
        many = [{**ECHO, "name": f"t{n:03}"} for n in range(100)]
        with bench(FakeServer(tools=many), FakeServer(tools=many)) as bench_:
            assert len(bench_.ids()) == 128
        assert "200 tools" in caplog.text


def no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


class TestCalls:
    @pytest.mark.parametrize("arguments", ["{", "[]", '"x"', "null", '{"a": NaN}', "[" * 100_000])
    def test_arguments_that_are_none(self, arguments: str) -> None:
        server = FakeServer()
        with bench(server) as bench_:
            told = bench_.toolbox.tools_for("alice").run(call("bmcp_s0_echo", arguments))
        assert told.is_error
        assert "JSON object" in told.text
        assert "tools/call" not in server.methods

    @pytest.mark.parametrize("arguments", ["", " \n", "{}"])
    def test_no_arguments(self, arguments: str) -> None:
        with bench(FakeServer()) as bench_:
            assert bench_.toolbox.tools_for("alice").run(call("bmcp_s0_echo", arguments)) == ToolResult("{}")

    def test_an_unknown_tool(self) -> None:
        assert Tools().run(call("bmcp_x_y")).is_error

    def test_a_failure_is_told_and_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """Without what was asked, and without what was said of it."""
        server = FakeServer()
        server.on["tools/call"] = lambda peer, message: send_body(
            peer, json.dumps(message["params"]).encode(), "500 Oh", "Content-Type: text/plain"
        )
        with bench(server) as bench_:
            told = bench_.toolbox.tools_for("alice").run(call("bmcp_s0_echo", '{"password": "swordfish"}'))
        assert told.is_error
        assert "500" in told.text
        (record,) = caplog.records
        assert "bmcp_s0_echo" in record.getMessage()
        assert "500" in record.getMessage()
        assert "swordfish" not in caplog.text

    def test_a_mistake_of_ours(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*args: object) -> ToolResult:
            raise KeyError("swordfish")

        with bench(FakeServer()) as bench_:
            tools = bench_.toolbox.tools_for("alice")
            monkeypatch.setattr("flask_aibridge.bridge.mcp.client.MCPClient.call_tool", fail)
            assert tools.run(call("bmcp_s0_echo")).is_error
        assert "KeyError" in caplog.text
        assert "swordfish" not in caplog.text

    def test_a_token_that_is_not_accepted_any_more(self) -> None:
        """The next request asks for a new one."""
        server = FakeServer()
        with bench(server) as bench_:
            tools = bench_.toolbox.tools_for("alice")
            server.on["tools/call"] = unauthorized
            assert "token" in tools.run(call("bmcp_s0_echo")).text
            server.on.clear()
            bench_.configurator.tokens["s0"] = "tok-2"
            bench_.toolbox.tools_for("alice").run(call("bmcp_s0_echo"))
        assert server.head_of("tools/call")["authorization"] == "Bearer tok-2"

    def test_a_caller_who_leaves(self) -> None:
        server = FakeServer()
        stops: list[Callable[[], None]] = []

        def leave(peer: Peer, message: Document) -> None:
            stops[0]()
            peer.is_gone()

        def on_stop(stop: Callable[[], None]) -> Callable[[], None]:
            stops.append(stop)
            return stops.clear

        server.on["tools/call"] = leave
        with bench(server) as bench_:
            told = bench_.toolbox.tools_for("alice").run(call("bmcp_s0_echo"), on_stop)
        assert told.is_error
        assert "left" in told.text
        assert stops == []
