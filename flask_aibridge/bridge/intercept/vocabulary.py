"""Pure: all that a turn machine can say.

The set is closed: a driver handles every word of it, and a wire format that needs a new word adds it here.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from flask_aibridge.observability.hooks import TokenUsage


class Relay(NamedTuple):
    """Bytes for the caller, as the provider sent them unless they had to be edited."""

    data: bytes


class Usage(NamedTuple):
    """The tokens reported so far. Each replaces the one before it: machines merge, drivers never add."""

    tokens: TokenUsage


class Failed(NamedTuple):
    """The provider reported an error in the answer. ``kind`` is its word for it, ``message`` its sentence."""

    kind: str
    message: str


class Ended(NamedTuple):
    """The answer is whole: the wire format's own last word has arrived. What follows is padding."""


Item: TypeAlias = Relay | Usage | Failed | Ended
