"""The account of one request."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest

from flask_aibridge.bridge.intercept.vocabulary import Ended, Failed, Usage
from flask_aibridge.bridge.interception import MAX_MODEL_NAME, Interception
from flask_aibridge.observability import InterceptionEnded, TokenUsage
from tests.bridge.conftest import RecordingHook


class FailingHook:
    def interception_ended(self, record: InterceptionEnded) -> None:
        raise ValueError("full")


def test_the_last_usage_is_recorded(hook: RecordingHook) -> None:
    """Machines merge, so the last word is the whole."""
    interception = Interception([hook])
    interception.status = 200
    for item in (Usage(TokenUsage(1)), Usage(TokenUsage(2, 3)), Ended()):
        interception.note(item)
    interception.sent(b"12")
    interception.sent(b"345")
    interception.finish_at_end()
    record = hook.record
    assert (record.usage, record.outcome, record.bytes_sent) == (TokenUsage(2, 3), "completed", 5)
    assert record.time_to_first_byte is not None
    assert 0 <= record.time_to_first_byte <= record.duration
    assert (datetime.now(UTC) - record.started_at).total_seconds() < 60


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
