"""Interceptions as a coding agent makes them, to be recorded."""

from __future__ import annotations

import itertools
import random
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from flask_aibridge.services import api_keys
from flask_aibridge.services.interfaces import APIKey, Credential
from flask_aibridge.services.records import (
    SHARDS,
    InterceptionEnd,
    InterceptionStart,
    ModelThought,
    PromptUsage,
    Record,
    TokenUsage,
    ToolUsage,
    make_interception_id,
    shard_of_key,
)
from flask_aibridge.services.storage import APIKeyRow

USERS = [f"user-{number}@example.com" for number in range(20)]
MODELS = [f"claude-fable-{number}" for number in range(10)]
ERROR_SHARE = 0.1
"""So that even among the fewest interceptions a page of one user, or of one model's errors, is full."""

PROMPT = "Please look at the failing test in tests/services and say why it fails. " * 6
TOOL_INPUT = '{"path": "tests/services/test_memory.py", "from": 1, "to": 200, "reason": "to read the test"}'
THOUGHT = "The test asks for the sum of the tokens, which is counted twice where a batch is replayed. " * 4

_SECRET = "S" * api_keys.SECRET_LENGTH
_ordinals = itertools.count()


def key_of(number: int) -> tuple[APIKeyRow, Credential]:
    """An API key as it is stored, and as it is sent."""
    key_id = f"bench{number:07}"
    key = APIKey(
        id=key_id, owner=USERS[number % len(USERS)], display_name="laptop", created_at=datetime.now(UTC)
    )
    row = APIKeyRow(key=key, secret_hash=api_keys.secret_hash(_SECRET))
    return row, Credential(key=api_keys.spell(key_id, _SECRET))


def started(at: datetime, shard: int, **fields: object) -> InterceptionStart:
    """A start with what a bridge knows of a request."""
    values: dict[str, object] = {
        "id": make_interception_id(at, shard, secrets.randbits(80)),
        "initiator": None,
        "provider": "anthropic",
        "provider_type": "anthropic",
        "route": "/v1/messages",
        "model": MODELS[0],
        "client": "Claude Code",
        "user_agent": "claude-cli/2.1.0 (external, cli)",
        "session_id": f"session-{next(_ordinals) // 20}",
        "credential_hint": "sk-…abcd",
        "started_at": at,
        **fields,
    }
    return InterceptionStart(**values)  # type: ignore[arg-type]


def started_now(credential: Credential, worker: str = "") -> InterceptionStart:
    """The start of a request that comes with a key, in the key's shard."""
    key_id = api_keys.key_id_of(credential)
    return started(datetime.now(UTC), shard_of_key(key_id or ""), worker=worker)


def content_of(start: InterceptionStart) -> list[Record]:
    """A prompt, a tool call and a thought."""
    at = start.started_at
    return [
        PromptUsage(id=_id(), interception_id=start.id, message_id="msg_01", prompt=PROMPT, created_at=at),
        ToolUsage(
            id=_id(),
            interception_id=start.id,
            message_id="msg_01",
            tool="read_file",
            input=TOOL_INPUT,
            tool_call_id="toolu_01",
            created_at=at,
        ),
        ModelThought(id=_id(), interception_id=start.id, content=THOUGHT, created_at=at),
    ]


def accounting_of(start: InterceptionStart, status: str = "completed") -> list[Record]:
    """The tokens, and the end."""
    at = start.started_at + timedelta(seconds=3)
    usage = TokenUsage(
        id=_id(),
        interception_id=start.id,
        message_id="msg_01",
        input=1200,
        output=345,
        cache_read=20_000,
        cache_write=800,
        extra={"web_search_requests": 1},
        created_at=at,
    )
    end = InterceptionEnd(id=_id(), interception_id=start.id, status=status, http_status=200, ended_at=at)  # type: ignore[arg-type]
    return [usage, end]


def history(count: int, seed: int) -> Iterator[list[Record]]:
    """The records of past interceptions without content, over thirty days, oldest first."""
    rng = random.Random(seed)
    until = datetime.now(UTC) - timedelta(minutes=1)
    step = timedelta(days=30) / count
    for number in range(count):
        start = started(
            until - step * (count - number),
            rng.randrange(SHARDS),
            initiator=rng.choice(USERS),
            model=rng.choice(MODELS),
        )
        yield [start, *accounting_of(start, "upstream_error" if rng.random() < ERROR_SHARE else "completed")]


def _id() -> str:
    return f"{secrets.randbits(64):016x}"
