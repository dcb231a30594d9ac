"""A bridge that speaks as much of Amazon Bedrock's wire format as tests need: Converse, ConverseStream, InvokeModel."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from zlib import crc32

from flask_aibridge.testing.stand_in import ConnectionDropped

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

USAGE = {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}
STREAM = "application/vnd.amazon.eventstream"


def frame(event: str, document: dict[str, Any], kind: str = "event") -> bytes:
    """One message of an event stream: prelude, its checksum, headers, payload, and the checksum of all."""
    headers = b"".join(
        struct.pack("!B", len(name)) + name + b"\x07" + struct.pack("!H", len(value)) + value
        for name, value in (
            (b":message-type", kind.encode()),
            (b":exception-type" if kind == "exception" else b":event-type", event.encode()),
            (b":content-type", b"application/json"),
        )
    )
    payload = json.dumps(document).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + struct.pack("!I", crc32(prelude)) + headers + payload
    return message + struct.pack("!I", crc32(message))


def spoken(words: Iterable[str]) -> list[bytes]:
    """The messages of a ConverseStream with one block of text."""
    return [
        frame("messageStart", {"role": "assistant"}),
        *(frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}}) for word in words),
        frame("contentBlockStop", {"contentBlockIndex": 0}),
        frame("messageStop", {"stopReason": "end_turn"}),
        frame("metadata", {"usage": USAGE, "metrics": {"latencyMs": 1}}),
    ]


class BedrockBridge:
    """``stream`` is what a ConverseStream is answered with; it breaks off after ``drop_after`` messages. The statuses
    of ``refuse_with`` are used up one for each request."""

    def __init__(self, words: Iterable[str] = ("Hel", "lo")) -> None:
        self.words = list(words)
        self.stream = spoken(self.words)
        self.drop_after: int | None = None
        self.refuse_with: list[int] = []
        self.requests: list[tuple[str, str, Any, WSGIEnvironment]] = []

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"].removeprefix("/bedrock")
        found = re.fullmatch(r"/model/(.+)/(converse|converse-stream|invoke)", path)
        assert found is not None, path
        body = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        self.requests.append((unquote(found[1]), found[2], body, environ))
        if self.refuse_with:
            return self._refuse(self.refuse_with.pop(0), start_response)
        if found[2] == "converse-stream":
            start_response("200 OK", [("Content-Type", STREAM)])
            return self._frames()
        answer = json.dumps(self._document(found[2])).encode()
        length = ("Content-Length", str(len(answer)))
        start_response("200 OK", [("Content-Type", "application/json"), length])
        return [answer]

    def _document(self, operation: str) -> dict[str, Any]:
        content = [{"text": "".join(self.words)}]
        if operation == "invoke":
            return {"content": content}
        message = {"role": "assistant", "content": content}
        return {
            "output": {"message": message},
            "stopReason": "end_turn",
            "usage": USAGE,
            "metrics": {"latencyMs": 1},
        }

    def _frames(self) -> Iterator[bytes]:
        yield from self.stream[: self.drop_after]
        if self.drop_after is not None:
            raise ConnectionDropped

    def _refuse(self, status: int, start_response: StartResponse) -> list[bytes]:
        headers = [("Content-Type", "application/json"), ("x-amzn-ErrorType", "ThrottlingException")]
        start_response(f"{status} Refused", headers)
        return [b'{"message": "slow down"}']
