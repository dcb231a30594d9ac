"""``services.masking``: what is shown of a secret."""

from __future__ import annotations

import pytest

from flask_aibridge.services.masking import masked


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        ("", "…"),
        ("abcd", "…"),
        ("abcde", "a…e"),
        ("abcdefghi", "a…i"),
        ("abcdefghij", "ab…ij"),
        ("sk-ant-0123456789wxyz", "sk-a…wxyz"),
    ],
)
def test_a_hint_shows_ends_alone(secret: str, shown: str) -> None:
    """More of long ones, and never more than two fifths."""
    assert masked(secret) == shown
