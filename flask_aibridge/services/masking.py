"""Pure: what is shown of a secret."""

from __future__ import annotations


def masked(secret: str) -> str:
    """A form of a secret to recognise it by: the first and last four characters of 20 or more, two of 10 or more, one
    of 5 or more, none of fewer."""
    shown = next((shown for length, shown in ((20, 4), (10, 2), (5, 1)) if len(secret) >= length), 0)
    return f"{secret[:shown]}…{secret[len(secret) - shown :]}"
