"""What the contract suites record: one of everything, and populations with known answers."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any, TypeAlias, TypeVar

from flask_aibridge.config import parse_rate_limit
from flask_aibridge.services.interfaces import APIKey, Recorder, Scopes
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
    milliseconds_of,
)
from flask_aibridge.services.storage import APIKeyRow, InterceptionView, Store, TokenSums, UsageRow
from tests.services.servers import wait_until

_Answer = TypeVar("_Answer")

MakeStore: TypeAlias = Callable[..., Store]
"""Makes an empty store; takes the options that all stores have."""

DEADLINE = 20.0
"""Seconds that upkeep and watches get: far beyond a slow machine's need."""

ODD_NAMES = (
    "a",
    "a:b",
    "a:b:c",
    "user:a",
    "{s1}",
    "}{",
    "{config}",
    "two words",
    " a ",
    "*",
    "a*",
    "[a]",
    '"',
    "\\",
    "%",
    "\n",
    "\x00",
    "Zoë",
    "李雷",
    "\U0001f98a",
    "i:a",
    "s:a",
    "x" * 200,
    "ü" * 200,
)
"""Names of users and the like that a store may stumble over; none is a duplicate of another."""

TRICKY_TEXTS = (
    "",
    "\x00",
    "plain",
    '"quoted" \\ back',
    "line\nline\r\n",
    "\U0001f98a Zoë 李雷",
    "[]",
    "{}",
    "null",
)


def now() -> datetime:
    """The time, to the millisecond, as the ids have it."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def new_id(at: datetime, shard: int | None = None) -> str:
    """An interception's id."""
    return make_interception_id(
        at, secrets.randbelow(SHARDS) if shard is None else shard, secrets.randbits(80)
    )


def a_start(at: datetime | None = None, *, shard: int | None = None, **fields: Any) -> InterceptionStart:
    """The start of an interception, with little in it but what is given."""
    at = at or now()
    given: dict[str, Any] = {
        "id": new_id(at, shard),
        "initiator": "alice",
        "provider": "openai",
        "provider_type": "openai",
        "started_at": at,
        **fields,
    }
    return InterceptionStart(**given)


def a_full_start(at: datetime | None = None, *, shard: int | None = None) -> InterceptionStart:
    """The start of an interception, with something in every field that its default does not have."""
    return a_start(
        (at or now()) + timedelta(microseconds=123),
        shard=shard,
        initiator="alice",
        provider="main",
        provider_type="anthropic",
        route="/v1/messages",
        model="claude-fable-5",
        client="Claude Code",
        user_agent="claude-cli/2.1 (external, cli)",
        source="agents",
        session_id="f0c1b6a2-8f5e-4a0f-9b58-6a2f5cf0e4a1",
        key_id="abcdefghij01",
        in_process=True,
        correlating_tool_call_id="toolu_1",
        credential_kind="byok",
        credential_hint="sk-…cdef",
        worker="host:1:abc",
        metadata={"nested": {"list": [1, 2.5, None, True, "ü"], "empty": {}}, "none": None, "no": []},
    )


def an_end(start: InterceptionStart, status: str = "completed", **fields: Any) -> InterceptionEnd:
    """The end of an interception."""
    given: dict[str, Any] = {
        "id": new_record_id(),
        "interception_id": start.id,
        "status": status,
        "ended_at": start.started_at + timedelta(seconds=2),
        **fields,
    }
    return InterceptionEnd(**given)


def a_full_end(start: InterceptionStart) -> InterceptionEnd:
    """The end of an interception, with something in every field."""
    return an_end(
        start,
        "upstream_error",
        http_status=529,
        error_type="overloaded",
        error_message="Overloaded. Try again.",
        credential_hint="sk-…0123",
        ended_at=start.started_at + timedelta(seconds=3, microseconds=7),
    )


def a_usage(start: InterceptionStart, **fields: Any) -> TokenUsage:
    """Some tokens of an interception."""
    given: dict[str, Any] = {"created_at": start.started_at, **fields}
    return TokenUsage(id=new_record_id(), interception_id=start.id, **given)


def a_full_usage(start: InterceptionStart, factor: int = 1) -> TokenUsage:
    """Tokens, with something in every field."""
    return a_usage(
        start,
        message_id="msg_1",
        input=3 * factor,
        output=5 * factor,
        cache_read=7 * factor,
        cache_write=11 * factor,
        extra={"reasoning_tokens": 13 * factor, "web search: requests": 17 * factor},
        metadata={"service_tier": "standard"},
        created_at=start.started_at + timedelta(microseconds=1001 * factor),
    )


def a_prompt(start: InterceptionStart, prompt: str = "Why is the sky blue?", **fields: Any) -> PromptUsage:
    """What a user asked."""
    given: dict[str, Any] = {"created_at": start.started_at, **fields}
    return PromptUsage(id=new_record_id(), interception_id=start.id, prompt=prompt, **given)


def a_full_tool_call(start: InterceptionStart) -> ToolUsage:
    """A tool call, with something in every field."""
    return ToolUsage(
        id=new_record_id(),
        interception_id=start.id,
        message_id="msg_1",
        tool="search",
        input='{"query": "sky"}',
        tool_call_id="call_1",
        item_id="fc_1",
        server_url="https://tools.example/mcp",
        injected=True,
        invocation_error="Timed out.",
        metadata={"attempt": 2},
        created_at=start.started_at + timedelta(microseconds=2002),
    )


def a_thought(start: InterceptionStart, content: str = "Rayleigh.", **fields: Any) -> ModelThought:
    """A thought."""
    given: dict[str, Any] = {"created_at": start.started_at, **fields}
    return ModelThought(id=new_record_id(), interception_id=start.id, content=content, **given)


def everything_of(start: InterceptionStart) -> list[Record]:
    """Records of every kind, full, all of one interception and without its start."""
    return [
        a_full_usage(start),
        a_full_usage(start, factor=2),
        a_prompt(start, message_id="msg_1", metadata={"index": 0}),
        a_full_tool_call(start),
        a_thought(start, metadata={"signature": "c2ln"}),
        a_full_end(start),
    ]


def new_record_id() -> str:
    """An id for a record."""
    return secrets.token_hex(8)


def a_key_row(key_id: str = "key000000001", **fields: Any) -> APIKeyRow:
    """A stored API key; ``fields`` are those of the row or of the key."""
    of_row = {name: fields.pop(name) for name in ("secret_hash", "old_hash", "old_until") if name in fields}
    given: dict[str, Any] = {"id": key_id, "owner": "alice", "created_at": now(), **fields}
    return APIKeyRow(key=APIKey(**given), **{"secret_hash": "0" * 64, **of_row})


def a_full_key_row(key_id: str = "key000000001") -> APIKeyRow:
    """A stored API key with something in every field but its last use."""
    return a_key_row(
        key_id,
        owner="Zoë: {1}",
        display_name="laptop, the old one",
        scopes=Scopes(("main", "open*"), ("claude-*",)),
        expires_at=now() + timedelta(days=1),
        revoked_at=now() - timedelta(days=1),
        secret_hash="ab" * 32,
        old_hash="cd" * 32,
        old_until=now() + timedelta(hours=1),
        rate_limit=parse_rate_limit("60/minute burst=20"),
    )


def summed(usages: Sequence[TokenUsage]) -> TokenSums:
    """The sums that a store should give."""
    extra: dict[str, int] = {}
    for usage in usages:
        for name, count in usage.extra.items():
            extra[name] = extra.get(name, 0) + count
    return TokenSums(
        input=sum(usage.input for usage in usages),
        output=sum(usage.output for usage in usages),
        cache_read=sum(usage.cache_read for usage in usages),
        cache_write=sum(usage.cache_write for usage in usages),
        extra=extra,
    )


def normal(row: UsageRow) -> UsageRow:
    """A row without the extra tokens that were counted as none: whether they are listed is nobody's business."""
    extra = {name: count for name, count in row.tokens.extra.items() if count}
    return replace(row, tokens=replace(row.tokens, extra=extra))


def usage_around(store: Store, moment: datetime, **question: Any) -> tuple[UsageRow, ...]:
    """The usage of the hours just before and after."""
    return store.usage(since=moment - timedelta(hours=2), until=moment + timedelta(hours=2), **question)


def read(store: Store, start: InterceptionStart) -> InterceptionView:
    """An interception that must be there."""
    view = store.interception(start.id)
    assert view is not None, "the interception is not there"
    return view


def soon(answer: Callable[[], _Answer]) -> _Answer:
    """What a call gives that may wait, but not for ever."""
    answers: list[_Answer] = []

    def ask() -> None:
        with suppress(StopIteration):
            answers.append(answer())

    caller = Thread(target=ask, daemon=True)
    caller.start()
    caller.join(DEADLINE)
    assert answers, f"no answer within {DEADLINE:g} s"
    return answers[0]


def maintained_until(store: Recorder, fact: Callable[[], bool], what: str) -> None:
    """Call upkeep, as every process does, until something is so."""

    def looked_after() -> bool:
        store.maintain()
        return fact()

    wait_until(looked_after, what, DEADLINE)


def to_the_millisecond(moment: datetime) -> int:
    """Times that a store keeps in an index are kept to the millisecond."""
    return milliseconds_of(moment)


def without_usages(view: InterceptionView) -> InterceptionView:
    """A list may leave out the single usages."""
    return replace(view, usages=())


def forged(record: Record) -> Record:
    """A record of the same id that says something else."""
    changed: dict[str, dict[str, Any]] = {
        "InterceptionStart": {"model": "other", "initiator": "mallory"},
        "InterceptionEnd": {"status": "completed"},
        "TokenUsage": {"input": 1000, "extra": {"reasoning_tokens": 1000}},
        "PromptUsage": {"prompt": "other"},
        "ToolUsage": {"tool": "other"},
        "ModelThought": {"content": "other"},
    }
    return replace(record, **changed[type(record).__name__])
