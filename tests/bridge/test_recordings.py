"""Exchanges replayed: the bytes that come out, what is recorded, how it ends; in any pieces, and by both doors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from typing import Any, TypeVar

import pytest

from flask_aibridge.bridge import Bridge
from flask_aibridge.bridge.answers import turn_for
from flask_aibridge.bridge.intercept.decoding import decoder_for
from flask_aibridge.bridge.intercept.turn import Turn
from flask_aibridge.bridge.intercept.vocabulary import Item, Relay
from flask_aibridge.bridge.intercept.wire_format import WireFormat
from flask_aibridge.bridge.interception import Interception
from flask_aibridge.bridge.options import BridgeOptions
from flask_aibridge.bridge.providers.anthropic import Anthropic
from flask_aibridge.bridge.providers.openai import OpenAI
from flask_aibridge.bridge.upstream import UpstreamBroken
from flask_aibridge.config import ProviderSettings
from flask_aibridge.services.interfaces import ProviderConfig, ProviderSet
from flask_aibridge.services.records import (
    InterceptionEnd,
    ModelThought,
    PromptUsage,
    Record,
    TokenUsage,
    ToolUsage,
    interception_of,
)
from flask_aibridge.services.schemas.messages import encode
from tests import recordings
from tests.bridge.conftest import RecordingHook
from tests.bridge.test_admission import KEY, ScriptedHost
from tests.bridge.upstreams import Peer, ScriptedUpstream, chunk
from tests.bridge.wsgi import FakeCancellation, Reply, call
from tests.recordings import Recording

Kind = TypeVar("Kind")

FIRST = 4096
"""How far into an answer every place to split it is tried."""

each_recording = pytest.mark.parametrize("recording", recordings.ALL, ids=str)


def wire_format_of(recording: Recording) -> WireFormat:
    """The machine, as the bridge makes it with the request."""
    _, name, *rest = recording.path.split("/")
    path = "/" + "/".join(rest)
    provider = Anthropic if name == "anthropic" else OpenAI
    (route,) = [route for route in provider.routes if route.path == path]
    assert route.wire_format is not None
    wire_format = route.wire_format(recording.document)
    assert wire_format.edit_request(recording.request) == sent_upstream(recording)
    return wire_format


def sent_upstream(recording: Recording) -> bytes:
    sent: str = recording.expected.get("sent", recording.request.decode())
    return sent.encode()


def turn_of(recording: Recording) -> Turn:
    return turn_for(recording.status, recording.media_type, recording.encoding, wire_format_of(recording))


def replayed(recording: Recording, turn: Turn, pieces: Sequence[bytes]) -> tuple[bytes, list[Item]]:
    """The bytes that a turn relays, and what else it says."""
    said: list[Item] = []
    relayed: list[bytes] = []
    end = turn.cut if recording.is_cut else turn.finish
    for items in itertools.chain((turn.feed(piece) for piece in pieces), (end(),)):
        for item in items:
            if isinstance(item, Relay):
                relayed.append(item.data)
            else:
                said.append(item)
    return b"".join(relayed), said


def account_of(recording: Recording, items: list[Item]) -> list[Record]:
    """What is recorded of what was said."""
    records: list[Record] = []
    interception = Interception([], record=records.append)
    interception.admitted(None, recorded=True)
    interception.status = recording.status
    interception.request_id = next(
        (value for name, value in recording.headers if name.lower() in ("request-id", "x-request-id")), None
    )
    for item in items:
        interception.note(item)
    if recording.is_cut:
        interception.finish("upstream_truncated", "reset")
    else:
        interception.finish_at_end()
    return records


def of_kind(records: list[Record], kind: type[Kind]) -> list[Kind]:
    return [record for record in records if isinstance(record, kind)]


def check(recording: Recording, records: list[Record]) -> None:
    """Compare all that was recorded with what the recording expects."""
    expected = recording.expected
    if "needs" in expected and decoder_for(expected["needs"]) is None:
        expected = expected | {"usage": None}
    (end,) = of_kind(records, InterceptionEnd)
    assert records[-1] is end
    assert (end.status, end.error_type) == (expected["status"], error_type_of(expected))
    if "error" in expected:
        assert end.error_message == expected["error"]
    check_usage(expected, of_kind(records, TokenUsage))
    assert [each.prompt for each in of_kind(records, PromptUsage)] == expected["prompts"]
    thoughts = [[each.content, each.metadata["source"]] for each in of_kind(records, ModelThought)]
    assert thoughts == expected.get("thoughts", [])
    check_tools(expected, of_kind(records, ToolUsage))
    assert len({record.id for record in records}) == len(records)
    assert len({interception_of(record) for record in records}) == 1
    for record in records:
        assert encode(record)


def error_type_of(expected: dict[str, Any]) -> str | None:
    default = None if expected["status"] == "completed" else expected["status"]
    kind: str | None = expected.get("error_type", default)
    return kind


def check_usage(expected: dict[str, Any], usages: list[TokenUsage]) -> None:
    if expected["usage"] is None:
        assert usages == []
        return
    (usage,) = usages
    assert [usage.input, usage.output, usage.cache_read, usage.cache_write] == expected["usage"]
    assert usage.extra == expected.get("extra", {})
    assert usage.message_id == expected["message_id"]
    assert usage.metadata.get("finish_reason") == expected["finish_reason"]


def check_tools(expected: dict[str, Any], calls: list[ToolUsage]) -> None:
    tools = [
        [each.tool, each.input, each.tool_call_id, each.metadata["kind"], each.item_id] for each in calls
    ]
    assert tools == [[*tool, None][:5] for tool in expected.get("tools", [])]
    assert {each.message_id for each in calls} <= {expected["message_id"]}


@each_recording
def test_whole(recording: Recording) -> None:
    """As one piece."""
    relayed, said = replayed(recording, turn_of(recording), [recording.body])
    assert relayed == recording.relayed
    check(recording, account_of(recording, said))


@each_recording
def test_byte_by_byte(recording: Recording) -> None:
    """As slowly as bytes can come. Only of a long answer's middle they come faster."""
    body = recording.body
    middle = body[FIRST:-FIRST]
    pieces = [*singly(body[:FIRST]), middle, *singly(body[max(len(body) - FIRST, FIRST) :])]
    assert b"".join(pieces) == body
    whole = replayed(recording, turn_of(recording), [body])
    assert replayed(recording, turn_of(recording), [piece for piece in pieces if piece]) == whole


def singly(data: bytes) -> Iterator[bytes]:
    return (data[place : place + 1] for place in range(len(data)))


@pytest.mark.slow
@each_recording
def test_split_at_every_place(recording: Recording) -> None:
    """Where one read ends and the next begins says nothing."""
    body = recording.abridged
    whole = replayed(recording, turn_of(recording), [body])
    for place in range(1, min(len(body), FIRST)):
        split = replayed(recording, turn_of(recording), [body[:place], body[place:]])
        assert split == whole, place


class Providers(ScriptedHost):
    """Services of a host with both providers at one address."""

    def providers(self) -> ProviderSet:
        settings = (
            ProviderSettings("anthropic", "anthropic", self.base_url, ("sk-host",)),
            ProviderSettings("openai", "openai", f"{self.base_url}/v1", ("sk-host",)),
        )
        return ProviderSet(tuple(ProviderConfig(each) for each in settings), self.version)


def script_of(recording: Recording) -> Callable[[Peer], None]:
    """A provider that answers as recorded, and keeps what it was asked."""

    def script(peer: Peer) -> None:
        assert peer.read_request()
        head = b"".join(f"{name}: {value}\r\n".encode() for name, value in recording.headers)
        peer.send(b"HTTP/1.1 %d Recorded\r\n" % recording.status + head + framed(recording))
        if not recording.is_cut and "no length" not in recording.delivery:
            peer.is_gone()

    return script


def framed(recording: Recording) -> bytes:
    body = recording.body
    if "no length" in recording.delivery:
        return b"Connection: close\r\n\r\n" + body
    if recording.media_type != "text/event-stream" or "length" in recording.delivery:
        return b"Content-Length: %d\r\n\r\n" % (len(body) + recording.is_cut) + body
    last = b"0\r\nX-Took: 3\r\n\r\n" if "trailers" in recording.delivery else chunk(b"")
    half = len(body) // 2
    chunks = chunk(body[:half]) + chunk(body[half:])
    return b"Transfer-Encoding: chunked\r\n\r\n" + chunks + (b"" if recording.is_cut else last)


def body_of(reply: Reply) -> bytes:
    """All bytes that arrive, of a body that breaks off too."""
    if reply.complete:
        return reply.body
    received: list[bytes] = []
    with suppress(UpstreamBroken):
        received.extend(reply.iterator)
    reply.close()
    return b"".join(received)


@pytest.mark.parametrize("door", ["public", "in process"])
@each_recording
def test_through_the_bridge(recording: Recording, door: str, hook: RecordingHook) -> None:
    """Both doors: what the caller gets, what the provider gets, and what is recorded."""
    options: dict[str, Any] = {"headers": {"X-Api-Key": KEY}}
    if recording.status == 401:  # callers get to see one only if it was their own key that was not accepted
        options = {"headers": {"X-AIBridge-Token": KEY, "Authorization": "Bearer sk-own"}}
    if door == "in process":
        options["flask_aibridge.cancellation"] = FakeCancellation()
    with ScriptedUpstream(script_of(recording)) as server:
        host = Providers(server.base_url)
        with closing(
            Bridge(recording=lambda: host, hooks=[hook], options=BridgeOptions(allow_byok=True))
        ) as bridge:
            reply = call(bridge, "POST", recording.path, recording.request, **options)
            body = body_of(reply)
    (peer,) = server.peers
    assert peer.requests[0][1] == sent_upstream(recording)
    is_replaced = recording.is_cut and recording.media_type == "application/json"
    assert reply.status == (502 if is_replaced else recording.status)
    if not is_replaced:
        assert body == recording.relayed
        assert reply.headers.get("content-length") in (None, str(len(body)))
    check(recording, host.records)
    assert hook.record.outcome == recording.expected["status"]
    ((start, _),) = host.admitted
    assert start is not None
    assert start.model == recording.expected.get("model", recording.document.get("model"))
    assert start.correlating_tool_call_id == recording.expected.get("answers")
