"""What a server answers is read as redis-py reads it, in whatever pieces it comes."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from hypothesis import example, given
from hypothesis import strategies as st

from flask_aibridge.services.redis.replies import MAX_DEPTH, PIECE, read_replies

TEXTS = st.text() | st.text("\ud800\udfff$*:+-\r\n0123")
REPLIES = st.recursive(
    st.none() | st.integers() | TEXTS, lambda each: st.lists(each, max_size=4), max_leaves=8
)


class Socket:
    """Gives its bytes in pieces, and then says that nobody is there any more."""

    def __init__(self, data: bytes, size: int = PIECE) -> None:
        self._data = data
        self._size = size

    def recv(self, most: int) -> bytes:
        size = min(self._size, most)
        piece, self._data = self._data[:size], self._data[size:]
        return piece


def error_of(text: str) -> Exception:
    kind = redis.exceptions.BusyLoadingError if text.startswith("LOADING") else redis.ResponseError
    return kind(text)


def encoded(reply: Any) -> bytes:
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, list):
        return b"*%d\r\n" % len(reply) + b"".join(map(encoded, reply))
    text = reply.encode("utf-8", "surrogatepass")
    return b"$%d\r\n%b\r\n" % (len(text), text)


def read(data: bytes, count: int = 1, size: int = PIECE) -> list[Any]:
    return read_replies(Socket(data, size), count, error_of)


@given(st.lists(REPLIES, min_size=1, max_size=3), st.integers(1, 9) | st.just(PIECE))
@example(["$1\r\na\r\n"], PIECE)
@example(["x" * (2 * PIECE)], PIECE)
def test_every_reply_comes_back(replies: list[Any], size: int) -> None:
    """In pieces of any size."""
    assert read(b"".join(map(encoded, replies)), len(replies), size) == replies


def test_a_status_is_text_and_an_absent_list_is_null() -> None:
    """As everywhere in RESP2."""
    assert read(b"+OK\r\n*-1\r\n", 2) == ["OK", None]


def test_an_error_is_a_reply_like_any_other() -> None:
    """What comes behind it is read too."""
    error, after = read(b"-NOSCRIPT No matching script.\r\n:1\r\n", 2)
    assert isinstance(error, redis.ResponseError)
    assert (str(error), after) == ("NOSCRIPT No matching script.", 1)


def test_a_server_that_is_not_ready_is_no_reply() -> None:
    """There is nothing to be had of it."""
    with pytest.raises(redis.exceptions.BusyLoadingError):
        read(b"-LOADING Redis is loading the dataset in memory\r\n")


@pytest.mark.parametrize("data", [b"", b"$", b"$5", b"$5\r\nab", b"$5\r\nabcde", b"*2\r\n:1\r\n", b":1"])
def test_a_reply_that_breaks_off_is_a_lost_connection(data: bytes) -> None:
    """Wherever it does."""
    with pytest.raises(redis.ConnectionError):
        read(data)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"$x\r\n",
        b":\r\n",
        b":1\r\n:2\r\n",
        b"*1\r\n" * (MAX_DEPTH + 1) + b":1\r\n",
        b"+" + b"x" * (3 * PIECE),
    ],
)
def test_what_is_not_the_protocol_is_refused(data: bytes) -> None:
    """Also a reply too many: the next one would be taken for an answer to something else."""
    with pytest.raises(redis.InvalidResponse):
        read(data)
