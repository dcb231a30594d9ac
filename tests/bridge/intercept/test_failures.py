"""Errors: what is kept of them, and the classes they are recorded by."""

from __future__ import annotations

import pytest

from flask_aibridge.bridge.intercept.failures import MAX_WORDS, error_class, failure
from flask_aibridge.bridge.intercept.vocabulary import Failed


def test_an_error_message_is_kept_short() -> None:
    """Providers quote the prompt in some errors; records are not the place for it."""
    failed = failure({"type": "x" * 1000, "message": "y" * 1000})
    assert failed == Failed("x" * MAX_WORDS, "y" * MAX_WORDS)
    assert failure(None) == Failed("error", "None")
    assert failure({"code": 429, "message": None}) == Failed("429", "")


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (400, None, "bad_request"),
        (401, "anything", "unauthorized"),
        (403, None, "forbidden"),
        (404, None, "not_found"),
        (408, None, "timeout"),
        (409, None, "conflict"),
        (413, None, "request_too_large"),
        (418, None, "bad_request"),
        (429, "tokens", "rate_limited"),
        (500, None, "server_error"),
        (503, None, "server_error"),
        (504, None, "timeout"),
        (529, "overloaded_error", "overloaded"),
        (200, "overloaded_error", "overloaded"),
        (200, "rate_limit_exceeded", "rate_limited"),
        (200, "api_error", "server_error"),
        (200, "invalid_response", "invalid_response"),
        (200, "429", "rate_limited"),
        (200, "200", "provider_error"),
        (200, "novelty", "provider_error"),
        (200, None, "provider_error"),
    ],
)
def test_the_class_of_an_error(status: int, kind: str | None, expected: str) -> None:
    """The status says it, or after a good one the provider's word."""
    assert error_class(status, kind) == expected
