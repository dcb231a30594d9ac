"""A provider that does wrong what its requests tell it to, and keeps account of what it served. Run as a script, it
says where it is, and serves until its input ends.

The last words of a user are an order: ``order <marker> <fault> <tokens>``. ``GET /account`` gives the account.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from flask_aibridge.testing import AnswerWith, DropAfter, ErrorAfter, Failure, StandInProvider, serve_stand_in

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

TOKEN_SECONDS: Final = 0.01
"""Between tokens, so that streams last for a while."""

SLOW_START_SECONDS: Final = 1.0
STALL_SECONDS: Final = 2.0
HANG_SECONDS: Final = 12.0
"""Longer than any client here waits."""

ANSWERED: Final = ("none", "slow-start", "stall", "hang")
"""What ends in an answer of the model's, sooner or later."""

FAULTS: Final = (*ANSWERED, "reset", "truncate", "error", "429", "529", "500")


@dataclass(slots=True)
class Served:
    """What one request got: tokens, and whether it was an answer of the model's that was written to its last byte.
    ``times`` is how often its marker arrived."""

    marker: str
    fault: str
    input: int
    output: int = 0
    whole: bool = False
    times: int = 1


class FaultyProvider:
    """A WSGI app."""

    def __init__(self) -> None:
        self._served: dict[str, Served] = {}
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "GET":
            return self._account(start_response)
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        environ["wsgi.input"] = BytesIO(body)
        prompt = _prompt(json.loads(body))
        _, marker, fault, number = prompt.split()
        served = self._note(marker, fault, len(prompt.split()))
        if fault == "slow-start":
            time.sleep(SLOW_START_SECONDS)
        # One for each request, so that its failure is this request's.
        answering = StandInProvider(
            answer=lambda _: _tokens(environ, served, int(number)),
            failures=[_failure(fault, int(number) // 2)],
        )
        return _accounted(answering(environ, start_response), served)

    def _account(self, start_response: StartResponse) -> list[bytes]:
        with self._lock:
            body = json.dumps([asdict(each) for each in self._served.values()]).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    def _note(self, marker: str, fault: str, tokens: int) -> Served:
        with self._lock:
            known = self._served.get(marker)
            if known is not None:
                known.times += 1
                return known
            served = self._served[marker] = Served(marker, fault, tokens)
            return served


def _prompt(document: dict[str, Any]) -> str:
    said = document.get("messages") or document["input"]
    return str(said if isinstance(said, str) else said[-1]["content"])


def _tokens(environ: WSGIEnvironment, served: Served, number: int) -> Iterator[str]:
    for index in range(number):
        if index == number // 2:
            _misbehave(environ, served.fault)
        time.sleep(TOKEN_SECONDS)
        served.output += 1
        yield f"word{index} "


def _misbehave(environ: WSGIEnvironment, fault: str) -> None:
    match fault:
        case "stall":
            time.sleep(STALL_SECONDS)
        case "hang":
            time.sleep(HANG_SECONDS)
        case "reset":
            _reset(environ["werkzeug.socket"])


def _reset(connection: socket.socket) -> None:
    """RST, and not FIN: the last descriptor is closed with nothing to linger for."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone, other = socket.socketpair()
    other.close()
    with gone:
        os.dup2(gone.fileno(), connection.fileno())  # what the server reads and writes from now on
    raise ConnectionResetError


def _failure(fault: str, after: int) -> Failure | None:
    match fault:
        case "truncate":
            return DropAfter(after)
        case "error":
            return ErrorAfter(after)
        case "429" | "529" | "500":
            return AnswerWith(
                int(fault), headers={"retry-after": "0"}
            )  # no key is to cool down: there is one
    return None


def _accounted(body: Iterable[bytes], served: Served) -> Iterator[bytes]:
    yield from body
    served.whole = served.fault in ANSWERED


def main() -> None:
    with serve_stand_in(FaultyProvider()) as served:
        print(served.base_url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
