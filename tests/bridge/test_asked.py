"""What callers may ask for: bodies that come compressed, probes, lists of what is everybody's, limited keys."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from flask_aibridge.bridge import Bridge
from flask_aibridge.bridge.content_coding import accepted
from flask_aibridge.config import ProviderSettings
from flask_aibridge.services.interfaces import Authorization, ProviderConfig, ProviderSet, Scopes
from tests.bridge.compressing import COMPRESS
from tests.bridge.conftest import RecordingHook
from tests.bridge.test_admission import KEY, ScriptedHost
from tests.bridge.upstreams import JSON_HEAD, Peer, ScriptedUpstream
from tests.bridge.wsgi import FakeCancellation, Reply, call

pytestmark = pytest.mark.usefixtures("no_leaks")

ANSWER = b'{"id": "x", "data": []}'
MESSAGES = "/anthropic/v1/messages"
QUESTION = json.dumps({"model": "m-1", "messages": [{"role": "user", "content": "hi"}]}).encode()


class Both(ScriptedHost):
    """Services of a host with one provider of each type."""

    def providers(self) -> ProviderSet:
        settings = (
            ProviderSettings("anthropic", "anthropic", self.base_url, ("sk-host",)),
            ProviderSettings("openai", "openai", f"{self.base_url}/v1", ("sk-host",)),
        )
        return ProviderSet(tuple(ProviderConfig(each) for each in settings), self.version)

    def limit(self, *models: str) -> None:
        self.authorization = Authorization("alice", "k1", scopes=Scopes(models=models))


def script(peer: Peer) -> None:
    while peer.read_request():
        peer.send(JSON_HEAD + b"Content-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER)


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(script) as server:
        yield server


@pytest.fixture
def host(upstream: ScriptedUpstream) -> Both:
    return Both(upstream.base_url)


@pytest.fixture
def bridge(host: Both, hook: RecordingHook, upstream: ScriptedUpstream) -> Iterator[Bridge]:
    made = Bridge(recording=lambda: host, hooks=[hook])
    yield made
    made.close()


def ask(bridge: Bridge, method: str, path: str, body: Any = None, **headers: str) -> Reply:
    sent = {"X-Api-Key": KEY} | {name.replace("_", "-"): value for name, value in headers.items()}
    return call(bridge, method, path, body, headers=sent)


def received(upstream: ScriptedUpstream) -> tuple[str, bytes]:
    """Head (in lower case) and body of the one request that the provider got."""
    ((head, body),) = [request for peer in upstream.peers for request in peer.requests]
    return head.decode().lower(), body


def nothing_was_sent(upstream: ScriptedUpstream) -> bool:
    return not [request for peer in upstream.peers for request in peer.requests]


@pytest.mark.parametrize("path", [MESSAGES, "/anthropic/v1/messages/count_tokens"])
@pytest.mark.parametrize("coding", COMPRESS)
def test_a_compressed_request_goes_on_as_what_it_holds(
    path: str, coding: str, bridge: Bridge, upstream: ScriptedUpstream
) -> None:
    """Every byte of it, whatever is done with the answer; the provider need not know the coding."""
    assert (
        ask(bridge, "POST", path, COMPRESS[coding](QUESTION), Content_Encoding=coding.upper()).status == 200
    )
    head, body = received(upstream)
    assert body == QUESTION
    assert "content-encoding" not in head
    assert f"content-length: {len(QUESTION)}\r\n" in head


def test_a_compressed_request_is_recorded_as_any_other(bridge: Bridge, host: Both) -> None:
    """What it asks for is known before it is admitted."""
    ask(bridge, "POST", MESSAGES, gzip.compress(QUESTION), Content_Encoding="gzip")
    ((start, _),) = host.admitted
    assert start is not None
    assert start.model == "m-1"


@pytest.mark.parametrize("path", [MESSAGES, "/openai/v1/embeddings", "/openai/v1/files"])
@pytest.mark.parametrize(
    ("body", "coding", "status"),
    [
        (b"x", "rot13", 415),
        (b"not gzip", "gzip", 400),
        (gzip.compress(b"\0" * (33 * 2**20)), "gzip", 413),
    ],
)
def test_what_cannot_be_decompressed_is_refused(
    path: str, body: bytes, coding: str, status: int, bridge: Bridge, host: Both, upstream: ScriptedUpstream
) -> None:
    """In the provider's form; it is not asked, and nothing was started."""
    reply = ask(bridge, "POST", path, body, Content_Encoding=coding)
    assert reply.status == status
    assert reply.json["error"]["message"]
    assert reply.headers.get("accept-encoding") == (accepted() if status == 415 else None)
    assert [start for start, _ in host.admitted] == [None]
    assert nothing_was_sent(upstream)


@pytest.mark.parametrize("path", ["/anthropic", "/anthropic/", "/anthropic/api/hello", "/nobody", "/", ""])
@pytest.mark.parametrize("key", [{}, {"X-Api-Key": KEY}, {"X-Api-Key": "aib_1_wrong"}])
def test_a_probe_is_answered_at_once(
    path: str,
    key: dict[str, str],
    bridge: Bridge,
    host: Both,
    hook: RecordingHook,
    upstream: ScriptedUpstream,
) -> None:
    """Anybody may know that somebody is here, and learns nothing else; no service is asked."""
    reply = call(bridge, "HEAD", path, headers=key)
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["x-aibridge-interception-id"] == hook.record.interception_id
    assert (hook.record.outcome, hook.record.provider, host.admitted) == ("completed", "", [])
    assert nothing_was_sent(upstream)


def test_only_a_head_request_is_a_probe(bridge: Bridge) -> None:
    """Others are told what is wrong, if they may come in."""
    assert call(bridge, "GET", "/anthropic").status == 401
    assert ask(bridge, "GET", "/anthropic").status == 404


LISTS = ["/anthropic/v1/files", "/anthropic/v1/messages/batches", "/openai/v1/files", "/openai/v1/batches"]


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_nobody_is_shown_what_others_have_stored(
    method: str, path: str, bridge: Bridge, upstream: ScriptedUpstream
) -> None:
    """All callers share the host's key, and with it everything that was stored with it."""
    reply = ask(bridge, method, f"{path}?limit=100")
    assert (reply.status, reply.headers["x-should-retry"]) == (403, "false")
    if method == "GET":
        assert "by its id" in reply.json["error"]["message"]
    assert nothing_was_sent(upstream)


@pytest.mark.parametrize("path", LISTS)
def test_the_application_itself_may_list(path: str, bridge: Bridge, upstream: ScriptedUpstream) -> None:
    """The key is its own; but not on behalf of a user."""
    in_process = {"flask_aibridge.cancellation": FakeCancellation()}
    assert call(bridge, "GET", path, **in_process).status == 200
    assert call(bridge, "GET", path, **in_process, **{"flask_aibridge.key_id": "k1"}).status == 403
    assert len(upstream.peers) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/openai/v1/files"),
        ("GET", "/openai/v1/files/file-1/content"),
        ("DELETE", "/openai/v1/files/file-1"),
        ("POST", "/openai/v1/batches"),
        ("POST", "/openai/v1/batches/batch_1/cancel"),
        ("DELETE", "/anthropic/v1/files/file_1"),
        ("POST", "/anthropic/v1/messages/batches"),
        ("GET", "/anthropic/v1/messages/batches/msgbatch_1/results"),
        ("GET", "/openai/v1/responses/resp_1?stream=true&starting_after=3"),
        ("POST", "/openai/v1/responses/resp_1/cancel"),
        ("GET", "/openai/v1/responses/resp_1/input_items"),
        ("POST", "/openai/v1/responses/input_tokens"),
        ("POST", "/openai/v1/conversations"),
        ("DELETE", "/openai/v1/conversations/conv_1/items/msg_1"),
    ],
)
def test_what_is_known_by_its_id_is_passed_through(
    method: str, path: str, bridge: Bridge, host: Both, upstream: ScriptedUpstream
) -> None:
    """Authorised, and not recorded as an interception."""
    body = b'{"input": "hi"}' if method == "POST" else None
    reply = ask(bridge, method, path, body)
    assert (reply.status, reply.body) == (200, ANSWER)
    head, sent = received(upstream)
    assert head.startswith(f"{method} /v1{path.split('/v1', 1)[1]} ".lower())
    assert sent == (body or b"")
    assert [start for start, _ in host.admitted] == [None]
    assert host.records == []


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/openai/v1/files/file-1", "GET, HEAD, DELETE"),
        ("DELETE", "/openai/v1/files", "GET, HEAD, POST"),
        ("DELETE", "/openai/v1/models/ft:mine", "GET, HEAD"),
        ("DELETE", "/openai/v1/responses", "POST"),
        ("GET", "/openai/v1/responses/resp_1/cancel", "POST"),
        ("PATCH", "/anthropic/v1/messages/batches", "GET, HEAD, POST"),
        ("GET", "/anthropic/api/event_logging/batch", "POST"),
    ],
)
def test_a_method_that_is_not_for_this_path(method: str, path: str, allow: str, bridge: Bridge) -> None:
    """The header says which are."""
    reply = ask(bridge, method, path)
    assert (reply.status, reply.headers["allow"]) == (405, allow)


def batch(*models: Any) -> dict[str, Any]:
    return {"requests": [{"custom_id": "1", "params": {"model": model}} for model in models]}


@pytest.mark.parametrize(
    ("path", "document", "status"),
    [
        ("/openai/v1/embeddings", {"model": "small", "input": "x"}, 200),
        ("/openai/v1/embeddings", {"model": "large", "input": "x"}, 403),
        ("/openai/v1/embeddings", {"input": "x"}, 403),
        ("/openai/v1/responses", {"prompt": {"id": "pmpt_1"}}, 403),
        ("/openai/v1/responses/compact", {"model": "large", "input": []}, 403),
        ("/openai/v1/responses/input_tokens", {"model": "large"}, 403),
        ("/openai/v1/responses/input_tokens", {"input": "x"}, 200),
        ("/openai/v1/responses/resp_1/novelty", {"model": "large"}, 403),
        ("/openai/v1/responses", {"model": "small", "tools": [{"type": "image_generation"}]}, 200),
        (
            "/openai/v1/responses",
            {"model": "small", "tools": [{"type": "image_generation", "model": "large"}]},
            403,
        ),
        ("/openai/v1/chat/completions", {"model": "small", "models": ["small", "large"]}, 403),
        ("/openai/v1/chat/completions", b'{"model": "small", "models": ["large"], "models": ["small"]}', 403),
        (
            "/openai/v1/chat/completions",
            b'{"model": "small", "tools": [{"model": "large", "model": "small"}]}',
            403,
        ),
        ("/openai/v1/conversations", {"items": []}, 200),
        ("/openai/v1/batches", {"input_file_id": "file-1", "endpoint": "/v1/responses"}, 403),
        ("/anthropic/v1/messages/count_tokens", {"model": "large", "messages": []}, 403),
        ("/anthropic/v1/messages/batches", batch("small", "small"), 200),
        ("/anthropic/v1/messages/batches", batch("small", "large"), 403),
        ("/anthropic/v1/messages/batches", batch(), 403),
        ("/anthropic/v1/messages", {"model": "small", "messages": []}, 200),
        ("/anthropic/v1/messages", {"model": ["small"], "messages": []}, 403),
        ("/anthropic/v1/messages", [{"model": "small"}], 403),
        ("/anthropic/v1/files", b"--boundary", 200),
    ],
)
def test_a_key_for_some_models_reaches_no_other_by_any_route(
    path: str, document: Any, status: int, bridge: Bridge, host: Both, upstream: ScriptedUpstream
) -> None:
    """Nor one that the bridge cannot see."""
    host.limit("small")
    reply = ask(bridge, "POST", path, document)
    assert reply.status == status
    assert nothing_was_sent(upstream) is (status == 403)
    if status == 403:
        assert reply.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "large", "messages": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"model": "large", "n": ' + b"9" * 10_000 + b"}",
        b'{"model": "large", "messages": [',
        b'{"x": ' * 100_000,
        b"",
    ],
    ids=["deep", "long number", "broken", "deep and broken", "empty"],
)
def test_a_body_that_cannot_be_read(
    body: bytes, bridge: Bridge, host: Both, upstream: ScriptedUpstream
) -> None:
    """It is the provider's to judge, unless the key is limited: it might be read by others."""
    assert ask(bridge, "POST", MESSAGES, body).status == 200
    assert received(upstream)[1] == body
    host.limit("small")
    assert ask(bridge, "POST", MESSAGES, body).status == 403


def test_a_compressed_request_is_no_way_around_a_limit(
    bridge: Bridge, host: Both, upstream: ScriptedUpstream
) -> None:
    """What is allowed is what it holds."""
    host.limit("small")
    for path in (MESSAGES, "/openai/v1/embeddings"):
        assert ask(bridge, "POST", path, gzip.compress(QUESTION), Content_Encoding="gzip").status == 403
    assert nothing_was_sent(upstream)


@pytest.mark.parametrize("path", [MESSAGES, "/openai/v1/files"])
def test_uploads_have_the_same_bound(path: str, bridge: Bridge, upstream: ScriptedUpstream) -> None:
    """413, with nothing read."""
    reply = call(bridge, "POST", path, b"x", headers={"X-Api-Key": KEY}, CONTENT_LENGTH=str(32 * 2**20 + 1))
    assert reply.status == 413
    assert nothing_was_sent(upstream)


def test_a_summary_of_a_history_is_recorded_with_its_tokens_and_no_prompt(
    host: Both, hook: RecordingHook
) -> None:
    """The model has worked, and the user has said nothing new."""
    answer = {
        "id": "resp_1",
        "object": "response.compaction",
        "output": [{"id": "cmp_1", "type": "compaction", "encrypted_content": "x"}],
        "usage": {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10},
    }

    def compact(peer: Peer) -> None:
        peer.read_request()
        body = json.dumps(answer).encode()
        peer.send(JSON_HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        peer.is_gone()

    asked = {"model": "gpt-5", "input": [{"role": "user", "content": "Fix it"}]}
    with ScriptedUpstream(compact) as server:
        host.base_url = server.base_url
        bridge = Bridge(recording=lambda: host, hooks=[hook])
        reply = ask(bridge, "POST", "/openai/v1/responses/compact", asked)
        bridge.close()
    assert reply.json == answer
    assert host.kinds == ["TokenUsage", "InterceptionEnd"]
    assert (hook.record.outcome, hook.record.usage and hook.record.usage.input) == ("completed", 7)
