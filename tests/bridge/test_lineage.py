"""Which tool call a request answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.lineage import correlating_tool_call


def turn(*content: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "earlier"}, {"role": role, "content": list(content)}]}


def result(call: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call, "content": "42"}


@pytest.mark.parametrize(
    ("document", "call"),
    [
        (turn(result("toolu_1")), "toolu_1"),
        (turn(result("toolu_1"), result("toolu_2")), "toolu_2"),
        (turn(result("toolu_1"), {"type": "text", "text": "and this"}), "toolu_1"),
        (turn({"type": "text", "text": "hello"}), None),
        (turn(result(None)), None),
        (turn(result("")), None),
        (turn(result({})), None),
        ({"messages": [{"role": "user", "content": "hello"}]}, None),
        ({"messages": [turn(result("toolu_1"))["messages"][1], {"role": "user", "content": "no"}]}, None),
        ({"messages": [{"role": "tool", "tool_call_id": "call_1", "content": "42"}]}, "call_1"),
        ({"messages": [{"role": "tool", "content": "42"}]}, None),
        ({"messages": []}, None),
        ({"messages": "hello"}, None),
        ({"messages": [None]}, None),
        ({"input": [{"type": "function_call_output", "call_id": "call_1", "output": "42"}]}, "call_1"),
        ({"input": [{"type": "custom_tool_call_output", "call_id": "call_2", "output": ""}]}, "call_2"),
        ({"input": [{"type": "local_shell_call_output", "call_id": "call_3"}]}, "call_3"),
        ({"input": [{"type": "function_call_output"}]}, None),
        ({"input": [{"type": "function_call", "call_id": "call_1"}]}, None),
        ({"input": [{"type": 5, "call_id": "call_1"}]}, None),
        (
            {"input": [{"type": "function_call_output", "call_id": "c"}, {"role": "user", "content": "x"}]},
            None,
        ),
        ({"input": "hello"}, None),
        ({"input": [{"role": "user", "content": "x"}], **turn(result("toolu_1"))}, None),
        ({}, None),
    ],
)
def test_the_last_result_of_the_last_turn(document: dict[str, Any], call: str | None) -> None:
    """In each API's own form; a turn that is somebody's own words answers no call."""
    assert correlating_tool_call(document) == call


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "type", "content", "tool_call_id", "tool_use_id", "call_id"]),
            inner,
            max_size=4,
        )
    ),
)


@given(st.dictionaries(st.sampled_from(["messages", "input"]), json_values))
def test_nothing_that_is_sent_breaks_it(document: dict[str, Any]) -> None:
    """An id is text with something in it, of a length that can be stored."""
    found = correlating_tool_call(document)
    assert found is None or 0 < len(found) <= 256
