"""Whole requests with injected tools, replayed: what the caller gets, what the provider is asked, what is recorded; in
any pieces, and by both doors."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import pytest

from flask_aibridge.bridge import Bridge
from flask_aibridge.bridge.answers import relay
from flask_aibridge.bridge.injection.injector import WEAVERS, Injector
from flask_aibridge.bridge.injection.rounds import Rounds
from flask_aibridge.bridge.injection.tools import InjectedCall, ToolResult
from flask_aibridge.bridge.intercept.streaming import StreamedBody
from flask_aibridge.bridge.intercept.wire_format import WireFormat
from flask_aibridge.bridge.interception import Interception
from flask_aibridge.bridge.occupancy import Occupancy
from flask_aibridge.bridge.options import BridgeOptions
from flask_aibridge.bridge.providers.anthropic import Anthropic
from flask_aibridge.bridge.providers.openai import OpenAI
from flask_aibridge.bridge.upstream import Answer, UpstreamBroken
from flask_aibridge.services.records import (
    InterceptionEnd,
    ModelThought,
    PromptUsage,
    Record,
    TokenUsage,
    ToolUsage,
)
from tests.bridge.test_admission import KEY
from tests.bridge.test_recordings import FIRST, Providers, body_of, of_kind, singly
from tests.bridge.upstreams import Peer, ScriptedUpstream, answering
from tests.bridge.wsgi import DEADLINE, FakeCancellation, call
from tests.recordings import injected
from tests.recordings.injected import TOOL, Story

each_story = pytest.mark.parametrize("story", injected.ALL, ids=str)
Pieces = Callable[[bytes], Iterable[bytes]]


class Arrived(Answer):
    """An answer that comes in these pieces."""

    def __init__(self, status: int, kind: str, pieces: Iterable[bytes]) -> None:
        self.status, self.reason, self.headers, self.patient = status, "", [("Content-Type", kind)], True
        self._pieces: Iterator[bytes] = iter([piece for piece in pieces if piece])

    def read(self, patience: float | None = None) -> bytes:
        return next(self._pieces, b"")

    def close(self) -> None:
        self._pieces = iter(())


class ToolsOfStory:
    """One tool, whose results are written down."""

    def __init__(self, story: Story) -> None:
        self.tools = (TOOL,)
        self._results = list(story.results)

    def run(
        self, call: InjectedCall, stoppable: Callable[[Callable[[], None]], Callable[[], None]]
    ) -> ToolResult:
        return self._results.pop(0)

    def tools_for(self, user: str) -> ToolsOfStory:
        return self

    def close(self) -> None:
        """Nothing."""


def format_of(story: Story, *, content: bool = True) -> WireFormat:
    _, name, *rest = story.path.split("/")
    provider = Anthropic if name == "anthropic" else OpenAI
    (route,) = [route for route in provider.routes if route.path == "/" + "/".join(rest)]
    assert route.wire_format is not None
    return route.wire_format(story.document if content else None, content=content)


def replayed(story: Story, pieces: Pieces) -> tuple[bytes, list[Record], list[bytes]]:
    """What the caller gets, the records, and what the provider is asked."""
    records: list[Record] = []
    interception = Interception([], record=records.append)
    interception.admitted(None, recorded=True)
    interception.exchange = Occupancy(1, 1).enter(None)
    wire_format = format_of(story)
    answers = [Arrived(status, kind, pieces(body)) for status, kind, body in story.answers]
    asked: list[bytes] = []

    def ask(body: bytes) -> Answer:
        asked.append(body)
        return answers.pop(0)

    tools = ToolsOfStory(story)
    weaver = WEAVERS[type(wire_format)](story.document, tools.tools)
    rounds = Rounds(weaver, tools, ask, interception, lambda: format_of(story, content=False))
    answer = ask(weaver.first_request(wire_format.edit_request(story.request)))
    _, _, body = relay(rounds.follow(answer), wire_format, interception, BridgeOptions())
    given = without_id(b"".join(body))
    assert not answers, "every round is asked for"
    return given, records, asked


def without_id(given: bytes) -> bytes:
    """An error of the bridge's own has the interception's id, which is another one each time."""
    return re.sub(rb'"request_id": "[0-9a-f]{32}"', b'"request_id": "{{id}}"', given)


def check(story: Story, records: list[Record]) -> None:
    expected = story.expected
    (end,) = of_kind(records, InterceptionEnd)
    assert end.status == expected["status"]
    usages = [
        [each.input, each.output, each.cache_read, each.cache_write] for each in of_kind(records, TokenUsage)
    ]
    assert usages == ([] if expected["usage"] is None else [expected["usage"]])
    assert [each.prompt for each in of_kind(records, PromptUsage)] == expected["prompts"]
    assert [each.content for each in of_kind(records, ModelThought)] == expected.get("thoughts", [])
    tools = [
        [
            each.tool,
            each.input,
            each.tool_call_id,
            each.metadata["kind"],
            each.server_url,
            each.invocation_error,
        ]
        for each in of_kind(records, ToolUsage)
    ]
    assert tools == expected.get("tools", [])
    assert len({record.id for record in records}) == len(records)


def added(story: Story, asked: list[bytes]) -> list[Any]:
    """What each later round's request has more than the caller's: messages, or items of the input."""
    found = []
    for body in asked[1:]:
        document = json.loads(body)
        name = "messages" if "messages" in document else "input"
        before = story.document.get(name)
        items = document[name]
        found.append(
            items[len(before) :] if isinstance(before, list) and items[: len(before)] == before else items
        )
    return found


@each_story
def test_whole(story: Story) -> None:
    """As one piece."""
    given, records, asked = replayed(story, lambda body: [body])
    assert given == story.relayed
    check(story, records)
    assert added(story, asked) == story.expected["asked"]
    (first,) = {json.dumps(json.loads(body)["tools"]) for body in asked}
    assert TOOL.id in first


@each_story
def test_byte_by_byte(story: Story) -> None:
    """As slowly as bytes can come."""
    given, records, _ = replayed(story, singly)
    assert given == story.relayed
    check(story, records)


@pytest.mark.slow
@each_story
def test_split_at_every_place(story: Story) -> None:
    """Where one read ends and the next begins says nothing; in the longest of the rounds, every place."""
    longest = max(len(body) for _, _, body in story.answers)
    for place in range(1, min(longest, FIRST)):
        given, records, _ = replayed(story, lambda body, at=place: [body[:at], body[at:]])  # type: ignore[misc]
        assert given == story.relayed, place
        check(story, records)


@pytest.mark.parametrize("door", ["public", "in process"])
@each_story
def test_by_both_doors(story: Story, door: str) -> None:
    """Over real connections; the key is sent in each round, and the caller never sees that there were several."""
    with ScriptedUpstream(answering(story.answers)) as upstream:
        host = Providers(upstream.base_url)
        bridge = Bridge(hooks=[], recording=lambda: host, options=BridgeOptions(inject_mcp_tools=True))
        bridge._injector = Injector(ToolsOfStory(story))  # type: ignore[arg-type]
        options: dict[str, Any] = {"headers": {"Authorization": f"Bearer {KEY}"}}
        if door == "in process":
            options = {"flask_aibridge.cancellation": FakeCancellation()}
        with closing(bridge):
            reply = call(bridge, "POST", story.path, story.request, **options)
            given = body_of(reply)
        assert without_id(given) == story.relayed
    check(story, host.records)
    requests = [request for peer in upstream.peers for request in peer.requests]
    assert len(requests) == len(story.answers)
    assert all(b"sk-host" in head for head, _ in requests)


STREAMS = [
    each for each in injected.ALL if each.streams and len(each.answers) == 2 and each.answers[1][0] == 200
]


class Leaving(ToolsOfStory):
    """The caller leaves while the tool runs, which ends with that."""

    def __init__(self, story: Story) -> None:
        super().__init__(story)
        self.began = threading.Event()

    def run(
        self, call: InjectedCall, stoppable: Callable[[Callable[[], None]], Callable[[], None]]
    ) -> ToolResult:
        stopped = threading.Event()
        forget = stoppable(stopped.set)
        self.began.set()
        assert stopped.wait(DEADLINE)
        forget()
        return ToolResult("stopped", True)


@pytest.mark.parametrize("story", STREAMS, ids=str)
def test_what_was_used_is_recorded_when_the_caller_leaves(story: Story) -> None:
    """Else one could have tools run for nothing."""
    records: list[Record] = []
    interception = Interception([], record=records.append)
    interception.admitted(None, recorded=True)
    interception.exchange = Occupancy(1, 1).enter(None)
    wire_format = format_of(story)
    tools = Leaving(story)
    weaver = WEAVERS[type(wire_format)](story.document, tools.tools)
    first = Arrived(*story.answers[0][:2], [story.answers[0][2]])
    rounds = Rounds(weaver, tools, _never, interception, lambda: format_of(story, content=False))
    weaver.first_request(wire_format.edit_request(story.request))
    _, _, body = relay(rounds.follow(first), wire_format, interception, BridgeOptions(ping_seconds=0.01))
    assert isinstance(body, StreamedBody)
    while not tools.began.is_set():
        next(body)  # what there is, then pings
    body.close()
    (usage,) = of_kind(records, TokenUsage)
    assert (usage.input, usage.output) == (12, 9)
    (tool,) = of_kind(records, ToolUsage)
    assert (tool.tool, tool.invocation_error) == ("find", "stopped")
    (end,) = of_kind(records, InterceptionEnd)
    assert end.status == "client_closed"
    assert records[-1] is end
    assert [each.prompt for each in of_kind(records, PromptUsage)] == story.expected["prompts"]


@pytest.mark.parametrize("story", STREAMS, ids=str)
def test_what_was_used_is_recorded_when_a_later_round_breaks_off(story: Story) -> None:
    """Once, and as that of the first round: nothing is known of the other."""

    class Broken(Arrived):
        def read(self, patience: float | None = None) -> bytes:
            raise UpstreamBroken("reset")

    records: list[Record] = []
    interception = Interception([], record=records.append)
    interception.admitted(None, recorded=True)
    interception.exchange = Occupancy(1, 1).enter(None)
    wire_format = format_of(story)
    tools = ToolsOfStory(story)
    weaver = WEAVERS[type(wire_format)](story.document, tools.tools)
    weaver.first_request(wire_format.edit_request(story.request))
    rounds = Rounds(
        weaver,
        tools,
        lambda _: Broken(200, "text/event-stream", ()),
        interception,
        lambda: format_of(story, content=False),
    )
    first = Arrived(*story.answers[0][:2], [story.answers[0][2]])
    _, _, body = relay(rounds.follow(first), wire_format, interception, BridgeOptions())
    assert isinstance(body, StreamedBody)
    with pytest.raises(UpstreamBroken):
        b"".join(body)
    body.close()
    assert [(each.input, each.output) for each in of_kind(records, TokenUsage)] == [(12, 9)]
    (end,) = of_kind(records, InterceptionEnd)
    assert end.status == "upstream_truncated"


def _never(body: bytes) -> Answer:
    raise AssertionError("the provider is asked for nobody")


def test_a_document_that_breaks_off_leaves_what_was_asked() -> None:
    """And under which id the provider knows it."""
    (story,) = [each for each in injected.ALL if each.name == "messages_blocking_injected_tool"]

    def script(peer: Peer) -> None:
        assert peer.read_request()
        peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nrequest-id: req_1\r\nContent-Length: 99\r\n\r\n{"
        )

    with ScriptedUpstream(script) as upstream:
        host = Providers(upstream.base_url)
        bridge = Bridge(hooks=[], recording=lambda: host, options=BridgeOptions(inject_mcp_tools=True))
        bridge._injector = Injector(ToolsOfStory(story))  # type: ignore[arg-type]
        headers = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": "k"}
        with closing(bridge):
            assert call(bridge, "POST", story.path, story.request, headers=headers).status == 502
    assert [each.prompt for each in of_kind(host.records, PromptUsage)] == story.expected["prompts"]
    ((head, _),) = [request for peer in upstream.peers for request in peer.requests]
    assert b"idempotency-key" not in head.lower()
