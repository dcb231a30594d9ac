"""Reading requests, and turning them away."""

from __future__ import annotations

import io
from typing import Any

import pytest

from flask_aibridge.bridge.request import (
    MAX_REQUEST_BODY,
    Refused,
    forwarded_path,
    is_plain,
    read_body,
    split_path,
    wants_websocket,
)


class Dripping(io.BytesIO):
    """Gives one byte at a time, as a socket may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 1, 1))


class BadlyChunked(io.BytesIO):
    """A server's own word for a body that it cannot read."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise KeyError("invalid chunk size")


class Broken(io.BytesIO):
    """A client who is gone."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise ConnectionResetError("gone")


def body_of(stream: io.BytesIO, limit: int = 10, **environ: Any) -> bytes:
    return read_body({"wsgi.input": stream, **environ}, limit)


def test_a_body_of_declared_length_is_read_to_that_length() -> None:
    """No further, and however it comes."""
    assert body_of(Dripping(b"12345678"), CONTENT_LENGTH="5") == b"12345"


def test_a_body_without_length_is_read_where_the_server_can_end_it() -> None:
    """Otherwise there is none, since reading could wait forever."""
    assert body_of(Dripping(b"12345"), **{"wsgi.input_terminated": True}) == b"12345"
    assert body_of(io.BytesIO(b"12345"), CONTENT_LENGTH="") == b""


def test_a_chunked_body_that_the_server_does_not_end() -> None:
    """It cannot be read, and an empty one must not go on in its place."""
    with pytest.raises(Refused, match="Content-Length") as refused:
        body_of(Broken(), HTTP_TRANSFER_ENCODING="chunked")
    assert refused.value.status == 411


def test_the_limit_is_kept() -> None:
    """At the limit a body passes; a declared length above it is refused unread."""
    assert len(body_of(io.BytesIO(b"x" * 10), CONTENT_LENGTH="10")) == 10
    assert len(body_of(io.BytesIO(b"x" * 10), **{"wsgi.input_terminated": True})) == 10
    for environ in ({"CONTENT_LENGTH": "11"}, {"CONTENT_LENGTH": "9" * 50}, {"wsgi.input_terminated": True}):
        with pytest.raises(Refused) as refused:
            body_of(io.BytesIO(b"x" * 11), **environ)
        assert refused.value.status == 413
    with pytest.raises(Refused, match="32 MiB"):
        read_body({"wsgi.input": Broken(), "CONTENT_LENGTH": str(MAX_REQUEST_BODY + 1)})


@pytest.mark.parametrize("length", ["-1", "1.5", "x", "١"])
def test_a_length_that_is_no_number(length: str) -> None:
    """It is the client's mistake."""
    with pytest.raises(Refused, match="not a number"):
        body_of(io.BytesIO(b"x"), CONTENT_LENGTH=length)


def test_a_body_that_breaks_off() -> None:
    """Half a request is not forwarded."""
    for stream in (io.BytesIO(b"123"), Broken(), BadlyChunked()):
        with pytest.raises(Refused) as refused:
            body_of(stream, CONTENT_LENGTH="5")
        assert refused.value.status == 400


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/anthropic/v1/messages", ("anthropic", "/v1/messages")),
        ("/anthropic", ("anthropic", "")),
        ("/anthropic/", ("anthropic", "/")),
        ("//v1", ("", "/v1")),
        ("", ("", "")),
    ],
)
def test_the_first_segment_names_the_provider(path: str, parts: tuple[str, str]) -> None:
    """What follows is the provider's own path."""
    assert split_path({"PATH_INFO": path}) == parts


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/../files",
        "/v1/models/.",
        "/v1/models/a//b",
        "/v1/models/",
        "/v1/models/a\\..\\b",
        "/v1/models/%2e%2e",
        "/v1/models/a?b",
        "/v1/models/a#b",
        "/v1/models/a;b",
        "/v1/models/a b",
        "/v1/models/a\nb",
        "/v1/models/\xe9",
    ],
)
def test_paths_that_two_readers_could_take_differently(path: str) -> None:
    """They are served to nobody, decoded once as they are here."""
    assert not is_plain(path)


def test_ordinary_paths_are_plain() -> None:
    """Model names have slashes, colons and dots in them."""
    assert is_plain("/v1/models/ft:gpt-4.1:org::id/with/parts_~1")


@pytest.mark.parametrize(
    ("environ", "forwarded"),
    [
        ({"REQUEST_URI": "/p/v1/models/a%2Fb?x=1"}, "/v1/models/a%2Fb"),
        ({"RAW_URI": "/p/v1/models/a%2fb"}, "/v1/models/a%2fb"),
        ({"SCRIPT_NAME": "/api/v2", "REQUEST_URI": "/api/v2/p/v1/models/a%2Fb"}, "/v1/models/a%2Fb"),
        ({"SCRIPT_NAME": "/api/v2", "REQUEST_URI": "/somewhere/else"}, "/v1/models/a/b"),
        ({"REQUEST_URI": "http://host/p/v1/models/a%2Fb"}, "/v1/models/a/b"),
        ({}, "/v1/models/a/b"),
    ],
)
def test_the_path_goes_on_as_it_was_written(environ: dict[str, str], forwarded: str) -> None:
    """Where the server kept the raw form and it agrees; the decoded path, encoded again, otherwise."""
    assert forwarded_path(environ, "/v1/models/a/b") == forwarded


def test_an_upgrade_to_websocket_is_recognised() -> None:
    """Whatever the case, and among other protocols."""
    assert wants_websocket({"HTTP_UPGRADE": "h2c, WebSocket"})
    assert not wants_websocket({})
