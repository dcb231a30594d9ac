"""Pure: the messages of the Model Context Protocol, in the transport "streamable HTTP", as a client has them.

There are two eras. Since 2026-07-28 each request stands alone, and says in its ``_meta`` and in headers of which
version it is; before that, ``initialize`` begins a session, whose id is sent with each request from there on.
See https://modelcontextprotocol.io/specification/2026-07-28/basic/transports and, for the other,
https://modelcontextprotocol.io/specification/2025-11-25/basic/transports.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from flask_aibridge.bridge.intercept.documents import Document, member, parse_document
from flask_aibridge.errors import AIBridgeError

MODERN: Final = "2026-07-28"
"""The version whose requests stand alone."""

SESSION_VERSIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""Those that begin with ``initialize``, the oldest first; the last is what we offer."""

METHOD_NOT_FOUND: Final = -32601
UNSUPPORTED_VERSION: Final = -32022
"""Codes of JSON-RPC, and of MCP, that we act on."""

MAX_SAID: Final = 200
"""Characters of what a server says of an error that go into ours: a sentence, not its page."""

_ENVELOPE: Final = "io.modelcontextprotocol/"
_CLIENT: Final = {"name": "flask-aibridge", "version": "1"}
_ACCEPT: Final = "application/json, text/event-stream"
_SESSION_ID: Final = re.compile(r"[\x21-\x7e]{1,1024}")
_PLAIN_VALUE: Final = re.compile(r"(?! )[\x20-\x7e]*(?<! )")
_WRAPPED: Final = re.compile(r"=\?base64\?.*\?=")
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e\u00a1-\ud7ff\uf900-\ufffd]+")


class MCPError(AIBridgeError):
    """An MCP server could not be asked, or answered something else.

    :param origin: where it is, without a path, a user or a query.
    :param problem: what it did, as the rest of a sentence whose subject it is.
    :param said: what it said of that itself; may repeat what it was asked, so it is not for the log of a call.
    :param detail: what operators need, and models do not.
    """

    def __init__(self, origin: str, problem: str, said: str = "", detail: str = "") -> None:
        self.problem, self.said = problem, cleaned(said)
        self.summary = f"The MCP server at {origin} {problem}{f' ({cleaned(detail)})' if detail else ''}."
        """The message without what the server said."""
        super().__init__(f"{self.summary} It said: {self.said}" if self.said else self.summary)


class MCPUnauthorized(MCPError):
    """The server does not accept the user's token."""


class MCPTimeout(MCPError):
    """The answer was not there in time."""


class MCPStopped(MCPError):
    """The call was stopped from this side."""


class SessionLost(MCPError):
    """The server has forgotten the session."""


class NoAnswer(MCPError):
    """The server is there, and answered something else than was asked for; ``code`` is that of its JSON-RPC error, if
    it is one, and ``data`` what belongs to it."""

    def __init__(
        self, origin: str, problem: str, said: str = "", code: int | None = None, data: object = None
    ) -> None:
        super().__init__(origin, problem, said)
        self.code, self.data = code, data


class Era(NamedTuple):
    """How a server is spoken to: null ``version`` is that of ``initialize`` itself, which names none."""

    version: str | None
    session: str | None = None

    @property
    def is_modern(self) -> bool:
        return self.version == MODERN


class Request(NamedTuple):
    """A message and the headers it goes with, without the user's token. ``method`` is that of the protocol, empty for
    what has none."""

    headers: dict[str, str]
    body: bytes
    method: str = ""


def request(
    era: Era, number: int, method: str, params: Mapping[str, Any], more: Mapping[str, str] | None = None
) -> Request:
    """A request, with ``more`` headers of the method's own."""
    headers = _headers(era)
    if era.is_modern:
        params = {**params, "_meta": _envelope()}
        headers["Mcp-Method"] = method
        headers |= more or {}
    return Request(headers, _message(id=number, method=method, params=params), method)


def call(
    era: Era, number: int, name: str, arguments: Mapping[str, Any], mirrored: Mapping[str, str]
) -> Request:
    """A ``tools/call``; ``mirrored`` are the headers in which arguments are repeated."""
    return request(
        era,
        number,
        "tools/call",
        {"name": name, "arguments": arguments},
        {"Mcp-Name": header_value(name), **mirrored},
    )


def initialize(number: int) -> Request:
    """The request that begins a session."""
    params = {"protocolVersion": SESSION_VERSIONS[-1], "capabilities": {}, "clientInfo": _CLIENT}
    return request(Era(None), number, "initialize", params)


def initialized(era: Era) -> Request:
    """The notification that we are ready."""
    return Request(_headers(era), _message(method="notifications/initialized"))


def farewell(era: Era) -> Request:
    """The ``DELETE`` that ends a session."""
    headers = _headers(era)
    del headers["Content-Type"]
    return Request(headers, b"")


def reply(era: Era, asked: Document) -> Request:
    """The answer to what the server asks us in a session: we are there, and can do nothing for it."""
    if asked.get("method") == "ping":
        return Request(_headers(era), _message(id=asked.get("id"), result={}))
    error = {"code": METHOD_NOT_FOUND, "message": "This client has none of the optional capabilities."}
    return Request(_headers(era), _message(id=asked.get("id"), error=error))


def header_value(value: str) -> str:
    """A text as a header's value: as it is, or as ``=?base64?…?=`` where it would not arrive so."""
    if _PLAIN_VALUE.fullmatch(value) and not _WRAPPED.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode('utf-8', 'replace')).decode()}?="


def answer_in(data: bytes, number: int) -> Document | None:
    """The answer to request ``number`` in a JSON body, or in the data of an event; null where it is not there.

    An error may have no id: it is that of a request that could not be read so far (JSON-RPC 2.0, section 5).
    """
    for message in _messages(data):
        if "method" in message or not ("result" in message or "error" in message):
            continue
        answered = message.get("id")
        if answered in (number, str(number)) or (answered is None and "error" in message):
            return message
    return None


def questions_in(data: bytes) -> list[Document]:
    """What the server asks us, in the data of an event."""
    return [
        message
        for message in _messages(data)
        if isinstance(message.get("method"), str) and isinstance(message.get("id"), (int, str))
    ]


def result_of(origin: str, method: str, answer: Document) -> Document:
    """The result in an answer.

    :raises NoAnswer: for an error, and for what is neither.
    """
    if "error" in answer:
        error = member(answer, "error")
        code, said = error.get("code"), error.get("message")
        code = code if isinstance(code, int) else None
        problem = f"answered {method} with the error {code}"
        raise NoAnswer(origin, problem, said if isinstance(said, str) else "", code, error.get("data"))
    result = answer.get("result")
    if not isinstance(result, dict):
        raise NoAnswer(origin, f"answered {method} with a result that is no JSON object")
    return result


def supports_modern(discovered: Document) -> bool:
    """Tell whether the result of ``server/discover`` is that of a server of the newer era."""
    versions = discovered.get("supportedVersions")
    return isinstance(versions, list) and MODERN in versions


def is_too_new(error: NoAnswer) -> bool:
    """Tell whether an error says that the server speaks no version that we do."""
    if error.code != UNSUPPORTED_VERSION or not isinstance(error.data, dict):
        return False
    supported = error.data.get("supported")
    return isinstance(supported, list) and not any(version in supported for version in SESSION_VERSIONS)


def session_of(origin: str, result: Document, session: str | None) -> Era:
    """The era that the answer to ``initialize`` begins, with the session's id from its headers.

    :raises NoAnswer: for a version, or an id, that cannot be.
    """
    version = result.get("protocolVersion")
    if version not in SESSION_VERSIONS:
        raise NoAnswer(origin, "speaks a version of the protocol that is not known here", str(version))
    if session is not None and not _SESSION_ID.fullmatch(session):
        raise NoAnswer(origin, "has given the session an id that cannot be sent back")
    return Era(version, session)


def origin_of(url: str) -> str:
    """Where a server is, for people: nothing in it is secret."""
    return address_of(url, with_path=False)


def address_of(url: str, with_path: bool = True) -> str:
    """An address without a user, a password and a query."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "an address that is none"
    host = f"[{host}]" if ":" in host else host
    return cleaned(f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path if with_path else ''}")


def cleaned(text: str) -> str:
    """One line of printable text, of no more than ``MAX_SAID`` characters."""
    line = " ".join(_UNPRINTABLE.sub(" ", text[: 4 * MAX_SAID]).split())
    return line if len(line) <= MAX_SAID else f"{line[: MAX_SAID - 1]}…"


def _messages(data: bytes) -> list[Document]:
    """The messages in a body: one, or a list of them, as 2025-03-26 had it."""
    if data.lstrip()[:1] == b"[":
        batch = parse_document(b'{"batch":%s}' % data)
        found = [] if batch is None else batch["batch"]
        return [message for message in found if isinstance(message, dict)]
    message = parse_document(data)
    return [] if message is None else [message]


def _headers(era: Era) -> dict[str, str]:
    headers = {"Accept": _ACCEPT, "Accept-Encoding": "identity", "Content-Type": "application/json"}
    if era.version is not None:
        headers["MCP-Protocol-Version"] = era.version
    if era.session is not None:
        headers["Mcp-Session-Id"] = era.session
    return headers


def _envelope() -> dict[str, Any]:
    return {
        f"{_ENVELOPE}protocolVersion": MODERN,
        f"{_ENVELOPE}clientInfo": _CLIENT,
        f"{_ENVELOPE}clientCapabilities": {},
    }


def _message(**members: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **members}, separators=(",", ":")).encode()
