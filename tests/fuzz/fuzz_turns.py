"""Any bytes into any turn machine: nothing is raised, the same bytes come out, nothing is said twice.

``python -m tests.fuzz`` searches for bytes that break it, with atheris; ``one_input`` tries one input, without.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from flask_aibridge.bridge.intercept.chat_completions import ChatCompletions
from flask_aibridge.bridge.intercept.decoding import DecodedTurn, decoder_for
from flask_aibridge.bridge.intercept.documents import parse_document
from flask_aibridge.bridge.intercept.messages import Messages
from flask_aibridge.bridge.intercept.responses import Compaction, Responses
from flask_aibridge.bridge.intercept.turn import BlockingTurn, StreamingTurn, Turn, UnreadTurn
from flask_aibridge.bridge.intercept.vocabulary import Ended, Item, Prompt, Relay, Usage
from flask_aibridge.bridge.intercept.wire_format import WireFormat

FORMATS: Final[tuple[type[WireFormat], ...]] = (Messages, ChatCompletions, Responses, Compaction)
MACHINES: Final[tuple[Callable[[WireFormat], Turn], ...]] = (StreamingTurn, BlockingTurn, UnreadTurn)
CODINGS: Final = ("identity", "gzip", "deflate", "br", "zstd")
COMPRESS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": lambda body: gzip.compress(body, 1, mtime=0),
    "deflate": zlib.compress,
}

PROMPT: Final = "hi"
_TURN: Final[list[object]] = [{"role": "user", "content": PROMPT}]
HEADER: Final = 3
"""Bytes of an input that say what is done with the rest of it."""


class Case(NamedTuple):
    """What an input says: which machine reads which bytes, in which pieces, and how they end."""

    format: type[WireFormat]
    machine: Callable[[WireFormat], Turn]
    coding: str
    content: bool
    asked: bool
    is_cut: bool
    is_sound: bool
    body: bytes
    piece: int

    def turn(self) -> Turn:
        """The machine, made anew."""
        member = "input" if issubclass(self.format, Responses) else "messages"
        wire_format = self.format({"stream": True, member: _TURN}, content=self.content)
        if self.asked:
            wire_format.edit_request(b'{"stream":true}')
        decoder = None if self.coding == "identity" else decoder_for(self.coding)
        turn = self.machine(wire_format)
        return turn if decoder is None else DecodedTurn(turn, decoder)

    @property
    def may_withhold(self) -> bool:
        """Whether the machine may keep an event from the caller."""
        is_plain = self.coding == "identity" or decoder_for(self.coding) is None
        return self.asked and is_plain and self.format is ChatCompletions and self.machine is StreamingTurn


def case_of(data: bytes) -> Case:
    """Read an input: three bytes that choose, then those that the provider sends. Where bit 3 of the second is set,
    they are compressed first, so that what is searched through is what a decoder lets pass."""
    which, how, piece = data[:HEADER]
    body = data[HEADER:]
    coding = CODINGS[how // 16 % len(CODINGS)]
    compress = COMPRESS.get(coding) if how & 8 else None
    if compress is not None:
        body = compress(body)
    return Case(
        format=FORMATS[which % len(FORMATS)],
        machine=MACHINES[which // len(FORMATS) % len(MACHINES)],
        coding=coding,
        content=bool(how & 1),
        asked=bool(how & 2),
        is_cut=bool(how & 4),
        is_sound=coding == "identity" or compress is not None,
        body=body,
        piece=piece + 1,
    )


def one_input(data: bytes) -> None:
    """Try one input; raises ``AssertionError`` for a promise that is broken, and whatever a machine raises."""
    if len(data) < HEADER:
        return
    case = case_of(data)
    whole, split = said(case, len(case.body) or 1), said(case, case.piece)
    check(case, whole)
    check(case, split)
    if case.is_sound:  # how much of damaged data a decoder gives out depends on the reads
        assert words(whole) == words(split), "where a read ends makes a difference"
    assert relayed(whole) == relayed(split), "where a read ends makes a difference to the bytes"
    check_request(case)


def said(case: Case, size: int) -> list[Item]:
    """All that a machine says of a case, in pieces of ``size`` bytes."""
    turn = case.turn()
    items = [item for piece in _pieces(case.body, size) for item in turn.feed(piece)]
    if not case.is_cut:
        items.extend(turn.finish())
    last = list(turn.cut())  # whoever closes a body says so, after its end as well
    assert Ended() not in last, "what broke off is no end"
    return items + last


def check(case: Case, items: list[Item]) -> None:
    """Compare what was said with what every machine promises."""
    once = (Usage, Prompt, Ended) if case.is_sound else (Usage, Prompt)  # after damage the end is said anew
    for kind in once:
        assert sum(isinstance(item, kind) for item in items) <= 1, f"{kind.__name__} was said twice"
    assert Relay(b"") not in items, "an empty relay ends a chunked body"
    prompts = [item.text for item in items if isinstance(item, Prompt)]
    is_asked = case.content and case.format is not Compaction  # for which nobody says anything
    assert prompts == [PROMPT] * is_asked, "the prompt is known from the request"
    out = relayed(items)
    if case.may_withhold:
        assert is_rest_of(out, case.body), "bytes were added, or changed places"
    else:
        assert out == case.body, "other bytes came out than went in"


def check_request(case: Case) -> None:
    """Take the same bytes for a request: what is edited differs in that one member."""
    document = parse_document(case.body)
    if document is None:
        return
    edited = case.format(document, content=case.content).edit_request(case.body)
    if edited == case.body:
        return
    after = parse_document(edited)
    assert after is not None, "a request that was edited is no JSON any more"
    options = after.pop("stream_options")
    assert options.pop("include_usage") is True
    before = {name: value for name, value in document.items() if name != "stream_options"}
    assert repr(after) == repr(before), "another member has changed"


def relayed(items: list[Item]) -> bytes:
    """The bytes that go to the caller."""
    return b"".join(item.data for item in items if isinstance(item, Relay))


def words(items: list[Item]) -> list[Item]:
    """What is said beside them."""
    return [item for item in items if not isinstance(item, Relay)]


def is_rest_of(out: bytes, body: bytes) -> bool:
    """Whether ``out`` is ``body`` with something left out."""
    rest = iter(body)
    return all(byte in rest for byte in out)


def _pieces(body: bytes, size: int) -> Iterator[bytes]:
    places = [*range(0, len(body), size), len(body)]
    return (body[start:end] for start, end in pairwise(places))


def seeds() -> Iterator[tuple[str, bytes]]:
    """Inputs to begin with: the recordings, each to the machine that it is for."""
    from tests import recordings

    for recording in recordings.ALL:
        is_stream = recording.media_type == "text/event-stream"
        place = {"messages": 0, "completions": 1, "responses": 2, "compact": 3}[
            recording.path.rsplit("/", 1)[-1]
        ]
        coding = CODINGS.index(recording.encoding) if recording.encoding in CODINGS else 0
        how = 1 + 2 * ("withheld" in recording.expected) + 4 * recording.is_cut + 16 * coding
        which = place + len(FORMATS) * (not is_stream)
        yield recording.name, bytes((which, how, 6)) + recording.abridged
