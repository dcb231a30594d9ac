"""Turns: every byte is relayed, whatever can be made of it."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.intercept.chat_completions import ChatCompletions
from flask_aibridge.bridge.intercept.failures import INVALID_RESPONSE
from flask_aibridge.bridge.intercept.messages import Messages
from flask_aibridge.bridge.intercept.responses import Responses
from flask_aibridge.bridge.intercept.turn import BlockingTurn, StreamingTurn, Turn, UnreadTurn
from flask_aibridge.bridge.intercept.vocabulary import Ended, Failed, Item, Prompt, Relay, Usage
from flask_aibridge.bridge.intercept.wire_format import WireFormat
from flask_aibridge.bridge.sse import SSEParser
from flask_aibridge.observability import TokenUsage
from tests.bridge.intercept.following import fed, relayed, said, sse

START = {"type": "message_start", "message": {"usage": {"input_tokens": 1, "output_tokens": 1}}}
STOP = {"type": "message_stop"}
ASKED = {"messages": [{"role": "user", "content": "hi"}]}
FORMATS = st.sampled_from([Messages, ChatCompletions, Responses])
NO_DOCUMENT = Failed(INVALID_RESPONSE, "the answer is no JSON object")


def test_bytes_are_relayed_before_they_are_read() -> None:
    """The first thing a turn says is what the caller waits for."""
    turn = StreamingTurn(Messages(ASKED))
    stream = sse(START)
    items = turn.feed(stream)
    assert next(items) == Relay(stream)
    assert next(items) == Prompt("hi")


@given(FORMATS, st.lists(st.binary(min_size=1, max_size=20), max_size=10))
def test_any_bytes_come_through_unchanged(wire_format: type[WireFormat], pieces: list[bytes]) -> None:
    """Rubbish is the provider's to send (``said`` compares the bytes)."""
    assert said(UnreadTurn(), pieces) == [Ended()]
    said(StreamingTurn(wire_format()), pieces)
    said(BlockingTurn(wire_format()), pieces)


KEYS = st.sampled_from(
    [
        *("type", "id", "index", "error", "message", "usage", "choices", "delta", "content", "content_block"),
        *(
            "tool_calls",
            "function",
            "name",
            "arguments",
            "input",
            "output",
            "item",
            "response",
            "text",
            "role",
        ),
        *("input_tokens", "prompt_tokens", "output_tokens", "finish_reason", "stop_reason", "output_index"),
        *("thinking", "partial_json", "summary", "phase", "code", "object", "status", "call_id", "action"),
    ]
)
TYPES = st.sampled_from(
    [
        *("message_start", "message_delta", "message_stop", "content_block_start", "content_block_delta"),
        *(
            "content_block_stop",
            "ping",
            "error",
            "tool_use",
            "server_tool_use",
            "thinking",
            "input_json_delta",
        ),
        *("thinking_delta", "text_delta", "response.created", "response.completed", "response.failed"),
        *("response.output_item.done", "function_call", "reasoning", "message", "web_search_call", "stop"),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats() | TYPES | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=15,
)
COUNTED: list[tuple[str | None, object]] = [
    ("message_start", {"type": "message_start", "message": {"usage": {"input_tokens": 1}}}),
    ("message_stop", {"type": "message_stop"}),
    (None, {"choices": [], "usage": {"prompt_tokens": 1}}),
    (None, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 2}}),
    ("response.completed", {"type": "response.completed", "response": {"usage": {"input_tokens": 1}}}),
]
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=6).flatmap(
    lambda document: st.sampled_from([document, document | {"type": "message_start"}])
)
EVENTS = st.tuples(st.none() | TYPES, DOCUMENTS | st.just("[DONE]")) | st.sampled_from(COUNTED)


def written(name: str | None, document: object) -> bytes:
    data = document if isinstance(document, str) else json.dumps(document)
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {data}\n\n".encode()


def usages(items: list[Item]) -> int:
    return sum(isinstance(item, Usage) for item in items)


def whole_and_split(
    make: Callable[[WireFormat], Turn], wire_format: WireFormat, other: WireFormat, data: bytes
) -> list[Item]:
    """What is said of ``data`` as one piece; in any other pieces it must be the same."""
    whole = fed(make(wire_format), [data])
    cuts = sorted(random.Random(len(data)).sample(range(len(data) + 1), min(len(data), 8)))
    places = [0, *cuts, len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(places) if start < end]
    split = fed(make(other), pieces)
    assert relayed(split) == relayed(whole)
    assert [item for item in split if not isinstance(item, Relay)] == [
        item for item in whole if not isinstance(item, Relay)
    ]
    return whole


@given(FORMATS, st.booleans(), st.lists(EVENTS, max_size=8))
def test_any_events_are_followed_without_an_error(
    wire_format: type[WireFormat], content: bool, events: list[tuple[str | None, object]]
) -> None:
    """Whatever stands where, nothing is raised, every byte passes, and usage is said at most once."""
    stream = b"".join(written(name, document) for name, document in events)
    one, two = wire_format(ASKED, content=content), wire_format(ASKED, content=content)
    items = whole_and_split(StreamingTurn, one, two, stream)
    assert relayed(items) == stream
    assert usages(items) <= 1
    assert items.count(Ended()) <= 1
    turn = StreamingTurn(wire_format(ASKED, content=content))
    cut = [*turn.feed(stream), *turn.cut(), *turn.finish(), *turn.cut()]
    assert relayed(cut) == stream
    assert usages(cut) <= 1


@given(FORMATS, DOCUMENTS)
def test_any_document_is_read_without_an_error(wire_format: type[WireFormat], document: object) -> None:
    """Blocking answers too."""
    body = json.dumps(document).encode()
    items = whole_and_split(BlockingTurn, wire_format(ASKED), wire_format(ASKED), body)
    assert relayed(items) == body
    assert usages(items) <= 1
    assert items[-1] == Ended()


@given(FORMATS, DOCUMENTS)
def test_any_request_is_taken(wire_format: type[WireFormat], document: dict[str, object]) -> None:
    """What it asks for may be anything; it goes on, and nothing is raised."""
    body = json.dumps(document).encode()
    assert wire_format(document).edit_request(body).startswith(body.rstrip()[:-1])


@given(st.lists(EVENTS, max_size=8))
def test_only_chunks_of_usage_are_withheld(events: list[tuple[str | None, object]]) -> None:
    """Any other event passes whole, in its place."""
    wire_format = ChatCompletions({"stream": True})
    wire_format.edit_request(b'{"stream":true}')
    kept = [
        written(name, document)
        for name, document in events
        if not (
            isinstance(document, dict)
            and document.get("choices") == []
            and isinstance(document.get("usage"), dict)
        )
    ]
    stream = b"".join(written(name, document) for name, document in events)
    assert relayed(fed(StreamingTurn(wire_format), [stream])) == b"".join(kept)


def test_a_stream_too_large_to_follow_counts_as_ended() -> None:
    """Nobody looked for its last word, so nobody can say that it is missing; what was known is said."""
    turn = StreamingTurn(Messages(ASKED), SSEParser(max_event_bytes=10))
    assert said(turn, [sse(START), sse(STOP)]) == [Prompt("hi"), Ended()]


def test_a_document_larger_than_the_limit_is_relayed_unread() -> None:
    """At the limit it is still read."""
    body = json.dumps({"usage": {"input_tokens": 1}}).encode()
    assert said(BlockingTurn(Messages(), limit=len(body)), [body[:5], body[5:]]) == [
        Usage(TokenUsage(1)),
        Ended(),
    ]
    assert said(BlockingTurn(Messages(), limit=len(body) - 1), [body[:5], body[5:]]) == [Ended()]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"1", b"null", b"\xff", b" \n"])
def test_what_is_no_document_is_the_providers_failure(body: bytes) -> None:
    """A proxy's page, or nothing at all."""
    assert said(BlockingTurn(Messages()), [body] if body else []) == [NO_DOCUMENT]


@pytest.mark.parametrize("body", [b"{", b' {"usage": {"input_tokens": 1}', b'{"a": "\\'])
def test_half_a_document_is_no_end(body: bytes) -> None:
    """Nothing says that the answer is whole."""
    assert said(BlockingTurn(Messages()), [body]) == []


def test_an_answer_that_cannot_be_read_still_has_its_prompt() -> None:
    """What was asked is known from the request."""
    assert said(UnreadTurn(Messages(ASKED)), [b"x"]) == [Prompt("hi"), Ended()]
    assert said(BlockingTurn(Messages(ASKED)), [b"x"]) == [NO_DOCUMENT, Prompt("hi")]
    turn = BlockingTurn(Messages(ASKED))
    assert [*turn.feed(b"{"), *turn.cut()] == [Relay(b"{"), Prompt("hi")]
