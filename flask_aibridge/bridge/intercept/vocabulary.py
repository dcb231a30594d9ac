"""Pure: all that a turn machine can say.

The set is closed: a driver handles every word of it, and a wire format that needs a new word adds it here.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from flask_aibridge.observability.hooks import TokenUsage

ToolKind: TypeAlias = Literal["client", "server", "injected"]
"""Who runs a tool: the caller, the provider, or the bridge."""

ThoughtSource: TypeAlias = Literal["thinking", "reasoning_summary", "commentary"]
"""What kind of reasoning was shown: the model's own, a summary that the provider made of it, or what an agent says
between its steps."""


class Relay(NamedTuple):
    """Bytes for the caller, as the provider sent them unless they had to be edited; never empty."""

    data: bytes


class Usage(NamedTuple):
    """The tokens of one answer, said once: when it is over, whole or not. ``message_id`` is the provider's id of the
    answer, empty where it gave none; ``finish_reason`` its word for why it stopped."""

    tokens: TokenUsage
    message_id: str = ""
    finish_reason: str | None = None


class Prompt(NamedTuple):
    """What the user asked last; said once, with the first word of the answer."""

    text: str
    message_id: str = ""


class ToolCall(NamedTuple):
    """A tool that the model called. ``arguments`` is JSON text (or, of a custom tool, any text) as the model wrote it,
    which need not be valid. ``item_id`` is the Responses API's, beside the call's own id."""

    name: str
    arguments: str
    call_id: str | None = None
    item_id: str | None = None
    kind: ToolKind = "client"
    message_id: str = ""


class Thought(NamedTuple):
    """A piece of reasoning, as far as the provider showed it."""

    text: str
    source: ThoughtSource


class Failed(NamedTuple):
    """The provider reported an error in the answer. ``kind`` is its word for it, ``message`` its sentence."""

    kind: str
    message: str


class Ended(NamedTuple):
    """The answer is whole: the wire format's own last word has arrived. What follows is padding."""


Item: TypeAlias = Relay | Usage | Prompt | ToolCall | Thought | Failed | Ended
