"""A provider that costs next to nothing: OpenAI Chat Completions from canned bytes, in a process of its own.

The model's name says what the answer is: ``stand-in`` answers with one document, or, asked to stream, with 20 events at
once; ``stand-in-500-2000`` streams 500 events, one every 2,000 µs, each sent by itself, as a model speaks; with 0, as
fast as they are taken.
``stand-in-timed-30-200000`` writes into each event when it was sent. Asked not to stream, such models answer when their
stream would have ended, as one that thinks.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

EVENTS = 20
MODEL = "stand-in"
LONG = (500, 2000)
"""Events of a long stream, and the µs between two: a fast model."""

LONG_MODEL = f"{MODEL}-{LONG[0]}-{LONG[1]}"
FAST_EVENTS = 2000
FAST_MODEL = f"{MODEL}-{FAST_EVENTS}-0"
TIMED_RATE = 5
TIMED = {seconds: f"{MODEL}-timed-{seconds * TIMED_RATE}-{1_000_000 // TIMED_RATE}" for seconds in (3, 9)}
"""Models by how long they speak, so many events a second."""

THOUGHTFUL = {seconds: f"{MODEL}-1-{seconds}000000" for seconds in (1, 5)}
"""Models by how long they think."""

MODELS = (MODEL, LONG_MODEL, FAST_MODEL, *TIMED.values(), *THOUGHTFUL.values())
"""Those that are asked for."""

TIME = re.compile(rb"sent at (\d{20})")
"""In an event that is timed: nanoseconds of the clock that all processes of a machine share."""

_UNSENT = b"sent at " + b"0" * 20
STOP_SECONDS = 5.0
_MODEL = re.compile(rb'"model":\s*"[a-z-]+(?:-(\d+)-(\d+))?"')
_STREAM = re.compile(rb'"stream":\s*true')
_USAGE = re.compile(rb'"include_usage":\s*true')
_LENGTH = re.compile(rb"(?i)\r\ncontent-length:\s*(\d+)")
_TOKENS = {"prompt_tokens": 25, "completion_tokens": EVENTS, "total_tokens": 25 + EVENTS}


def _chat(kind: str, choices: list[Any], **more: Any) -> bytes:
    document = {"id": "chatcmpl-1", "object": kind, "created": 1767225600, "model": MODEL, "choices": choices}
    return json.dumps(document | more, separators=(",", ":")).encode()


def _head(kind: str, framing: str) -> bytes:
    return (
        f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{framing}\r\nx-request-id: req_1\r\n"
        "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nServer: canned\r\n\r\n"
    ).encode()


def _document() -> bytes:
    message = {"role": "assistant", "content": "Nobody has thought about this answer. " * 8}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    body = _chat("chat.completion", [choice], usage=_TOKENS)
    return _head("application/json", f"Content-Length: {len(body)}") + body


def _event(data: bytes) -> bytes:
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


@cache
def stream(events: int, usage: bool, timed: bool = False) -> list[bytes]:
    """The pieces of a stream: its head, then one chunk for each event, of which so many carry text."""

    def chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return _event(_chat("chat.completion.chunk", [choice]))

    pieces = [_head("text/event-stream", "Transfer-Encoding: chunked")]
    pieces.append(chunk({"role": "assistant", "content": ""}))
    more = f", {_UNSENT.decode()}" if timed else ""
    pieces += [chunk({"content": f" thought {number}{more}"}) for number in range(events - 2)]
    pieces.append(chunk({}, "stop"))
    if usage:
        pieces.append(_event(_chat("chat.completion.chunk", [], usage=_TOKENS)))
    pieces.append(_event(b"[DONE]") + b"0\r\n\r\n")
    return pieces


class _Connection(asyncio.Protocol):
    document = _document()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._received = b""
        self._sending: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or len(body) < (int(length[1]) if length else 0):
            return
        self._received = b""
        self._answer(body)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._sending is not None:
            self._sending.cancel()

    def _answer(self, body: bytes) -> None:
        model = _MODEL.search(body)
        long = model is not None and model[1] is not None
        events, pause = (int(model[1]), int(model[2])) if model and long else (EVENTS, 0)
        if not _STREAM.search(body):
            if pause:
                loop = asyncio.get_running_loop()
                loop.call_later(events * pause / 1e6, self._transport.write, self.document)
            else:
                self._transport.write(self.document)
            return
        timed = model is not None and b"-timed-" in model[0]
        pieces = stream(events, _USAGE.search(body) is not None, timed)
        if pause:
            self._sending = asyncio.create_task(self._pace(pieces, pause / 1e6, timed))
        else:
            for piece in pieces:
                self._transport.write(piece)

    async def _pace(self, pieces: list[bytes], seconds: float, timed: bool) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        for piece in pieces:
            sent = b"sent at %020d" % time.monotonic_ns() if timed else b""
            self._transport.write(piece.replace(_UNSENT, sent) if timed else piece)
            due += seconds
            await asyncio.sleep(max(0.0, due - clock()))


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until whoever started it closes the pipe, or dies
    server.close()


@contextmanager
def canned_provider() -> Iterator[str]:
    """The base URL of a provider that lives as long as the context."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


if __name__ == "__main__":
    asyncio.run(_serve())
