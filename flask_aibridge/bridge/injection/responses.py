"""Pure: one answer of the OpenAI Responses API out of several rounds.

A tool of the bridge's is a function tool, its result a ``function_call_output`` item:
https://platform.openai.com/docs/guides/function-calling. The next round follows on the last one by
``previous_response_id``, or, where nothing is stored, has all items in its ``input``:
https://platform.openai.com/docs/guides/conversation-state.

Ids of a response and of its items belong together, and a caller may name them later. So a stream is a round's or none:
it is held until it is known that there is nothing to run, and goes out as it came.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final

from flask_aibridge.bridge.injection.blocks import Blocks, event_of
from flask_aibridge.bridge.injection.response_events import (
    ADDED,
    DONE,
    TERMINAL,
    OutputItem,
    Response,
    Sieve,
    added,
    read,
    word,
)
from flask_aibridge.bridge.injection.response_requests import continued, output_of, with_choice, with_tools
from flask_aibridge.bridge.injection.tools import InjectedCall, InjectedTool, ToolResult
from flask_aibridge.bridge.injection.weaver import Weaver
from flask_aibridge.bridge.intercept.content import dicts, json_text
from flask_aibridge.bridge.intercept.documents import Document, parse_document
from flask_aibridge.bridge.intercept.splice import is_utf8, with_member

MAX_HELD: Final = 16 * 1024 * 1024
"""Bytes of one round's stream that are held: some 60,000 tokens, of which each is an event of about 250 bytes, or two
pictures. A longer round goes out as it comes, and what it calls is not run."""

_DECISIVE: Final = re.compile(rb"response\.(?:completed|incomplete|failed|output_item\.added)|error")
"""What is in every event after which it may be known whether a round goes out."""

_SURELY_CALLERS: Final = frozenset({"function_call", "custom_tool_call"})
_CALLERS: Final = _SURELY_CALLERS | {
    "local_shell_call",
    "shell_call",
    "apply_patch_call",
    "computer_call",
    "mcp_approval_request",
}
"""Items that wait for the caller, unless their output stands beside them, as with a shell that the provider runs."""


class ResponsesWeaver(Weaver):
    """One request to ``/v1/responses``. A tool of the caller's wins over an injected one of the same name."""

    def __init__(self, request: Document, tools: Sequence[InjectedTool]) -> None:
        super().__init__(request, tools)
        theirs = request.get("tools")
        if theirs is not None and not isinstance(theirs, list):
            self._tools = {}  # for the provider to refuse
        for tool in dicts(theirs):
            self._tools.pop(word(tool, "name"), None)
        self._body = b""
        self._history: list[bytes] = []  # items of all rounds, and their results
        self._used: Document = {}  # in the rounds before this one
        self._answer: Response | None = None  # the last round's, where something was pending
        self._created = b""  # the event by which it began
        self._begin_round(is_last=False)

    @classmethod
    def can_weave(cls, request: Document) -> bool:
        """Not in the background, where the answer is not in the answer; not where no tool may be called, or some only,
        or one has to be, which is then to be one of the caller's; and not where there is no telling what a further
        round would follow on."""
        if request.get("background") is True or request.get("tool_choice") not in (None, "auto"):
            return False
        asked = request.get("input")
        if asked is None:  # there may be a stored prompt
            return request.get("store") is not False
        return isinstance(asked, str | list)

    def first_request(self, body: bytes) -> bytes:
        """The caller's tools come first, so that what a provider has cached of them stays good."""
        if not is_utf8(body):
            self._tools = {}
        self._body = with_tools(body, self._request, [*self._tools.values()]) if self._tools else body
        return self._body

    def next_request(self, results: Sequence[ToolResult], *, last: bool) -> bytes:
        """What the caller had the model do first, it has done: it is free to answer."""
        outputs = [output_of(call, result) for call, result in zip(self.pending, results, strict=True)]
        self._history.extend(outputs)
        answer = self._answer.document if self._answer is not None else {}
        body = continued(self._body, self._request, answer, outputs, self._history)
        body = with_choice(body, self._request, last=last)
        self._begin_round(is_last=last)
        return body

    def take_document(self, body: bytes) -> bytes | None:
        """The last round's document is the answer: its id is the one that the next request can name."""
        document = parse_document(body) if self._tools and is_utf8(body) else None
        if document is None or not (isinstance(document.get("output"), list) or "status" in document):
            return body
        response = Response(body, document)
        self._weigh(response, response.items)
        if self.pending:
            return None
        return self._finished(response).text

    def feed(self, data: bytes) -> bytes:
        """Nothing, as long as the round may have something to be run."""
        if not self._tools:
            return data
        return b"".join([self._taken(block) for block in self._blocks.feed(data)])

    def finish(self) -> bytes:
        """What is held of a round that broke off, or that ended in no way that is known."""
        rest = self._blocks.rest()
        passing = self._taken(rest) if rest else b""
        if self.pending:
            return b""
        passing += self._let_go()
        known = {call.call_id for call in self.dropped}
        late = [_call(item, self._message_id) for item in self._sieve.gone.values()]
        self.dropped += tuple(call for call in late if call.call_id not in known)
        return passing

    def give_up(self, event: bytes) -> bytes:
        """A response that failed: it has a usage, which a bare ``error`` event has not."""
        said = event_of(event)
        reason = parse_document(said.data) if said is not None else None
        if self._answer is None or reason is None:
            return event
        error = {"code": "server_error", "message": reason.get("message")}
        response = self._answer.with_output(())
        response = response.with_usage(self._used) if self._used else response
        text = with_member(response.text, "status", b'"failed"')
        text = with_member(text, "error", json.dumps(error).encode())
        number = b"%d" % int(bool(self._created))
        return self._created + (
            b"event: response.failed\n"
            b'data: {"type":"response.failed","sequence_number":%s,"response":%s}\n\n'
            % (number, b" ".join(text.splitlines()))
        )

    def used_apart(self) -> bytes:
        """The response of the rounds before, whose usage no caller has been told."""
        if self._answer is None or not self._used:
            return b""
        text = self._answer.with_output(()).with_usage(self._used).text
        return (
            b'event: response.completed\ndata: {"type":"response.completed","response":%s}\n\n'
            % b" ".join(text.splitlines())
        )

    # Answers

    def _begin_round(self, *, is_last: bool) -> None:
        self.pending = ()
        self._blocks = Blocks()
        self._held: list[bytes] = []
        self._size = 0
        self._message_id = ""
        self._goes_out = is_last
        self._sieve = Sieve(self._is_injected, self._finished_late)

    def _is_injected(self, item: Document) -> bool:
        return item.get("type") == "function_call" and word(item, "name") in self._tools

    def _weigh(self, response: Response, items: Sequence[OutputItem]) -> None:
        """Find out what is to be run, and whether it is."""
        self._message_id = word(response.document, "id")
        injected = [item.document for item in items if self._is_injected(item.document)]
        calls = tuple(_call(item, self._message_id) for item in injected)
        is_whole = response.document.get("status") in (None, "completed") and all(map(_is_whole, injected))
        if self._goes_out or not is_whole or self._waits_for_caller(items):
            self.dropped = calls
        elif calls:
            self.pending = calls
            self._answer = response
            self._used = added(self._used, _usage(response))
            self._history.extend(item.text for item in items if not _is_lost(item.document))

    def _waits_for_caller(self, items: Sequence[OutputItem]) -> bool:
        found = [item.document for item in items if not self._is_injected(item.document)]
        answered = {word(item, "call_id") for item in found if word(item, "type").endswith("_output")}
        calls = [item for item in found if word(item, "type") in _CALLERS]
        return any(word(call, "call_id") not in answered for call in calls)

    def _finished(self, response: Response) -> Response:
        """A response as the caller gets it: the same, unless there were others before it or calls in it that nobody
        runs."""
        items = response.items
        kept = [item for item in items if not self._is_injected(item.document)]
        finished = response if len(kept) == len(items) else response.with_output(kept)
        return finished.with_usage(added(self._used, _usage(response))) if self._used else finished

    # Streams

    def _taken(self, block: bytes) -> bytes:
        if self.pending:
            return b""
        if self._goes_out:
            return self._sieve.passed(block)
        self._held.append(block)
        self._size += len(block)
        return self._let_go() if self._is_decided(block) or self._size > MAX_HELD else b""

    def _let_go(self) -> bytes:
        self._goes_out = True
        held, self._held = self._held, []
        return b"".join([self._sieve.passed(block) for block in held])

    def _is_decided(self, block: bytes) -> bool:
        """Whether it is known that the round goes out. Where it is known that it does not, something is pending."""
        event = read(block) if _DECISIVE.search(block) else None
        if event is None:
            return False
        if event.kind == ADDED:
            item = event.item.document
            return word(item, "type") in _SURELY_CALLERS and not self._is_injected(item)
        response = event.response if event.kind in TERMINAL else None
        if response is None:
            return event.kind == "error"
        self._weigh(response, response.items or self._items_done())
        if self.pending:
            self._created = b"".join(held for held in self._held[:1] if b"response.created" in held)
            self._held = []
        return not self.pending

    def _items_done(self) -> list[OutputItem]:
        """The items that came as events, where the terminal one does not repeat them."""
        events = [read(block) for block in self._held if DONE.encode() in block]
        done = [event for event in events if event is not None and event.kind == DONE]
        return [event.item for event in sorted(done, key=lambda event: event.output_index or 0)]

    def _finished_late(self, response: Response) -> Response:
        if not self.dropped:
            self._weigh(response, response.items)
        return self._finished(response)


def _call(item: Document, message_id: str) -> InjectedCall:
    given: object = item.get("arguments")
    arguments = word(item, "arguments") if given is None or isinstance(given, str) else json_text(given)
    name, call_id, item_id = word(item, "name"), word(item, "call_id"), word(item, "id")
    return InjectedCall(call_id, name, arguments, message_id, item_id or None)


def _is_whole(item: Document) -> bool:
    """Whether a call can be run and answered."""
    return word(item, "call_id") != "" and item.get("status") != "incomplete"


def _is_lost(item: Document) -> bool:
    """Whether a provider that stores nothing could not make anything of an item: it takes reasoning for the name of
    what it has stored, unless it is all there, sealed or, as vLLM has it, plain."""
    return item.get("type") == "reasoning" and not (item.get("encrypted_content") or item.get("content"))


def _usage(response: Response) -> Document:
    usage = response.document.get("usage")
    return usage if isinstance(usage, dict) else {}
