"""The account of one request."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta

import pytest

from flask_aibridge.bridge.intercept.vocabulary import (
    Ended,
    Failed,
    Item,
    Prompt,
    Thought,
    ToolCall,
    Usage,
)
from flask_aibridge.bridge.interception import (
    MAX_ERROR,
    MAX_MODEL_NAME,
    MAX_RECORDS,
    Interception,
)
from flask_aibridge.observability import InterceptionEnded, Outcome, TokenUsage
from flask_aibridge.services import records
from flask_aibridge.services.records import InterceptionEnd, Record
from tests.bridge.conftest import RecordingHook


class FailingHook:
    def interception_ended(self, record: InterceptionEnded) -> None:
        raise ValueError("full")


def test_usage_and_bytes_are_told_to_the_hooks(hook: RecordingHook) -> None:
    """With when the first byte went out."""
    interception = Interception([hook])
    interception.status = 200
    for item in (Usage(TokenUsage(2, 3)), Ended()):
        interception.note(item)
    interception.sent(b"12")
    interception.sent(b"345")
    interception.finish_at_end()
    record = hook.record
    assert (record.usage, record.outcome, record.bytes_sent) == (TokenUsage(2, 3), "completed", 5)
    assert record.time_to_first_byte is not None
    assert 0 <= record.time_to_first_byte <= record.duration
    assert (datetime.now(UTC) - record.started_at).total_seconds() < 60


def test_the_child_of_a_fork_says_nothing_of_what_its_parent_does(
    hook: RecordingHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropping what it inherited of a stream is not the end of the stream."""
    written: list[Record] = []
    interception = Interception([hook], record=written.append)
    interception.admitted(None, recorded=True)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    interception.finish_early()
    assert (hook.records, written) == ([], [])
    monkeypatch.undo()
    interception.finish_early()
    assert len(hook.records) == len(written) == 1


def test_a_clock_that_is_set_back_ends_nothing_before_it_began() -> None:
    """Nor does one that is set forward make it last for a day."""
    written: list[Record] = []
    interception = Interception([], record=written.append)
    interception.admitted(None, recorded=True)
    interception.started_at += timedelta(days=1)  # as if the clock had gone back by one since
    interception.finish("completed")
    (end,) = written
    assert isinstance(end, InterceptionEnd)
    assert timedelta() <= end.ended_at - interception.started_at < timedelta(minutes=1)


def test_it_ends_once(hook: RecordingHook) -> None:
    """Whoever comes first says how."""
    interception = Interception([hook])
    interception.finish("refused")
    interception.finish("completed")
    interception.finish_early()
    assert hook.record.outcome == "refused"


@pytest.mark.parametrize(
    ("status", "items", "at_end", "early"),
    [
        (200, [Ended()], "completed", "completed"),
        (200, [], "upstream_truncated", "client_closed"),
        (200, [Failed("overloaded", "")], "upstream_error", "upstream_error"),
        (429, [Ended()], "upstream_error", "upstream_error"),
        (429, [], "upstream_error", "client_closed"),
    ],
)
def test_how_it_ended(status: int, items: list[Failed | Ended], at_end: str, early: str) -> None:
    """By what the provider said, at the end of its bytes and when the caller leaves before."""
    for finish, outcome in ((Interception.finish_at_end, at_end), (Interception.finish_early, early)):
        hook = RecordingHook()
        interception = Interception([hook])
        interception.status = status
        for item in items:
            interception.note(item)
        finish(interception)
        assert hook.record.outcome == outcome


def test_a_hook_that_raises_disturbs_nobody(hook: RecordingHook, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the hooks after it are called."""
    with caplog.at_level(logging.ERROR):
        Interception([FailingHook(), hook]).finish("completed")
    assert hook.record.outcome == "completed"
    assert "FailingHook" in caplog.text


@pytest.mark.parametrize(
    ("name", "model"), [("m", "m"), (7, None), (None, None), ("m" * 999, "m" * MAX_MODEL_NAME)]
)
def test_a_model_is_a_short_name(name: object, model: str | None) -> None:
    """It comes from the caller, who may send anything."""
    interception = Interception([])
    interception.model = name
    assert interception.model == model


SAID: list[Item] = [
    Prompt("Say hi", "msg_1"),
    Thought("Hm.", "thinking"),
    ToolCall("get", "{}", "call_1", "fc_1", message_id="msg_1"),
    ToolCall("search", "{}", kind="server"),
    Usage(TokenUsage(1, 2, 3, 4, {"x": 5}), "msg_1", "end_turn"),
    Ended(),
]


def recorded(items: list[Item], *, status: int = 200, recorded: bool = True) -> list[Record]:
    """What is recorded of an answer."""
    kept: list[Record] = []
    interception = Interception([], record=kept.append)
    interception.admitted(None, recorded=recorded)
    interception.status = status
    interception.request_id = "req_1"
    for item in items:
        interception.note(item)
    interception.finish_at_end()
    return kept


def test_what_a_machine_says_is_recorded_as_it_says_it() -> None:
    """Each record has an id made of the interception's, its kind and its number."""
    kept = recorded(SAID)
    prompt, thought, call, search, usage, end = kept
    interception_id = records.interception_of(end)
    assert [record.id for record in kept] == [
        f"{interception_id}.{name}" for name in ("p1", "m1", "t1", "t2", "u1", "e")
    ]
    assert isinstance(prompt, records.PromptUsage)
    assert (prompt.prompt, prompt.message_id) == ("Say hi", "msg_1")
    assert isinstance(thought, records.ModelThought)
    assert (thought.content, thought.metadata) == ("Hm.", {"source": "thinking"})
    assert isinstance(call, records.ToolUsage)
    assert (call.tool, call.input, call.tool_call_id, call.item_id) == ("get", "{}", "call_1", "fc_1")
    assert (call.message_id, call.injected, call.metadata) == ("msg_1", False, {"kind": "client"})
    assert isinstance(search, records.ToolUsage)
    assert search.metadata == {"kind": "server"}
    assert isinstance(usage, records.TokenUsage)
    assert (usage.input, usage.output, usage.cache_read, usage.cache_write, usage.extra) == (
        1,
        2,
        3,
        4,
        {"x": 5},
    )
    assert usage.message_id == "msg_1"
    assert usage.metadata == {"finish_reason": "end_turn", "request_id": "req_1"}


def test_nothing_is_recorded_of_what_was_not_started() -> None:
    """No start, no records."""
    assert recorded(SAID, recorded=False) == []


def test_records_of_one_kind_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """What is too much is left out, and that is logged once, without a word of it."""
    kept = recorded([ToolCall(f"secret-{number}", "{}") for number in range(MAX_RECORDS + 5)])
    assert len(kept) == MAX_RECORDS + 1
    (logged,) = caplog.records
    assert "secret" not in logged.getMessage()


@pytest.mark.parametrize(
    ("status", "items", "error_type", "message"),
    [
        (200, [Ended()], None, None),
        (200, [], "upstream_truncated", "the answer ended without its last word"),
        (529, [Failed("overloaded_error", "busy")], "overloaded", "overloaded_error: busy (request req_1)"),
        (200, [Failed("overloaded_error", "")], "overloaded", "overloaded_error (request req_1)"),
        (400, [Ended()], "bad_request", None),
    ],
)
def test_the_class_of_an_error_is_recorded(
    status: int, items: list[Item], error_type: str | None, message: str | None
) -> None:
    """With the provider's id of the request, by which its support finds it."""
    (end,) = recorded(items, status=status)
    assert isinstance(end, InterceptionEnd)
    assert (end.error_type, end.error_message) == (error_type, message)


@pytest.mark.parametrize(
    ("outcome", "given", "error_type"),
    [
        ("upstream_error", "unreachable", "unreachable"),
        ("interrupted", None, "interrupted"),
        ("refused", None, "refused"),
        ("client_closed", None, None),
    ],
)
def test_ends_without_an_answer_have_a_class_too(
    outcome: Outcome, given: str | None, error_type: str | None
) -> None:
    """What the bridge knows of them itself; a long description is cut."""
    kept: list[Record] = []
    interception = Interception([], record=kept.append)
    interception.admitted(None, recorded=True)
    interception.request_id = "r" * 1000
    interception.finish(outcome, "x" * 1000, given)
    (end,) = kept
    assert isinstance(end, InterceptionEnd)
    assert end.error_type == error_type
    assert len(end.error_message or "") <= MAX_ERROR
