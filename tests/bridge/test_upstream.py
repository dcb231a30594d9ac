"""The seam to the providers: read as it comes, stopped at once, connections kept only if they can be."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import urllib3

from flask_aibridge.bridge.upstream import (
    Answer,
    Switch,
    Upstream,
    UpstreamBroken,
    UpstreamCancelled,
    UpstreamFailure,
    UpstreamPool,
    UpstreamSilent,
    UpstreamTimeout,
)
from tests.bridge.upstreams import JSON_HEAD, SSE_HEAD, Peer, ScriptedUpstream, chunk
from tests.bridge.wsgi import DEADLINE, FakeCancellation

pytestmark = pytest.mark.usefixtures("no_leaks")

HELLO = JSON_HEAD + b"Content-Length: 5\r\n\r\nhello"


@pytest.fixture
def upstream(no_leaks: None) -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


def send(
    upstream: Upstream, server: ScriptedUpstream, cancellation: FakeCancellation | None = None
) -> Answer:
    return upstream.send("POST", f"{server.base_url}/v1/x?q=1", {"X-A": "b"}, b"{}", cancellation)


def read_all(answer: Answer) -> bytes:
    body = b"".join(iter(answer.read, b""))
    answer.close()
    return body


def answer_each(*answers: bytes) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        for answer in answers:
            if not peer.read_request():
                return
            peer.send(answer)
        peer.is_gone()

    return script


def test_a_request_goes_out_as_it_is(upstream: Upstream) -> None:
    """Method, target, headers and body; nothing is added but what HTTP needs."""
    with ScriptedUpstream(answer_each(HELLO)) as server:
        answer = send(upstream, server)
        assert (answer.status, answer.reason, read_all(answer)) == (200, "OK", b"hello")
        upstream.close()
    ((head, body),) = server.peers[0].requests
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v1/x?q=1 HTTP/1.1"
    assert {line.split(":")[0] for line in lines[1:-2]} >= {"Host", "X-A", "Content-Length"}
    assert body == b"{}"


def test_bytes_are_read_as_they_come(upstream: Upstream) -> None:
    """A read returns what has arrived; it does not wait for more."""
    more = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(SSE_HEAD + chunk(b"data: 1\n\n"))
        assert more.wait(DEADLINE)
        peer.send(chunk(b"data: 2\n\n") + chunk(b""))
        peer.is_gone()

    with ScriptedUpstream(script) as server:
        answer = send(upstream, server)
        assert answer.read() == b"data: 1\n\n"
        more.set()
        assert [answer.read(), answer.read()] == [b"data: 2\n\n", b""]
        answer.close()
        upstream.close()


@pytest.mark.parametrize(
    "body", [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
)
def test_a_connection_whose_body_was_read_is_used_again(upstream: Upstream, body: bytes) -> None:
    """Three requests, one connection, and a late cancellation of one leaves the next alone."""
    with ScriptedUpstream(answer_each(*[JSON_HEAD + body] * 3)) as server:
        for _ in range(3):
            cancellation = FakeCancellation()
            assert read_all(send(upstream, server, cancellation)) == b"hello"
            assert cancellation.callbacks == []
            cancellation.cancel()
        assert len(server.peers) == 1
        upstream.close()


def test_more_connections_than_are_kept_are_closed_without_a_word(
    no_leaks: None, caplog: pytest.LogCaptureFixture
) -> None:
    """A busy process has more at once as a matter of course: urllib3 would warn of each."""
    upstream = Upstream(UpstreamPool(idle_connections=1))
    with ScriptedUpstream(answer_each(HELLO, HELLO)) as server:
        answers = [send(upstream, server) for _ in range(3)]
        assert [read_all(answer) for answer in answers] == [b"hello"] * 3
        assert read_all(send(upstream, server)) == b"hello"
        assert len(server.peers) == 3
        upstream.close()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_connection_that_the_provider_has_closed_is_not_used(upstream: Upstream) -> None:
    """Which providers do with idle ones, and is no reason to bother the caller."""
    closed = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(HELLO)
        peer.connection.shutdown(socket.SHUT_WR)
        closed.set()
        peer.is_gone()

    with ScriptedUpstream(script) as server:
        for number in (1, 2):
            assert read_all(send(upstream, server)) == b"hello"
            assert closed.wait(DEADLINE)
            closed.clear()
            assert len(server.peers) == number
        upstream.close()


def test_a_connection_that_is_closed_instead_of_an_answer_is_a_failure(upstream: Upstream) -> None:
    """It may have been closed for being idle, or while the provider was thinking: nobody can tell, so the request is
    not sent again. The SDKs do that, by the status that their callers get."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(HELLO)
        peer.read_request()

    with ScriptedUpstream(script) as server:
        assert read_all(send(upstream, server)) == b"hello"
        with pytest.raises(UpstreamFailure):
            send(upstream, server)
        assert [len(peer.requests) for peer in server.peers] == [2]


def test_a_switch_is_detached_before_its_connection_can_be_reused(upstream: Upstream) -> None:
    """Even one that is thrown after the last byte, before anybody has noticed the end."""
    cancelled = threading.Event()

    def script(peer: Peer) -> None:
        assert peer.read_request()
        peer.send(HELLO)
        assert peer.read_request()
        peer.send(HELLO.removesuffix(b"hello"))
        assert cancelled.wait(DEADLINE)
        peer.send(b"hello")
        peer.is_gone()

    with ScriptedUpstream(script) as server:
        cancellation = FakeCancellation()
        first = send(upstream, server, cancellation)
        assert first.read() == b"hello"  # urllib3 gives the connection back here: the length is known
        second = send(upstream, server)
        cancellation.cancel()
        cancelled.set()
        assert read_all(second) == b"hello"
        first.close()
        assert len(server.peers) == 1
        upstream.close()


def test_an_answer_closed_early_closes_its_connection(upstream: Upstream) -> None:
    """The provider must not go on generating for nobody."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(SSE_HEAD + chunk(b"data: 1\n\n"))
        gone.append(peer.is_gone())

    gone: list[bool] = []
    with ScriptedUpstream(script) as server:
        answer = send(upstream, server)
        answer.read()
        answer.close()
        answer.close()
    assert gone == [True]


@pytest.mark.parametrize(
    "start",
    [
        JSON_HEAD + b"Content-Length: 9\r\n\r\nhello",
        SSE_HEAD + chunk(b"hello"),
        SSE_HEAD + b"7\r\nhello",
        SSE_HEAD + chunk(b"hello") + b"zz\r\n",
    ],
)
def test_a_body_that_breaks_off_is_no_end(upstream: Upstream, start: bytes) -> None:
    """By its length or by its chunks, whatever came before is delivered first."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(start)

    with ScriptedUpstream(script) as server:
        answer = send(upstream, server)
        assert answer.read() == b"hello"
        with pytest.raises(UpstreamBroken):
            answer.read()
        answer.close()


def test_no_provider_there(upstream: Upstream) -> None:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    with pytest.raises(UpstreamFailure, match="NewConnectionError"):
        upstream.send("GET", url, {}, b"")


def test_a_provider_that_hangs_up(upstream: Upstream) -> None:
    """No head is no answer; the request is not sent again."""

    def script(peer: Peer) -> None:
        peer.read_request()

    with ScriptedUpstream(script) as server, pytest.raises(UpstreamFailure, match="RemoteDisconnected"):
        send(upstream, server)
    assert len(server.peers) == 1


def test_redirects_are_answers_like_any_other(upstream: Upstream) -> None:
    """The key must not follow them."""
    redirect = (
        b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    )
    with ScriptedUpstream(answer_each(redirect)) as server:
        answer = send(upstream, server)
        assert (answer.status, read_all(answer)) == (307, b"")
        upstream.close()


def hold(peer: Peer) -> None:
    peer.read_request()
    peer.is_gone()


def hold_after_first(peer: Peer) -> None:
    peer.read_request()
    peer.send(SSE_HEAD + chunk(b"data: 1\n\n"))
    peer.is_gone()


def hold_after_first_without_length(peer: Peer) -> None:
    peer.read_request()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n")
    peer.is_gone()


@pytest.mark.parametrize("script", [hold, hold_after_first])
def test_a_silent_provider_times_out(script: Callable[[Peer], None], no_leaks: None) -> None:
    """Before its head and between two reads."""
    upstream = Upstream(UpstreamPool(read_timeout=0.05))

    def exchange(server: ScriptedUpstream) -> None:
        answer = send(upstream, server)
        try:
            assert answer.read() == b"data: 1\n\n"
            answer.read()
        finally:
            answer.close()

    with ScriptedUpstream(script) as server, pytest.raises(UpstreamTimeout):
        exchange(server)
    upstream.close()


def cancel_when_asked(
    server: ScriptedUpstream, cancellation: FakeCancellation, asked: threading.Event
) -> threading.Thread:
    def cancel() -> None:
        assert asked.wait(DEADLINE)
        cancellation.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    return thread


def test_cancellation_while_the_head_is_awaited(upstream: Upstream) -> None:
    """The blocked call returns at once, on a fresh connection and on one used before."""
    asked = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(HELLO)
        peer.read_request()
        asked.set()
        peer.is_gone()

    def fresh(peer: Peer) -> None:
        peer.read_request()
        asked.set()
        peer.is_gone()

    for each in (script, fresh):
        asked.clear()
        with ScriptedUpstream(each) as server:
            if each is script:
                read_all(send(upstream, server))
            cancellation = FakeCancellation()
            thread = cancel_when_asked(server, cancellation, asked)
            with pytest.raises(UpstreamCancelled):
                send(upstream, server, cancellation)
            thread.join(DEADLINE)
            assert cancellation.callbacks == []
            assert len(server.peers) == 1


@pytest.mark.parametrize("script", [hold_after_first, hold_after_first_without_length])
def test_cancellation_in_the_middle_of_a_body(upstream: Upstream, script: Callable[[Peer], None]) -> None:
    """Not even a body without length or chunks looks whole then."""
    reading = threading.Event()
    with ScriptedUpstream(script) as server:
        cancellation = FakeCancellation()
        answer = send(upstream, server, cancellation)
        assert answer.read() == b"data: 1\n\n"
        thread = cancel_when_asked(server, cancellation, reading)
        reading.set()
        with pytest.raises(UpstreamCancelled):
            answer.read()
        answer.close()
        thread.join(DEADLINE)


@pytest.mark.parametrize("script", [hold, hold_after_first, hold_after_first_without_length])
def test_cancellation_over_tls(script: Callable[[Peer], None], certificate: Path, no_leaks: None) -> None:
    """A socket under encryption can be stopped like any other, before the head and after it."""
    cancellation = FakeCancellation()

    def exchange(server: ScriptedUpstream) -> None:
        answer = send(upstream, server, cancellation)
        try:
            while answer.read():
                asked.set()
        finally:
            answer.close()

    asked = threading.Event()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    upstream = Upstream(UpstreamPool(ca_certs=str(certificate)))
    with ScriptedUpstream(script, tls) as server:
        thread = cancel_when_asked(server, cancellation, asked)
        if script is hold:
            asked.set()
        with pytest.raises(UpstreamCancelled):
            exchange(server)
        thread.join(DEADLINE)
    upstream.close()


def test_what_follows_a_body_answers_no_other_request(certificate: Path, no_leaks: None) -> None:
    """Also where it is in the TLS layer already, in the record that the body ended in."""
    taken = threading.Event()

    def script(peer: Peer) -> None:
        while peer.read_request():
            taken.clear()
            peer.send(JSON_HEAD + b"Content-Length: 6\r\n\r\nh")
            assert taken.wait(DEADLINE)
            peer.send(b"ello." + HELLO.replace(b"hello", b"wrong"))

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    upstream = Upstream(UpstreamPool(ca_certs=str(certificate)))
    with ScriptedUpstream(script, tls) as server:
        for _ in range(2):
            answer = send(upstream, server)
            assert answer.read() == b"h"
            taken.set()
            assert read_all(answer) == b"ello."
        assert len(server.peers) == 2
        upstream.close()


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_patient_reader(encrypted: bool, certificate: Path, no_leaks: None) -> None:
    """Is told of each silence, gets every byte after it, and leaves a connection that can be used again."""
    heard = threading.Semaphore(0)
    whole = b"".join((SSE_HEAD, chunk(b"data: 1\n\n"), chunk(b"data: 2\n\n"), chunk(b"")))

    def script(peer: Peer) -> None:
        while peer.read_request():
            peer.send(SSE_HEAD)
            for start in range(len(SSE_HEAD), len(whole), 3):
                assert heard.acquire(timeout=DEADLINE)
                peer.send(whole[start : start + 3])

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    upstream = Upstream(UpstreamPool(ca_certs=str(certificate)))
    with ScriptedUpstream(script, tls if encrypted else None) as server:
        for _ in range(2):
            answer = send(upstream, server)
            assert answer.patient
            body, data = b"", b"."
            while data:
                try:
                    data = answer.read(0.002)
                except UpstreamSilent:
                    heard.release()
                else:
                    body += data
            assert body == b"data: 1\n\ndata: 2\n\n"
            answer.close()
            while heard.acquire(blocking=False):
                pass
        assert len(server.peers) == 1
        upstream.close()


def test_patience_has_an_end(no_leaks: None) -> None:
    """The read timeout of the pool bounds the sum of all silences."""
    upstream = Upstream(UpstreamPool(read_timeout=0.05))
    with ScriptedUpstream(hold_after_first) as server:
        answer = send(upstream, server)
        assert answer.read(0.02) == b"data: 1\n\n"
        for _ in range(2):
            with pytest.raises(UpstreamSilent):
                answer.read(0.02)
        with pytest.raises(UpstreamTimeout):
            answer.read(0.02)
        answer.close()
    upstream.close()


@pytest.mark.parametrize("script", [hold_after_first, hold_after_first_without_length])
def test_a_patient_reader_is_stopped_like_any_other(
    upstream: Upstream, script: Callable[[Peer], None]
) -> None:
    """Between two waits, also on a connection that is not to be used again."""
    with ScriptedUpstream(script) as server:
        cancellation = FakeCancellation()
        answer = send(upstream, server, cancellation)
        assert answer.read(0.001) == b"data: 1\n\n"
        with pytest.raises(UpstreamSilent):
            answer.read(0.001)
        cancellation.cancel()
        with pytest.raises(UpstreamCancelled):
            answer.read(DEADLINE)
        answer.close()


def test_a_certificate_that_nobody_vouches_for(upstream: Upstream, certificate: Path) -> None:
    """The key is not shown to such a server."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with ScriptedUpstream(hold, tls) as server, pytest.raises(UpstreamFailure, match="SSLError"):
        send(upstream, server)


def test_a_caller_who_has_given_up_already_asks_nothing(upstream: Upstream) -> None:
    """The provider never sees the request."""
    with ScriptedUpstream(hold) as server:
        cancellation = FakeCancellation()
        cancellation.cancel()
        with pytest.raises(UpstreamCancelled):
            send(upstream, server, cancellation)
    assert all(peer.requests == [] for peer in server.peers)


def test_any_pool_will_do() -> None:
    """A plain pool manager works; what it has sent can be stopped once the head is there."""
    pool = urllib3.PoolManager()
    upstream = Upstream(pool)
    with ScriptedUpstream(hold_after_first) as server:
        cancellation = FakeCancellation()
        answer = send(upstream, server, cancellation)
        assert not answer.patient
        assert answer.read() == b"data: 1\n\n"
        cancellation.cancel()
        with pytest.raises(UpstreamCancelled):
            answer.read()
        answer.close()
    upstream.close()


def test_a_switch_thrown_first_stops_what_is_attached_later() -> None:
    """Whichever of the two comes first, one sees the other."""
    switch = Switch()
    switch.throw()
    with pytest.raises(UpstreamCancelled):
        switch.attach(lambda: None)


def test_a_detached_switch_stops_nothing() -> None:
    """The connection belongs to somebody else by then."""
    stopped: list[int] = []
    switch = Switch()
    switch.attach(lambda: stopped.append(1))
    switch.detach()
    switch.throw()
    assert stopped == []


def test_a_forked_child_does_not_use_its_parents_connections(upstream: Upstream) -> None:
    """Two processes on one connection would read each other's answers."""
    with ScriptedUpstream(answer_each(HELLO, HELLO)) as server:
        read_all(send(upstream, server))
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            try:
                os._exit(0 if read_all(send(upstream, server)) == b"hello" else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert read_all(send(upstream, server)) == b"hello"
        assert sorted(len(peer.requests) for peer in server.peers) == [1, 2]
        upstream.close()
