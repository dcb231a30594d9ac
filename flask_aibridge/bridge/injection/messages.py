"""Pure: one answer out of several of the Anthropic Messages API.

https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use. The model is given back every block
that it said, in order and as it came: it checks the signatures over its thoughts, and thoughts must stand before the
call that they led to (https://platform.claude.com/docs/en/build-with-claude/extended-thinking).
"""

from __future__ import annotations

from collections.abc import Sequence

from flask_aibridge.bridge.injection import counts, messages_requests
from flask_aibridge.bridge.injection.counts import Counts
from flask_aibridge.bridge.injection.messages_round import MAX_ROUND, Round, is_blank, read_reason
from flask_aibridge.bridge.injection.messages_stream import RoundStream
from flask_aibridge.bridge.injection.tools import InjectedTool, ToolResult
from flask_aibridge.bridge.injection.weaver import Weaver
from flask_aibridge.bridge.intercept.content import name_of
from flask_aibridge.bridge.intercept.documents import Document, member, parse_document
from flask_aibridge.bridge.intercept.splice import elements, is_utf8, with_member
from flask_aibridge.bridge.intercept.splice import member as span_of


class MessagesWeaver(Weaver):
    """One request of ``/v1/messages`` with injected tools."""

    def __init__(self, request: Document, tools: Sequence[InjectedTool]) -> None:
        super().__init__(request, messages_requests.injectable(request, tools))
        self._body = b""
        self._spent: Counts = {}  # by the rounds before this one
        self._id: bytes | None = None  # of the first round's answer, as JSON text
        self._seen: list[bytes] = []  # the blocks of answers that were documents, which the caller gets
        self._round = Round(self._tools)
        self._stream = RoundStream(self._round)

    @classmethod
    def can_weave(cls, request: Document) -> bool:
        """Not where no tool may be called, or one has to be, which is then to be one of the caller's; and not where the
        answer is to be JSON, of which there can be no more than one."""
        choice = request.get("tool_choice")
        is_free = choice is None or (isinstance(choice, dict) and choice.get("type") == "auto")
        formatted = member(request, "output_config").get("format") or request.get("output_format")
        return is_free and not formatted

    def first_request(self, body: bytes) -> bytes:
        """The body of the first round, with the tools before the caller's own."""
        if not is_utf8(body):
            self._tools.clear()
        if self._tools:
            body = messages_requests.with_tools(body, list(self._tools.values()))
            body = messages_requests.with_one_call_at_a_time(body, self._request)
        self._body = body
        return body

    def next_request(self, results: Sequence[ToolResult], *, last: bool) -> bytes:
        """The body of the round before, with what the model said and what came of its calls. In the last round the
        tools stay, as the turns before name them."""
        answers = zip(self.pending, results, strict=True)
        body = messages_requests.with_turns(self._body, self._round.content, answers)
        self._body = messages_requests.with_choice_for_next(body, self._request, last=last)
        self._spent = counts.added(self._spent, self._round.counts)
        self._round = Round(self._tools, first=False, last=last)
        before = self._stream
        self._stream = RoundStream(self._round, begun=before.begun, base=before.top, spent=self._spent)
        self.pending = ()
        return self._body

    def take_document(self, body: bytes) -> bytes | None:
        """Take a message; the caller gets the last one, with the content of all, the first one's id, and the sums."""
        document = parse_document(body)
        blocks = _blocks(body, document or {})
        if document is None or blocks is None:
            return body
        found = self._round
        found.message_id = name_of(document.get("id")) or ""
        found.is_whole, found.is_unfit = True, len(body) > MAX_ROUND
        read_reason(found, document)
        counts.update(found.counts, document.get("usage"))
        self._read(document["content"], blocks)
        if self._id is None and (span := span_of(body, "id")) is not None:
            self._id = body[span.start : span.end]
        if self._settle():
            return None
        return self._merged(body, document) if found.has_injected or not found.is_first else body

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of a round's stream; its content passes at once, the end when it is known to be one."""
        return self._stream.feed(data)

    def finish(self) -> bytes:
        """Take the end of a round's stream. One that broke off has nothing pending; what the rounds have cost is said
        then, even where nothing came of this one."""
        passing = self._stream.finish()
        self._settle()
        return passing

    def _read(self, content: list[object], blocks: list[bytes]) -> None:
        found = self._round
        for block, text in zip(content, blocks, strict=True):
            if isinstance(block, dict) and found.is_injected(block):
                given_back, arguments = _with_object(text, block)
                found.add_call(block, arguments)
                found.content.append(given_back)
                continue
            self._seen.append(text)
            if not (isinstance(block, dict) and is_blank(block)):
                found.content.append(text)

    def _settle(self) -> bool:
        calls = tuple(self._round.calls)
        goes_on = self._round.goes_on
        self.pending, self.dropped = (calls, ()) if goes_on else ((), calls)
        return goes_on

    def _merged(self, body: bytes, document: Document) -> bytes:
        found = self._round
        body = with_member(body, "content", b"[%s]" % b",".join(self._seen))
        if found.stops_for_nothing:
            body = with_member(body, "stop_reason", b'"end_turn"')
        if found.is_first:
            return body
        if self._id is not None:
            body = with_member(body, "id", self._id)
        sums = counts.added(self._spent, found.counts)
        return with_member(body, "usage", counts.written(document.get("usage"), sums)) if sums else body


def _blocks(body: bytes, document: Document) -> list[bytes] | None:
    """The texts of a message's content blocks; null for what is no message."""
    content = document.get("content")
    if document.get("type", "message") != "message" or not isinstance(content, list) or not is_utf8(body):
        return None
    span = span_of(body, "content")
    if span is None:
        return None
    text = body[span.start : span.end]
    return [text[each.start : each.end] for each in elements(text)]


def _with_object(text: bytes, block: Document) -> tuple[bytes, str]:
    """A call with an object for its input, as the provider takes nothing else back, and the input as it was written."""
    span = span_of(text, "input")
    arguments = "{}" if span is None else text[span.start : span.end].decode("utf-8", "surrogatepass")
    return (text if isinstance(block.get("input"), dict) else with_member(text, "input", b"{}")), arguments
