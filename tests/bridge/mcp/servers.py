"""An MCP server whose every answer a test decides."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flask_aibridge.bridge.mcp.client import MCPClient, mcp_pool
from flask_aibridge.bridge.upstream import Upstream
from tests.bridge.upstreams import SSE_HEAD, Peer, ScriptedUpstream, chunk

Document = dict[str, Any]
Respond = Callable[[Peer, Document], None]
"""Answers a message on its connection."""

TOKEN = "tok-very-secret"
MODERN = "2026-07-28"
EMPTY = {"type": "object"}
ECHO = {"name": "echo", "description": "Says it again.", "inputSchema": EMPTY}


def send_json(peer: Peer, document: object, status: str = "200 OK", *headers: str) -> None:
    send_body(peer, json.dumps(document).encode(), status, "Content-Type: application/json", *headers)


def send_body(peer: Peer, body: bytes, status: str, *headers: str) -> None:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    peer.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def event(document: object) -> bytes:
    return b"event: message\r\ndata: %s\r\n\r\n" % json.dumps(document).encode()


def result(message: Document, **members: Any) -> Document:
    return {"jsonrpc": "2.0", "id": message["id"], "result": members}


def error(message: Document, code: int, text: str, **more: Any) -> Document:
    return {"jsonrpc": "2.0", "id": message["id"], "error": {"code": code, "message": text, **more}}


class FakeServer:
    """A server of one of the eras. ``on`` takes what is answered to a method instead; ``seen`` are the messages that
    came, ``heads`` what they came with."""

    def __init__(
        self, *, modern: bool = True, stream: bool = False, tools: Sequence[Document] = (ECHO,)
    ) -> None:
        self.modern, self.stream, self.tools = modern, stream, list(tools)
        self.on: dict[str, Respond] = {}
        self.seen: list[Document] = []
        self.heads: list[str] = []
        self.sessions: list[str] = []
        self._begun = 0
        self._lock = threading.Lock()

    def __call__(self, peer: Peer) -> None:
        while peer.read_request():
            head, body = peer.requests[-1]
            message = json.loads(body) if body else {"method": head.split(b" ")[0].decode()}
            with self._lock:
                self.seen.append(message)
                self.heads.append(head.decode())
            self.on.get(message.get("method", ""), self.answer)(peer, message)

    @property
    def methods(self) -> list[str]:
        return [message.get("method", "") for message in self.seen]

    def head_of(self, method: str) -> dict[str, str]:
        """The headers of the last message of a method, by their names in lower case."""
        index = max(index for index, name in enumerate(self.methods) if name == method)
        lines = self.heads[index].strip().split("\r\n")[1:]
        return {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines}

    def answer(self, peer: Peer, message: Document) -> None:
        method = message.get("method")
        if method == "DELETE":
            self.sessions.remove(self.heads[-1].lower().partition("mcp-session-id: ")[2].split("\r\n")[0])
            send_body(peer, b"", "200 OK")
        elif "id" not in message or method is None:
            send_body(peer, b"", "202 Accepted")
        elif self.modern:
            self._answer_modern(peer, message)
        elif method == "initialize":
            self._begun += 1
            self.sessions.append(f"session-{self._begun}")
            say = result(message, protocolVersion="2025-06-18", capabilities={}, serverInfo={})
            send_json(peer, say, "200 OK", f"Mcp-Session-Id: {self.sessions[-1]}")
        elif not any(f"Mcp-Session-Id: {session}\r\n" in self.heads[-1] for session in self.sessions):
            has_one = "Mcp-Session-Id" in self.heads[-1]
            status = "404 Not Found" if has_one else "400 Bad Request"
            send_json(peer, {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "?"}}, status)
        else:
            self._answer_method(peer, message)

    def _answer_modern(self, peer: Peer, message: Document) -> None:
        if message["method"] == "initialize":
            send_json(peer, error(message, -32601, "Method not found"), "404 Not Found")
        elif message["method"] == "server/discover":
            self._send(peer, result(message, supportedVersions=[MODERN], capabilities={"tools": {}}))
        else:
            self._answer_method(peer, message)

    def _answer_method(self, peer: Peer, message: Document) -> None:
        if message["method"] == "tools/list":
            self._send(peer, result(message, tools=self.tools))
        elif message["method"] == "tools/call":
            text = json.dumps(message["params"].get("arguments"))
            self._send(peer, result(message, content=[{"type": "text", "text": text}]))
        else:
            send_json(peer, error(message, -32601, "Method not found"))

    def _send(self, peer: Peer, document: Document) -> None:
        if self.stream:
            peer.send(SSE_HEAD + chunk(event(document)) + chunk(b""))
        else:
            send_json(peer, document)


@contextmanager
def serving(*servers: FakeServer) -> Iterator[list[str]]:
    """The addresses of servers that run."""
    running = [ScriptedUpstream(server) for server in servers]
    for one in running:
        one.__enter__()
    try:
        yield [f"{one.base_url}/mcp" for one in running]
    finally:
        for one in running:
            one.__exit__(None, None, None)


@contextmanager
def client_of(server: FakeServer, token: str = TOKEN, **options: Any) -> Iterator[MCPClient]:
    """A client of a server that runs."""
    with serving(server) as (url,):
        upstream = Upstream(mcp_pool())
        try:
            yield MCPClient(url, token, pool=upstream, **options)
        finally:
            upstream.close()
