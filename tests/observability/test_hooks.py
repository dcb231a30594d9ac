"""The records that hooks get."""

from __future__ import annotations

import dataclasses

import pytest

from flask_aibridge.observability import Hook, LoggingHook, TokenUsage


def test_records_cannot_be_changed() -> None:
    """Several hooks get the same one."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        TokenUsage().input = 1  # type: ignore[misc]


def test_usage_counts_from_zero() -> None:
    """Unknown usage is no ``TokenUsage`` at all."""
    assert TokenUsage() == TokenUsage(0, 0, 0, 0, {})


def test_the_logging_hook_is_a_hook() -> None:
    """The type checker holds it to the protocol here."""
    hook: Hook = LoggingHook()
    assert callable(hook.interception_ended)
