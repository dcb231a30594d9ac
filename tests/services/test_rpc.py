"""The client does what the services would, whether they are here, behind a WSGI call or behind a socket."""

from __future__ import annotations

import dataclasses
import logging
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from typing import Any

import pytest
import urllib3

from flask_aibridge.errors import (
    InvalidRecord,
    NotRecorded,
    ProtocolMismatch,
    ServiceError,
    ServicesUnavailable,
    Unauthorized,
)
from flask_aibridge.services.interfaces import AccessTokens, Admission, Credential, ProviderSet
from flask_aibridge.services.records import ModelThought
from flask_aibridge.services.rpc.client import Client, Server, create_in_memory_services
from tests.services.messages import PROMPT, RECORDS, START, THOUGHT, USAGE
from tests.services.rpc_fakes import (
    ADMISSION,
    AUTHORIZATION,
    PROVIDERS,
    SERVERS,
    SHARED_KEY,
    TOKENS,
    WAYS,
    CountingObserver,
    FakeServices,
    Way,
    in_memory,
    over_http,
)

KEY = "aib_k1_very-secret"
REMOTE = ["in-memory", "http"]

ERRORS: list[tuple[ServiceError, type[ServiceError], dict[str, Any]]] = [
    (Unauthorized("expired"), Unauthorized, {"reason": "expired"}),
    (Unauthorized("not_in_process"), Unauthorized, {"reason": "not_in_process"}),
    (InvalidRecord("TokenUsage.input: too large."), InvalidRecord, {}),
    (ServicesUnavailable("Redis is away.", 2.5), ServicesUnavailable, {"retry_after": 2.5}),
    (NotRecorded("The spool is full.", 9.0), NotRecorded, {"retry_after": 9.0}),
    (NotRecorded("The disk is read-only."), NotRecorded, {"retry_after": None}),
    (ServiceError("Something of the host's."), ServiceError, {}),
    (ProtocolMismatch("Another host behind this one."), ProtocolMismatch, {}),
]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    with WAYS[request.param]() as way:
        yield way


@pytest.fixture(params=REMOTE)
def remote(request: pytest.FixtureRequest) -> Iterator[Way]:
    with WAYS[request.param]() as way:
        yield way


class TestEveryCall:
    """Over all three ways."""

    def test_admit(self, way: Way) -> None:
        assert way.services.admit(START, Credential(key=KEY)) == ADMISSION
        assert way.fake.calls == [("admit", START, Credential(key=KEY))]

    def test_admit_without_either(self, way: Way) -> None:
        way.fake.answers["admit"] = Admission(None)
        assert way.services.admit(None, None) == Admission(None)
        assert way.fake.calls == [("admit", None, None)]

    def test_record_is_one_call_for_a_batch(self, way: Way) -> None:
        way.services.recorder.record(RECORDS)
        assert way.fake.calls == [("record", list(RECORDS))]

    def test_renew_and_maintain(self, way: Way) -> None:
        way.services.recorder.renew("worker-1")
        way.services.recorder.maintain()
        assert way.fake.calls == [("renew", "worker-1"), ("maintain",)]

    def test_authorize(self, way: Way) -> None:
        assert way.services.authorizer.authorize(Credential(key_id="k1")) == AUTHORIZATION
        assert way.fake.calls == [("authorize", Credential(key_id="k1"))]

    def test_mcp_servers(self, way: Way) -> None:
        assert way.services.mcp_configurator.mcp_servers("ada\u00fc") == SERVERS
        assert way.fake.calls == [("mcp_servers", "ada\u00fc")]

    def test_mcp_access_tokens(self, way: Way) -> None:
        assert way.services.mcp_configurator.mcp_access_tokens("ada", ["git", "wiki"]) == TOKENS
        assert way.fake.calls == [("mcp_access_tokens", "ada", ["git", "wiki"])]

    def test_providers(self, way: Way) -> None:
        assert way.services.provider_configurator.providers() == PROVIDERS

    def test_watch_providers(self, way: Way, deadline: float) -> None:
        with way.services.provider_configurator.watch_providers() as versions:
            assert next(versions) == 1
            way.fake.versions.bump()
            assert next(versions) == 2
        assert way.fake.versions.wait_for_watching(0, deadline)

    @pytest.mark.parametrize(("error", "cls", "kept"), ERRORS)
    def test_errors_keep_their_class(
        self, way: Way, error: ServiceError, cls: type[ServiceError], kept: dict[str, Any]
    ) -> None:
        way.fake.error = error
        calls: list[Callable[[], object]] = [
            lambda: way.services.admit(START, None),
            lambda: way.services.recorder.record(RECORDS),
            lambda: way.services.authorizer.authorize(Credential(key=KEY)),
            lambda: way.services.provider_configurator.watch_providers().__enter__(),
        ]
        for call in calls:
            with pytest.raises(ServiceError) as caught:
                call()
            assert type(caught.value) is cls
            assert str(caught.value) == str(error)
            assert {name: getattr(caught.value, name) for name in kept} == kept

    def test_the_client_can_be_used_after_close(self, way: Way) -> None:
        way.services.close()
        assert way.services.provider_configurator.providers() == PROVIDERS


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("way_of", [in_memory, over_http], ids=REMOTE)
def test_calls_leave_nothing_behind(way_of: Callable[[], AbstractContextManager[Way]]) -> None:
    """Neither those that succeed nor those that fail, in time or not."""
    with way_of() as way:
        for _ in range(3):
            way.services.recorder.record(RECORDS)
            way.services.provider_configurator.providers()
        way.fake.error = ZeroDivisionError()
        with pytest.raises(ServiceError):
            way.services.admit(START, None)


class TestTheWire:
    """What only a client and a server have."""

    def test_an_empty_batch_is_no_call(self, remote: Way) -> None:
        remote.services.recorder.record([])
        assert remote.services.mcp_configurator.mcp_access_tokens("ada", []) == AccessTokens()
        assert remote.fake.calls == []

    def test_ids_given_twice_are_asked_for_once(self, remote: Way) -> None:
        remote.services.mcp_configurator.mcp_access_tokens("ada", ["git", "git", "wiki"])
        assert remote.fake.calls == [("mcp_access_tokens", "ada", ["git", "wiki"])]

    def test_a_batch_larger_than_a_body_is_several_calls(self, remote: Way) -> None:
        """Each record may be as large as content gets, in its longest spelling."""
        thoughts = [dataclasses.replace(THOUGHT, id=f"m{n}", content="\x01" * 2**20) for n in range(4)]
        remote.services.recorder.record(thoughts)
        received: list[ModelThought] = [record for _, batch in remote.fake.calls for record in batch]
        assert [record.id for record in received] == ["m0", "m1", "m2", "m3"]
        assert 1 < len(remote.fake.calls) <= 4

    def test_an_invalid_record_is_not_sent(self, remote: Way) -> None:
        with pytest.raises(InvalidRecord, match=r"TokenUsage\.input"):
            remote.services.recorder.record([PROMPT, dataclasses.replace(USAGE, input=-1)])
        assert remote.fake.calls == []

    @pytest.mark.parametrize(
        "error", [KeyError(KEY), ValueError(f"a prompt: {KEY}"), ZeroDivisionError(), TypeError()]
    )
    def test_other_errors_are_logged_with_the_calls_name_alone(
        self, remote: Way, error: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        remote.fake.error = error
        with pytest.raises(ServiceError, match=r"^services\.admit failed at the server") as caught:
            remote.services.admit(START, Credential(key=KEY))
        assert type(caught.value) is ServiceError
        records = [record for record in caplog.records if record.name == "flask_aibridge.services.rpc.client"]
        assert [record.levelname for record in records] == ["ERROR"]
        assert "services.admit failed with " + type(error).__name__ in records[0].getMessage()
        assert "rpc_fakes.py" in records[0].getMessage()
        assert "very-secret" not in caplog.text

    def test_an_answer_that_is_no_message_is_the_servers_defect(
        self, remote: Way, caplog: pytest.LogCaptureFixture
    ) -> None:
        remote.fake.answers["authorize"] = dataclasses.replace(AUTHORIZATION, user="")
        with pytest.raises(ServiceError) as caught:
            remote.services.authorizer.authorize(Credential(key=KEY))
        assert type(caught.value) is ServiceError
        assert "authorizer.authorize failed" in caplog.text

    def test_secrets_are_in_no_log_and_no_repr(self, remote: Way, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        remote.services.admit(START, Credential(key=KEY))
        remote.services.provider_configurator.providers()
        remote.services.mcp_configurator.mcp_access_tokens("ada", ["git"])
        remote.fake.error = Unauthorized("wrong_secret")
        with pytest.raises(Unauthorized) as caught:
            remote.services.admit(START, Credential(key=KEY))
        shown = f"{caplog.text} {caught.value!r} {remote.services!r} {remote.server!r}"
        for secret in ("very-secret", "sk-1", "token-of-git", SHARED_KEY):
            assert secret not in shown

    def test_the_deadline_is_the_callers(self, remote: Way, deadline: float) -> None:
        """The server still works when the caller has its answer."""
        client = remote.services
        assert isinstance(client, Client)
        client._timeouts["services.admit"] = 0.2
        remote.fake.hold.clear()
        try:
            with pytest.raises(ServicesUnavailable, match=r"^services\.admit: .*ReadTimeoutError"):
                client.admit(START, None)
            assert remote.fake.entered.wait(deadline)
        finally:
            remote.fake.hold.set()
        assert len(remote.fake.calls) == 1

    def test_both_sides_are_observed(self) -> None:
        for way_of in (in_memory, over_http):
            client_side, server_side = CountingObserver(), CountingObserver()
            with way_of(client_side) as way:
                assert way.server is not None
                way.server._observer = server_side
                way.services.provider_configurator.providers()
                way.fake.error = Unauthorized("revoked")
                with pytest.raises(Unauthorized):
                    way.services.admit(None, Credential(key=KEY))
            expected = [("provider_configurator", "providers", None), ("services", "admit", Unauthorized)]
            assert client_side.calls == expected
            assert server_side.calls == expected


@pytest.mark.parametrize("key", ["", "with space", "nl\n", "ümlaut"])
def test_a_key_that_no_header_holds_is_refused(key: str) -> None:
    """At once, and without showing it."""
    with pytest.raises(ValueError, match="shared_key must be") as caught:
        Client(urllib3.PoolManager(), shared_key=key)
    assert not key or key not in str(caught.value)
    with pytest.raises(ValueError, match="shared_key must be"):
        Server(FakeServices(), shared_key=key)


@pytest.mark.parametrize(
    "timeouts", [{"admit": 1.0}, {"services.admit": 0}, {"services.admit": float("nan")}]
)
def test_timeouts_are_checked(timeouts: dict[str, float]) -> None:
    """A misspelt name would leave the default in force, silently."""
    with pytest.raises(ValueError, match="timeouts"):
        Client(urllib3.PoolManager(), timeouts=timeouts)


class TestCreateInMemoryServices:
    """The pair within one process."""

    def test_over_services(self) -> None:
        fake = FakeServices()
        with closing(create_in_memory_services(fake)) as client:
            assert client.admit(START, None) == ADMISSION

    @pytest.mark.parametrize("callable_", [False, True])
    def test_over_an_app(self, callable_: bool) -> None:
        fake = FakeServices()
        state = types.SimpleNamespace(services=(lambda: fake) if callable_ else fake)
        app = types.SimpleNamespace(extensions={"aibridge": state})
        with closing(create_in_memory_services(app)) as client:
            assert client.admit(START, None) == ADMISSION
            other = FakeServices()
            other.answers["providers"] = ProviderSet((), 9)
            state.services = (lambda: other) if callable_ else other
            assert client.provider_configurator.providers() == ProviderSet((), 9)

    @pytest.mark.parametrize(
        "extensions",
        [{}, {"aibridge": types.SimpleNamespace()}, {"aibridge": types.SimpleNamespace(services=None)}],
    )
    def test_an_app_without_services_is_told_what_to_do(self, extensions: dict[str, Any]) -> None:
        with pytest.raises(RuntimeError, match="Flask-AIBridge"):
            create_in_memory_services(types.SimpleNamespace(extensions=extensions))

    def test_both_sides_are_observed(self) -> None:
        observer = CountingObserver()
        with closing(create_in_memory_services(FakeServices(), observer=observer)) as client:
            client.recorder.maintain()
        assert observer.calls == [("recorder", "maintain", None)] * 2
