"""A request is served if its caller is known, its call exists, it is in time, and its body is a JSON object."""

from __future__ import annotations

import hmac
import io
from typing import Any

import pytest

from flask_aibridge.services.rpc import request as rpc_request
from flask_aibridge.services.rpc.client import Server
from flask_aibridge.services.rpc.protocol import MAX_BODY_BYTES, TIMEOUT_HEADER, VERSION_HEADER
from tests.services.rpc_fakes import SHARED_KEY, FakeServices
from tests.services.wsgi_calls import answer_of, ask, environ_of

PROVIDERS = "/provider_configurator/providers"


@pytest.fixture
def fake() -> FakeServices:
    return FakeServices()


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {SHARED_KEY}", 200),
        (f"bearer  {SHARED_KEY} ", 200),
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        (f"Bearer {SHARED_KEY}x", 401),
        (f"Bearer {SHARED_KEY[:-1]}", 401),
        (f"Bearer {SHARED_KEY.upper()}", 401),
        (f"Basic {SHARED_KEY}", 401),
        (SHARED_KEY, 401),
        ("Bearer \xfc\xff", 401),
    ],
)
def test_the_shared_key(fake: FakeServices, authorization: str | None, status: int) -> None:
    """Nothing is called or shown without it."""
    server = Server(fake, shared_key=SHARED_KEY)
    answer = ask(server, PROVIDERS, headers={"Authorization": authorization}, in_process=False)
    assert answer.status == status
    assert bool(fake.calls) is (status == 200)
    if status == 401:
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.error["class"] == "ProtocolMismatch"
        assert SHARED_KEY not in answer.body.decode()


@pytest.mark.parametrize("path", ["/provider_configurator/watch_providers", "/nowhere"])
def test_the_key_is_asked_for_before_anything_else(fake: FakeServices, path: str) -> None:
    """A stranger does not learn which calls and versions there are."""
    headers: dict[str, str | None] = {VERSION_HEADER: "9.9"}
    assert ask(Server(fake, shared_key=SHARED_KEY), path, headers=headers, in_process=False).status == 401


def test_keys_are_compared_in_constant_time(fake: FakeServices, monkeypatch: pytest.MonkeyPatch) -> None:
    """By digests, whose length says nothing of the keys'."""
    compared: list[tuple[int, int]] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return a == b

    monkeypatch.setattr(rpc_request, "hmac", type("hmac", (), {"compare_digest": staticmethod(compare)}))
    ask(
        Server(fake, shared_key=SHARED_KEY),
        PROVIDERS,
        headers={"Authorization": "Bearer x"},
        in_process=False,
    )
    assert compared == [(32, 32)]
    assert hmac.compare_digest is not compare


def test_without_a_shared_key_only_the_process_is_served(fake: FakeServices) -> None:
    """Whatever is sent."""
    server = Server(fake)
    for authorization in (None, "Bearer ", f"Bearer {SHARED_KEY}"):
        answer = ask(server, PROVIDERS, headers={"Authorization": authorization}, in_process=False)
        assert answer.status == 403
        assert "shared_key" in answer.error["message"]
    assert fake.calls == []
    assert ask(server, PROVIDERS).status == 200


def test_a_header_cannot_claim_to_be_in_process(fake: FakeServices) -> None:
    """It becomes ``HTTP_…`` and nothing else."""
    headers = {"flask_aibridge.cancellation": "1", "Flask-AIBridge-Cancellation": "1"}
    assert (
        ask(Server(fake, shared_key=SHARED_KEY), PROVIDERS, headers=headers, in_process=False).status == 401
    )


@pytest.mark.parametrize(
    ("version", "status", "remedy"),
    [
        ("1.0", 200, ""),
        ("1.1", 400, "at the server"),
        ("2.0", 400, "at the server"),
        ("0.9", 400, "at the client"),
        ("1", 400, VERSION_HEADER),
        ("1.0.0", 400, VERSION_HEADER),
        ("-1.0", 400, VERSION_HEADER),
        ("1.x", 400, VERSION_HEADER),
        ("\u0661.0", 400, VERSION_HEADER),
        ("99999999999999.0", 400, VERSION_HEADER),
        ("", 400, VERSION_HEADER),
        (None, 400, VERSION_HEADER),
    ],
)
def test_the_version(fake: FakeServices, version: str | None, status: int, remedy: str) -> None:
    """Majors equal, the client's minor not newer; the answer says who speaks what, and what to do."""
    answer = ask(Server(fake), PROVIDERS, headers={VERSION_HEADER: version})
    assert answer.status == status
    assert answer.headers[VERSION_HEADER] == "1.0"
    if status == 400:
        assert answer.error["class"] == "ProtocolMismatch"
        assert "server 1.0" in answer.error["message"]
        assert remedy in answer.error["message"]
        assert fake.calls == []


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("", "POST", 404),
        ("/", "POST", 404),
        ("/recorder", "POST", 404),
        ("/recorder/records", "POST", 404),
        ("/recorder.record", "POST", 404),
        ("//recorder/record", "POST", 404),
        ("/recorder/record/", "POST", 404),
        ("/recorder/__init__", "POST", 404),
        ("/services/close", "POST", 404),
        (PROVIDERS, "GET", 405),
        (PROVIDERS, "PUT", 405),
    ],
)
def test_what_is_no_call(fake: FakeServices, path: str, method: str, status: int) -> None:
    """Nothing is called by a name that is not in the table."""
    environ = {**environ_of(path), "REQUEST_METHOD": method}
    answer = answer_of(Server(fake), environ)
    assert answer.status == status
    assert answer.error["class"] == "ProtocolMismatch"
    assert answer.headers.get("Allow") == ("POST" if status == 405 else None)
    assert fake.calls == []


@pytest.mark.parametrize(
    ("body", "length", "status"),
    [
        (b"{}", None, 411),
        (b"{}", "", 411),
        (b"{}", "two", 411),
        (b"{}", "-2", 411),
        (b"{}", "\u0662", 411),
        (b"{}", str(MAX_BODY_BYTES + 1), 413),
        (b"{}", "9" * 5000, 413),
        (b"{}", "3", 503),
        (b"", "0", 400),
        (b"{", "1", 400),
        (b"[]", "2", 400),
        (b"\xff\xfe", "2", 400),
        (b"[" * 100_000, "100000", 400),
        (b"1" * 5000, "5000", 400),
        (b'{"later": NaN}', "14", 200),
    ],
)
def test_the_body(fake: FakeServices, body: bytes, length: str | None, status: int) -> None:
    """What is no JSON object of the promised length is refused before the services are asked."""
    environ = environ_of(PROVIDERS, body, {"Content-Length": length})
    answers: list[int] = []
    assert list(Server(fake)(environ, lambda line, _: answers.append(int(line.split()[0])))) != []  # type: ignore[arg-type]
    assert answers == [status]
    assert bool(fake.calls) is (status == 200)


def test_a_body_that_cannot_be_read_is_no_traceback(fake: FakeServices) -> None:
    """The client has left; whatever the server's input raises."""

    class Broken(io.BytesIO):
        def read(self, size: Any = -1) -> bytes:
            raise OSError("gone")

    environ = {**environ_of(PROVIDERS), "wsgi.input": Broken()}
    assert answer_of(Server(fake), environ).status == 503
    environ = {**environ_of("/nowhere"), "wsgi.input": Broken()}
    assert answer_of(Server(fake), environ).status == 404


@pytest.mark.parametrize(
    ("timeout", "status"),
    [
        ("1.5", 200),
        (None, 200),
        ("0", 503),
        ("0.0", 503),
        ("soon", 422),
        ("-1", 422),
        ("inf", 422),
        ("nan", 422),
    ],
)
def test_the_deadline(fake: FakeServices, timeout: str | None, status: int) -> None:
    """What is late already is refused."""
    answer = ask(Server(fake), PROVIDERS, headers={TIMEOUT_HEADER: timeout})
    assert answer.status == status
    assert bool(fake.calls) is (status == 200)


def test_a_body_that_took_too_long_is_late(fake: FakeServices, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline runs from when the request came in."""
    clock = [100.0]

    class Slow(io.BytesIO):
        def read(self, size: Any = -1) -> bytes:
            clock[0] += 2.0
            return super().read(size)

    monkeypatch.setattr(rpc_request, "monotonic", lambda: clock[0])
    monkeypatch.setattr("flask_aibridge.services.rpc.server.monotonic", lambda: clock[0])
    environ = {**environ_of(PROVIDERS, headers={TIMEOUT_HEADER: "1.5"}), "wsgi.input": Slow(b"{}")}
    answer = answer_of(Server(fake), environ)
    assert (answer.status, fake.calls) == (503, [])
    assert "too late" in answer.error["message"]


def test_a_caller_in_process_who_has_left_is_late(fake: FakeServices) -> None:
    """Its cancellation says so."""
    environ = environ_of(PROVIDERS)
    environ["flask_aibridge.cancellation"]._fire()
    assert answer_of(Server(fake), environ).status == 503
    assert fake.calls == []
