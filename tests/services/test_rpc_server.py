"""The server answers every request, whatever is in it, and frees what a watch holds."""

from __future__ import annotations

import json
import logging
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_aibridge.errors import ServiceError, ServicesUnavailable
from flask_aibridge.services.rpc import server as rpc_server
from flask_aibridge.services.rpc.client import Server
from flask_aibridge.services.rpc.protocol import CALLS, VERSION_HEADER
from flask_aibridge.services.schemas.messages import encode, kind_of
from tests.services.messages import RECORDS, json_values
from tests.services.rpc_fakes import FakeServices
from tests.services.wsgi_calls import ask, environ_of

WATCH = "/provider_configurator/watch_providers"
paths = st.sampled_from([call.path for call in CALLS.values() if call.path != WATCH])
arguments = st.fixed_dictionaries(
    {},
    optional={
        "records": json_values
        | st.lists(st.fixed_dictionaries({"kind": st.text(), "record": json_values}), max_size=3),
        "start": json_values,
        "credential": json_values | st.fixed_dictionaries({"key": st.text()}),
        "worker": json_values,
        "user": json_values,
        "server_ids": json_values | st.lists(st.text(), max_size=3),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(paths, st.binary(max_size=200) | json_values.map(json.dumps) | arguments.map(json.dumps))
def test_any_body_has_an_answer(caplog: pytest.LogCaptureFixture, path: str, body: bytes | str) -> None:
    """JSON with the version, never a traceback; and nothing in a body makes it a 500."""
    caplog.clear()
    answer = ask(Server(FakeServices()), path, body)
    assert answer.status in (200, 400, 422)
    assert answer.headers[VERSION_HEADER] == "1.0"
    assert answer.headers["Cache-Control"] == "no-store"
    assert set(answer.document) == ({"result"} if answer.status == 200 else {"error"})
    assert caplog.records == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    st.sampled_from(sorted(CALLS)),
    st.sampled_from([KeyError, OSError, RecursionError, MemoryError, RuntimeError]),
)
def test_every_500_has_been_logged_with_its_call(
    caplog: pytest.LogCaptureFixture, name: str, cls: type[Exception]
) -> None:
    """By name, with the kind of error and where it was; not with its message."""
    caplog.clear()
    fake = FakeServices()
    fake.error = cls("what was said in confidence")
    answer = ask(Server(fake), CALLS[name].path, VALID[name])
    assert answer.status == 500
    assert "confidence" not in answer.body.decode() + caplog.text
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert f"{name} failed with {cls.__name__}" in caplog.text


VALID: dict[str, dict[str, Any]] = {
    "services.admit": {"start": None, "credential": {"key_id": "k"}},
    "recorder.record": {
        "records": [{"kind": kind_of(record), "record": json.loads(encode(record))} for record in RECORDS]
    },
    "recorder.renew": {"worker": "w"},
    "recorder.maintain": {},
    "authorizer.authorize": {"credential": {"key": "k"}},
    "mcp_configurator.mcp_servers": {"user": "ada"},
    "mcp_configurator.mcp_access_tokens": {"user": "ada", "server_ids": ["git"]},
    "provider_configurator.providers": {},
    "provider_configurator.watch_providers": {},
}


@pytest.mark.parametrize("name", [name for name in VALID if not name.endswith("watch_providers")])
def test_arguments_of_a_later_version_are_ignored(name: str) -> None:
    """A minor version adds some."""
    assert ask(Server(FakeServices()), CALLS[name].path, {**VALID[name], "later": {"x": [1]}}).status == 200


def test_a_server_may_be_closed_while_it_starts_a_watch() -> None:
    """The watch ends with its first line."""
    fake = FakeServices()
    server = Server(fake)
    fake.hold.clear()
    lines: list[bytes] = []

    def watch() -> None:
        body = server(environ_of(WATCH), lambda *_: None)  # type: ignore[arg-type]
        lines.extend(body)
        body.close()  # type: ignore[attr-defined]

    thread = threading.Thread(target=watch)
    thread.start()
    assert fake.entered.wait(20)
    closing = threading.Thread(target=server.close)
    closing.start()
    fake.hold.set()
    for each in (thread, closing):
        each.join(20)
        assert not each.is_alive()
    assert (server.watches, fake.versions.watching) == (0, 0)
    assert lines[0] == b"{}\n"


def test_a_services_callable_is_asked_each_time() -> None:
    """A host may replace its services."""
    fakes = [FakeServices(), FakeServices()]
    waiting = list(fakes)
    server = Server(lambda: waiting.pop(0))
    for _ in fakes:
        assert ask(server, "/recorder/maintain").status == 200
    assert [fake.calls for fake in fakes] == [[("maintain",)], [("maintain",)]]


def test_a_services_callable_that_fails_is_like_a_call_that_does(caplog: pytest.LogCaptureFixture) -> None:
    """Its own ``ServiceError`` travels; anything else is logged."""

    def away() -> Any:
        raise ServicesUnavailable("Not open yet.")

    def broken() -> Any:
        raise LookupError("secret")

    for path in ("/recorder/maintain", WATCH):
        assert ask(Server(away), path).error["message"] == "Not open yet."
        assert ask(Server(broken), path).status == 500
    assert "secret" not in caplog.text


def test_an_answer_beyond_the_limit_is_an_error_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client would not read it."""
    monkeypatch.setattr(rpc_server, "MAX_BODY_BYTES", 50)
    answer = ask(Server(FakeServices()), "/provider_configurator/providers")
    assert (answer.status, answer.error["class"]) == (500, "ServiceError")


@pytest.mark.usefixtures("no_leaks")
class TestWatches:
    """As a WSGI server sees them."""

    def test_a_watch_that_is_never_iterated_is_freed_by_close(self) -> None:
        fake = FakeServices()
        server = Server(fake)
        body = server(environ_of(WATCH), lambda *_: None)  # type: ignore[arg-type]
        assert (server.watches, fake.versions.watching) == (1, 1)
        body.close()  # type: ignore[attr-defined]
        body.close()  # type: ignore[attr-defined]
        assert (server.watches, fake.versions.watching) == (0, 0)

    def test_a_watch_that_cannot_be_subscribed_is_not_counted(self) -> None:
        fake = FakeServices()
        fake.error = ServiceError("No.")
        server = Server(fake)
        assert ask(server, WATCH).status == 500
        assert server.watches == 0

    def test_keep_alive_lines_come_where_nothing_changes(self) -> None:
        body = iter(Server(FakeServices(), keep_alive=0.01)(environ_of(WATCH), lambda *_: None))  # type: ignore[arg-type]
        seen = [next(body) for _ in range(20)]
        assert seen[0] == b"{}\n"
        assert seen.count(b'{"version":1}\n') == 1
        assert seen.count(b"{}\n") == 19
        body.close()  # type: ignore[attr-defined]

    def test_close_ends_a_watch_whose_thread_does_not_come_back(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server that is stuck in sending, say."""
        monkeypatch.setattr(rpc_server, "CLOSING_SECONDS", 0.05)
        fake = FakeServices()
        server = Server(fake)
        body = server(environ_of(WATCH), lambda *_: None)  # type: ignore[arg-type]
        server.close()
        assert (server.watches, fake.versions.watching) == (0, 0)
        assert list(body) in ([b"{}\n"], [b"{}\n", b'{"version":1}\n'])

    def test_many_at_once(self, deadline: float) -> None:
        """Each is counted, and each is freed."""
        fake = FakeServices()
        server = Server(fake, max_watches=10)
        statuses: list[str] = []
        bodies = [
            server(environ_of(WATCH), lambda status, _: statuses.append(status))  # type: ignore[arg-type]
            for _ in range(12)
        ]
        assert [status[:3] for status in statuses] == ["200"] * 10 + ["503"] * 2
        threads = [threading.Thread(target=body.close) for body in bodies[:10]]  # type: ignore[attr-defined]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(deadline)
        assert (server.watches, fake.versions.watching) == (0, 0)
