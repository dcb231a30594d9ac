"""``bridge.mcp.client``: both eras, and servers that misbehave."""

from __future__ import annotations

import base64
import json
import socket
import struct
import threading
from collections.abc import Callable

import pytest

from flask_aibridge.bridge.injection.tools import ToolResult
from flask_aibridge.bridge.mcp import client as client_module
from flask_aibridge.bridge.mcp import endpoint
from flask_aibridge.bridge.mcp.client import MCPClient
from flask_aibridge.bridge.mcp.wire import MCPError, MCPStopped, MCPTimeout, MCPUnauthorized, NoAnswer
from tests.bridge.mcp.servers import (
    ECHO,
    EMPTY,
    MODERN,
    TOKEN,
    Document,
    FakeServer,
    client_of,
    error,
    event,
    result,
    send_body,
    send_json,
)
from tests.bridge.upstreams import SSE_HEAD, Peer, chunk
from tests.logs import everything_logged

pytestmark = pytest.mark.usefixtures("no_leaks")

EITHER = pytest.mark.parametrize("modern", [True, False])
SOON = 0.2


def status(line: str, body: bytes = b"", *headers: str) -> Callable[[Peer, Document], None]:
    return lambda peer, message: send_body(peer, body, line, *headers)


def silence(peer: Peer, message: Document) -> None:
    peer.is_gone()


class TestBothEras:
    @EITHER
    @pytest.mark.parametrize("stream", [True, False])
    def test_a_tool_is_listed_and_called(self, modern: bool, stream: bool) -> None:
        """As JSON and as a stream."""
        server = FakeServer(modern=modern, stream=stream)
        with client_of(server) as client:
            assert client.list_tools() == [ECHO]
            assert client.call_tool("echo", {"a": [1]}) == ToolResult('{"a": [1]}')

    def test_the_newer_has_no_session(self) -> None:
        """Each request says of which version it is, in the body and in headers."""
        server = FakeServer()
        with client_of(server) as client:
            client.call_tool("écho", {})
            client.end_session()
        assert server.methods == ["server/discover", "tools/call"]
        head = server.head_of("tools/call")
        assert head["mcp-protocol-version"] == MODERN
        assert head["mcp-method"] == "tools/call"
        assert head["mcp-name"] == f"=?base64?{base64.b64encode('écho'.encode()).decode()}?="
        assert head["accept"] == "application/json, text/event-stream"
        assert head["authorization"] == f"Bearer {TOKEN}"
        meta = server.seen[-1]["params"]["_meta"]
        assert meta["io.modelcontextprotocol/protocolVersion"] == MODERN
        assert meta["io.modelcontextprotocol/clientCapabilities"] == {}

    def test_the_earlier_has_one(self) -> None:
        """It is begun, said with each request, and ended."""
        server = FakeServer(modern=False)
        with client_of(server) as client:
            client.list_tools()
            client.call_tool("echo", {})
            assert client.has_session
            client.end_session()
            assert not client.has_session
        assert server.methods == [
            "server/discover",
            "initialize",
            "notifications/initialized",
            "tools/list",
            "tools/call",
            "DELETE",
        ]
        assert "mcp-protocol-version" not in server.head_of("initialize")
        for method in ("notifications/initialized", "tools/list", "tools/call", "DELETE"):
            head = server.head_of(method)
            assert head["mcp-session-id"] == "session-1"
            assert head["mcp-protocol-version"] == "2025-06-18"
            assert "mcp-method" not in head
        assert "_meta" not in server.seen[4]["params"]
        assert server.sessions == []

    @pytest.mark.parametrize(
        "refuse",
        [
            status("400 Bad Request"),
            status("404 Not Found", b"<html>", "Content-Type: text/html"),
            status("405 Method Not Allowed"),
            status("500 Internal Server Error"),
            status("202 Accepted"),
            lambda peer, message: send_json(peer, error(message, -32601, "Method not found")),
            lambda peer, message: send_json(
                peer, error(message, -32022, "?", data={"supported": ["2025-06-18"]})
            ),
            lambda peer, message: send_json(peer, result(message, supportedVersions=["2025-06-18"])),
            lambda peer, message: send_json(peer, "what?"),
        ],
    )
    def test_whoever_cannot_be_discovered_is_of_the_earlier(
        self, refuse: Callable[[Peer, Document], None]
    ) -> None:
        server = FakeServer(modern=False)
        server.on["server/discover"] = refuse
        with client_of(server) as client:
            assert client.list_tools() == [ECHO]

    def test_a_server_that_is_too_new(self) -> None:
        server = FakeServer()
        refusal = {"supported": ["2031-01-01"]}
        server.on["server/discover"] = lambda peer, message: send_json(
            peer, error(message, -32022, "Unsupported", data=refusal), "400 Bad Request"
        )
        with client_of(server) as client, pytest.raises(NoAnswer, match="-32022"):
            client.list_tools()
        assert server.methods == ["server/discover"]

    def test_a_forgotten_session_is_begun_anew_once(self) -> None:
        server = FakeServer(modern=False)
        with client_of(server) as client:
            client.list_tools()
            server.sessions.clear()
            assert client.call_tool("echo", {}) == ToolResult("{}")
            assert server.sessions == ["session-2"]
            server.on["tools/call"] = status("404 Not Found")
            with pytest.raises(MCPError, match="forgotten"):
                client.call_tool("echo", {})
        assert server.methods.count("tools/call") == 4

    def test_the_servers_questions_are_answered(self) -> None:
        """A ping with a pong, what else it wants with a no; it would wait for ever."""
        server = FakeServer(modern=False)

        def ask(peer: Peer, message: Document) -> None:
            peer.send(SSE_HEAD + chunk(b": hello\n\n"))
            peer.send(chunk(event({"jsonrpc": "2.0", "id": "p", "method": "ping"})))
            peer.send(chunk(event({"jsonrpc": "2.0", "id": 7, "method": "sampling/createMessage"})))
            peer.send(chunk(event({"jsonrpc": "2.0", "method": "notifications/message", "params": {}})))
            peer.send(chunk(event(result(message, content=[{"type": "text", "text": "done"}]))) + chunk(b""))

        server.on["tools/call"] = ask
        with client_of(server) as client:
            assert client.call_tool("echo", {}) == ToolResult("done")
        assert {"jsonrpc": "2.0", "id": "p", "result": {}} in server.seen
        assert [message["error"]["code"] for message in server.seen if message.get("id") == 7] == [-32601]

    def test_arguments_are_mirrored_in_headers(self) -> None:
        schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
        wrong = {"type": "object", "properties": {"x": {"type": "number", "x-mcp-header": "X"}}}
        server = FakeServer(tools=[{"name": "r", "inputSchema": schema}, {"name": "w", "inputSchema": wrong}])
        with client_of(server) as client:
            assert [tool["name"] for tool in client.list_tools()] == ["r"]
            client.call_tool("r", {"region": " eu"})
        assert server.head_of("tools/call")["mcp-param-region"] == "=?base64?IGV1?="


class TestPages:
    def test_all_of_them(self) -> None:
        server = FakeServer()
        server.on["tools/list"] = lambda peer, message: send_json(
            peer,
            result(message, tools=[{"name": "b"}])
            if message["params"].get("cursor") == "2"
            else result(message, tools=[{"name": "a"}, "junk"], nextCursor="2"),
        )
        with client_of(server) as client:
            assert client.list_tools() == [{"name": "a"}, {"name": "b"}]

    def test_they_have_an_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whether the server goes round in circles, or on and on."""
        monkeypatch.setattr(client_module, "MAX_PAGES", 5)
        monkeypatch.setattr(client_module, "MAX_LISTED", 9)
        server = FakeServer()
        with client_of(server) as client:
            server.on["tools/list"] = lambda peer, message: send_json(
                peer, result(message, tools=[ECHO], nextCursor="same")
            )
            assert len(client.list_tools()) == 2
            server.on["tools/list"] = lambda peer, message: send_json(
                peer, result(message, tools=[ECHO], nextCursor=str(message["id"]))
            )
            assert len(client.list_tools()) == 5
            server.on["tools/list"] = lambda peer, message: send_json(
                peer, result(message, tools=[ECHO] * 4, nextCursor=str(message["id"]))
            )
            assert len(client.list_tools()) == 9


class TestCalls:
    def test_an_error_of_the_protocol_is_a_result(self) -> None:
        server = FakeServer()
        server.on["tools/call"] = lambda peer, message: send_json(
            peer, error(message, -32602, "no\nsuch tool"), "400 Bad Request"
        )
        with client_of(server) as client:
            told = client.call_tool("echo", {})
        assert told.is_error
        assert "-32602" in told.text
        assert "no such tool" in told.text
        assert "127.0.0.1" not in told.text

    @EITHER
    def test_nothing_is_called_twice(self, modern: bool) -> None:
        """Also where the connection breaks: the tool may have done what it does."""
        server = FakeServer(modern=modern)
        server.on["tools/call"] = lambda peer, message: reset(peer)
        with client_of(server) as client:
            client.list_tools()
            with pytest.raises(MCPError, match="broke off"):
                client.call_tool("echo", {})
        assert server.methods.count("tools/call") == 1


def reset(peer: Peer) -> None:
    peer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    raise OSError


def drip(peer: Peer, message: Document) -> None:
    """Never ends, and is never silent for long."""
    peer.send(SSE_HEAD)
    pause = threading.Event()
    while True:
        peer.send(chunk(b": \n"))
        pause.wait(0.01)


def drip_head(peer: Peer, message: Document) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\n")
    pause = threading.Event()
    while True:
        peer.send(b"X")
        pause.wait(0.01)


def huge(peer: Peer, message: Document) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while True:
        peer.send(b'"' + b"x" * 65536)


def huge_stream(peer: Peer, message: Document) -> None:
    peer.send(SSE_HEAD)
    while True:
        peer.send(chunk(b'data: {"method":"n"}\n\n' * 1000))


class TestFaults:
    @pytest.mark.parametrize("fault", [silence, drip, drip_head])
    @pytest.mark.parametrize("method", ["server/discover", "tools/list"])
    def test_a_list_has_its_time(self, fault: Callable[[Peer, Document], None], method: str) -> None:
        server = FakeServer()
        server.on[method] = fault
        with client_of(server, list_seconds=SOON) as client, pytest.raises(MCPTimeout, match=r"0\.2 s"):
            client.list_tools()

    @pytest.mark.parametrize("fault", [silence, drip, drip_head])
    def test_a_call_has_its_time(self, fault: Callable[[Peer, Document], None]) -> None:
        server = FakeServer()
        server.on["tools/call"] = fault
        with client_of(server, call_seconds=SOON) as client, pytest.raises(MCPTimeout):
            client.call_tool("echo", {})

    @pytest.mark.parametrize("fault", [huge, huge_stream])
    def test_an_answer_has_an_end(
        self, fault: Callable[[Peer, Document], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(endpoint, "MAX_ANSWER", 100_000)
        server = FakeServer()
        server.on["tools/call"] = fault
        with client_of(server) as client, pytest.raises(MCPError, match="more than 100000 bytes"):
            client.call_tool("echo", {})

    @pytest.mark.parametrize(
        ("fault", "says"),
        [
            (status("200 OK", b"<html>", "Content-Type: text/html"), "text/html"),
            (status("200 OK", b"{}"), "no media type"),
            (status("200 OK", b"{", "Content-Type: application/json"), "no answer"),
            (status("200 OK", b"{}", "Content-Type: application/json", "Content-Encoding: gzip"), "coding"),
            (status("202 Accepted"), "neither"),
            (status("503 Busy", b"come\x00 back", "Content-Type: text/plain"), "503.* It said: come back"),
            (lambda peer, message: peer.send(SSE_HEAD + chunk(b"")), "no answer"),
            (lambda peer, message: send_json(peer, result({"id": 99})), "no answer"),
            (lambda peer, message: send_json(peer, {"id": message["id"], "result": 1}), "no JSON object"),
            (lambda peer, message: peer.send(b"SSH-2.0-hello\r\n\r\n"), "broke off"),
        ],
    )
    def test_what_is_no_answer(self, fault: Callable[[Peer, Document], None], says: str) -> None:
        server = FakeServer()
        server.on["tools/list"] = fault
        with client_of(server) as client, pytest.raises(MCPError, match=says) as raised:
            client.list_tools()
        assert "http://127.0.0.1:" in str(raised.value)
        assert "/mcp" not in str(raised.value)

    @pytest.mark.parametrize("code", ["401 Unauthorized", "403 Forbidden"])
    def test_a_token_that_is_not_accepted(self, code: str) -> None:
        server = FakeServer()
        server.on["server/discover"] = status(code)
        with client_of(server) as client, pytest.raises(MCPUnauthorized):
            client.list_tools()
        assert server.methods == ["server/discover"]

    @pytest.mark.parametrize("code", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent"])
    def test_no_redirect_is_followed(self, code: str) -> None:
        other = FakeServer()
        server = FakeServer()
        with client_of(other) as elsewhere:
            location = f"Location: {elsewhere._endpoint.url}?user=secret"
            server.on["server/discover"] = status(code, b"", location)
            with client_of(server) as client, pytest.raises(MCPError, match="redirect") as raised:
                client.list_tools()
        assert other.seen == []
        assert server.methods == ["server/discover"]
        assert f"to {elsewhere._endpoint.url}:" in str(raised.value)
        assert "127.0.0.1" not in raised.value.problem

    def test_a_server_that_is_not_there(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        with pytest.raises(MCPError, match="cannot be reached"):
            MCPClient(f"http://127.0.0.1:{port}/mcp", TOKEN).list_tools()

    @pytest.mark.parametrize("session", ["a b", "é", "x" * 2000])
    def test_a_session_that_cannot_be_said(self, session: str) -> None:
        server = FakeServer(modern=False)
        server.on["initialize"] = lambda peer, message: send_json(
            peer, result(message, protocolVersion="2025-06-18"), "200 OK", f"Mcp-Session-Id: {session}"
        )
        with client_of(server) as client, pytest.raises(NoAnswer):
            client.list_tools()


class TestStopping:
    @EITHER
    @pytest.mark.parametrize("fault", [silence, drip])
    def test_from_another_thread(self, modern: bool, fault: Callable[[Peer, Document], None]) -> None:
        server = FakeServer(modern=modern)
        called = threading.Event()

        def answer(peer: Peer, message: Document) -> None:
            called.set()
            fault(peer, message)

        server.on["tools/call"] = answer
        with client_of(server) as client:
            client.list_tools()

            def stop() -> None:
                called.wait(10)
                client.stop()

            stopper = threading.Thread(target=stop)
            stopper.start()
            with pytest.raises(MCPStopped):
                client.call_tool("echo", {})
            stopper.join()
            server.on.clear()
            assert client.call_tool("echo", {}) == ToolResult("{}")

    def test_before_it_begins(self) -> None:
        """Nothing is sent for a caller who has left."""
        server = FakeServer()
        forgotten = []

        def on_stop(stop: Callable[[], None]) -> Callable[[], None]:
            stop()
            return lambda: forgotten.append(True)

        with client_of(server) as client, pytest.raises(MCPStopped):
            client.call_tool("echo", {}, on_stop)
        assert server.seen == []
        assert forgotten == [True]


class TestSecrets:
    @pytest.mark.parametrize(
        "token", [TOKEN, f"{TOKEN}\r\nX-Evil: 1", f"{TOKEN}\u2026", f"{TOKEN} {TOKEN}", f"{TOKEN}\0"]
    )
    def test_the_token_is_nowhere_else(self, token: str) -> None:
        """Neither in a message, nor in a log, nor where an object is shown; one that is no header's is not sent."""
        server = FakeServer(modern=False)
        server.on["tools/list"] = lambda peer, message: reset(peer)
        with everything_logged() as lines, client_of(server, token) as client:
            with pytest.raises(MCPError) as raised:
                client.list_tools()
            assert TOKEN not in repr(client)
        shown: list[str] = [*lines, repr(raised.value), str(raised.value.__cause__)]
        assert not any(TOKEN in line for line in shown)
        assert not any(TOKEN in json.dumps(message) for message in server.seen)
        assert (token == TOKEN) is bool(server.seen)


def test_many_at_once() -> None:
    """One client serves all of a user's requests."""
    server = FakeServer(modern=False, tools=[{"name": "echo", "inputSchema": EMPTY}])
    with client_of(server) as client:
        client.list_tools()
        told: list[ToolResult] = []
        threads = [
            threading.Thread(target=lambda n=n: told.append(client.call_tool("echo", {"n": n})))
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(one.text for one in told) == [json.dumps({"n": n}) for n in range(8)]
