"""Token counts: merged field by field, brought to one counting."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.intercept.usage import (
    ANTHROPIC,
    MAX_COUNTS,
    OPENAI_CHAT,
    OPENAI_RESPONSES,
    Counting,
    UsageMerge,
    flatten,
)
from flask_aibridge.observability import TokenUsage


def merged(counting: Counting, *reported: object) -> TokenUsage | None:
    merge = UsageMerge(counting)
    for each in reported:
        merge.update(each)
    return merge.taken()


def test_anthropic_counts_the_cache_beside_the_input() -> None:
    """The three kinds of input are apart already; what has no field of its own is extra."""
    usage = {
        "input_tokens": 10,
        "output_tokens": 20,
        "cache_read_input_tokens": 3,
        "cache_creation_input_tokens": 4,
        "cache_creation": {"ephemeral_5m_input_tokens": 4},
        "service_tier": "standard",
    }
    assert merged(ANTHROPIC, usage) == TokenUsage(10, 20, 3, 4, {"cache_ephemeral_5m_input": 4})


def test_openai_counts_the_cache_within_the_input() -> None:
    """Cached tokens, read and written, are taken out of the prompt's; reasoning stays in the output."""
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
        "completion_tokens_details": {"reasoning_tokens": 40},
    }
    assert merged(OPENAI_CHAT, usage) == TokenUsage(30, 50, 60, 10, {"completion_reasoning": 40})


def test_responses_has_names_of_its_own() -> None:
    """The same counting as in Chat Completions, under other names."""
    usage = {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 2,
        "total_tokens": 11,
    }
    assert merged(OPENAI_RESPONSES, usage) == TokenUsage(5, 2, 4, 0)


def test_input_never_falls_below_zero() -> None:
    """A server that counts the cache beside the prompt does not make the input negative."""
    usage = {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 60}}
    assert merged(OPENAI_CHAT, usage) == TokenUsage(0, 0, 60, 0)


def test_the_last_explicit_value_of_each_field_wins() -> None:
    """A smaller value and a zero replace a larger one; a missing field and a null leave it."""
    first = {"input_tokens": 100, "output_tokens": 1, "cache_read_input_tokens": 7}
    second = {"input_tokens": 40, "output_tokens": 9, "cache_read_input_tokens": None}
    assert merged(ANTHROPIC, first, second) == TokenUsage(40, 9, 7, 0)
    assert merged(ANTHROPIC, first, second, {"cache_read_input_tokens": 0}) == TokenUsage(40, 9, 0, 0)


@pytest.mark.parametrize("reported", [None, {}, [], "many", 7, {"input_tokens": None}, {"input_tokens": "7"}])
def test_what_holds_no_count_is_no_usage(reported: object) -> None:
    """Unknown is not zero."""
    assert merged(ANTHROPIC, reported) is None


def test_only_whole_numbers_count() -> None:
    """Booleans, fractions and negative numbers are no counts of tokens; depth and name length are bounded."""
    reported = {"a": True, "b": 1.5, "c": -1, "d": {"e": {"f": 1, "g": {"h": 2}}}, "n" * 100: 3}
    assert flatten(reported) == {"d.e.f": 1, "n" * 64: 3}


def test_what_could_not_be_stored_is_left_out() -> None:
    """Numbers that are no counts of tokens, and names that no text can hold."""
    reported = {"input_tokens": 10**12, "output_tokens": 10**12 + 1, "\ud800": 1, "": 2, "ü": 3}
    assert merged(ANTHROPIC, reported) == TokenUsage(10**12, extra={"ü": 3})


def test_counts_have_the_names_of_token_types() -> None:
    """Where one is established; any other keeps its path."""
    anthropic = {
        "cache_creation": {"ephemeral_1h_input_tokens": 1},
        "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 3},
        "output_tokens_details": {"thinking_tokens": 4},
    }
    usage = merged(ANTHROPIC, anthropic)
    assert usage is not None
    assert usage.extra == {
        "cache_ephemeral_1h_input": 1,
        "web_search_requests": 2,
        "server_tool_use.web_fetch_requests": 3,
        "output_tokens_details.thinking_tokens": 4,
    }
    chat = {
        "prompt_tokens_details": {"audio_tokens": 1},
        "completion_tokens_details": {"audio_tokens": 2, "accepted_prediction_tokens": 3, "text_tokens": 4},
    }
    usage = merged(OPENAI_CHAT, chat)
    assert usage is not None
    assert usage.extra == {
        "prompt_audio": 1,
        "completion_audio": 2,
        "completion_accepted_prediction": 3,
        "completion_tokens_details.text_tokens": 4,
    }


def test_usage_is_taken_once() -> None:
    """What is counted twice is paid twice."""
    merge = UsageMerge(ANTHROPIC)
    merge.update({"input_tokens": 1})
    assert merge.taken() == TokenUsage(1)
    merge.update({"input_tokens": 2})
    assert merge.taken() is None


def test_names_are_bounded_but_the_known_ones_always_count() -> None:
    """A server that invents names does not fill the memory, nor push the real counts out."""
    usage = merged(ANTHROPIC, {f"name-{number}": 1 for number in range(1000)}, {"input_tokens": 5})
    assert usage is not None
    assert usage.input == 5
    assert len(usage.extra) == MAX_COUNTS


COUNTS = st.dictionaries(
    st.sampled_from(["input_tokens", "output_tokens", "cache_read_input_tokens", "web_searches"]),
    st.none() | st.integers(0, 10**9),
)


@given(st.lists(COUNTS, max_size=6))
def test_merging_events_is_merging_their_fields(events: list[dict[str, Any]]) -> None:
    """However the fields are spread over events, the result is that of the last explicit value of each."""
    explicit = {name: value for event in events for name, value in event.items() if value is not None}
    merge = UsageMerge(ANTHROPIC)
    for event in events:
        merge.update(event)
    extra = {"web_searches": explicit["web_searches"]} if "web_searches" in explicit else {}
    assert merge.tokens() == TokenUsage(
        explicit.get("input_tokens", 0),
        explicit.get("output_tokens", 0),
        explicit.get("cache_read_input_tokens", 0),
        0,
        extra,
    )
