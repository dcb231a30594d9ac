"""Nothing is taken for an answer but a server's own, whole, in time and within bounds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from flask_aibridge.errors import ProtocolMismatch, ServiceError, ServicesUnavailable, Unauthorized
from flask_aibridge.services.rpc import protocol as rpc_protocol
from flask_aibridge.services.rpc.client import Client
from flask_aibridge.testing import serve_stand_in
from flask_aibridge.transport import WSGIPoolManager


def _answering(status: str, headers: list[tuple[str, str]], body: bytes) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]

    return app


OURS = (rpc_protocol.VERSION_HEADER, "1.0")

ANSWERS = [
    ("200 OK", [], b"<html>Welcome</html>", ProtocolMismatch),
    ("200 OK", [OURS], b"<html>Welcome</html>", ProtocolMismatch),
    ("200 OK", [OURS], b'["result"]', ProtocolMismatch),
    ("200 OK", [OURS], b'{"result": {"version": 1}}', ProtocolMismatch),
    ("200 OK", [OURS], b'{"result": null}', ProtocolMismatch),
    ("200 OK", [OURS], b"{}", ServiceError),
    ("200 OK", [OURS], b"[" * 100_000, ProtocolMismatch),
    ("200 OK", [(OURS[0], "2.0")], b'{"result": null}', ProtocolMismatch),
    ("200 OK", [(OURS[0], "0.9")], b'{"result": null}', ProtocolMismatch),
    ("200 OK", [(OURS[0], "one")], b'{"result": null}', ProtocolMismatch),
    ("404 Not Found", [], b"", ProtocolMismatch),
    ("401 Unauthorized", [], b"", ProtocolMismatch),
    ("301 Moved", [("Location", "/elsewhere")], b"", ProtocolMismatch),
    ("307 Moved", [("Location", "http://127.0.0.1:9/")], b"", ProtocolMismatch),
    ("502 Bad Gateway", [], b"<html>", ServicesUnavailable),
    ("503 Busy", [("Retry-After", "1")], b"", ServicesUnavailable),
    ("429 Slow Down", [("Retry-After", "1")], b"", ServicesUnavailable),
    ("500 Error", [OURS], b'{"error": {"class": "Unheard", "message": "m"}}', ServiceError),
    ("500 Error", [OURS], b'{"error": {"class": "Unauthorized", "reason": ["x"]}}', Unauthorized),
    ("500 Error", [OURS], b'{"error": "what"}', ServiceError),
    (
        "503 Busy",
        [OURS],
        b'{"error": {"class": "ServicesUnavailable", "retry_after": "soon"}}',
        ServicesUnavailable,
    ),
]


@pytest.mark.parametrize(("status", "headers", "body", "cls"), ANSWERS)
@pytest.mark.parametrize("http", [False, True], ids=["in-memory", "http"])
def test_what_else_may_answer(
    status: str, headers: list[tuple[str, str]], body: bytes, cls: type[Exception], http: bool
) -> None:
    """Nothing but an RPC server's answer is taken for one, and nothing is followed."""
    asked: list[str] = []
    answer = _answering(status, headers, body)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        asked.append(environ["PATH_INFO"])
        return answer(environ, start_response)

    if http:
        with serve_stand_in(app) as served:
            client = Client(urllib3.PoolManager(), served.base_url)
            _expect(cls, client)
            client.close()
    else:
        _expect(cls, Client(WSGIPoolManager(app)))
    assert asked == ["/provider_configurator/providers", "/provider_configurator/watch_providers"]


def _expect(cls: type[Exception], client: Client) -> None:
    with pytest.raises(ServiceError) as caught:
        client.provider_configurator.providers()
    assert type(caught.value) is cls
    with (
        pytest.raises(ServiceError),
        client.provider_configurator.watch_providers() as versions,
    ):
        list(versions)


def test_an_answer_beyond_the_limit_is_given_up() -> None:
    """It is not read to its end."""
    chunks = 0

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        nonlocal chunks
        start_response("200 OK", [OURS])
        for _ in range(1000):
            chunks += 1
            yield b" " * 2**20

    with pytest.raises(ProtocolMismatch, match="bytes"):
        Client(
            WSGIPoolManager(app), timeouts={"provider_configurator.providers": 60}
        ).provider_configurator.providers()
    assert chunks < 100


def test_an_answer_that_drips_ends_with_the_deadline(deadline: float) -> None:
    """Each byte comes in time, but all of them do not."""
    stop = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [OURS])
        while not stop.wait(0.01):
            yield b" "

    client = Client(WSGIPoolManager(app), timeouts={"provider_configurator.providers": 0.3})
    try:
        with pytest.raises(ServicesUnavailable, match="in time"):
            client.provider_configurator.providers()
    finally:
        stop.set()


@pytest.mark.parametrize(
    "lines",
    [
        b"nonsense\n",
        b"[]\n",
        b'{"version":true}\n',
        b'{"version":"1"}\n',
        b'{"version":-1}\n',
        b"x" * 200_000,
    ],
)
def test_a_line_that_is_no_version(lines: bytes) -> None:
    """Whoever writes it does not speak the protocol."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [OURS])
        yield b'{}\n{"version":1}\n'
        yield lines

    client = Client(WSGIPoolManager(app))
    with client.provider_configurator.watch_providers() as versions:
        assert next(versions) == 1
        with pytest.raises(ProtocolMismatch):
            next(versions)


def test_lines_may_come_in_any_pieces() -> None:
    """A byte at a time, or many lines at once."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [OURS])
        text = b'{}\n{"version":1}\n{"later":"field"}\n{"version":2,"later":"field"}\n'
        yield from (text[i : i + 1] for i in range(len(text)))
        yield text

    client = Client(WSGIPoolManager(app))
    with client.provider_configurator.watch_providers() as versions:
        assert [next(versions) for _ in range(4)] == [1, 2, 1, 2]
        with pytest.raises(ServicesUnavailable, match="ended the watch"):
            next(versions)
