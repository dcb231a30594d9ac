"""Reading a response, by every method that urllib3's has, whole or as it arrives."""

from __future__ import annotations

import gc
import gzip
import io
import json
import logging
import select
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest
from urllib3 import BaseHTTPResponse, HTTPHeaderDict, Retry
from urllib3.exceptions import DecodeError, ProtocolError
from urllib3.response import HTTPResponse

from flask_aibridge.transport import WSGIPoolManager
from tests.transport.apps_faces import Answers, Faucet, raising

TEXT = [("Content-Type", "text/plain")]
URL = "http://app.test/x"
PARTS = [b"one\n", b"two\n", b"three"]
WHOLE = b"".join(PARTS)


@pytest.fixture(params=["listed", "framed", "unframed", "validated"])
def opened(request: pytest.FixtureRequest) -> Any:
    """A response of ``WHOLE``, not yet read: as a list, with a Content-Length, without, behind the validator."""
    length = [("Content-Length", str(len(WHOLE)))] if request.param == "framed" else []
    chunks: Any = list(PARTS) if request.param == "listed" else lambda: iter(PARTS)
    app: Any = Answers(x=("200 OK", [*TEXT, *length], chunks))
    return _open(validator(app) if request.param == "validated" else app)


@pytest.fixture
def faucet() -> Iterator[Faucet]:
    faucet = Faucet()
    yield faucet
    faucet.end()


def _open(app: Any, method: str = "GET", **options: Any) -> Any:
    return WSGIPoolManager(app).request(method, URL, preload_content=False, **options)


# Reading


def _in_pieces(read: Callable[[], bytes]) -> bytes:
    return b"".join(iter(read, b""))


def _into(response: Any) -> bytes:
    buffer = bytearray(3)
    return b"".join(iter(lambda: bytes(buffer[: response.readinto(buffer)]), b""))


READS: dict[str, Callable[[Any], bytes]] = {
    "data": lambda r: r.data,
    "read": lambda r: r.read(),
    "read(n)": lambda r: _in_pieces(lambda: r.read(4)),
    "read(n) at once": lambda r: r.read(10**6),
    "read, undecoded": lambda r: r.read(decode_content=False),
    "read1": lambda r: _in_pieces(r.read1),
    "read1(n)": lambda r: _in_pieces(lambda: r.read1(2)),
    "readinto": _into,
    "stream": lambda r: b"".join(r.stream()),
    "stream(n)": lambda r: b"".join(r.stream(3)),
    "stream(None)": lambda r: b"".join(r.stream(None)),
    "iteration": lambda r: b"".join(r),
    "read, then stream": lambda r: r.read(5) + b"".join(r.stream()),
    "read1, then read": lambda r: r.read1(1) + r.read(),
    "buffered": lambda r: io.BufferedReader(r).read(),
    "cached": lambda r: r.read(cache_content=True) and r.data,
}


@pytest.mark.parametrize("how", READS)
def test_every_method_reads_it_all(opened: Any, how: str) -> None:
    """And then says that it is over."""
    assert READS[how](opened) == WHOLE
    assert opened.read() == b""
    assert opened.read1() == b""
    assert list(opened.stream()) == []


def test_what_it_is(opened: Any) -> None:
    """urllib3's own class, with a file's interface."""
    assert isinstance(opened, HTTPResponse)
    assert isinstance(opened, BaseHTTPResponse)
    assert (opened.readable(), opened.writable(), opened.version, opened.version_string) == (
        True,
        False,
        11,
        "HTTP/1.1",
    )
    assert opened.read() == WHOLE


def test_lines_of_text(opened: Any) -> None:
    """Through ``io.TextIOWrapper``, as csv and json readers take it."""
    opened.auto_close = False
    assert list(io.TextIOWrapper(opened)) == ["one\n", "two\n", "three"]


def test_iteration_is_by_lines(opened: Any) -> None:
    """As urllib3 has it."""
    assert list(opened) == PARTS


def test_an_amount_of_none_at_all(opened: Any) -> None:
    """Reads nothing, and ends nothing."""
    assert opened.read(0) == b""
    assert list(opened.stream(0)) == []
    assert opened.read() == WHOLE


def test_tell_counts_what_came(opened: Any) -> None:
    """Bytes as they were sent."""
    assert opened.tell() == 0
    opened.read(4)
    assert opened.tell() >= 4
    opened.read()
    assert opened.tell() == len(WHOLE)


def test_the_connection_goes_back_when_all_is_read(opened: Any) -> None:
    """By itself; the response is at its end then, though only ``data`` closes it."""
    assert opened.connection is not None
    opened.read()
    assert opened.connection is None
    assert opened.closed


def test_a_response_may_be_drained(opened: Any) -> None:
    """To give the connection back without reading."""
    opened.drain_conn()
    assert opened.connection is None
    assert opened.read() == b""


def test_a_response_may_be_released_unread(opened: Any) -> None:
    """``release_conn()`` twice is once."""
    opened.release_conn()
    opened.release_conn()
    assert opened.connection is None
    opened.close()


def test_closing_says_closed(opened: Any) -> None:
    """Twice is once."""
    assert not opened.closed
    opened.close()
    opened.close()
    assert opened.closed
    assert opened.read() == b""


def test_length_remaining() -> None:
    """Counts down where the length is known."""
    app = Answers(x=("200 OK", [*TEXT, ("Content-Length", str(len(WHOLE)))], lambda: iter(PARTS)))
    response = _open(app)
    assert response.length_remaining == len(WHOLE)
    response.read(5)
    assert response.length_remaining == len(WHOLE) - 5
    response.close()
    unframed = _open(Answers(x=("200 OK", TEXT, lambda: iter(PARTS))))
    assert unframed.length_remaining is None
    unframed.read()


def test_preloaded_by_default() -> None:
    """All has been read, and stays."""
    response = WSGIPoolManager(Answers(x=("200 OK", TEXT, lambda: iter(PARTS)))).request("GET", URL)
    assert response.data == response.data == WHOLE
    assert response.read() == b""
    assert response.closed


def test_json() -> None:
    """Parsed, or refused."""
    document = {"a": ["\xfc", None]}
    app = Answers(x=("200 OK", TEXT, [json.dumps(document).encode()]), y=("200 OK", TEXT, [b"{"]))
    manager = WSGIPoolManager(app)
    assert manager.request("GET", URL).json() == document
    assert manager.request("GET", URL, preload_content=False).json() == document
    with pytest.raises(json.JSONDecodeError):
        manager.request("GET", "http://app.test/y").json()


@pytest.mark.filterwarnings("ignore:HTTPResponse.getheader:DeprecationWarning")  # restored in 2.6
def test_headers() -> None:
    """Without regard to case; repeated ones apart, in order."""
    headers = [*TEXT, ("Set-Cookie", "a=1"), ("X-One", "1"), ("Set-Cookie", "b=2"), ("x-one", "2")]
    response = WSGIPoolManager(Answers(x=("200 OK", headers, [b"."]))).request("GET", URL)
    assert isinstance(response.headers, HTTPHeaderDict)
    assert response.headers["content-type"] == response.getheader("CONTENT-TYPE") == "text/plain"
    assert response.headers.getlist("set-cookie") == ["a=1", "b=2"]
    assert response.headers["X-One"] == "1, 2"
    assert response.getheader("X-None", "default") == "default"
    assert response.info() is response.headers
    assert response._original_response.msg.get_all("Set-Cookie") == ["a=1", "b=2"]  # type: ignore[attr-defined]


def test_geturl_and_retries() -> None:
    """Where it came from, after redirects."""
    app = Answers(x=("302 Found", [*TEXT, ("Location", "/y?z")], [b""]))
    response = WSGIPoolManager(app).request("GET", URL)
    assert response.geturl() == "/y?z"  # urllib3 gives the Location as it was
    redirect = WSGIPoolManager(app).request("GET", URL, redirect=False)
    assert redirect.get_redirect_location() == "/y?z"
    assert isinstance(redirect.retries, Retry)


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")]
)
@pytest.mark.parametrize("preload", [True, False])
def test_an_answer_without_a_body(method: str, status: str, preload: bool) -> None:
    """Has none and is at its end at once."""
    length = [("Content-Length", "7")] if method == "HEAD" else []
    app = Answers(x=(status, length, lambda: iter([b"ignored"])))
    response = WSGIPoolManager(app).request(method, URL, preload_content=preload)
    assert (response.data, response.length_remaining) == (b"", 0)
    assert list(response.stream()) == []
    assert response.headers.get("Content-Length") == ("7" if method == "HEAD" else None)


# Decoding


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "x-gzip", "gzip, deflate"])
# "read1, then read": until 2.7 urllib3 itself lost what it had decoded before.
@pytest.mark.parametrize("how", [how for how in READS if how not in ("read, undecoded", "read1, then read")])
def test_encodings(encoding: str, how: str) -> None:
    """Are taken off by every method, in small pieces as well."""
    data = WHOLE
    for one in encoding.split(", "):
        data = zlib.compress(data) if one == "deflate" else gzip.compress(data)
    headers = [*TEXT, ("Content-Encoding", encoding)]
    for chunks in ([data], lambda: (data[i : i + 1] for i in range(len(data)))):
        assert READS[how](_open(Answers(x=("200 OK", headers, chunks)))) == WHOLE
        preloaded = WSGIPoolManager(Answers(x=("200 OK", headers, chunks))).request("GET", URL)
        assert preloaded.data == WHOLE
        raw = WSGIPoolManager(Answers(x=("200 OK", headers, chunks))).request(
            "GET", URL, decode_content=False
        )
        assert raw.data == data


@pytest.mark.parametrize("how", [how for how in READS if "undecoded" not in how])
def test_what_cannot_be_decoded(how: str) -> None:
    """Is a ``DecodeError``, and the exchange is over."""
    app = Answers(x=("200 OK", [*TEXT, ("Content-Encoding", "gzip")], lambda: iter([b"no ", b"gzip"])))
    response = _open(app)
    with pytest.raises(DecodeError):
        READS[how](response)
    response.close()
    with pytest.raises(DecodeError):
        WSGIPoolManager(app).request("GET", URL)


def test_compressed_tokens_arrive_as_they_are_flushed(faucet: Faucet) -> None:
    """The decoder holds nothing back."""
    compressor = zlib.compressobj(wbits=31)

    def packed(data: bytes) -> bytes:
        return compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)

    faucet = Faucet(packed(b"one"), headers=[*TEXT, ("Content-Encoding", "gzip")])
    response = _open(faucet)
    pieces = response.stream()
    assert next(pieces) == b"one"
    faucet.send(packed(b"two"))
    assert next(pieces) == b"two"
    faucet.send(compressor.flush())
    faucet.end()
    assert b"".join(pieces) == b""


# As it arrives


def _lines_of_text(response: Any) -> Iterator[bytes]:
    response.auto_close = False  # or the wrapper takes the end of the body for that of the file
    return map(str.encode, io.TextIOWrapper(response))


@pytest.mark.parametrize(
    "pieces",
    [
        lambda r: r.stream(),
        lambda r: r.stream(None),
        lambda r: r.stream(decode_content=False),
        lambda r: iter(r.read1, b""),
        lambda r: iter(lambda: r.read1(100), b""),
        lambda r: iter(lambda: r.read(6), b""),
        lambda r: iter(r),
        lambda r: _lines_of_text(r),
    ],
    ids=[
        "stream",
        "stream(None)",
        "stream undecoded",
        "read1",
        "read1(n)",
        "read(n)",
        "iteration",
        "lines of text",
    ],
)
@pytest.mark.parametrize("framed", [False, True])
def test_each_chunk_arrives_before_the_next_is_sent(
    pieces: Callable[[Any], Iterator[bytes]], framed: bool
) -> None:
    """Also where the length is known."""
    length = [("Content-Length", "30")] if framed else []
    faucet = Faucet(b"chunk\n", headers=[*TEXT, *length])
    iterator = pieces(_open(faucet))
    for number in range(1, 5):
        assert next(iterator).rstrip() in (b"chunk", b"item%d" % number)
        faucet.send(b"item%d\n" % (number + 1))
    faucet.end()
    assert b"".join(iterator) == b"item5\n"
    assert faucet.closed.wait(20)
    assert not faucet.cancelled.is_set()


def test_read_n_waits_for_all_of_it(faucet: Faucet) -> None:
    """As over a socket."""
    response = _open(faucet)
    threading.Timer(0.05, faucet.send, (b"-second-third",)).start()
    assert response.read(12) == b"first-second"
    response.close()


def test_a_descriptor_to_select_on(faucet: Faucet) -> None:
    """Readable exactly while there is something to read, or the end."""
    response = _open(faucet)
    assert response.read1() == b"first"
    descriptor = response.fileno()
    assert select.select([descriptor], [], [], 0)[0] == []
    faucet.send(b"second")
    assert select.select([descriptor], [], [], 20)[0] == [descriptor]
    assert response.read1() == b"second"
    assert select.select([descriptor], [], [], 0)[0] == []
    faucet.end()
    assert select.select([descriptor], [], [], 20)[0] == [descriptor]
    assert response.read1() == b""


# Ends


def test_closing_early_cancels(faucet: Faucet) -> None:
    """Once, and the iterable is closed once."""
    response = _open(faucet)
    response.close()
    assert faucet.cancelled.wait(20)
    assert faucet.closed.wait(20)
    assert faucet.closes == 1


def test_giving_up_a_response_cancels(faucet: Faucet) -> None:
    """The garbage collector closes it."""
    response = _open(faucet)
    assert response.read1() == b"first"
    del response
    gc.collect()
    assert faucet.cancelled.wait(20)


def test_stopping_a_loop_over_a_stream_keeps_it_open(faucet: Faucet) -> None:
    """What follows can be read later."""
    response = _open(faucet)
    for piece in response.stream():
        assert piece == b"first"
        break
    faucet.send(b"second")
    faucet.end()
    assert response.read() == b"second"


def test_shutdown_wakes_a_reader_in_another_thread(faucet: Faucet) -> None:
    """Which gets an incomplete read; the exchange is cancelled."""
    response = _open(faucet)
    assert response.read1() == b"first"
    caught: list[BaseException] = []
    reading = threading.Event()

    def read() -> None:
        reading.set()
        try:
            response.read(100)
        except Exception as error:
            caught.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert reading.wait(20)
    response.shutdown()
    reader.join(20)
    assert not reader.is_alive()
    assert [type(error) for error in caught] == [ProtocolError]
    assert faucet.cancelled.wait(20)
    response.close()


def test_shutdown_after_the_end(opened: Any) -> None:
    """Is urllib3's ``RuntimeError``: the connection may be somebody else's by now."""
    opened.read()
    with pytest.raises(RuntimeError, match="already been released"):
        opened.shutdown()


def test_a_close_from_another_thread_ends_a_reader(faucet: Faucet) -> None:
    """It does not wait for ever."""
    response = _open(faucet)
    assert response.read1() == b"first"
    reader = threading.Thread(target=lambda: _quietly(lambda: response.read(100)))
    reader.start()
    response.close()
    reader.join(20)
    assert not reader.is_alive()


def _quietly(read: Callable[[], bytes]) -> None:
    try:
        read()
    except (ProtocolError, ValueError, AttributeError):
        return


@pytest.mark.parametrize("how", ["read", "read(n)", "stream", "read1", "iteration", "data", "readinto"])
@pytest.mark.parametrize("length", [[], [("Content-Length", "9")]])
def test_a_body_that_breaks_off(how: str, length: list[Any]) -> None:
    """Is a ``ProtocolError`` by every method, which closes the response."""
    response = _open(Answers(x=("200 OK", [*TEXT, *length], raising(OSError("x"), b"some"))))
    with pytest.raises(ProtocolError):
        READS[how](response)
    assert response.closed


@pytest.mark.parametrize("how", ["read", "read(n)", "stream", "read1", "data"])
def test_a_body_that_is_too_short(how: str) -> None:
    """Is one too, unless the caller does not mind."""
    app = Answers(x=("200 OK", [*TEXT, ("Content-Length", "9")], [b"some"]))
    with pytest.raises(ProtocolError):
        READS[how](_open(app))
    assert READS[how](_open(app, enforce_content_length=False)) == b"some"


def test_a_body_that_is_too_long() -> None:
    """Is cut off, with a warning in the log."""
    app = Answers(x=("200 OK", [*TEXT, ("Content-Length", "3")], [b"ab", b"cdef"]))
    for how in ("read", "stream", "read1"):
        assert READS[how](_open(app)) == b"abc"


def test_one_response_does_not_touch_another() -> None:
    """Closing one leaves the others of the manager as they were."""
    faucets = [Faucet(), Faucet()]
    numbers = iter(faucets)
    manager = WSGIPoolManager(lambda environ, start_response: next(numbers)(environ, start_response))
    first, second = (manager.request("GET", URL, preload_content=False) for _ in range(2))
    first.close()
    assert faucets[0].closed.wait(20)
    faucets[1].send(b" goes on")
    faucets[1].end()
    assert second.read() == b"first goes on"


def test_nothing_is_logged_of_a_good_exchange(caplog: pytest.LogCaptureFixture) -> None:
    """By the transport, at any level."""
    caplog.set_level(logging.DEBUG, "flask_aibridge")
    WSGIPoolManager(Answers()).request("POST", URL, body=b"secret", headers={"Authorization": "secret"})
    assert "secret" not in caplog.text
    assert [record for record in caplog.records if record.name.startswith("flask_aibridge")] == []
