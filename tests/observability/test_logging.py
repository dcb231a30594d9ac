"""One log record per request: a line for people, fields for machines."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import pytest

from flask_aibridge.observability import InterceptionEnded, LoggingHook, Outcome, TokenUsage
from flask_aibridge.observability.logging import fields, sentence


def ended(**changes: Any) -> InterceptionEnded:
    values: dict[str, Any] = {
        "interception_id": "0f",
        "provider": "anthropic",
        "provider_type": "anthropic",
        "route": "/v1/messages",
        "model": "claude",
        "source": "agents",
        "in_process": True,
        "user": None,
        "key_id": None,
        "status": 200,
        "outcome": "completed",
        "started_at": datetime(2026, 11, 22, 12, 0, tzinfo=UTC),
        "time_to_first_byte": 0.25,
        "duration": 1.5,
        "bytes_sent": 2048,
        "usage": TokenUsage(10, 20, 3, 4, {"web_searches": 1}),
    }
    return InterceptionEnded(**(values | changes))


def test_a_record_reads_as_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """Who asked what of whom, how it went, how long it took, how much it was."""
    with caplog.at_level(logging.INFO, "flask_aibridge.bridge"):
        LoggingHook().interception_ended(ended())
    (record,) = caplog.records
    assert record.name == "flask_aibridge.bridge"
    assert record.getMessage() == (
        "anthropic /v1/messages claude in process from agents: 200 completed in 1.500 s, "
        "first byte after 0.250 s, 2048 bytes, 10 tokens in and 7 cached, 20 out"
    )


def test_the_fields_are_in_the_log_record(caplog: pytest.LogCaptureFixture) -> None:
    """Under names that no attribute of a log record has, so that handlers may write them as they are."""
    with caplog.at_level(logging.INFO, "flask_aibridge.bridge"):
        LoggingHook().interception_ended(ended())
    (record,) = caplog.records
    expected = fields(ended())
    assert {name: getattr(record, name) for name in expected} == expected
    assert expected["started_at"] == "2026-11-22T12:00:00+00:00"
    assert (expected["input_tokens"], expected["output_tokens"]) == (10, 20)
    assert (expected["cache_read_tokens"], expected["cache_write_tokens"]) == (3, 4)
    assert expected["extra_tokens"] == {"web_searches": 1}


def test_usage_that_is_unknown_is_null() -> None:
    """It is not zero."""
    flat = fields(ended(usage=None))
    assert flat["input_tokens"] is flat["output_tokens"] is flat["extra_tokens"] is None


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"in_process": False, "source": None, "user": "alice", "usage": TokenUsage(1, 2)},
            "anthropic /v1/messages claude over HTTP by alice: 200 completed in 1.500 s, "
            "first byte after 0.250 s, 2048 bytes, 1 tokens in, 2 out",
        ),
        (
            {"in_process": False, "source": None, "provider": "", "route": "", "model": None, "usage": None}
            | {
                "status": 401,
                "outcome": "refused",
                "time_to_first_byte": None,
                "bytes_sent": 0,
                "error": "no key",
            },
            "unknown route over HTTP: 401 refused in 1.500 s, 0 bytes, no key",
        ),
        (
            {"source": None, "model": "a\nb\x1b[2J", "usage": None, "error": "c\rd"},
            "anthropic /v1/messages a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}[2J in process: "
            "200 completed in 1.500 s, first byte after 0.250 s, 2048 bytes, c\N{REPLACEMENT CHARACTER}d",
        ),
    ],
)
def test_what_is_missing_is_left_out_and_nothing_breaks_the_line(changes: dict[str, Any], line: str) -> None:
    """A model's name comes from a stranger, and may try to write a log line of its own."""
    assert sentence(ended(**changes)) == line


@pytest.mark.parametrize(
    ("outcome", "level"),
    [
        ("completed", logging.INFO),
        ("client_closed", logging.INFO),
        ("upstream_error", logging.WARNING),
        ("upstream_truncated", logging.WARNING),
        ("interrupted", logging.WARNING),
        ("refused", logging.WARNING),
    ],
)
def test_who_did_not_get_an_answer_is_a_warning(
    outcome: Outcome, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Leaving early is the caller's own choice."""
    logger = logging.getLogger("tests.hook")
    with caplog.at_level(logging.DEBUG, "tests.hook"):
        LoggingHook(logger).interception_ended(ended(outcome=outcome))
    assert [(record.name, record.levelno) for record in caplog.records] == [("tests.hook", level)]


def test_a_logger_that_is_off_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is formatted."""
    with caplog.at_level(logging.ERROR, "flask_aibridge.bridge"):
        LoggingHook().interception_ended(ended())
    assert caplog.records == []
