"""Rounds: one answer out of several, whatever becomes of the tools, the provider and the caller meanwhile."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from flask_aibridge.bridge.injection import rounds as module
from flask_aibridge.bridge.injection.rounds import NOT_RUN, Rounds
from flask_aibridge.bridge.injection.tools import InjectedCall, InjectedTool, ToolResult
from flask_aibridge.bridge.injection.weaver import Weaver
from flask_aibridge.bridge.injection.woven import Step, WovenStream
from flask_aibridge.bridge.intercept.messages import Messages
from flask_aibridge.bridge.interception import Interception
from flask_aibridge.bridge.occupancy import Occupancy
from flask_aibridge.bridge.request import Refused
from flask_aibridge.bridge.switch import UpstreamBroken, UpstreamCancelled, UpstreamFailure, UpstreamSilent
from flask_aibridge.bridge.upstream import Answer
from flask_aibridge.services.records import Record, TokenUsage, ToolUsage
from tests.conftest import DEADLINE_SECONDS

TOOL = InjectedTool("bmcp_s_find", "s", "https://s.invalid/mcp", "find", "Finds.", {"type": "object"})
SSE = ("Content-Type", "text/event-stream")
JSON = ("Content-Type", "application/json")
FOUND = ToolResult("found")


class Scripted(Answer):
    """An answer of these pieces; an exception among them is raised in its turn."""

    def __init__(
        self, *pieces: bytes | Exception, status: int = 200, headers: Iterable[tuple[str, str]] = (SSE,)
    ):
        self.status, self.reason, self.headers, self.patient = status, "Why", list(headers), True
        self.pieces = list(pieces)
        self.closed = threading.Event()

    def read(self, patience: float | None = None) -> bytes:
        piece = self.pieces.pop(0) if self.pieces else b""
        if isinstance(piece, Exception):
            raise piece
        return piece

    def close(self) -> None:
        self.closed.set()


class LineWeaver(Weaver):
    """A format of one word a round: ``call`` calls the tool, ``mixed`` calls it in vain, anything else is the end."""

    def __init__(self) -> None:
        super().__init__({}, [TOOL])
        self.asked: list[tuple[list[str], bool]] = []
        self._held = b""

    def first_request(self, body: bytes) -> bytes:
        return body

    def next_request(self, results: Sequence[ToolResult], *, last: bool) -> bytes:
        self.asked.append(([result.text for result in results], last))
        self.pending = ()
        return b"round %d" % (len(self.asked) + 1)

    def take_document(self, body: bytes) -> bytes | None:
        self._held = body
        rest = self.finish()
        return None if self.pending else rest

    def feed(self, data: bytes) -> bytes:
        self._held = data
        return b"" if data in (b"call", b"mixed") else data

    def finish(self) -> bytes:
        call = InjectedCall("c1", TOOL.id, '{"q": 1}', "msg_1")
        if self._held == b"call" and not (self.asked and self.asked[-1][1]):
            self.pending = (call,)
        elif self._held == b"mixed":
            self.dropped = (call,)
        return b""

    def give_up(self, event: bytes) -> bytes:
        return b"gave up " + event


class Toolbox:
    """One tool, which does what it is told to."""

    def __init__(self, result: ToolResult = FOUND, work: Callable[[], object] = lambda: None) -> None:
        self.tools = (TOOL,)
        self.stopped = threading.Event()
        self.began = threading.Event()
        self._result, self._work = result, work

    def run(
        self, call: InjectedCall, stoppable: Callable[[Callable[[], None]], Callable[[], None]]
    ) -> ToolResult:
        forget = stoppable(self.stopped.set)
        self.began.set()
        try:
            self._work()
        finally:
            forget()
        return self._result


class Request:
    """One request, its records, and the rounds that the provider is asked for after the first."""

    def __init__(self, *answers: Answer | Exception, toolbox: Toolbox | None = None) -> None:
        self.records: list[Record] = []
        self.interception = Interception([], record=self.records.append)
        self.interception.admitted(None, recorded=True)
        self.interception.exchange = Occupancy(10, 10).enter(None)
        self.weaver = LineWeaver()
        self.bodies: list[bytes] = []
        self._answers = list(answers)
        self.toolbox = toolbox or Toolbox()
        self.rounds = Rounds(self.weaver, self.toolbox, self._ask, self.interception, lambda: Messages(None))

    def _ask(self, body: bytes) -> Answer:
        self.bodies.append(body)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def tool_usages(self) -> list[tuple[Any, ...]]:
        return [
            (each.tool, each.server_url, each.input, each.invocation_error, each.injected)
            for each in self.records
            if isinstance(each, ToolUsage)
        ]


def read(answer: Answer) -> bytes:
    pieces = []
    while data := answer.read(DEADLINE_SECONDS):
        pieces.append(data)
    return b"".join(pieces)


def document(*pieces: bytes | Exception, **more: Any) -> Scripted:
    return Scripted(*pieces, headers=(JSON, ("Content-Length", "999")), **more)


USED = (TOOL.name, TOOL.server_url, '{"q": 1}')


class TestDocuments:
    def test_of_one_round(self) -> None:
        first = document(b"wo", b"rd")
        answer = Request().rounds.follow(first)
        assert read(answer) == b""  # the weaver of this test hands nothing over
        assert ("Content-Length", "0") in answer.headers
        assert ("Content-Length", "999") not in answer.headers
        assert first.closed.is_set()

    def test_of_three(self) -> None:
        request = Request(document(b"call"), document(b"end"))
        request.rounds.follow(document(b"call"))
        assert request.bodies == [b"round 2", b"round 3"]
        assert request.weaver.asked == [(["found"], False), (["found"], False)]
        assert request.tool_usages() == [(*USED, None, True)] * 2

    def test_what_went_wrong_is_recorded(self) -> None:
        request = Request(document(b"end"), toolbox=Toolbox(ToolResult("no such ticket", is_error=True)))
        request.rounds.follow(document(b"call"))
        assert request.tool_usages() == [(*USED, "no such ticket", True)]

    def test_what_nobody_runs_is_recorded(self) -> None:
        request = Request()
        request.rounds.follow(document(b"mixed"))
        assert request.tool_usages() == [(*USED, NOT_RUN, True)]

    def test_a_refusal_of_a_later_round_is_the_answer(self) -> None:
        """And what the earlier ones have used is accounted for."""
        refusal = document(b'{"error": {}}', status=429)
        request = Request(refusal)
        request.weaver.take_document = lambda body: _pending(request.weaver)  # type: ignore[method-assign]
        used = {
            "id": "msg_1",
            "type": "message",
            "usage": {"input_tokens": 3, "output_tokens": 5},
            "content": [],
        }
        answer = request.rounds.follow(document(json.dumps(used).encode()))
        assert answer is refusal
        (usage,) = [each for each in request.records if isinstance(each, TokenUsage)]
        assert (usage.input, usage.output) == (3, 5)

    @pytest.mark.parametrize("error", [UpstreamBroken("x"), Refused(502, "no key"), RuntimeError("x")])
    def test_one_that_breaks_off_raises(self, error: Exception) -> None:
        first = document(b"call")
        with pytest.raises(type(error)):
            Request(error).rounds.follow(first)
        assert first.closed.is_set()

    def test_one_that_is_too_large_passes_unread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_PARSED_ANSWER", 5)
        first = document(b"call", b"call", b"call", b"more")
        answer = Request().rounds.follow(first)
        assert not first.closed.is_set()
        assert read(answer) == b"callcallcallmore"
        assert ("Content-Length", "999") in answer.headers
        answer.close()
        assert first.closed.is_set()

    def test_a_later_one_that_is_too_large_costs_no_account(self, monkeypatch: pytest.MonkeyPatch) -> None:
        used = {
            "id": "msg_1",
            "type": "message",
            "usage": {"input_tokens": 3, "output_tokens": 5},
            "content": [],
        }
        first = json.dumps(used).encode()
        monkeypatch.setattr(module, "MAX_PARSED_ANSWER", len(first))
        request = Request(document(b"x" * len(first), b"more"))
        request.weaver.take_document = lambda body: _pending(request.weaver)  # type: ignore[method-assign]
        assert read(request.rounds.follow(document(first))) == b"x" * len(first) + b"more"
        (usage,) = [each for each in request.records if isinstance(each, TokenUsage)]
        assert (usage.input, usage.output) == (3, 5)

    def test_the_last_round_is_said_to_be(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_ROUNDS", 3)
        request = Request(*(document(b"call") for _ in range(2)))
        request.rounds.follow(document(b"call"))
        assert [last for _, last in request.weaver.asked] == [False, True]


def _saying(weaver: LineWeaver, rest: bytes) -> Callable[[], bytes]:
    finish = weaver.finish
    return lambda: finish() or (b"" if weaver.pending else rest)


def _pending(weaver: LineWeaver) -> bytes | None:
    weaver.pending = (InjectedCall("c1", TOOL.id, "{}"),)
    return None


class TestWhatIsNotWoven:
    @pytest.mark.parametrize(
        "answer",
        [
            document(b"call", status=500),
            Scripted(b"call", headers=(("Content-Type", "text/html"),)),
            Scripted(b"call", headers=(SSE, ("Content-Encoding", "made-up"))),
        ],
    )
    def test_it_is_as_it_came(self, answer: Answer) -> None:
        assert Request().rounds.follow(answer) is answer

    def test_what_is_compressed_is_decoded_first(self) -> None:
        data = gzip.compress(b"call")
        headers = (JSON, ("Content-Encoding", "gzip"), ("Content-Length", str(len(data))))
        request = Request(document(b"end"))
        answer = request.rounds.follow(Scripted(data[:5], data[5:], headers=headers))
        assert request.bodies == [b"round 2"]
        assert "content-encoding" not in [name.lower() for name, _ in answer.headers]

    def test_what_ends_within_its_coding_is_broken(self) -> None:
        data = gzip.compress(b"call" * 100)[:-10]
        with pytest.raises(UpstreamBroken):
            Request().rounds.follow(Scripted(data, headers=(JSON, ("Content-Encoding", "gzip"))))

    def test_what_is_not_compressed_as_it_says_is_broken(self) -> None:
        with pytest.raises(UpstreamBroken):
            Request().rounds.follow(Scripted(b"call", headers=(JSON, ("Content-Encoding", "gzip"))))


class TestStreams:
    def test_of_one_round(self) -> None:
        answer = Request().rounds.follow(Scripted(b"a", b"b", headers=(SSE, ("Content-Length", "2"))))
        assert (answer.headers, read(answer)) == ([SSE], b"ab")
        assert answer.read() == b""

    def test_of_three(self) -> None:
        request = Request(Scripted(b"b", b"call"), Scripted(b"c"))
        first = Scripted(b"a", b"call")
        answer = request.rounds.follow(first)
        assert read(answer) == b"abc"
        assert first.closed.is_set()
        assert request.tool_usages() == [(*USED, None, True)] * 2

    def test_its_reader_may_be_patient_while_a_tool_runs(self) -> None:
        go_on = threading.Event()
        toolbox = Toolbox(work=lambda: go_on.wait(DEADLINE_SECONDS))
        answer = Request(Scripted(b"b"), toolbox=toolbox).rounds.follow(Scripted(b"call"))
        with pytest.raises(UpstreamSilent):
            answer.read(0.01)
        assert toolbox.began.wait(DEADLINE_SECONDS)
        go_on.set()
        assert read(answer) == b"b"

    def test_silence_is_noticed_where_all_that_comes_is_held(self) -> None:
        class Slow(Scripted):
            def read(self, patience: float | None = None) -> bytes:
                threading.Event().wait(0.002)
                return b"call"  # which is held, for ever

        with pytest.raises(UpstreamSilent):
            Request().rounds.follow(Slow()).read(0.01)

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (document(b'{"error": {"message": "Slow down."}}', status=429), "429 when"),
            (document(b'{"error": {"message": "Slow down."}}', status=429), "Slow down."),
            (document(b"<html>", status=502), "502 when"),
            (document(UpstreamBroken("x"), status=502), "502 when"),
            (document(b"{}"), "200 when"),
            (Refused(502, "No key is left."), "No key is left."),
            (UpstreamFailure("refused: a secret"), "could not be asked again"),
        ],
    )
    def test_a_later_round_that_fails_is_the_last_event(self, answer: Answer | Exception, said: str) -> None:
        woven = Request(answer).rounds.follow(Scripted(b"a", b"call"))
        data = read(woven)
        assert data.startswith(b"agave up event: error\ndata: {")
        assert said in data.decode()
        assert "a secret" not in data.decode()
        assert not isinstance(answer, Scripted) or answer.closed.is_set()

    def test_a_round_that_breaks_off_raises(self) -> None:
        answer = Request(Scripted(b"b", UpstreamBroken("x"))).rounds.follow(Scripted(b"call"))
        assert answer.read() == b"b"
        with pytest.raises(UpstreamBroken):
            answer.read()

    def test_what_was_held_is_said_before(self) -> None:
        """So that the tokens of the rounds before are known."""
        request = Request(Scripted(b"b", UpstreamBroken("x")))
        request.weaver.finish = _saying(request.weaver, b"held")  # type: ignore[method-assign]
        answer = request.rounds.follow(Scripted(b"call"))
        assert [answer.read(), answer.read()] == [b"b", b"held"]
        for _ in range(2):
            with pytest.raises(UpstreamBroken):
                answer.read()

    def test_a_round_that_was_whole_when_it_broke_off_goes_on(self) -> None:
        answer = Request(Scripted(b"b")).rounds.follow(Scripted(b"a", b"call", UpstreamBroken("x")))
        assert read(answer) == b"ab"

    @pytest.mark.parametrize("error", [UpstreamCancelled("left"), RuntimeError("a defect")])
    def test_other_errors_are_told_to_the_reader(self, error: Exception) -> None:
        answer = Request(error).rounds.follow(Scripted(b"call"))
        with pytest.raises(type(error)):
            read(answer)

    def test_a_caller_who_leaves_stops_the_tool(self) -> None:
        toolbox = Toolbox()
        toolbox._work = lambda: toolbox.stopped.wait(DEADLINE_SECONDS)
        late = Scripted(b"b")
        request = Request(late, toolbox=toolbox)
        answer = request.rounds.follow(Scripted(b"call"))
        with pytest.raises(UpstreamSilent):
            answer.read(0.01)
        assert toolbox.began.wait(DEADLINE_SECONDS)
        assert isinstance(answer, WovenStream)
        step = answer._step
        assert step is not None
        answer.close()
        assert toolbox.stopped.wait(DEADLINE_SECONDS)
        with pytest.raises(UpstreamCancelled):
            step.wait(DEADLINE_SECONDS)
        assert request.bodies == []  # the provider is not asked for nobody
        assert answer.read() == b""

    def test_an_answer_that_comes_too_late_is_closed(self) -> None:
        go_on, late = threading.Event(), Scripted(b"b")

        def work() -> Answer:
            go_on.wait(DEADLINE_SECONDS)
            return late

        step = Step(work)
        step.leave()
        go_on.set()
        assert late.closed.wait(DEADLINE_SECONDS)
        done = Step(lambda: late)
        done.wait(DEADLINE_SECONDS)
        late.closed.clear()
        done.leave()
        assert late.closed.is_set()

    def test_without_a_thread_it_waits_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        assert read(Request(Scripted(b"b")).rounds.follow(Scripted(b"call"))) == b"b"
