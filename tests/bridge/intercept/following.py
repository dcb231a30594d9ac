"""Feeding turn machines."""

from __future__ import annotations

import json
from collections.abc import Iterable

from flask_aibridge.bridge.intercept.turn import BlockingTurn, StreamingTurn, Turn
from flask_aibridge.bridge.intercept.vocabulary import Item, Relay
from flask_aibridge.bridge.intercept.wire_format import WireFormat


def sse(*documents: object, named: bool = True) -> bytes:
    """Write documents as events, named after their type."""
    events = []
    for document in documents:
        name = f"event: {document['type']}\n" if named and isinstance(document, dict) else ""
        data = document if isinstance(document, str) else json.dumps(document)
        events.append(f"{name}data: {data}\n\n")
    return "".join(events).encode()


def relayed(items: Iterable[Item]) -> bytes:
    """The bytes among what was said."""
    return b"".join(item.data for item in items if isinstance(item, Relay))


def fed(turn: Turn, pieces: Iterable[bytes]) -> list[Item]:
    """Feed a turn to its end, and return all it said; no relay may be empty."""
    items = [item for piece in pieces for item in turn.feed(piece)]
    items.extend(turn.finish())
    assert Relay(b"") not in items
    return items


def said(turn: Turn, pieces: Iterable[bytes]) -> list[Item]:
    """Feed a turn to its end, and return all it said but the bytes, which must come through unchanged."""
    pieces = list(pieces)
    items = fed(turn, pieces)
    assert relayed(items) == b"".join(pieces)
    return [item for item in items if not isinstance(item, Relay)]


def streamed(wire_format: WireFormat, stream: bytes, size: int = 1) -> list[Item]:
    """Say what a stream means that arrives in pieces of ``size`` bytes."""
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    return said(StreamingTurn(wire_format), pieces)


def cut_off(wire_format: WireFormat, stream: bytes) -> list[Item]:
    """Say what a stream means that breaks off."""
    turn = StreamingTurn(wire_format)
    items = [*turn.feed(stream), *turn.cut()]
    assert relayed(items) == stream
    return [item for item in items if not isinstance(item, Relay)]


def answered(wire_format: WireFormat, document: object) -> list[Item]:
    """Say what a blocking answer means."""
    return said(BlockingTurn(wire_format), [json.dumps(document).encode()])
