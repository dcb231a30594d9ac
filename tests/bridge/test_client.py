"""Which program asks, and in which session."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.client import MAX_SESSION_ID, PROGRAMS, client_of, session_of


@pytest.mark.parametrize(
    ("environ", "client", "session"),
    [
        ({"HTTP_USER_AGENT": "claude-cli/2.1 (external)"}, "Claude Code", None),
        ({"HTTP_USER_AGENT": "claude-cli/2", "HTTP_X_CLAUDE_CODE_SESSION_ID": " s-1 "}, "Claude Code", "s-1"),
        ({"HTTP_USER_AGENT": "codex_cli_rs/0.1", "HTTP_SESSION_ID": "s-2"}, "Codex", "s-2"),
        ({"HTTP_USER_AGENT": "Mux/1.0", "HTTP_X_MUX_WORKSPACE_ID": "s-3"}, "Mux", "s-3"),
        ({"HTTP_USER_AGENT": "Xum/1.0"}, "Mux", None),
        ({"HTTP_USER_AGENT": "Zed/0.2", "HTTP_SESSION_ID": "not its own"}, "Zed", None),
        (
            {"HTTP_USER_AGENT": "GitHubCopilotChat/1", "HTTP_X_INTERACTION_ID": "s"},
            "GitHub Copilot (VS Code)",
            "s",
        ),
        ({"HTTP_USER_AGENT": "copilot/1", "HTTP_X_CLIENT_SESSION_ID": "s"}, "GitHub Copilot (CLI)", "s"),
        (
            {"HTTP_USER_AGENT": "axios/1", "HTTP_ORIGINATOR": "kilo-code", "HTTP_X_KILOCODE_TASKID": "t"},
            "Kilo Code",
            "t",
        ),
        ({"HTTP_USER_AGENT": "Roo-Code/3"}, "Roo Code", None),
        ({"HTTP_USER_AGENT": "coder-agents/1", "HTTP_X_CODER_CHAT_ID": "c"}, "Coder Agents", "c"),
        ({"HTTP_USER_AGENT": "Charm Crush/1"}, "Charm Crush", None),
        ({"HTTP_USER_AGENT": "Charm-Crush/v0.1"}, "Charm Crush", None),
        ({"HTTP_USER_AGENT": "kilo-code/4", "HTTP_X_KILOCODE_TASKID": " "}, "Kilo Code", None),
        ({"HTTP_USER_AGENT": "axios/1", "HTTP_ORIGINATOR": "Roo-Code"}, "Roo Code", None),
        ({"HTTP_USER_AGENT": "Xum/1.0", "HTTP_X_MUX_WORKSPACE_ID": "w"}, "Mux", "w"),
        ({"HTTP_USER_AGENT": "claude-cli/2", "HTTP_X_CURSOR_CLIENT_VERSION": "1"}, "Claude Code", None),
        ({"HTTP_USER_AGENT": "node", "HTTP_X_CURSOR_CLIENT_VERSION": "1.2"}, "Cursor", None),
        ({"HTTP_USER_AGENT": "opencode/1", "HTTP_X_SESSION_AFFINITY": "a"}, "OpenCode", "a"),
        (
            {"HTTP_USER_AGENT": "opencode/1", "HTTP_X_OPENCODE_SESSION": "o", "HTTP_X_SESSION_AFFINITY": "a"},
            "OpenCode",
            "o",
        ),
        ({"HTTP_USER_AGENT": "Junie:1"}, "Junie", None),
        ({"HTTP_USER_AGENT": "curl/8", "HTTP_SESSION_ID": "anybody's"}, "Unknown", None),
        ({"HTTP_USER_AGENT": " "}, None, None),
        ({}, None, None),
    ],
)
def test_programs_by_what_they_send(environ: dict[str, str], client: str | None, session: str | None) -> None:
    """The User-Agent's beginning, or a header of their own; another's session header means nothing."""
    assert client_of(environ) == client
    assert session_of(environ, {}) == session


@pytest.mark.parametrize(
    ("user_id", "session"),
    [
        (json.dumps({"device_id": "d", "session_id": "s-1"}), "s-1"),
        ("user_abc_account__session_0b0f-77", "0b0f-77"),
        (json.dumps({"session_id": 7}), None),
        (json.dumps({"session_id": " "}), None),
        ("nothing of the kind", None),
        ("[" * 100_000, None),
        (None, None),
        (5, None),
    ],
)
def test_claude_code_names_its_session_in_the_body_too(user_id: Any, session: str | None) -> None:
    """As JSON, or in the older form; for other programs the body is not looked at."""
    document = {"metadata": {"user_id": user_id}}
    assert session_of({"HTTP_USER_AGENT": "claude-cli/2"}, document) == session
    assert session_of({"HTTP_USER_AGENT": "curl/8"}, document) is None


def test_codex_names_its_conversation_in_the_body_too() -> None:
    """For other programs a cache's key is no session."""
    document = {"prompt_cache_key": " 0199-77 "}
    assert session_of({"HTTP_USER_AGENT": "codex_cli_rs/0.40"}, document) == "0199-77"
    assert session_of({"HTTP_USER_AGENT": "codex_cli_rs/0.40", "HTTP_SESSION_ID": "s"}, document) == "s"
    assert session_of({"HTTP_USER_AGENT": "OpenAI/Python 3.1"}, document) is None
    others: list[Any] = [None, " ", 7, {}]
    for other in others:
        assert session_of({"HTTP_USER_AGENT": "codex_cli_rs/0.40"}, {"prompt_cache_key": other}) is None


def test_the_header_goes_before_the_body() -> None:
    """Both name the same session, as a rule."""
    environ = {"HTTP_USER_AGENT": "claude-cli/2", "HTTP_X_CLAUDE_CODE_SESSION_ID": "header"}
    assert session_of(environ, {"metadata": {"user_id": "x_session_body"}}) == "header"


@given(
    st.dictionaries(
        st.sampled_from(
            sorted({header for program in PROGRAMS for header in program.sessions} | {"HTTP_USER_AGENT"})
        ),
        st.text(max_size=300),
    ),
    st.dictionaries(st.just("metadata"), st.dictionaries(st.just("user_id"), st.text(max_size=300))),
)
def test_nothing_that_is_sent_breaks_it(environ: dict[str, str], document: dict[str, Any]) -> None:
    """What comes out is short and not empty."""
    session = session_of(environ, document)
    assert session is None or 0 < len(session) <= MAX_SESSION_ID
    client_of(environ)
