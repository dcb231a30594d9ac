"""Whether a request may go on: authorisation, the record of its start, scopes, providers that change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from flask_aibridge.bridge import Bridge
from flask_aibridge.bridge.options import BridgeOptions
from flask_aibridge.bridge.upstream import UpstreamBroken
from flask_aibridge.config import ProviderSettings, parse_rate_limit
from flask_aibridge.errors import ConfigError, NotRecorded, RateLimited, ServicesUnavailable, Unauthorized
from flask_aibridge.services.interfaces import (
    Admission,
    Authorization,
    Credential,
    ProviderConfig,
    ProviderConfigurator,
    ProviderSet,
    RateStanding,
    Scopes,
)
from flask_aibridge.services.records import (
    InterceptionEnd,
    InterceptionStart,
    Record,
    TokenUsage,
    shard_of,
    shard_of_key,
)
from flask_aibridge.testing import AnswerWith, DropAfter, ErrorAfter, Served, StandInProvider, serve_stand_in
from tests.bridge.conftest import RecordingHook
from tests.bridge.upstreams import SSE_HEAD, Peer, ScriptedUpstream, chunk
from tests.bridge.wsgi import FakeCancellation, Reply, call, environ_of

pytestmark = pytest.mark.usefixtures("no_leaks")

QUESTION = {"model": "m-1", "max_tokens": 50, "messages": [{"role": "user", "content": "Say hello"}]}
KEY = "aib_k1_secret"


class ScriptedHost:
    """Services that answer as they are told, and keep what they are asked."""

    worker = "worker-1"

    def __init__(self, base_url: str) -> None:
        self.authorization: Authorization | Exception = Authorization("alice", "k1")
        self.names = ["anthropic"]
        self.disabled: set[str] = set()
        self.version = 1
        self.base_url = base_url
        self.admitted: list[tuple[InterceptionStart | None, Credential | None]] = []
        self.checked: list[Credential] = []
        self.check_error: Exception | None = None
        self.rate: RateStanding | None = None
        self.records: list[Record] = []
        self.reads = 0
        self.before_answer: Callable[[], None] = lambda: None

    @property
    def provider_configurator(self) -> ProviderConfigurator:
        return self

    def check(self, credential: Credential) -> None:
        self.checked.append(credential)
        if self.check_error is not None:
            raise self.check_error

    def admit(self, start: InterceptionStart | None, credential: Credential | None) -> Admission:
        self.admitted.append((start, credential))
        self.before_answer()
        if isinstance(self.authorization, Exception):
            raise self.authorization
        return Admission(self.authorization if credential else None, self.version, self.rate)

    def record(self, record: Record) -> None:
        self.records.append(record)

    def providers(self) -> ProviderSet:
        self.reads += 1
        return ProviderSet(
            tuple(
                ProviderConfig(
                    ProviderSettings(name, "anthropic", self.base_url, ("sk-host",)),
                    name not in self.disabled,
                )
                for name in self.names
            ),
            self.version,
        )

    @contextmanager
    def watch_providers(self) -> Iterator[Iterator[int]]:
        yield iter(())

    @property
    def kinds(self) -> list[str]:
        return [type(record).__name__ for record in self.records]

    @property
    def end(self) -> InterceptionEnd:
        (end,) = [record for record in self.records if isinstance(record, InterceptionEnd)]
        return end


@pytest.fixture
def host(stand_in: Served[StandInProvider]) -> ScriptedHost:
    return ScriptedHost(stand_in.base_url)


@pytest.fixture
def recorded(host: ScriptedHost, hook: RecordingHook) -> Iterator[Bridge]:
    bridge = Bridge(recording=lambda: host, hooks=[hook])
    yield bridge
    bridge.close()


def ask(bridge: Bridge, path: str = "/anthropic/v1/messages", body: Any = QUESTION, **options: Any) -> Reply:
    options.setdefault("headers", {"X-Api-Key": KEY})
    return call(bridge, "POST" if body is not None else "GET", path, body, **options)


def test_a_start_is_recorded_before_the_provider_is_called_and_an_end_after(
    recorded: Bridge, host: ScriptedHost, stand_in: Served[StandInProvider]
) -> None:
    """One admission carries credential and start; usage and end follow."""
    host.before_answer = lambda: called.append(len(stand_in.stand_in.requests))
    called: list[int] = []
    reply = ask(recorded, headers={"X-Api-Key": KEY, "User-Agent": "tests/1"})
    assert reply.status == 200
    assert called == [0]
    ((start, credential),) = host.admitted
    assert credential == Credential(key=KEY)
    assert start is not None
    assert (start.provider, start.provider_type, start.route) == ("anthropic", "anthropic", "/v1/messages")
    assert (start.model, start.user_agent, start.source) == ("m-1", "tests/1", None)
    assert (start.initiator, start.in_process) == (None, False)
    assert start.id == reply.headers["x-aibridge-interception-id"]
    assert shard_of(start.id) == shard_of_key("k1")
    assert host.kinds == ["PromptUsage", "TokenUsage", "InterceptionEnd"]
    usage = host.records[1]
    assert isinstance(usage, TokenUsage)
    assert (usage.interception_id, usage.input, usage.output) == (start.id, 2, 2)
    assert (host.end.interception_id, host.end.status, host.end.http_status) == (start.id, "completed", 200)


class Unreadable:
    """A body that must not be read."""

    def read(self, size: int = -1) -> bytes:
        pytest.fail("the body was read")


def test_a_body_is_received_of_those_alone_who_are_known(recorded: Bridge, host: ScriptedHost) -> None:
    """Whoever is refused is refused before that; for a request without a body nobody is asked twice."""
    host.check_error = Unauthorized("unknown")
    environ = environ_of("POST", "/anthropic/v1/messages", QUESTION, headers={"X-Api-Key": KEY})
    environ["wsgi.input"] = Unreadable()
    head: list[str] = []
    body = b"".join(recorded(environ, lambda status, headers, exc_info=None: head.append(status)))  # type: ignore[arg-type]
    assert head == ["401 Unauthorized"]
    assert b"AI Bridge API key" in body
    assert (host.checked, host.admitted) == ([Credential(key=KEY)], [])
    host.check_error = None
    assert ask(recorded).status == 200
    assert len(host.checked) == 2
    assert ask(recorded, "/anthropic/v1/models", None).status == 200
    assert len(host.checked) == 2


def test_in_process_nobody_is_checked_before(recorded: Bridge, host: ScriptedHost) -> None:
    """Those bodies come from the application itself."""
    environ: dict[str, Any] = {
        "flask_aibridge.cancellation": FakeCancellation(),
        "flask_aibridge.key_id": "k1",
    }
    assert ask(recorded, headers={}, **environ).status == 200
    assert host.checked == []


def test_services_that_count_are_passed_on(recorded: Bridge, host: ScriptedHost, hook: RecordingHook) -> None:
    """Where a caller stands, and that it has to wait; what is refused is no interception."""
    host.rate = RateStanding(parse_rate_limit("60/minute"), 12, 1)
    assert ask(recorded).headers["ratelimit"] == '"aibridge";r=12;t=1'
    del host.records[:]
    host.authorization = RateLimited(0.5, "60/minute burst=60")
    reply = ask(recorded)
    assert (reply.status, reply.headers["retry-after"]) == (429, "1")
    assert host.records == []
    assert (hook.records[-1].outcome, hook.records[-1].status) == ("refused", 429)


def test_in_process_without_a_key_the_application_asks(recorded: Bridge, host: ScriptedHost) -> None:
    """Nobody is authorised, and the source is recorded."""
    environ: dict[str, Any] = {
        "flask_aibridge.cancellation": FakeCancellation(),
        "flask_aibridge.source": "agents",
    }
    assert ask(recorded, **environ).status == 200
    ((start, credential),) = host.admitted
    assert credential is None
    assert start is not None
    assert (start.initiator, start.source, start.in_process) == ("application", "agents", True)


def test_in_process_on_behalf_of_a_key(recorded: Bridge, host: ScriptedHost, hook: RecordingHook) -> None:
    """The key's id is what is checked, and its owner is who is recorded."""
    environ: dict[str, Any] = {
        "flask_aibridge.cancellation": FakeCancellation(),
        "flask_aibridge.key_id": "k1",
    }
    assert ask(recorded, **environ).status == 200
    assert host.admitted[0][1] == Credential(key_id="k1")
    assert (hook.record.user, hook.record.key_id, hook.record.in_process) == ("alice", "k1", True)


def test_no_credential_is_refused_without_asking_anybody(recorded: Bridge, host: ScriptedHost) -> None:
    """Not even the body is read: a stranger costs nothing."""

    class Unread:
        def read(self, size: int = -1) -> bytes:
            raise AssertionError("the body of a stranger was read")

        readline = readlines = __iter__ = read

    reply = call(recorded, "POST", "/anthropic/v1/messages", b"x" * 10, **{"wsgi.input": Unread()})
    assert (reply.status, host.admitted) == (401, [])
    assert reply.headers["www-authenticate"] == 'Bearer realm="aibridge"'


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (Unauthorized("unknown"), 401, None),
        (Unauthorized("revoked"), 401, None),
        (ServicesUnavailable("away", 2.0), 503, "2"),
        (NotRecorded("no room", 30.0), 503, "30"),
        (NotRecorded("no spool"), 500, None),
        (ConfigError("set AIBRIDGE_REDIS_URL"), 500, None),
    ],
)
def test_who_is_not_admitted_never_reaches_the_provider(
    error: Exception,
    status: int,
    retry_after: str | None,
    recorded: Bridge,
    host: ScriptedHost,
    stand_in: Served[StandInProvider],
    hook: RecordingHook,
) -> None:
    """The answer has the provider's own form; the reason is for the hooks and the log."""
    host.authorization = error
    reply = ask(recorded)
    assert reply.status == status
    assert reply.json["type"] == "error"
    assert reply.headers.get("retry-after") == retry_after
    assert (stand_in.stand_in.requests, host.records) == ([], [])
    reason = getattr(error, "reason", str(error))
    assert reason in (hook.record.error or "")
    assert reason not in reply.body.decode()


def test_strangers_learn_nothing_of_providers(recorded: Bridge, host: ScriptedHost) -> None:
    """A 401 comes before a 404, a 405 and a 413."""
    host.authorization = Unauthorized("unknown")
    assert ask(recorded, "/nobody/v1/messages").status == 401
    assert ask(recorded, "/anthropic/v1/nothing").status == 401
    assert ask(recorded, CONTENT_LENGTH=str(10**12)).status == 401
    assert [start for start, _ in host.admitted] == [None, None, None]


def test_what_is_only_passed_on_is_authorised_and_not_recorded(recorded: Bridge, host: ScriptedHost) -> None:
    """Lists of models are no interceptions."""
    assert ask(recorded, "/anthropic/v1/models", None).status == 200
    assert host.admitted == [(None, Credential(key=KEY))]
    assert host.records == []


@pytest.mark.parametrize(
    ("scopes", "status"),
    [
        (Scopes(), 200),
        (Scopes(providers=("anthropic",), models=("m-*",)), 200),
        (Scopes(providers=("openai",)), 403),
        (Scopes(models=("other",)), 403),
        (Scopes(models=()), 403),
    ],
)
def test_a_key_reaches_what_its_scopes_allow(
    scopes: Scopes, status: int, recorded: Bridge, host: ScriptedHost, stand_in: Served[StandInProvider]
) -> None:
    """Anything else is recorded as refused, and the SDKs do not try again."""
    host.authorization = Authorization("alice", "k1", scopes=scopes)
    reply = ask(recorded)
    assert reply.status == status
    assert len(stand_in.stand_in.requests) == (1 if status == 200 else 0)
    if status == 403:
        assert reply.headers["x-should-retry"] == "false"
        assert (host.end.status, host.end.http_status) == ("refused", 403)


MANY_DIGITS = b"1" * 5000
UNCLEAR = {
    "no JSON": b"model=m-1",
    "no object": b'["m-1"]',
    "none": b'{"messages": []}',
    "null": b'{"model": null}',
    "a list": b'{"model": ["m-1"]}',
    "two": b'{"model": "dear", "model": "m-1"}',
    "two, reversed": b'{"model": "m-1", "model": "dear"}',
    "two that differ by case": b'{"model": "m-1", "Model": "dear"}',
    "two, one escaped": b'{"mod\\u0065l": "dear", "model": "m-1"}',
    "a number that is not read here": b'{"model": "dear", "seed": ' + MANY_DIGITS + b"}",
    "a depth that is not read here": b'{"model": "dear", "x": ' + b"[" * 99_999 + b"]" * 99_999 + b"}",
    "behind a mark of byte order": b'\xff\xfe{"model": "m-1"}',
}


@pytest.mark.parametrize("path", ["/anthropic/v1/messages", "/anthropic/v1/messages/count_tokens"])
@pytest.mark.parametrize("body", UNCLEAR.values(), ids=UNCLEAR)
def test_a_key_for_some_models_needs_to_know_which(
    path: str, body: bytes, recorded: Bridge, host: ScriptedHost, stand_in: Served[StandInProvider]
) -> None:
    """What a provider might read in another way than the bridge does is not forwarded, nor what is not read here."""
    host.authorization = Authorization("alice", "k1", scopes=Scopes(models=("m-*",)))
    reply = ask(recorded, path, body)
    assert (reply.status, reply.headers["x-should-retry"]) == (403, "false")
    assert "limited to certain models" in reply.json["error"]["message"]
    assert stand_in.stand_in.requests == []


@pytest.mark.parametrize(
    ("path", "model", "status"),
    [
        ("/anthropic/v1/messages", "m-1", 200),
        ("/anthropic/v1/messages/count_tokens", "m-1", 200),
        ("/anthropic/v1/messages/count_tokens", "dear", 403),
        ("/anthropic/v1/messages/count_tokens", "M-1", 403),
    ],
)
def test_a_key_for_some_models_is_for_them_on_every_route(
    path: str, model: str, status: int, recorded: Bridge, host: ScriptedHost
) -> None:
    """Also on those that are only passed on."""
    host.authorization = Authorization("alice", "k1", scopes=Scopes(models=("m-*",)))
    assert ask(recorded, path, {**QUESTION, "model": model}).status == status


def test_a_key_for_some_models_may_ask_which_there_are(recorded: Bridge, host: ScriptedHost) -> None:
    """Without a body nothing is asked of any model."""
    host.authorization = Authorization("alice", "k1", scopes=Scopes(models=("m-*",)))
    assert ask(recorded, "/anthropic/v1/models", None).status == 200


def test_providers_are_read_once_for_each_version(recorded: Bridge, host: ScriptedHost) -> None:
    """The admission reports the version, so nothing else has to be asked."""
    for _ in range(3):
        assert ask(recorded).status == 200
    assert host.reads == 1
    host.version = 2
    assert ask(recorded).status == 200
    assert ask(recorded).status == 200
    assert host.reads == 2


def test_a_provider_that_was_just_added_is_served_and_recorded(recorded: Bridge, host: ScriptedHost) -> None:
    """This process hears of it by the version, with the first request for it."""
    assert ask(recorded, "/new/v1/messages").status == 404
    host.names.append("new")
    host.version = 2
    assert ask(recorded, "/new/v1/messages").status == 200
    started = [start for start, _ in host.admitted if start is not None]
    assert [(start.provider, start.initiator, start.key_id) for start in started] == [("new", "alice", "k1")]
    assert host.end.status == "completed"


def test_a_start_that_is_recorded_late_and_cannot_be(
    recorded: Bridge, host: ScriptedHost, stand_in: Served[StandInProvider]
) -> None:
    """Nothing reaches the provider then."""
    assert ask(recorded, body=None).status == 405

    def go_away() -> None:
        if host.admitted[-1][1] is None:
            raise ServicesUnavailable("away", 3)

    host.names.append("new")
    host.version, host.before_answer = 2, go_away
    reply = ask(recorded, "/new/v1/messages")
    assert (reply.status, reply.headers["retry-after"]) == (503, "3")
    assert stand_in.stand_in.requests == []


def test_a_provider_that_was_just_disabled_is_not_called(
    recorded: Bridge, host: ScriptedHost, stand_in: Served[StandInProvider]
) -> None:
    """What was recorded as started is ended as refused."""
    assert ask(recorded).status == 200
    host.disabled.add("anthropic")
    host.version = 2
    host.records.clear()
    reply = ask(recorded)
    assert (reply.status, host.end.status) == (503, "refused")
    assert "provider_disabled" in reply.json["error"]["message"]
    assert (reply.headers["x-should-retry"], "retry-after" in reply.headers) == ("false", False)
    assert len(stand_in.stand_in.requests) == 1
    assert ask(recorded).status == 503


@pytest.mark.parametrize("change", ["removed", "disabled", "moved"])
def test_a_stream_outlives_a_change_of_its_provider(change: str, hook: RecordingHook) -> None:
    """It goes on to its end, while new requests see the change."""
    with (
        serve_stand_in(StandInProvider(answer="one two three")) as served,
        serve_stand_in(StandInProvider(answer="other")) as moved,
    ):
        host = ScriptedHost(served.base_url)
        bridge = Bridge(recording=lambda: host, hooks=[hook])
        stream = ask(bridge, body=QUESTION | {"stream": True})
        first = next(stream.iterator)
        host.version = 2
        if change == "removed":
            host.names.clear()
        elif change == "disabled":
            host.disabled.add("anthropic")
        else:
            host.base_url = moved.base_url
        assert ask(bridge).status == {"removed": 404, "disabled": 503, "moved": 200}[change]
        assert len(moved.stand_in.requests) == (change == "moved")
        body = first + stream.body
        assert b"three" in body
        assert b"message_stop" in body
        bridge.close()
    assert hook.records[-1].outcome == "completed"


def test_actors_are_told_where_that_is_wanted(stand_in: Served[StandInProvider]) -> None:
    """The user that the key belongs to, on what is followed; nobody, and no caller's own word for it."""
    host = ScriptedHost(stand_in.base_url)
    host.authorization = Authorization("Ana María", "k1")
    bridge = Bridge(recording=lambda: host, hooks=[], options=BridgeOptions(actor_headers=True))
    headers = {"X-Api-Key": KEY, "X-AIBridge-Actor-ID": "root", "X-AIBridge-Actor-Metadata-Role": "root"}
    assert ask(bridge, headers=headers).status == 200
    assert ask(bridge, "/anthropic/v1/models", None, headers=headers).status == 200
    environ: dict[str, Any] = {"flask_aibridge.cancellation": FakeCancellation()}
    assert ask(bridge, **environ).status == 200
    bridge.close()
    told = [
        {name: value for name, value in request.headers.items() if "aibridge" in name}
        for request in stand_in.stand_in.requests
    ]
    name = "Ana%20Mar%C3%ADa"
    assert told == [{"x-aibridge-actor-id": name, "x-aibridge-actor-metadata-username": name}, {}, {}]


def test_a_provider_that_cannot_work_leaves_the_others_alone(
    recorded: Bridge, host: ScriptedHost, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left out and logged."""
    host.names.append("Not A Name")
    assert ask(recorded).status == 200
    assert "Not A Name" in caplog.text


class SpeechlessHost(ScriptedHost):
    """Knows its callers, and cannot say which providers it has, for so many times."""

    unanswered = 2

    def providers(self) -> ProviderSet:
        self.unanswered -= 1
        if self.unanswered >= 0:
            raise ServicesUnavailable("away", 3.0)
        return super().providers()


def test_a_provider_that_nobody_could_name_is_no_provider_that_is_missing() -> None:
    """503, which is tried again, and no 404, which is not; strangers learn nothing of it."""
    with serve_stand_in() as served:
        host = SpeechlessHost(served.base_url)
        bridge = Bridge(recording=lambda: host, hooks=[])
        reply = call(bridge, "POST", "/anthropic/v1/messages", QUESTION, headers={"X-Api-Key": KEY})
        assert (reply.status, reply.headers["retry-after"]) == (503, "3")
        assert (
            call(bridge, "POST", "/anthropic/v1/messages", QUESTION, headers={"X-Api-Key": KEY}).status == 200
        )
        host = SpeechlessHost(served.base_url)
        host.authorization = Unauthorized("unknown")
        assert (
            call(bridge, "POST", "/anthropic/v1/messages", QUESTION, headers={"X-Api-Key": KEY}).status == 401
        )
        bridge.close()


def test_known_providers_go_on_while_the_configurator_is_away(
    recorded: Bridge, host: ScriptedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that cannot be read is read later."""

    def away() -> ProviderSet:
        raise ServicesUnavailable("away")

    assert ask(recorded).status == 200
    host.version = 2
    monkeypatch.setattr(host, "providers", away)
    assert ask(recorded).status == 200
    monkeypatch.undo()
    host.disabled.add("anthropic")
    assert ask(recorded).status == 503


@pytest.mark.parametrize(
    ("failure", "end"),
    [
        (ErrorAfter(1, "Overloaded"), "upstream_error"),
        (DropAfter(1), "upstream_truncated"),
        (AnswerWith(529), "upstream_error"),
    ],
)
def test_every_path_ends_the_record(failure: Any, end: str, hook: RecordingHook) -> None:
    """An error, within the stream or in its place, and an answer that breaks off."""
    with serve_stand_in(StandInProvider(answer=["Hel", "lo"], failures=[failure])) as served:
        host = ScriptedHost(served.base_url)
        bridge = Bridge(recording=lambda: host, hooks=[hook])
        reply = ask(bridge, body=QUESTION | {"stream": True})
        with suppress(UpstreamBroken):
            assert reply.body
        bridge.close()
    assert host.end.status == hook.record.outcome == end


def test_a_provider_that_cannot_be_reached_ends_the_record(host: ScriptedHost, recorded: Bridge) -> None:
    """The interception was started, so it has an end."""
    host.base_url = "http://127.0.0.1:1"
    assert ask(recorded).status == 502
    assert (host.end.status, host.end.http_status) == ("upstream_error", 502)


def test_a_caller_who_leaves_ends_the_record(recorded: Bridge, host: ScriptedHost) -> None:
    """Closing the body before its end is the caller's doing."""

    def hold(peer: Peer) -> None:
        peer.read_request()
        peer.send(SSE_HEAD + chunk(b"data: 1\n\n"))
        peer.is_gone()

    with ScriptedUpstream(hold) as server:
        host.base_url = server.base_url
        reply = ask(recorded, body=QUESTION | {"stream": True})
        next(reply.iterator)
        reply.close()
    assert host.end.status == "client_closed"


def test_services_and_fixed_providers_exclude_each_other(host: ScriptedHost) -> None:
    """There is one source of truth."""
    with pytest.raises(TypeError, match="either"):
        Bridge(recording=lambda: host, api_keys={"alice": KEY})
