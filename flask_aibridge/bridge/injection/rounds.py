"""The rounds of one request: the bridge's tools are run, and the provider is asked again, until the answer is there.

To whatever follows and relays it, the answer is one ``Answer`` like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Final, Protocol

from flask_aibridge.bridge.failover import request_id_of
from flask_aibridge.bridge.injection.plain import SSE, kind_of, plain
from flask_aibridge.bridge.injection.tools import InjectedCall, InjectedTool, ToolResult
from flask_aibridge.bridge.injection.weaver import Weaver
from flask_aibridge.bridge.injection.woven import WovenStream
from flask_aibridge.bridge.intercept.turn import MAX_PARSED_ANSWER, BlockingTurn, StreamingTurn, Turn
from flask_aibridge.bridge.intercept.vocabulary import Item, Relay, Usage
from flask_aibridge.bridge.intercept.wire_format import WireFormat
from flask_aibridge.bridge.interception import Interception
from flask_aibridge.bridge.switch import UpstreamCancelled
from flask_aibridge.bridge.upstream import Answer
from flask_aibridge.observability.hooks import TokenUsage

MAX_ROUNDS: Final = 20
"""Rounds of one request. Models need a few; one that calls for ever would spend the host's money for ever. In the last
one it may call nothing."""

TOTAL_SECONDS: Final = 600.0
"""After which nothing more is run, and the model has to answer. It is what the SDKs allow a blocking answer: whoever
still waits then is about to give up."""

MAX_CALLS: Final = 16
"""Calls of one answer that are run. It was told to make one."""

LEFT: Final = "not run: the caller had left"
NOT_RUN: Final = (
    "not run: the model called a tool of the caller's in the same answer, or did not finish the call"
)

Ask = Callable[[bytes], Answer]
"""Asks the provider with this body, with one of the keys that it takes."""


class Tools(Protocol):
    """What ``toolbox.Toolbox`` has for one user."""

    @property
    def tools(self) -> tuple[InjectedTool, ...]: ...

    def run(
        self, call: InjectedCall, stoppable: Callable[[Callable[[], None]], Callable[[], None]]
    ) -> ToolResult: ...


class Rounds:
    """The rounds of one request, after the first has been asked for.

    :param ask: asks the provider for a further round.
    :param fresh: makes the wire format that follows one round.
    """

    def __init__(
        self,
        weaver: Weaver,
        tools: Tools,
        ask: Ask,
        interception: Interception,
        fresh: Callable[[], WireFormat],
    ) -> None:
        self.weaver = weaver
        self.interception = interception
        self.fresh = fresh
        self._tools = tools
        self._known = {tool.id: tool for tool in tools.tools}
        self._ask = ask
        self._count = 1
        self._is_stopped = False
        self._noted: set[str] = set()
        self._until = monotonic() + TOTAL_SECONDS

    def follow(self, answer: Answer) -> Answer:
        """The answer to the whole request, of which ``answer`` is the first round's."""
        self.interception.request_id = request_id_of(answer)
        readable = plain(answer)
        if readable is None or answer.status != 200:
            return answer
        kind = kind_of(answer)
        if kind == SSE:
            return WovenStream(readable, self)
        return self._whole(readable) if kind == "application/json" else readable

    def go_on(self) -> Answer:
        """Run what is pending, and ask for the next round."""
        self._noted.clear()
        results = [self._run(call, number) for number, call in enumerate(self.weaver.pending)]
        self._count += 1
        is_last = self._count >= MAX_ROUNDS or monotonic() > self._until
        body = self.weaver.next_request(results, last=is_last)
        self._stay()
        answer = self._ask(body)
        try:
            return plain(answer) or answer
        except BaseException:
            answer.close()
            raise

    def stop(self) -> None:
        """Stop what :meth:`go_on` is at: nobody waits for it any more."""
        self._is_stopped = True
        exchange = self.interception.exchange
        if exchange is not None:
            exchange.halt()

    def unsaid(self, turn: Turn) -> Iterator[Item]:
        """What has been used that ``turn``, which follows what the caller gets, has not been told."""
        if self.weaver.pending:
            for call in self.weaver.pending:
                if call.call_id not in self._noted:
                    self._note(call, LEFT)
            # Nobody is asked: what came before a next round is what a weaver says that was used.
            self.weaver.next_request([ToolResult(LEFT, True)] * len(self.weaver.pending), last=True)
        apart = self.weaver.used_apart()
        for item in turn.feed(self.weaver.finish()):
            if not isinstance(item, Relay):
                yield item
        self.note_dropped()
        read = StreamingTurn(self.fresh())
        for item in (*read.feed(apart), *read.finish()) if apart else ():
            if isinstance(item, Usage):
                yield item

    def note_dropped(self) -> None:
        """Record the calls that nobody runs."""
        dropped, self.weaver.dropped = self.weaver.dropped, ()
        for call in dropped:
            self._note(call, NOT_RUN)

    def _run(self, call: InjectedCall, number: int) -> ToolResult:
        if number >= MAX_CALLS or monotonic() > self._until:
            result = ToolResult(
                "It was not run: too many calls, or too long ones, have been made already.", True
            )
        else:
            result = self._tools.run(call, self._stoppable)
        self._noted.add(call.call_id)
        self._note(call, result.text if result.is_error else None)
        self._stay()
        return result

    def _stay(self) -> None:
        """Go no further for a caller who has left."""
        if self._is_left():
            raise UpstreamCancelled("the caller gave up while a tool ran")

    def _stoppable(self, stop: Callable[[], None]) -> Callable[[], None]:
        exchange = self.interception.exchange
        return exchange.on_cancel(stop) if exchange is not None else _nothing

    def _is_left(self) -> bool:
        exchange = self.interception.exchange
        if self._is_stopped or exchange is None:
            return self._is_stopped
        return exchange.interrupted or (exchange.left and not exchange.outlives)

    def _note(self, call: InjectedCall, error: str | None) -> None:
        self.interception.note_injected(call, self._known.get(call.tool), error)

    def _whole(self, answer: Answer) -> Answer:
        """The document that all rounds make; a later round's refusal in its place."""
        earlier: list[bytes] = []
        try:
            while True:
                body = _read(answer)
                if isinstance(body, Answer):
                    self._account_for(earlier)
                    return body
                woven = self.weaver.take_document(body)
                self.note_dropped()
                if woven is not None:
                    if woven == body:  # of a later round, it is what could not be woven: an error, usually
                        self._account_for(earlier)
                    return Whole(answer, woven)
                earlier.append(body)
                answer = self.go_on()
                if answer.status != 200 or kind_of(answer) != "application/json":
                    self._account_for(earlier)
                    return answer
        except BaseException:
            self._account_for(earlier)
            answer.close()
            raise

    def _account_for(self, bodies: Sequence[bytes]) -> None:
        """Record what rounds have used whose answer never comes to be followed: once, as that of one answer."""
        used: Usage | None = None
        for body in bodies:
            turn = BlockingTurn(self.fresh())
            for item in (*turn.feed(body), *turn.finish()):
                if isinstance(item, Usage):
                    used = item if used is None else _sum(used, item)
        if used is not None:
            self.interception.note(used)


class Begun(Answer):
    """An answer of which some has been read."""

    def __init__(self, answer: Answer, pieces: list[bytes]) -> None:
        self.status, self.reason, self.headers = answer.status, answer.reason, answer.headers
        self.patient = answer.patient
        self._answer = answer
        self._pieces = pieces[::-1]

    def read(self, patience: float | None = None) -> bytes:
        return self._pieces.pop() if self._pieces else self._answer.read(patience)

    def close(self) -> None:
        self._answer.close()


class Whole(Answer):
    """An answer of which everything is here."""

    def __init__(self, answer: Answer, body: bytes) -> None:
        self.status, self.reason, self.patient = answer.status, answer.reason, answer.patient
        self.headers = [pair for pair in answer.headers if pair[0].lower() != "content-length"]
        self.headers.append(("Content-Length", str(len(body))))
        self._answer = answer
        self._body = body

    def read(self, patience: float | None = None) -> bytes:
        body, self._body = self._body, b""
        return body

    def close(self) -> None:
        self._answer.close()


def _read(answer: Answer) -> bytes | Answer:
    """The whole body; of one that is too large to be parsed, an answer that begins with what has been read."""
    pieces: list[bytes] = []
    size = 0
    while data := answer.read():
        pieces.append(data)
        size += len(data)
        if size > MAX_PARSED_ANSWER:
            return Begun(answer, pieces)
    answer.close()
    return b"".join(pieces)


def _sum(one: Usage, other: Usage) -> Usage:
    some, more = one.tokens, other.tokens
    tokens = TokenUsage(
        some.input + more.input,
        some.output + more.output,
        some.cache_read + more.cache_read,
        some.cache_write + more.cache_write,
        {name: some.extra.get(name, 0) + more.extra.get(name, 0) for name in (*some.extra, *more.extra)},
    )
    return other._replace(tokens=tokens)


def _nothing() -> None:
    return
