"""Heads are written so that nothing in them can become a second one, and read as http.client reads them."""

from __future__ import annotations

import http.client
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.heads import MAX_HEAD, MAX_HEADERS, BadHead, read_head, request_head

OK = b"HTTP/1.1 200 OK\r\n"
NAMES = st.text("abcXYZ-019", min_size=1, max_size=8)
VALUES = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_categories=["Cc", "Zs"]), max_size=9
)


def test_a_request_s_head_is_what_http_1_1_wants() -> None:
    """With the host and the length of the body; a request that has none says nothing of one."""
    assert request_head("POST", "/v1?a=b", "host:1", {"X-One": "é"}, b"12") == (
        b"POST /v1?a=b HTTP/1.1\r\nHost: host:1\r\nX-One: \xe9\r\nContent-Length: 2\r\n\r\n"
    )
    assert b"Content-Length: 0\r\n" in request_head("POST", "/", "h", {}, b"")
    assert b"Content-Length" not in request_head("GET", "/", "h", {}, b"")


@pytest.mark.parametrize("bad", ["a\r\nX: y", "a\nb", "a\rb", "\n b", "a\0b"])
def test_nothing_in_a_request_s_head_ends_a_line(bad: str) -> None:
    """Whoever it comes from."""
    for method, target, headers in (
        ("POST", "/", {"X": bad}),
        ("POST", bad, {}),
        (bad, "/", {}),
        ("POST", "/", {bad: "x"}),
    ):
        with pytest.raises(ValueError, match=r"line break|no name"):
            request_head(method, target, "h", headers, b"")


@pytest.mark.parametrize("name", ["", "a b", "a:b", " a", "é"])
def test_a_header_of_a_request_has_a_name(name: str) -> None:
    """One that another reader could take for something else is refused."""
    with pytest.raises(ValueError, match="no name"):
        request_head("POST", "/", "h", {name: "x"}, b"")


class Socket:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


@given(
    st.lists(st.tuples(NAMES, VALUES), max_size=6), st.integers(200, 599), st.sampled_from(["GET", "HEAD"])
)
def test_heads_are_read_as_http_client_reads_them(
    fields: list[tuple[str, str]], status: int, method: str
) -> None:
    """Names, values and their order, status and reason."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    data = f"HTTP/1.1 {status} Some Reason\r\n{lines}\r\n".encode("latin-1")
    theirs: Any = http.client.HTTPResponse(Socket(data), method=method)  # type: ignore[arg-type]
    theirs.begin()
    ours = read_head(data + b"body", method)
    assert ours is not None
    assert (ours.status, ours.reason, ours.headers) == (theirs.status, theirs.reason, theirs.headers.items())
    assert ours.early == b"body"


@pytest.mark.parametrize(
    ("head", "chunked", "length", "closes"),
    [
        (OK + b"Content-Length: 5\r\n", False, 5, False),
        (OK + b"Content-Length: 5\r\ncontent-length: 5\r\n", False, 5, False),
        (OK + b"Content-Length: -5\r\n", False, None, True),
        (OK + b"Transfer-Encoding: Chunked\r\n", True, None, False),
        (OK + b"Transfer-Encoding: Chunked\r\nContent-Length: 5\r\n", True, None, True),
        (OK + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n", False, 5, False),
        (OK, False, None, True),
        (OK + b"Content-Length: 5\r\nConnection: Close\r\n", False, 5, True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n", False, 5, True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n", False, 5, False),
        (b"HTTP/1.1 204\r\n", False, 0, False),
        (b"HTTP/1.1 101 Switching Protocols\r\n", False, 0, True),
        (b"HTTP/1.1 304 \r\nContent-Length: 5\r\n", False, 0, False),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n"
            + OK
            + b"Content-Length: 5\r\n",
            False,
            5,
            False,
        ),
        (OK.replace(b"\r", b"") + b"Content-Length: 5\n", False, 5, False),
    ],
)
def test_how_a_body_ends(head: bytes, chunked: bool, length: int | None, closes: bool) -> None:
    """RFC 9112 section 6.3, and whether the connection goes on after it (section 9.3)."""
    found = read_head(head + head[-1:] if b"\r" not in head else head + b"\r\n", "POST")
    assert found is not None
    assert (found.chunked, found.length, found.closes) == (chunked, length, closes)


def test_an_answer_to_head_has_no_body() -> None:
    """Whatever its length says."""
    found = read_head(OK + b"Content-Length: 5\r\n\r\n", "HEAD")
    assert found is not None
    assert found.length == 0


def test_a_folded_line_is_one() -> None:
    """RFC 9112 section 5.2 lets a reader put a space for the fold."""
    found = read_head(OK + b"A: b\r\n  c\r\n\r\n", "GET")
    assert found is not None
    assert found.headers == [("A", "b c")]


@given(st.integers(0, 40))
def test_half_a_head_is_waited_for(size: int) -> None:
    """Whatever it is cut at."""
    head = OK + b"Content-Length: 5\r\n\r\n"
    assert read_head(head[: min(size, len(head) - 1)], "GET") is None


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/2 200\r\n\r\n",
        b"SSH-2.0\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        OK + b"no header\r\n\r\n",
        OK + b"a b: c\r\n\r\n",
        OK + b": c\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        OK + b"a: b\r\n" * (MAX_HEADERS + 1) + b"\r\n",
        OK + b"a" * MAX_HEAD,
        OK + b"Transfer-Encoding: gzip, chunked\r\nContent-Length: 5\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 103 Hints\r\n\r\n" * (MAX_HEAD // 22 + 1),
    ],
)
def test_what_is_no_head_is_refused(data: bytes) -> None:
    """So that nobody goes on with half of what was meant."""
    with pytest.raises(BadHead):
        read_head(data, "POST")
