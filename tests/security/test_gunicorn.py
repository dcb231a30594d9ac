"""A real gunicorn, with bytes that no client library would send: one request stays one, and the gate stays closed."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from flask_aibridge.testing import StandInProvider, serve_stand_in
from tests.security.gateways import ADMIN, KEY, LICENSE, PREFIX, SIGNING
from tests.services.programs import environment
from tests.services.servers import wait_until

pytest.importorskip("gunicorn")
pytestmark = pytest.mark.security

START_SECONDS = 60.0
QUIET_SECONDS = 10.0
"""How long an answer may take: each takes milliseconds, and a connection on which none comes is closed by the tests."""

BODY = json.dumps(
    {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
).encode()
MESSAGES = f"{PREFIX}/anthropic/v1/messages".encode()
TOKEN = b"X-Api-Key: " + KEY.encode() + b"\r\n"
SMUGGLED = (
    b"POST " + MESSAGES + b"?smuggled HTTP/1.1\r\nHost: h\r\n" + TOKEN
    + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
)  # fmt: skip


class Gunicorn:
    """One worker with threads behind a Unix socket, as a proxy on the same host would reach it, and a provider."""

    def __init__(self, provider: StandInProvider, base_url: str) -> None:
        self.provider = provider
        self.folder = Path(tempfile.mkdtemp(prefix="aibridge-"))
        app = Path(__file__).with_name("gunicorn_app.py")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "--worker-class", "gthread", "--threads", "4"),
                *("--bind", f"unix:{self.folder}/s", "--no-control-socket", "--log-level", "critical"),
                *("--keep-alive", "30", "--chdir", str(app.parent), f"{app.stem}:application"),
            ],
            env=environment(
                SECURITY_PROVIDER=base_url,
                SECURITY_KEY=KEY,
                SECURITY_ADMIN=ADMIN,
                SECURITY_LICENSE=LICENSE,
                SECURITY_PUBLIC_KEY=SIGNING.public_base64,
            ),
            start_new_session=True,
        )

    def send(self, data: bytes) -> bytes:
        """Everything that comes back when the sender is done sending, until the server closes or is quiet."""
        with closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.settimeout(QUIET_SECONDS)
            connection.connect(str(self.folder / "s"))
            with suppress(OSError):  # it may have been refused already
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            return _read_all(connection)

    def is_up(self) -> bool:
        assert self._process.poll() is None, "gunicorn ended"
        with suppress(OSError):
            return self.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").startswith(
                b"HTTP/1.1 404"
            )
        return False

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(START_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            shutil.rmtree(self.folder, ignore_errors=True)


def _read_all(connection: socket.socket) -> bytes:
    pieces = []
    with suppress(OSError):
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


@pytest.fixture(scope="module")
def gunicorn() -> Iterator[Gunicorn]:
    with serve_stand_in() as served:
        server = Gunicorn(served.stand_in, served.base_url)
        try:
            wait_until(server.is_up, "gunicorn's first answer", START_SECONDS)
            yield server
        finally:
            server.end()


class Seen(NamedTuple):
    """What the provider got of one connection, and what came back on it."""

    requests: list[tuple[str, str, bytes]]
    answer: bytes

    @property
    def statuses(self) -> list[bytes]:
        return re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", self.answer)


def attack(gunicorn: Gunicorn, data: bytes) -> Seen:
    before = len(gunicorn.provider.requests)
    answer = gunicorn.send(data)
    received = gunicorn.provider.requests[before:]
    return Seen([(each.path, each.query, each.body) for each in received], answer)


def post(*headers: bytes, body: bytes, path: bytes = MESSAGES, host: bytes = b"h") -> bytes:
    lines = [
        b"POST " + path + b" HTTP/1.1",
        b"Host: " + host,
        TOKEN.rstrip(),
        b"Content-Type: application/json",
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%s\r\n%s\r\n0\r\n\r\n" % (len(data), extension, data)


LENGTH = b"Content-Length: %d" % len(BODY)
TE = b"Transfer-Encoding: chunked"

WHOLE = {
    "a length": post(LENGTH, body=BODY),
    "chunks": post(TE, body=chunked(BODY)),
    "chunks of one byte": post(TE, body=b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"),
    "chunk extension": post(TE, body=chunked(BODY, b';name="value"')),
    "trailer": post(TE, body=chunked(BODY)[:-2] + b"X-Trailer: " + KEY.encode() + b"\r\n\r\n"),
}


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
def test_a_request_that_is_well_formed_arrives_once(gunicorn: Gunicorn, data: bytes) -> None:
    """With its own body; trailers and chunk extensions stay behind."""
    seen = attack(gunicorn, data)
    assert seen.requests == [("/v1/messages", "", BODY)]
    assert seen.statuses == [b"200"]
    assert KEY.encode() not in seen.answer


SMUGGLING = {
    "CL.TE": post(b"Content-Length: %d" % (5 + len(SMUGGLED)), TE, body=b"0\r\n\r\n" + SMUGGLED),
    "TE.CL": post(b"Content-Length: 4", TE, body=chunked(SMUGGLED)),
    "TE.TE, unknown": post(TE, b"Transfer-Encoding: x", LENGTH, body=chunked(SMUGGLED)),
    "TE.TE, identity": post(b"Transfer-Encoding: identity, chunked", LENGTH, body=b"0\r\n\r\n" + SMUGGLED),
    "TE, xchunked": post(b"Transfer-Encoding: xchunked", LENGTH, body=BODY + SMUGGLED),
    "TE, space before the colon": post(b"Transfer-Encoding : chunked", LENGTH, body=b"0\r\n\r\n" + SMUGGLED),
    "TE, tab": post(b"Transfer-Encoding:\tchunked", LENGTH, body=b"0\r\n\r\n" + SMUGGLED),
    "TE, vertical tab": post(b"Transfer-Encoding: \x0bchunked", LENGTH, body=b"0\r\n\r\n" + SMUGGLED),
    "TE, folded": post(b"Transfer-Encoding:\r\n chunked", LENGTH, body=b"0\r\n\r\n" + SMUGGLED),
    "TE, bare LF before": post(b"X: x\nTransfer-Encoding: chunked", LENGTH, body=b"0\r\n\r\n" + SMUGGLED),
    "TE, underscore": post(
        b"Transfer_Encoding: chunked", b"Content-Length: %d" % (5 + len(SMUGGLED)), body=b"0\r\n\r\n" + SMUGGLED
    ),
    "TE, quoted": post(b'Transfer-Encoding: "chunked"', b"Content-Length: 5", body=b"0\r\n\r\n" + SMUGGLED),
    "TE, doubled": post(b"Transfer-Encoding: chunked, chunked", LENGTH, body=chunked(SMUGGLED)),
    "TE, HTTP/1.0": post(TE, LENGTH, body=b"0\r\n\r\n" + SMUGGLED).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "CL, two": post(b"Content-Length: 5", b"Content-Length: %d" % (5 + len(SMUGGLED)), body=b"12345" + SMUGGLED),
    "CL, list": post(b"Content-Length: 5, %d" % (5 + len(SMUGGLED)), body=b"12345" + SMUGGLED),
    "CL, plus": post(b"Content-Length: +5", body=b"12345" + SMUGGLED),
    "CL, minus": post(b"Content-Length: -5", body=SMUGGLED),
    "CL, space in it": post(b"Content-Length: 5 0", body=b"12345" + SMUGGLED),
    "CL, hexadecimal": post(b"Content-Length: 0x5", body=b"12345" + SMUGGLED),
    "CL, underscores": post(b"Content-Length: 1_0", body=b"1234567890" + SMUGGLED),
    "CL, other digits": post("Content-Length: ５".encode(), body=b"12345" + SMUGGLED),
    "CL, many digits": post(b"Content-Length: " + b"0" * 5000 + b"5", body=b"12345" + SMUGGLED),
    "CL, space before the colon": post(b"Content-Length : 5", LENGTH, body=b"12345" + SMUGGLED),
    "CL, header with an underscore": post(b"Content_Length: 5", LENGTH, body=BODY + b"GET / HTTP/9\r\n\r\n"),
    "bare LF": post(LENGTH, body=SMUGGLED).replace(b"\r\n", b"\n", 4),
    "bare CR": post(LENGTH + b"\rX: y", body=BODY),
    "NUL in a value": post(LENGTH, b"X: a\0b", body=BODY),
    "chunk, size with a sign": post(TE, body=b"+5\r\n12345\r\n0\r\n\r\n" + SMUGGLED),
    "chunk, size with 0x": post(TE, body=b"0x5\r\n12345\r\n0\r\n\r\n" + SMUGGLED),
    "chunk, size with an underscore": post(TE, body=b"1_0\r\n" + b"1" * 16 + b"\r\n0\r\n\r\n" + SMUGGLED),
    "chunk, no line end behind": post(TE, body=b"5\r\n12345XX0\r\n\r\n" + SMUGGLED),
    "chunk, bare LF": post(TE, body=b"5\n12345\n0\n\n" + SMUGGLED),
    "chunk, LF in the extension": post(TE, body=b"5;x\n12345\r\n0\r\n\r\n" + SMUGGLED),
    "chunk, huge": post(TE, body=b"f" * 40 + b"\r\n" + SMUGGLED),
    "a body that GET has": (
        b"GET " + MESSAGES + b" HTTP/1.1\r\nHost: h\r\n" + TOKEN
        + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED
    ),
    "two hosts": post(LENGTH, b"Host: closed", body=BODY),
}  # fmt: skip


@pytest.mark.parametrize("data", SMUGGLING.values(), ids=SMUGGLING)
def test_what_can_be_read_in_two_ways_is_not_two_requests(gunicorn: Gunicorn, data: bytes) -> None:
    """However a proxy in front would have read it: what was hidden in a body is not taken for a request."""
    seen = attack(gunicorn, data)
    assert not any("smuggled" in query for _, query, _ in seen.requests), seen
    assert len(seen.requests) <= 1
    assert all(body in (BODY, b"") or SMUGGLED in body for _, _, body in seen.requests), seen
    assert b"500" not in seen.statuses, seen.answer


def test_two_requests_are_two(gunicorn: Gunicorn) -> None:
    """The tests above would notice: what follows a whole request on its connection is another one."""
    seen = attack(gunicorn, post(LENGTH, body=BODY) + SMUGGLED)
    assert [query for _, query, _ in seen.requests] == ["", "smuggled"]
    assert seen.statuses == [b"200", b"200"]


def test_a_refused_upload_is_not_the_next_request(gunicorn: Gunicorn) -> None:
    """A refusal that does not read the body ends the connection, or skips the body: it is never read as a request."""
    for headers in ((b"X-Wrong: 1",), (b"Expect: 100-continue",)):
        data = post(*headers, b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED).replace(
            TOKEN, b"X-Api-Key: wrong\r\n", 1
        )
        seen = attack(gunicorn, data)
        assert seen.requests == []
        assert b"401" in seen.statuses


TARGETS = [
    *(MESSAGES, b"/" + MESSAGES, b"//closed" + MESSAGES, b"http://h" + MESSAGES, b"http://closed" + MESSAGES),
    *(
        MESSAGES + b"/",
        MESSAGES + b"?x",
        MESSAGES + b"#x",
        MESSAGES + b"%00",
        MESSAGES + b";x=1",
        MESSAGES + b"/.",
    ),
    *(
        MESSAGES.replace(b"/", b"%2f"),
        MESSAGES.replace(b"/", b"//"),
        MESSAGES.replace(b"api", b"%61pi"),
        MESSAGES.upper(),
    ),
    *(
        b"/x/.." + MESSAGES,
        b"/./" + MESSAGES[1:],
        b"/x/%2e%2e" + MESSAGES,
        MESSAGES.replace(b"/v1", b"/../anthropic/v1"),
    ),
    *(
        b"/\xc3\xa9/.." + MESSAGES,
        b"/%c0%af" + MESSAGES,
        b"*",
        b"h:80",
        MESSAGES[1:],
        b"\\" + MESSAGES[1:],
        b"",
    ),
]
METHODS = [b"POST", b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"CONNECT", b"PUT", b"post", b"MESSAGE"]
TRICKS = [
    b"X-HTTP-Method-Override: POST",
    b"SCRIPT_NAME: /api/v2",
    b"SCRIPT-NAME: /api/v2/aibridge",
    b"PATH_INFO: " + MESSAGES,
    b"X-Forwarded-Prefix: /api/v2/aibridge\r\nX-Forwarded-Host: h",
    b"flask_aibridge.cancellation: x\r\nflask_aibridge.source: agents",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13",
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    b"Expect: 100-continue",
]


@pytest.mark.parametrize("target", TARGETS)
def test_no_target_gets_through_a_closed_gate(gunicorn: Gunicorn, target: bytes) -> None:
    """A host without a licence, whatever method and headers come with it."""
    for method in METHODS:
        data = post(LENGTH, body=BODY, host=b"closed").replace(b"POST " + MESSAGES, method + b" " + target, 1)
        assert attack(gunicorn, data).requests == [], (method, target)


@pytest.mark.parametrize("header", TRICKS)
def test_no_header_gets_through_a_closed_gate(gunicorn: Gunicorn, header: bytes) -> None:
    """Nor does one make a request one of the process's own."""
    for path in (MESSAGES, b"/anthropic/v1/messages", b"/aibridge/anthropic/v1/messages", b"/"):
        for key in (TOKEN, b""):
            data = post(header, LENGTH, body=BODY, host=b"closed", path=path).replace(TOKEN, key, 1)
            assert attack(gunicorn, data).requests == [], (header, path)


@pytest.mark.parametrize("header", TRICKS)
def test_no_header_stands_for_a_key(gunicorn: Gunicorn, header: bytes) -> None:
    """With a licence, and no key."""
    data = post(header, LENGTH, body=BODY).replace(TOKEN, b"", 1)
    assert attack(gunicorn, data).requests == []


def test_many_headers_are_refused_by_the_server(gunicorn: Gunicorn) -> None:
    """And so is one that is too long; both are answered."""
    for headers in ([b"X-%d: x" % number for number in range(5_000)], [b"X-Long: " + b"x" * 100_000]):
        seen = attack(gunicorn, post(*headers, LENGTH, body=BODY))
        assert (seen.requests, seen.statuses[:1]) in (([], [b"400"]), ([], [b"431"]), ([], []))
