"""The bridge as a WSGI app: routes, doors, refusals, answers; ``wsgiref.validate`` watches every call."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from flask_aibridge.bridge import Bridge
from flask_aibridge.bridge.upstream import UpstreamBroken, UpstreamPool
from flask_aibridge.observability import TokenUsage
from flask_aibridge.testing import AnswerWith, DropAfter, ErrorAfter, Served, StandInProvider, serve_stand_in
from tests.bridge.conftest import MakeBridge, RecordingHook
from tests.bridge.upstreams import JSON_HEAD, SSE_HEAD, Peer, ScriptedUpstream, chunk
from tests.bridge.wsgi import DEADLINE, FakeCancellation, Reply, call, environ_of

pytestmark = pytest.mark.usefixtures("no_leaks")

QUESTION = {"model": "m-1", "max_tokens": 50, "messages": [{"role": "user", "content": "Say hello"}]}
ROUTES = [
    ("/anthropic/v1/messages", QUESTION),
    ("/openai/v1/chat/completions", QUESTION | {"stream_options": {"include_usage": True}}),
    ("/openai/v1/responses", {"model": "m-1", "input": "Say hello"}),
]


def ask(bridge: Bridge, path: str, body: Any = None, **options: Any) -> Reply:
    """Ask as an agent of the host application does."""
    environ = {"flask_aibridge.cancellation": FakeCancellation(), "flask_aibridge.source": "agents"}
    return call(bridge, "POST" if body is not None else "GET", path, body, **environ, **options)


@pytest.mark.parametrize(("path", "question"), ROUTES)
def test_a_blocking_answer(
    path: str,
    question: dict[str, Any],
    bridge: Bridge,
    hook: RecordingHook,
    stand_in: Served[StandInProvider],
) -> None:
    """The provider's own document, whole before the head, and a record of it."""
    reply = ask(bridge, path, question)
    assert reply.status == 200
    assert "Hello" in reply.body.decode()
    assert reply.headers["content-length"] == str(len(reply.body))
    record = hook.record
    assert reply.headers["x-aibridge-interception-id"] == record.interception_id
    assert (record.model, record.status, record.outcome) == ("m-1", 200, "completed")
    assert (record.provider, record.route) == (path.split("/")[1], "/" + path.split("/", 2)[2])
    assert (record.source, record.in_process, record.user) == ("agents", True, None)
    assert record.usage is not None
    assert (record.usage.input, record.usage.output) == (2, 2)
    assert stand_in.stand_in.requests[0].json == question


@pytest.mark.parametrize(("path", "question"), ROUTES)
def test_a_streamed_answer(path: str, question: dict[str, Any], bridge: Bridge, hook: RecordingHook) -> None:
    """Events as they come, with usage from within them."""
    reply = ask(bridge, path, question | {"stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["x-accel-buffering"] == "no"
    assert hook.records == []
    body = reply.body
    assert b"Hel" in body
    record = hook.record
    assert (record.outcome, record.bytes_sent) == ("completed", len(body))
    assert record.usage is not None
    assert (record.usage.input, record.usage.output) == (2, 2)


def test_a_chat_streams_usage_is_asked_for_and_kept(
    bridge: Bridge, hook: RecordingHook, stand_in: Served[StandInProvider]
) -> None:
    """A caller who did not ask has no chunk without choices to trip over, and the account has the usage."""
    body = ask(bridge, ROUTES[1][0], QUESTION | {"stream": True}).body
    assert b'"choices": []' not in body
    assert b'"prompt_tokens"' not in body
    assert body.endswith(b"data: [DONE]\n\n")
    assert hook.record.usage is not None
    assert (hook.record.usage.input, hook.record.usage.output) == (2, 2)
    assert (hook.record.outcome, hook.record.bytes_sent) == ("completed", len(body))
    assert stand_in.stand_in.requests[0].json["stream_options"] == {"include_usage": True}


def test_tokens_arrive_one_by_one(make_bridge: MakeBridge) -> None:
    """Each event can be had before the provider has sent the next."""
    more = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        for number in range(3):
            peer.send((SSE_HEAD if number == 0 else b"") + chunk(b"data: %d\n\n" % number))
            assert more.wait(DEADLINE)
            more.clear()
        peer.send(chunk(b"data: [DONE]\n\n") + chunk(b""))
        peer.is_gone()

    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url)
        reply = ask(bridge, ROUTES[1][0], QUESTION | {"stream": True})
        for number in range(3):
            assert next(reply.iterator) == b"data: %d\n\n" % number
            more.set()
        assert reply.body == b"data: [DONE]\n\n"
        bridge.close()


def test_the_callers_credentials_stay_and_the_hosts_go(
    bridge: Bridge, stand_in: Served[StandInProvider]
) -> None:
    """By the public door; what else the SDK sent goes on."""
    headers = {
        "Authorization": "Bearer aib_1_secret",
        "Cookie": "session=1",
        "Anthropic-Beta": "b",
        "X-Forwarded-For": "1",
    }
    reply = call(bridge, "POST", ROUTES[0][0], QUESTION, headers=headers)
    assert (reply.status, reply.json["type"]) == (200, "message")
    received = stand_in.stand_in.requests[0].headers
    assert received["x-api-key"] == "sk-host"
    assert received["anthropic-beta"] == "b"
    assert received["accept-encoding"] == "identity"
    assert received["content-type"] == "application/json"
    assert not {"authorization", "cookie", "x-forwarded-for"} & set(received)


def test_the_public_door_needs_a_key(
    bridge: Bridge, hook: RecordingHook, stand_in: Served[StandInProvider]
) -> None:
    """Wrong, missing or forged: one and the same answer, and the body is not even read."""
    answers = set()
    for headers in (
        {},
        {"X-Api-Key": "aib_1_wrong"},
        {"Authorization": "Basic x"},
        {"Flask-Aibridge.Cancellation": "x"},
    ):
        reply = call(
            bridge, "POST", ROUTES[1][0], QUESTION, headers=headers, **{"flask_aibridge.source": "agents"}
        )
        assert (reply.status, reply.headers["www-authenticate"]) == (401, 'Bearer realm="aibridge"')
        answers.add(reply.body)
    assert len(answers) == 1
    assert json.loads(answers.pop())["error"]["code"] == "invalid_api_key"
    assert stand_in.stand_in.requests == []
    assert {(record.outcome, record.source, record.in_process) for record in hook.records} == {
        ("refused", None, False)
    }


def test_a_key_tells_the_user(bridge: Bridge, hook: RecordingHook) -> None:
    """A record of the public door says who, and has no source."""
    environ = {"flask_aibridge.source": "agents"}
    assert (
        call(bridge, "POST", ROUTES[0][0], QUESTION, headers={"X-Api-Key": "aib_1_secret"}, **environ).status
        == 200
    )
    assert (hook.record.user, hook.record.source, hook.record.in_process) == ("alice", None, False)


def test_without_keys_the_public_door_is_closed(make_bridge: MakeBridge) -> None:
    """Nothing configured admits nobody."""
    bridge = make_bridge("http://127.0.0.1:9", api_keys={})
    assert call(bridge, "GET", "/openai/v1/models", headers={"X-Api-Key": ""}).status == 401


def test_an_unknown_provider(bridge: Bridge, hook: RecordingHook) -> None:
    """The known ones are named, to those who may come in; its name becomes no label."""
    refused = call(bridge, "GET", "/gemini/v1/models")
    assert (refused.status, refused.json["code"]) == (401, "unauthorized")
    reply = ask(bridge, "/gemini/v1/models")
    assert reply.status == 404
    assert reply.json == {
        "message": "There is no provider named 'gemini'. Configured are: anthropic, openai.",
        "code": "not_found",
    }
    assert {(record.provider, record.provider_type, record.route) for record in hook.records} == {
        ("", "", "")
    }


@pytest.mark.parametrize(
    "path",
    [
        "/anthropic",
        "/anthropic/",
        "/anthropic/api/hello",
        "/anthropic/v1/skills",
        "/anthropic/v1/models/../files",
        "/anthropic/v1/models/a//b",
        "/anthropic/v1/messages/",
        "/openai/v1/organization/admin_api_keys",
    ],
)
def test_paths_that_are_not_listed(path: str, bridge: Bridge, stand_in: Served[StandInProvider]) -> None:
    """A 404 in the provider's form; the provider is not asked."""
    reply = ask(bridge, path)
    assert (reply.status, "error" in reply.json) == (404, True)
    assert stand_in.stand_in.requests == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"])
def test_methods_that_are_not_listed(method: str, bridge: Bridge) -> None:
    """A 405 that says which are."""
    reply = call(bridge, method, "/openai/v1/chat/completions", headers={"X-Api-Key": "aib_1_secret"})
    assert (reply.status, reply.headers["allow"]) == (405, "POST")


def test_a_websocket_is_refused_so_that_codex_falls_back(bridge: Bridge) -> None:
    """426 is what it takes for a hint to use HTTP."""
    headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
    reply = ask(bridge, "/openai/v1/responses", headers=headers)
    assert (reply.status, reply.json["error"]["code"]) == (426, "upgrade_required")
    assert ask(bridge, "/openai/v1/responses/resp_1", headers=headers).status != 426


def test_listed_paths_are_passed_through(
    bridge: Bridge, hook: RecordingHook, stand_in: Served[StandInProvider]
) -> None:
    """Model lists and the like, with query and ``%2F``; recorded under the pattern of their route."""
    reply = ask(
        bridge,
        "/anthropic/v1/models/a/b?limit=1&x=%20",
        REQUEST_URI="/anthropic/v1/models/a%2Fb?limit=1&x=%20",
    )
    assert (reply.status, reply.json["id"]) == (200, "a/b")
    assert stand_in.stand_in.requests[0].query == "limit=1&x=%20"
    assert (hook.record.route, hook.record.model, hook.record.usage) == ("/v1/models/*", None, None)


def test_a_head_request_has_a_head_only(bridge: Bridge, hook: RecordingHook) -> None:
    """Model lists may be asked for that way."""
    reply = call(bridge, "HEAD", "/openai/v1/models", headers={"X-Api-Key": "aib_1_secret"})
    assert (reply.status, reply.body) == (200, b"")
    assert hook.record.bytes_sent == 0
    refused = call(bridge, "HEAD", "/openai/v1/models")
    assert (refused.status, refused.body) == (401, b"")


def test_a_provider_without_a_key_names_what_to_set(
    make_bridge: MakeBridge, stand_in: Served[StandInProvider]
) -> None:
    """And does not fall back to the caller's own: the vendor's service is not even asked."""
    bridge = make_bridge("https://api.openai.com", keys=())
    reply = ask(bridge, ROUTES[1][0], QUESTION, headers={"Authorization": "Bearer sk-host"})
    assert (reply.status, reply.headers["x-should-retry"]) == (500, "false")
    assert "AIBRIDGE_PROVIDERS['openai']['keys']" in reply.json["error"]["message"]
    assert stand_in.stand_in.requests == []


def test_a_server_of_ones_own_may_ask_for_no_key(
    make_bridge: MakeBridge, stand_in: Served[StandInProvider]
) -> None:
    """It gets the request without credentials, the caller's own included."""
    bridge = make_bridge(stand_in.base_url, keys=())
    ask(bridge, ROUTES[1][0], QUESTION, headers={"X-Api-Key": "aib_1_secret"})
    names = {name.lower() for name in stand_in.stand_in.requests[0].headers}
    assert not names & {"authorization", "x-api-key"}


def test_a_body_that_is_too_large(bridge: Bridge) -> None:
    """413 in the provider's form, unread."""
    reply = ask(bridge, ROUTES[0][0], b"{}", CONTENT_LENGTH=str(33 * 2**20))
    assert (reply.status, reply.json["error"]["type"]) == (413, "request_too_large")


@pytest.mark.parametrize("body", [b"not json", b"", b"[1]", b'{"model": 7}', b"\xff"])
def test_a_body_that_is_no_request_is_the_providers_to_judge(
    body: bytes, bridge: Bridge, hook: RecordingHook
) -> None:
    """It goes on unchanged, and no model is recorded."""
    reply = ask(bridge, ROUTES[0][0], body)
    assert (reply.status, reply.json["error"]["type"]) == (400, "invalid_request_error")
    assert (hook.record.model, hook.record.outcome) == (None, "upstream_error")


def test_a_providers_error_passes_unchanged(make_bridge: MakeBridge, hook: RecordingHook) -> None:
    """Status, body and the headers that tell when to come back; it is asked once."""
    failure = AnswerWith(
        529, b'{"odd": 1 }', {"retry-after-ms": "100", "X-Should-Retry": "true", "Set-Cookie": "a=b"}
    )
    with serve_stand_in(StandInProvider(failures=[failure])) as served:
        reply = ask(make_bridge(served.base_url), ROUTES[0][0], QUESTION)
        assert (reply.status, reply.body) == (529, b'{"odd": 1 }')
        assert (reply.headers["retry-after-ms"], reply.headers["x-should-retry"]) == ("100", "true")
        assert "request-id" in reply.headers
        assert "set-cookie" not in reply.headers
        assert len(served.stand_in.requests) == 1
    assert (hook.record.status, hook.record.outcome) == (529, "upstream_error")


def test_an_error_in_the_middle_of_a_stream(make_bridge: MakeBridge, hook: RecordingHook) -> None:
    """The status has gone out; the record knows."""
    with serve_stand_in(StandInProvider(failures=[ErrorAfter(1, "Overloaded")])) as served:
        reply = ask(make_bridge(served.base_url), ROUTES[0][0], QUESTION | {"stream": True})
        assert b"event: error" in reply.body
    assert (hook.record.status, hook.record.outcome) == (200, "upstream_error")
    assert hook.record.error == "overloaded_error"


def test_a_stream_that_breaks_off_does_not_look_whole(make_bridge: MakeBridge, hook: RecordingHook) -> None:
    """The server gets an exception, after all bytes before it."""
    with serve_stand_in(StandInProvider(answer="a b c", failures=[DropAfter(2)])) as served:
        reply = ask(make_bridge(served.base_url), ROUTES[0][0], QUESTION | {"stream": True})
        pieces: list[bytes] = []
        with pytest.raises(UpstreamBroken):
            pieces.extend(reply.iterator)
        reply.close()
    assert b" b" in b"".join(pieces)
    assert hook.record.outcome == "upstream_truncated"
    assert hook.record.usage is not None
    assert hook.record.usage.input == 2


def test_a_blocking_answer_that_breaks_off_is_a_502(make_bridge: MakeBridge, hook: RecordingHook) -> None:
    """Nothing had gone out, so the caller gets a proper error."""
    with serve_stand_in(StandInProvider(failures=[DropAfter(0)])) as served:
        reply = ask(make_bridge(served.base_url), ROUTES[1][0], QUESTION)
    assert (reply.status, reply.json["error"]["type"]) == (502, "server_error")
    assert (hook.record.status, hook.record.outcome) == (502, "upstream_truncated")


@pytest.mark.parametrize("route", [0, 1])
def test_a_provider_that_cannot_be_reached(route: int, make_bridge: MakeBridge, hook: RecordingHook) -> None:
    """502 in its own form, with a sentence and nothing of the inside; the record has the cause."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    reply = ask(make_bridge(f"http://127.0.0.1:{port}"), *ROUTES[route])
    message = reply.json["error"]["message"]
    assert reply.status == 502
    assert "could not be reached" in message
    assert port not in message
    assert (hook.record.outcome, "NewConnectionError" in (hook.record.error or "")) == (
        "upstream_error",
        True,
    )


def hold(peer: Peer) -> None:
    peer.read_request()
    peer.is_gone()


def test_a_provider_that_is_silent(make_bridge: MakeBridge, hook: RecordingHook) -> None:
    """504 in its own form."""
    with ScriptedUpstream(hold) as server:
        bridge = make_bridge(server.base_url, pool=UpstreamPool(read_timeout=0.05))
        reply = ask(bridge, *ROUTES[0])
        assert (reply.status, reply.json["error"]["type"]) == (504, "timeout_error")
    assert hook.record.outcome == "upstream_error"


def test_a_caller_who_gives_up_before_the_head(make_bridge: MakeBridge, hook: RecordingHook) -> None:
    """The provider's connection is closed at once, and the worker is free."""
    cancellation = FakeCancellation()

    def script(peer: Peer) -> None:
        peer.read_request()
        cancellation.cancel()
        assert peer.is_gone()

    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url)
        environ = {"flask_aibridge.cancellation": cancellation}
        assert call(bridge, "POST", ROUTES[0][0], QUESTION, **environ).complete
    assert (hook.record.status, hook.record.outcome) == (499, "client_closed")


def test_a_caller_who_gives_up_in_the_middle(make_bridge: MakeBridge, hook: RecordingHook) -> None:
    """A read that waits for the next token ends at once."""
    cancellation = FakeCancellation()
    waiting = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(SSE_HEAD + chunk(b"data: 1\n\n"))
        assert waiting.wait(DEADLINE)
        cancellation.cancel()
        assert peer.is_gone()

    with ScriptedUpstream(script) as server:
        environ = {"flask_aibridge.cancellation": cancellation}
        reply = call(make_bridge(server.base_url), "POST", ROUTES[0][0], QUESTION, **environ)
        assert next(reply.iterator) == b"data: 1\n\n"
        waiting.set()
        assert reply.body == b""
    assert hook.record.outcome == "client_closed"
    assert cancellation.callbacks == []


def test_a_server_that_closes_the_body_early(make_bridge: MakeBridge, hook: RecordingHook) -> None:
    """As one does when an HTTP client has left: the provider's connection is closed, not kept."""
    gone = []

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(SSE_HEAD + chunk(b"data: 1\n\n"))
        gone.append(peer.is_gone())

    with ScriptedUpstream(script) as server:
        reply = ask(make_bridge(server.base_url), ROUTES[1][0], QUESTION)
        next(reply.iterator)
        reply.close()
    assert gone == [True]
    assert hook.record.outcome == "client_closed"


@pytest.mark.parametrize("stream", [True, False])
def test_connections_are_used_again(stream: bool, make_bridge: MakeBridge) -> None:
    """Blocking and streamed answers, read to their ends, leave a connection for the next."""
    whole = (
        SSE_HEAD + chunk(b"data: [DONE]\n\n") + chunk(b"")
        if stream
        else JSON_HEAD + b"Content-Length: 2\r\n\r\n{}"
    )

    def script(peer: Peer) -> None:
        while peer.read_request():
            peer.send(whole)

    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url)
        for _ in range(3):
            assert ask(bridge, ROUTES[1][0], QUESTION).body
        assert len(server.peers) == 1
        bridge.close()


def answering(head: bytes, body: bytes) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    return script


@pytest.mark.parametrize(
    ("head", "body", "status", "usage", "outcome"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n", b"<html>", 200, None, "upstream_error"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n", b"<html>", 502, None, "upstream_error"),
        (b"HTTP/1.1 200 OK\r\n", b"?", 200, None, "upstream_error"),
        (JSON_HEAD, b"{broken", 200, None, "upstream_truncated"),
        (JSON_HEAD, b'{"usage": {"input_tokens": 3}}' + b" " * 2**21, 200, TokenUsage(3), "completed"),
        (
            JSON_HEAD + b"Content-Encoding: gzip\r\n",
            gzip.compress(b'{"usage": {"input_tokens": 3}}', mtime=0),
            200,
            TokenUsage(3),
            "completed",
        ),
        (b"HTTP/1.1 299 \r\nContent-Type: application/vnd.x+json\r\n", b"{}", 299, None, "completed"),
        (b"HTTP/1.1 204 No Content\r\nContent-Type: text/plain\r\n", b"", 204, None, "completed"),
    ],
)
def test_whatever_a_provider_answers_is_relayed(
    head: bytes,
    body: bytes,
    status: int,
    usage: TokenUsage | None,
    outcome: str,
    make_bridge: MakeBridge,
    hook: RecordingHook,
) -> None:
    """HTML, rubbish, compressed, long: byte for byte. What is no answer is not taken for one."""
    with ScriptedUpstream(answering(head, body)) as server:
        reply = ask(make_bridge(server.base_url), ROUTES[0][0], QUESTION)
        assert (reply.status, reply.body) == (status, body)
    assert hook.record.usage == usage
    assert hook.record.outcome == outcome


def test_an_interim_status_is_no_answer(make_bridge: MakeBridge) -> None:
    """WSGI has no way to pass one on."""
    with ScriptedUpstream(answering(b"HTTP/1.1 101 Switching Protocols\r\n", b"")) as server:
        assert ask(make_bridge(server.base_url), ROUTES[0][0], QUESTION).status == 502


def test_a_failure_of_the_bridges_own_is_a_500(
    bridge: Bridge, hook: RecordingHook, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logged with its traceback, answered in the provider's form, recorded."""
    monkeypatch.setattr("flask_aibridge.bridge.asked.read_body", lambda environ: 1 / 0)
    reply = ask(bridge, ROUTES[0][0], QUESTION)
    assert (reply.status, reply.json["error"]["type"]) == (500, "api_error")
    assert "ZeroDivisionError" in caplog.text
    assert hook.record.outcome == "interrupted"


def test_a_server_that_refuses_the_head_leaks_nothing(make_bridge: MakeBridge, hook: RecordingHook) -> None:
    """The provider's answer is closed when ``start_response`` raises."""

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        raise OSError("gone")

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(SSE_HEAD + chunk(b"data: 1\n\n"))
        assert peer.is_gone()

    with ScriptedUpstream(script) as server:
        bridge = make_bridge(server.base_url)
        environ = environ_of("POST", ROUTES[0][0], QUESTION) | {
            "flask_aibridge.cancellation": FakeCancellation()
        }
        with pytest.raises(OSError, match="gone"):
            bridge(environ, start_response)
    assert hook.record.outcome == "client_closed"


def test_building_a_bridge_connects_to_nothing() -> None:
    """Not even with a provider that is not there; with no providers it says so."""
    bridge = Bridge([], hooks=[])
    reply = ask(bridge, "/anthropic/v1/messages", QUESTION)
    assert "set AIBRIDGE_PROVIDERS" in reply.json["message"]
    bridge.close()
