"""Pure: which program asks, and in which of its sessions: by the headers it sends, or a field of its body.

The programs say it in ways of their own; none of it is proof of anything, and nothing is decided by it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

MAX_SESSION_ID: Final = 200
"""Characters of a session's id that are recorded; those of known programs have fewer than 80."""

UNKNOWN: Final = "Unknown"
"""The program behind a User-Agent that is none of those known here."""


class Program(NamedTuple):
    """A program: how its User-Agent begins (lower case), the headers that name its session, best first, and a header
    that gives it away, with a value if that matters."""

    name: str
    agents: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    sign: tuple[str, str | None] | None = None


CLAUDE_CODE: Final = "Claude Code"
CODEX: Final = "Codex"

PROGRAMS: Final = (
    Program(CLAUDE_CODE, ("claude",), ("HTTP_X_CLAUDE_CODE_SESSION_ID",)),
    # PEP 3333 cannot tell `session-id` from `session_id`: servers map both here, or drop the second.
    Program(CODEX, ("codex",), ("HTTP_SESSION_ID",)),
    Program("Mux", ("mux/", "xum/"), ("HTTP_X_MUX_WORKSPACE_ID",)),
    Program("Zed", ("zed/",)),
    Program("GitHub Copilot (VS Code)", ("githubcopilotchat/",), ("HTTP_X_INTERACTION_ID",)),
    Program("GitHub Copilot (CLI)", ("copilot/",), ("HTTP_X_CLIENT_SESSION_ID",)),
    Program("Kilo Code", ("kilo-code/",), ("HTTP_X_KILOCODE_TASKID",), ("HTTP_ORIGINATOR", "kilo-code")),
    Program("Roo Code", ("roo-code/",), (), ("HTTP_ORIGINATOR", "roo-code")),
    Program("Coder Agents", ("coder-agents/",), ("HTTP_X_CODER_CHAT_ID",)),
    Program("Charm Crush", ("charm crush/", "charm-crush/")),
    Program("Cursor", (), (), ("HTTP_X_CURSOR_CLIENT_VERSION", None)),
    Program("OpenCode", ("opencode/",), ("HTTP_X_OPENCODE_SESSION", "HTTP_X_SESSION_AFFINITY")),
    Program("Junie", ("junie:",)),
)
"""In the order in which they are tried."""

_WITH_SIGN: Final = tuple(program for program in PROGRAMS if program.sign is not None)
_SIGNS: Final = frozenset(program.sign[0] for program in _WITH_SIGN if program.sign is not None)
_AGENT_BEGINS: Final = 32
"""Characters of a User-Agent that tell the program."""

_OLD_SESSION = re.compile(r"_session_(.+)$")


def client_of(environ: Mapping[str, Any]) -> str | None:
    """Return the program's name; null where it says nothing of itself."""
    program = _program(environ)
    if program is not None:
        return program.name
    return UNKNOWN if environ.get("HTTP_USER_AGENT", "").strip() else None


def session_of(environ: Mapping[str, Any], document: Mapping[str, Any]) -> str | None:
    """Return the id of the program's session; null where it names none. ``document`` is the request's body."""
    program = _program(environ)
    if program is None:
        return None
    for header in program.sessions:
        value = str(environ.get(header, "")).strip()
        if value:
            return value[:MAX_SESSION_ID]
    in_body = _IN_BODY.get(program.name)
    return None if in_body is None else in_body(document)


def _program(environ: Mapping[str, Any]) -> Program | None:
    by_agent = _by_agent(environ.get("HTTP_USER_AGENT", "").strip()[:_AGENT_BEGINS])
    if environ.keys().isdisjoint(_SIGNS):  # as nearly always
        return by_agent
    for program in _WITH_SIGN:
        if program is by_agent:
            break
        if _shows(environ, program.sign) and (by_agent is None or _comes_before(program, by_agent)):
            return program
    return by_agent


@lru_cache(256)
def _by_agent(agent: str) -> Program | None:
    agent = agent.lower()
    return next((program for program in PROGRAMS if agent.startswith(program.agents)), None)


def _comes_before(program: Program, other: Program) -> bool:
    return PROGRAMS.index(program) < PROGRAMS.index(other)


def _shows(environ: Mapping[str, Any], sign: tuple[str, str | None] | None) -> bool:
    if sign is None:
        return False
    header, wanted = sign
    value = str(environ.get(header, "")).strip()
    return bool(value) if wanted is None else value.lower() == wanted


def _in_metadata(document: Mapping[str, Any]) -> str | None:
    """Claude Code's session in ``metadata.user_id``: JSON with a ``session_id``; in older versions the text after
    ``_session_``."""
    metadata = document.get("metadata")
    user_id = metadata.get("user_id") if isinstance(metadata, Mapping) else None
    if not isinstance(user_id, str):
        return None
    try:
        found = json.loads(user_id)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, Mapping):
        session = found.get("session_id")
    else:
        old = _OLD_SESSION.search(user_id)
        session = old[1] if old else None
    return _named(session)


def _cache_key(document: Mapping[str, Any]) -> str | None:
    """Codex's conversation, by which it has its prompts cached. Its older versions name the session in a header with an
    underscore alone, and servers drop those."""
    return _named(document.get("prompt_cache_key"))


def _named(session: object) -> str | None:
    return session.strip()[:MAX_SESSION_ID] or None if isinstance(session, str) else None


_IN_BODY: Final[Mapping[str, Callable[[Mapping[str, Any]], str | None]]] = MappingProxyType(
    {CLAUDE_CODE: _in_metadata, CODEX: _cache_key}
)
"""Where the request's body names the session."""
