"""Bodies that are waited for in slices: silences at every position, and nothing lost by any of them."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_aibridge.bridge.received import ReceivedResponse
from flask_aibridge.bridge.switch import UpstreamSilent
from tests.bridge.upstreams import SSE_HEAD, chunk
from tests.bridge.wsgi import DEADLINE

pytestmark = pytest.mark.usefixtures("no_leaks")

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
EVENTS = b"event: ping\ndata: {}\n\ndata: [DONE]\n\n"
CHUNKED = chunk(EVENTS[:5]) + chunk(EVENTS[5:6]) + chunk(EVENTS[6:])
BODIES = {
    "chunked": (b"Transfer-Encoding: chunked\r\n\r\n", CHUNKED + b"0\r\nX-Trailer: 1\r\n\r\n"),
    "by length": (b"Content-Length: %d\r\n\r\n" % len(EVENTS), EVENTS),
    "until the end": (b"Connection: close\r\n\r\n", EVENTS),
}
SOON = 0.001
"""Patience of a reader for whom everything that was sent has arrived."""


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(DEADLINE)
    with ours, theirs:
        yield ours, theirs


def opened(sock: socket.socket) -> ReceivedResponse:
    response = ReceivedResponse(sock, method="POST")
    response.begin()
    length = response.headers["content-length"]
    response.open_body(None if length is None else int(length))
    return response


class Silences:
    """Reads until nothing more has arrived, and counts how often that was."""

    def __init__(self, response: ReceivedResponse) -> None:
        self.response = response
        self.body = b""
        self.count = 0

    def read(self) -> None:
        try:
            while data := self.response.receive(SOON):
                self.body += data
        except UpstreamSilent:
            self.count += 1


@pytest.mark.parametrize("kind", BODIES)
def test_a_silence_after_every_byte(kind: str, ends: tuple[socket.socket, socket.socket]) -> None:
    """In a size, between its CR and its LF, in the trailer: what came before is kept, and the reader goes on."""
    ours, theirs = ends
    fields, body = BODIES[kind]
    theirs.sendall(HEAD + fields)
    reader = Silences(opened(ours))
    for byte in body:
        theirs.sendall(bytes([byte]))
        reader.read()
    theirs.shutdown(socket.SHUT_WR)
    reader.read()
    assert reader.body == EVENTS
    assert reader.count >= len(body) - 1
    assert reader.response.isclosed()
    assert reader.response.reusable


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("at", range(0, 90, 7))
def test_what_comes_along_with_the_head(
    kind: str, at: int, ends: tuple[socket.socket, socket.socket]
) -> None:
    """Is the beginning of the body, however much it is."""
    ours, theirs = ends
    fields, body = BODIES[kind]
    theirs.sendall(HEAD + fields + body[:at])
    reader = Silences(opened(ours))
    reader.read()
    theirs.sendall(body[at:])
    theirs.shutdown(socket.SHUT_WR)
    reader.read()
    assert reader.body == EVENTS
    assert reader.response.isclosed()


class EncryptingPeer:
    """The other end of a TLS connection, whose records can be sent in pieces."""

    def __init__(self, sock: socket.socket, certificate: Path) -> None:
        self._socket = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._socket.sendall(self._outgoing.read())
                self._incoming.write(self._socket.recv(65536))
            else:
                self._socket.sendall(self._outgoing.read())
                return

    def records(self, text: bytes) -> bytes:
        self._tls.write(text)
        return self._outgoing.read()


def test_a_silence_after_every_byte_under_encryption(
    ends: tuple[socket.socket, socket.socket], certificate: Path
) -> None:
    """In the middle of a record, and of a chunk that begins in one and ends in another."""
    ours, theirs = ends
    peer = EncryptingPeer(theirs, certificate)
    shaking = threading.Thread(target=peer.shake_hands)
    shaking.start()
    context = ssl.create_default_context(cafile=str(certificate))
    with context.wrap_socket(ours, server_hostname="127.0.0.1") as tls:
        shaking.join(DEADLINE)
        theirs.sendall(peer.records(SSE_HEAD))
        reader = Silences(opened(tls))
        body = CHUNKED + chunk(b"")
        for text in (body[:2], body[2:20], body[20:]):
            for byte in peer.records(text):
                theirs.sendall(bytes([byte]))
                reader.read()
    assert reader.body == EVENTS
    assert reader.count > len(body)
    assert reader.response.isclosed()


def test_silence_is_borne_so_long_and_no_longer(ends: tuple[socket.socket, socket.socket]) -> None:
    """The socket's timeout bounds the sum of the slices, and bytes begin it anew."""
    ours, theirs = ends
    ours.settimeout(0.05)
    theirs.sendall(SSE_HEAD)
    response = opened(ours)
    for _ in range(2):
        theirs.sendall(chunk(b"x"))
        assert response.receive(0.02) == b"x"
        for _ in range(2):
            with pytest.raises(UpstreamSilent):
                response.receive(0.02)
        with pytest.raises(TimeoutError):
            response.receive(0.02)


def test_patience_is_for_one_read(ends: tuple[socket.socket, socket.socket]) -> None:
    """Without it, a read waits as long as silence is borne."""
    ours, theirs = ends
    ours.settimeout(0.03)
    theirs.sendall(SSE_HEAD)
    response = opened(ours)
    with pytest.raises(UpstreamSilent):
        response.receive(0.001)
    with pytest.raises(TimeoutError):
        response.receive()


def test_a_socket_that_waits_for_ever(ends: tuple[socket.socket, socket.socket]) -> None:
    """Has patience all the same."""
    ours, theirs = ends
    theirs.sendall(SSE_HEAD)
    ours.settimeout(None)
    response = opened(ours)
    with pytest.raises(UpstreamSilent):
        response.receive(0.001)
    theirs.sendall(chunk(b"x"))
    assert response.receive() == b"x"


@pytest.mark.parametrize("body", [b"", b"5\r\nhel", b"5\r\nhello", b"5\r\nhello\r\n0", b"zz\r\n"])
def test_a_chunked_body_that_breaks_off(body: bytes, ends: tuple[socket.socket, socket.socket]) -> None:
    """Is incomplete, after what came before."""
    ours, theirs = ends
    theirs.sendall(SSE_HEAD + body)
    theirs.shutdown(socket.SHUT_WR)
    response = opened(ours)
    if body.startswith(b"5"):
        assert response.receive() == body[3:8]
    with pytest.raises(http.client.IncompleteRead):
        response.receive()
    response.close()


def test_a_chunked_body_without_the_blank_line_at_its_end(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """Is whole, and nothing else comes on its connection."""
    ours, theirs = ends
    theirs.sendall(SSE_HEAD + b"5\r\nhello\r\n0\r\n")
    theirs.shutdown(socket.SHUT_WR)
    response = opened(ours)
    assert [response.receive(), response.receive()] == [b"hello", b""]
    assert not response.reusable


def test_a_body_shorter_than_its_length(ends: tuple[socket.socket, socket.socket]) -> None:
    """Is incomplete."""
    ours, theirs = ends
    theirs.sendall(HEAD + b"Content-Length: 9\r\n\r\nhello")
    theirs.shutdown(socket.SHUT_WR)
    response = opened(ours)
    assert response.receive() == b"hello"
    with pytest.raises(http.client.IncompleteRead):
        response.receive()
    response.close()


@pytest.mark.parametrize(
    "rest",
    [b"Content-Length: 2\r\n\r\nhiHTTP", b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nHTTP"],
)
def test_a_connection_with_more_on_it_is_not_used_again(
    rest: bytes, ends: tuple[socket.socket, socket.socket]
) -> None:
    """The next request would get an answer to nothing."""
    ours, theirs = ends
    theirs.sendall(HEAD + rest)
    response = opened(ours)
    assert response.receive() == b"hi"
    assert response.receive() == b""
    assert response.isclosed()
    assert not response.reusable


def test_a_body_of_no_bytes(ends: tuple[socket.socket, socket.socket]) -> None:
    """Is whole at once."""
    ours, theirs = ends
    theirs.sendall(HEAD + b"Content-Length: 0\r\n\r\n")
    response = opened(ours)
    assert response.isclosed()
    assert (response.receive(), response.reusable) == (b"", True)
