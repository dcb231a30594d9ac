"""Several keys of one provider: the next one where one is refused, before the first byte goes to the caller."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import closing
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest

from flask_aibridge.bridge import Bridge
from flask_aibridge.bridge.providers.cool_downs import MAX_COOL_DOWN
from flask_aibridge.config import ProviderSettings
from flask_aibridge.services.interfaces import ProviderConfig, ProviderSet
from flask_aibridge.services.records import InterceptionStart
from flask_aibridge.testing import AnswerWith, ErrorAfter, StandInProvider, serve_stand_in
from tests.bridge.compressing import COMPRESS
from tests.bridge.conftest import MakeBridge, RecordingHook
from tests.bridge.test_admission import KEY, ScriptedHost
from tests.bridge.upstreams import JSON_HEAD, Peer, ScriptedUpstream
from tests.bridge.wsgi import FakeCancellation, Reply, call

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

pytestmark = pytest.mark.usefixtures("no_leaks")

FIRST, SECOND = "sk-first-0123456789-aaaa", "sk-second-0123456789-bbbb"
KEYS = (FIRST, SECOND)
MESSAGES, CHAT = "/anthropic/v1/messages", "/openai/v1/chat/completions"
QUESTION = {"model": "m-1", "max_tokens": 50, "messages": [{"role": "user", "content": "Say hello"}]}
DOORS = ["public", "in process"]
LIMITED = AnswerWith(429, {"error": {"type": "rate_limit_error", "message": "slow"}}, {"Retry-After": "7"})


def ask(bridge: Bridge, path: str = MESSAGES, door: str = "public", **options: Any) -> Reply:
    options = {"body": QUESTION, **options}
    if door == "public":
        options["headers"] = {"X-Api-Key": "aib_1_secret", **options.get("headers", {})}
    else:
        options["flask_aibridge.cancellation"] = FakeCancellation()
    return call(bridge, "POST", path, **options)


def keys_of(stand_in: StandInProvider) -> list[str]:
    """The keys that the provider was asked with."""
    return [
        request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        for request in stand_in.requests
    ]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("path", [MESSAGES, CHAT])
@pytest.mark.parametrize("stream", [False, True])
def test_a_key_that_is_not_accepted_gives_way_to_the_next(
    door: str, path: str, stream: bool, make_bridge: MakeBridge, hook: RecordingHook
) -> None:
    """The caller sees an answer as usual, and the next request does not try the bad key again."""
    with serve_stand_in(StandInProvider(keys=[SECOND])) as served:
        bridge = make_bridge(served.base_url, keys=KEYS)
        for _ in range(2):
            reply = ask(bridge, path, door, body=QUESTION | {"stream": stream})
            assert (reply.status, bool(reply.body)) == (200, True)
        assert keys_of(served.stand_in) == [FIRST, SECOND, SECOND]
        bodies = {request.body for request in served.stand_in.requests}
        assert len(bodies) == 1
    assert [record.outcome for record in hook.records] == ["completed", "completed"]


@pytest.mark.parametrize("door", DOORS)
def test_a_key_that_is_rate_limited_gives_way_to_the_next(door: str, make_bridge: MakeBridge) -> None:
    """For that model; another one is asked for with the first key."""
    with serve_stand_in(StandInProvider(keys=KEYS, failures=[LIMITED])) as served:
        bridge = make_bridge(served.base_url, keys=KEYS)
        assert ask(bridge, door=door).status == 200
        assert ask(bridge, door=door).status == 200
        assert ask(bridge, door=door, body=QUESTION | {"model": "m-2"}).status == 200
        assert keys_of(served.stand_in) == [FIRST, SECOND, SECOND, FIRST]


@pytest.mark.parametrize(("path", "kind"), [(MESSAGES, "rate_limit_error"), (CHAT, "invalid_request_error")])
def test_when_every_key_is_rate_limited(
    path: str, kind: str, make_bridge: MakeBridge, hook: RecordingHook
) -> None:
    """429 in the provider's form, with the time until the first comes back; nobody is asked until then."""
    later = AnswerWith(429, b"{}", {"Retry-After": "3", "request-id": "req_9", "x-request-id": "req_9"})
    with serve_stand_in(StandInProvider(failures=[LIMITED, later])) as served:
        bridge = make_bridge(served.base_url, keys=KEYS)
        for _ in range(2):
            reply = ask(bridge, path)
            assert (reply.status, reply.headers["retry-after"]) == (429, "3")
            assert reply.json["error"]["type"] == kind
        assert len(served.stand_in.requests) == 2
    assert {(record.outcome, record.status) for record in hook.records} == {("upstream_error", 429)}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("keys", [(FIRST,), KEYS])
def test_when_no_key_is_accepted(
    door: str,
    keys: tuple[str, ...],
    make_bridge: MakeBridge,
    hook: RecordingHook,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """502: a caller would take a 401 for the gateway's answer to its own key. The log knows which key it was."""
    with serve_stand_in(StandInProvider(keys=["another"])) as served:
        reply = ask(make_bridge(served.base_url, keys=keys), door=door)
        assert keys_of(served.stand_in) == list(keys)
    assert (reply.status, reply.headers["x-should-retry"]) == (502, "false")
    assert "www-authenticate" not in reply.headers
    assert reply.json["type"] == "error"
    assert (hook.record.outcome, hook.record.status) == ("upstream_error", 502)
    assert "sk-f…aaaa" in caplog.text
    assert "sk-f…aaaa" in (hook.record.error or "")
    assert not [key for key in keys if key in caplog.text + reply.body.decode() + str(hook.record)]


def test_one_limited_key_and_one_bad_one_are_a_rate_limit(make_bridge: MakeBridge) -> None:
    """Waiting helps, so the caller is told to."""
    unlimited = serve_stand_in(StandInProvider(keys=[SECOND], failures=[LIMITED]))
    with unlimited as served:
        reply = ask(make_bridge(served.base_url, keys=KEYS))
    assert (reply.status, reply.headers["retry-after"]) == (429, "7")


@pytest.mark.parametrize(
    "wait", [{"Retry-After": "0"}, {"Retry-After-Ms": "0"}, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}]
)
@pytest.mark.parametrize("keys", [(FIRST, SECOND), (FIRST,)])
def test_a_rate_limit_that_is_over_at_once_is_one(
    wait: dict[str, str], keys: tuple[str, ...], make_bridge: MakeBridge
) -> None:
    """The keys are good, and a caller who comes again at once is served: not a 502 that must not be tried again."""
    failure = AnswerWith(429, b"{}", wait)
    with serve_stand_in(StandInProvider(keys=keys, failures=[failure] * len(keys))) as served:
        bridge = make_bridge(served.base_url, keys=KEYS)
        reply = ask(bridge)
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        assert "x-should-retry" not in reply.headers
        assert ask(bridge).status == 200


def test_with_a_single_key_a_rate_limit_is_the_providers_to_tell(make_bridge: MakeBridge) -> None:
    """With its body and every header that SDKs read; and it is asked again the next time."""
    failure = AnswerWith(429, b'{"odd": 1 }', {"retry-after-ms": "100", "x-ratelimit-remaining-tokens": "0"})
    with serve_stand_in(StandInProvider(failures=[failure])) as served:
        bridge = make_bridge(served.base_url, keys=(FIRST,))
        reply = ask(bridge)
        assert (reply.status, reply.body) == (429, b'{"odd": 1 }')
        assert reply.headers["retry-after-ms"] == "100"
        assert reply.headers["x-ratelimit-remaining-tokens"] == "0"
        assert ask(bridge).status == 200


@pytest.mark.parametrize("status", [400, 403, 404, 408, 500, 503, 529])
def test_nothing_else_is_tried_twice(status: int, make_bridge: MakeBridge) -> None:
    """What a key cannot help is passed on as it came; a request that is forbidden takes no key away from others."""
    with serve_stand_in(StandInProvider(failures=[AnswerWith(status, b'{"a": 1}')])) as served:
        bridge = make_bridge(served.base_url, keys=KEYS)
        reply = ask(bridge)
        assert (reply.status, reply.body) == (status, b'{"a": 1}')
        assert ask(bridge).status == 200
        assert keys_of(served.stand_in) == [FIRST, FIRST]


def test_an_error_within_a_stream_is_not_tried_again(make_bridge: MakeBridge) -> None:
    """The caller has the first bytes by then."""
    with serve_stand_in(StandInProvider(failures=[ErrorAfter(1, "rate limited")])) as served:
        reply = ask(make_bridge(served.base_url, keys=KEYS), body=QUESTION | {"stream": True})
        assert b"event: error" in reply.body
        assert keys_of(served.stand_in) == [FIRST]


def test_a_provider_that_hangs_up_is_not_asked_with_another_key(make_bridge: MakeBridge) -> None:
    """Nobody knows whether it has begun to think."""

    def script(peer: Peer) -> None:
        peer.read_request()

    with ScriptedUpstream(script) as server:
        assert ask(make_bridge(server.base_url, keys=KEYS)).status == 502
        assert len(server.peers) == 1


def test_callers_cannot_have_a_key_benched(make_bridge: MakeBridge) -> None:
    """By choosing an account that it does not belong to, or a path that it has no rights for."""
    with serve_stand_in(StandInProvider(keys=[SECOND])) as served:
        bridge = make_bridge(served.base_url, keys=KEYS)
        assert ask(bridge, CHAT, headers={"OpenAI-Organization": "org-other"}).status == 200
        call(bridge, "GET", "/openai/v1/models", headers={"X-Api-Key": "aib_1_secret"})
        assert ask(bridge, CHAT).status == 200
        assert keys_of(served.stand_in) == [FIRST, SECOND] * 3


class Choosy:
    """A provider, such as another gateway, that says 401 to who asks for a model that the key is not for."""

    def __init__(self) -> None:
        self.stand_in = StandInProvider(keys=KEYS)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        if b"m-forbidden" in body:
            start_response("401 Unauthorized", [("Content-Length", "0")])
            return []
        return self.stand_in({**environ, "wsgi.input": BytesIO(body)}, start_response)


def test_callers_cannot_have_all_keys_benched(make_bridge: MakeBridge) -> None:
    """By asking for what none of them is for."""
    with serve_stand_in(Choosy()) as served:
        bridge = make_bridge(served.base_url, keys=KEYS)
        assert ask(bridge).status == 200
        for _ in range(2):
            assert ask(bridge, body=QUESTION | {"model": "m-forbidden"}).status == 502
            assert [ask(bridge).status for _ in range(2)] == [200, 200]
        assert keys_of(served.stand_in.stand_in) == [FIRST] * 5


def test_a_bad_key_is_spared_again_when_a_good_one_was_found(make_bridge: MakeBridge) -> None:
    """After both were said to be none."""
    with serve_stand_in(Choosy()) as served:
        served.stand_in.stand_in = provider = StandInProvider(keys=[SECOND])
        bridge = make_bridge(served.base_url, keys=KEYS)
        assert ask(bridge, body=QUESTION | {"model": "m-forbidden"}).status == 502
        assert [ask(bridge).status for _ in range(3)] == [200] * 3
        assert keys_of(provider) == [FIRST, SECOND, SECOND, SECOND]


def test_a_body_that_never_ends_does_not_delay_the_next_key(make_bridge: MakeBridge) -> None:
    """What is refused is not read to its end."""

    def script(peer: Peer) -> None:
        while peer.read_request():
            if FIRST.encode() in peer.requests[-1][0]:
                peer.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 1000\r\n\r\n{")
                assert peer.is_gone()
                return
            peer.send(JSON_HEAD + b"Content-Length: 2\r\n\r\n{}")

    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url, keys=KEYS)
        assert ask(bridge).status == 200
        bridge.close()


def test_a_provider_that_announces_days_is_asked_again_sooner(make_bridge: MakeBridge) -> None:
    """A rest has a bound."""
    days = AnswerWith(429, b"{}", {"Retry-After": "259200"})
    with serve_stand_in(StandInProvider(failures=[days, days])) as served:
        reply = ask(make_bridge(served.base_url, keys=KEYS))
    assert reply.headers["retry-after"] == str(int(MAX_COOL_DOWN))


def test_a_server_without_keys_that_wants_one(make_bridge: MakeBridge) -> None:
    """Its 401 is about the host as well."""
    with serve_stand_in(StandInProvider(keys=["another"])) as served:
        reply = ask(make_bridge(served.base_url, keys=()))
    assert reply.status == 502
    assert "administrator" in reply.json["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_key_that_the_provider_repeats_stays_here(
    stream: bool, make_bridge: MakeBridge, hook: RecordingHook, caplog: pytest.LogCaptureFixture
) -> None:
    """Some servers show in an error what they were sent, and some proxies in a header."""
    caplog.set_level(logging.DEBUG)
    kind = "text/html" if stream else "application/json"
    body = b'{"error": {"type": "bad", "message": "you sent %s"}}' % FIRST.encode()
    echo = AnswerWith(400, body, {"Content-Type": kind, "X-Echo": f"Bearer {FIRST}", "X-Other": "1"})
    with serve_stand_in(StandInProvider(failures=[echo])) as served:
        reply = ask(make_bridge(served.base_url, keys=KEYS))
        assert reply.body == body.replace(FIRST.encode(), b"*" * len(FIRST))
    assert reply.headers["content-length"] == str(len(body))
    assert "x-echo" not in reply.headers
    assert reply.headers["x-other"] == "1"
    assert FIRST not in caplog.text + str(hook.record)


@pytest.mark.parametrize("coding", COMPRESS)
@pytest.mark.parametrize(("method", "path"), [("POST", MESSAGES), ("GET", "/anthropic/v1/models")])
def test_a_key_that_is_repeated_in_compressed_words_stays_here(
    method: str, path: str, coding: str, make_bridge: MakeBridge
) -> None:
    """The error goes on as what it holds, also where the provider compresses unasked."""
    body = b'{"error": {"type": "bad", "message": "you sent %s"}}' % FIRST.encode()
    compressed = COMPRESS[coding](body)

    def script(peer: Peer) -> None:
        while peer.read_request():
            assert b"Accept-Encoding: identity\r\n" in peer.requests[-1][0]
            peer.send(b"HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\n")
            peer.send(
                b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (coding.encode(), len(compressed))
            )
            peer.send(compressed)

    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url, keys=KEYS)
        headers = {"X-Api-Key": "aib_1_secret", "Accept-Encoding": coding}
        reply = call(bridge, method, path, QUESTION if method == "POST" else None, headers=headers)
        assert reply.body == body.replace(FIRST.encode(), b"*" * len(FIRST))
        assert "content-encoding" not in reply.headers
        assert reply.headers.get("content-length") in (None, str(len(body)))
        bridge.close()


def test_an_error_that_is_not_compressed_as_it_says_is_broken(make_bridge: MakeBridge) -> None:
    """Nobody could read it, so it is not searched, and does not go on."""
    wrong = AnswerWith(400, FIRST.encode(), {"Content-Encoding": "gzip", "Content-Type": "application/json"})
    with serve_stand_in(StandInProvider(failures=[wrong])) as served:
        reply = ask(make_bridge(served.base_url, keys=KEYS))
        assert reply.status == 502
        assert FIRST.encode() not in reply.body


class PooledHost(ScriptedHost):
    """Has one provider with several keys, and perhaps others."""

    keys: tuple[str, ...] = KEYS

    def providers(self) -> ProviderSet:
        settings = [ProviderSettings(name, "anthropic", self.base_url, self.keys) for name in self.names]
        return ProviderSet(tuple(ProviderConfig(one) for one in settings), self.version)


def test_the_record_names_the_key_that_was_used() -> None:
    """The start names the one that is planned, and the end another if it came to that."""
    with serve_stand_in(StandInProvider(keys=[SECOND])) as served:
        host = PooledHost(served.base_url)
        with closing(Bridge(recording=lambda: host, hooks=[])) as bridge:
            for _ in range(2):
                assert call(bridge, "POST", MESSAGES, QUESTION, headers={"X-Api-Key": KEY}).status == 200
    starts = [start for start, _ in host.admitted]
    ends = [record for record in host.records if type(record).__name__ == "InterceptionEnd"]
    assert [isinstance(start, InterceptionStart) and start.credential_kind for start in starts] == [
        "centralized",
        "centralized",
    ]
    assert [start and start.credential_hint for start in starts] == ["sk-f…aaaa", "sk-s…bbbb"]
    assert [getattr(end, "credential_hint", "") for end in ends] == ["sk-s…bbbb", None]


def test_a_change_of_another_provider_keeps_what_is_known_of_the_keys() -> None:
    """One of its own settings begins anew."""
    with serve_stand_in(StandInProvider(keys=[SECOND])) as served:
        host = PooledHost(served.base_url)
        with closing(Bridge(recording=lambda: host, hooks=[])) as bridge:
            for names in (["anthropic"], ["anthropic", "new"]):
                host.names, host.version = names, host.version + 1
                assert call(bridge, "POST", MESSAGES, QUESTION, headers={"X-Api-Key": KEY}).status == 200
            host.keys, host.version = (FIRST, SECOND, "sk-third"), host.version + 1
            assert call(bridge, "POST", MESSAGES, QUESTION, headers={"X-Api-Key": KEY}).status == 200
        assert keys_of(served.stand_in) == [FIRST, SECOND, SECOND, FIRST, SECOND]
