"""Pure: the providers' token counts, merged and brought to one counting.

Anthropic counts cached tokens beside ``input_tokens``; OpenAI counts them within. Streams report usage more
than once, each time in full or in part: a field that is given replaces what was known of it, a field that is
missing or null leaves it. Nothing is ever added up over events, and a zero is a value like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from flask_aibridge.observability.hooks import TokenUsage
from flask_aibridge.services.records import MAX_TOKENS

_NO_NAMES: Final[Mapping[str, str]] = MappingProxyType({})

MAX_COUNTS = 40
"""Counts kept of one answer. Beyond it further names are ignored (the four that every provider has never
are): a record is not a place to pour an unbounded object into."""

MAX_NAME = 64
"""Characters of such a name, which may come from a server of unknown make."""


class Counting(NamedTuple):
    """Where one API keeps its counts; paths are dotted. ``cached_in_input``: whether ``input`` includes the
    cached tokens. ``names``: the token types under which further counts are known; the others keep their path."""

    input: str
    output: str
    cache_read: str
    cache_write: str
    cached_in_input: bool
    redundant: frozenset[str] = frozenset()
    names: Mapping[str, str] = _NO_NAMES


ANTHROPIC = Counting(
    input="input_tokens",
    output="output_tokens",
    cache_read="cache_read_input_tokens",
    cache_write="cache_creation_input_tokens",
    cached_in_input=False,
    names=MappingProxyType(
        {
            "cache_creation.ephemeral_5m_input_tokens": "cache_ephemeral_5m_input",
            "cache_creation.ephemeral_1h_input_tokens": "cache_ephemeral_1h_input",
            "server_tool_use.web_search_requests": "web_search_requests",
        }
    ),
)

OPENAI_CHAT = Counting(
    input="prompt_tokens",
    output="completion_tokens",
    cache_read="prompt_tokens_details.cached_tokens",
    cache_write="prompt_tokens_details.cache_write_tokens",
    cached_in_input=True,
    redundant=frozenset({"total_tokens"}),
    names=MappingProxyType(
        {
            "prompt_tokens_details.audio_tokens": "prompt_audio",
            "completion_tokens_details.audio_tokens": "completion_audio",
            "completion_tokens_details.reasoning_tokens": "completion_reasoning",
            "completion_tokens_details.accepted_prediction_tokens": "completion_accepted_prediction",
            "completion_tokens_details.rejected_prediction_tokens": "completion_rejected_prediction",
        }
    ),
)

OPENAI_RESPONSES = Counting(
    input="input_tokens",
    output="output_tokens",
    cache_read="input_tokens_details.cached_tokens",
    cache_write="input_tokens_details.cache_write_tokens",
    cached_in_input=True,
    redundant=frozenset({"total_tokens"}),
    names=MappingProxyType({"output_tokens_details.reasoning_tokens": "output_reasoning"}),
)


class UsageMerge:
    """The usage of one answer, as far as it has been reported."""

    def __init__(self, counting: Counting) -> None:
        self._counting = counting
        self._known = {*counting[:4], *counting.redundant}
        self._counts: dict[str, int] = {}
        self._is_taken = False

    def update(self, reported: object) -> None:
        """Merge one reported usage object; what holds no count says nothing."""
        if isinstance(reported, Mapping):
            for name, count in flatten(reported).items():
                if name in self._known or name in self._counts or len(self._counts) < MAX_COUNTS:
                    self._counts[name] = count

    def taken(self) -> TokenUsage | None:
        """The tokens, once; null where no count was reported, and when they have been taken."""
        if self._is_taken or not self._counts:
            return None
        self._is_taken = True
        return self.tokens()

    def tokens(self) -> TokenUsage:
        """Return the merged counts in the bridge's own counting."""
        counting = self._counting
        cache_read = self._counts.get(counting.cache_read, 0)
        cache_write = self._counts.get(counting.cache_write, 0)
        total_input = self._counts.get(counting.input, 0)
        cached = cache_read + cache_write if counting.cached_in_input else 0
        return TokenUsage(
            # Servers that only resemble OpenAI may count the cache beside the prompt: never below zero.
            input=max(total_input - cached, 0),
            output=self._counts.get(counting.output, 0),
            cache_read=cache_read,
            cache_write=cache_write,
            extra={
                counting.names.get(name, name): count
                for name, count in self._counts.items()
                if name not in self._known
            },
        )


def flatten(reported: Mapping[str, Any], prefix: str = "", depth: int = 3) -> dict[str, int]:
    """Return every whole number in a usage object under its dotted path, to three levels.

    What could not be stored is left out: counts above what is recorded as tokens, and names that are no Unicode.
    """
    counts: dict[str, int] = {}
    for name, value in reported.items():
        path = f"{prefix}{name}"[:MAX_NAME]
        if isinstance(value, int) and not isinstance(value, bool):
            if 0 <= value <= MAX_TOKENS and _is_name(path):
                counts[path] = value
        elif isinstance(value, Mapping) and depth > 1:
            counts |= flatten(value, f"{path}.", depth - 1)
    return counts


def _is_name(path: str) -> bool:
    return path != "" and (path.isascii() or not any("\ud800" <= char <= "\udfff" for char in path))
