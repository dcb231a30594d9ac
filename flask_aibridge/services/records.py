"""Pure: everything that is recorded of an interception, as frozen dataclasses.

The messages are those of the recorder: one ``InterceptionStart``, any number of ``TokenUsage``, ``PromptUsage``,
``ToolUsage`` and ``ModelThought``, one ``InterceptionEnd``. Each has an ``id`` of its own, so that writing one twice
writes it once. Times are aware and in UTC; ``metadata`` holds JSON values.

An interception's id is a UUIDv7 (RFC 9562, section 5.7) in 32 hexadecimal digits. It begins with the milliseconds of
``started_at``, so ids sort by time; its last digit is the *shard*, which says together with what it is stored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias
from zlib import crc32

Status: TypeAlias = Literal[
    "running",
    "completed",
    "client_closed",
    "upstream_error",
    "upstream_truncated",
    "interrupted",
    "refused",
]
"""How an interception stands; all but ``running`` are ends."""

ENDS: Final = ("completed", "client_closed", "upstream_error", "upstream_truncated", "interrupted", "refused")

RARE_ENDS: Final = frozenset(ENDS) - {"completed"}
"""What few interceptions end with: those are found by it, and counted, as fast as by who made them."""

CredentialKind: TypeAlias = Literal["centralized", "byok"]
"""Whose provider key was used: the host's, or the caller's own."""

SHARDS: Final = 16
"""Into how many parts the records are divided: one hexadecimal digit, and enough to balance a cluster of a few
nodes. It is part of the stored form and does not change with the number of nodes."""

MAX_TOKENS: Final = 10**12
"""The largest count that is recorded, as in the model: what is above it is a defect of the provider's, not usage."""

APPLICATION: Final = "application"
"""Who is recorded as the initiator of calls that the host makes in process and on nobody's behalf."""

GONE: Final = "The process that answered the request is gone."
STOPPED: Final = "The process that answered the request was stopped before the answer had ended."
"""What stand-in ends say."""

_STAND_IN: Final = "sweep-"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = 253_402_300_799_000  # the end of the year 9999
_MILLISECOND: Final = timedelta(milliseconds=1)
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class InterceptionStart:
    """A request is about to be forwarded.

    ``initiator`` is the user; null until the authorisation has said who it is. ``provider`` is the instance's name,
    ``provider_type`` its wire format. ``source`` is null by the public door. ``key_id`` is the API key that the
    request came with or was made on behalf of. ``credential_hint`` is a masked form of the provider's key.
    ``worker`` names the process that answers the request: with its lease gone, the interception is ``interrupted``.
    """

    id: str
    initiator: str | None
    provider: str
    provider_type: str
    route: str = ""
    model: str | None = None
    client: str | None = None
    user_agent: str | None = None
    source: str | None = None
    session_id: str | None = None
    key_id: str | None = None
    in_process: bool = False
    correlating_tool_call_id: str | None = None
    credential_kind: CredentialKind = "centralized"
    credential_hint: str | None = None
    worker: str = ""
    metadata: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class InterceptionEnd:
    """An interception has ended. The first end counts, but for a stand-in (``stand_in_end``).

    ``credential_hint`` is that of the key that was used in the end, where it is not the one of the start.
    ``error_message`` begins with a word for the error; behind a colon there may be a sentence. That of a provider may
    quote what it was asked.
    """

    id: str
    interception_id: str
    status: Status
    http_status: int | None = None
    error_type: str | None = None
    error_message: str | None = None
    credential_hint: str | None = None
    ended_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """The tokens of one answer of the provider. ``input`` never includes cached tokens, ``output`` includes
    reasoning; ``extra`` holds every further count under the provider's own name. Each count is 0 to ``MAX_TOKENS``."""

    id: str
    interception_id: str
    message_id: str = ""
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    extra: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    metadata: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptUsage:
    """What the user asked, in their own words."""

    id: str
    interception_id: str
    message_id: str = ""
    prompt: str
    metadata: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUsage:
    """A tool that the model called. ``input`` is the arguments as JSON text, ``server_url`` the MCP server's and
    ``invocation_error`` what went wrong, for tools that the bridge injected; ``item_id`` is the Responses API's."""

    id: str
    interception_id: str
    message_id: str = ""
    tool: str
    input: str = ""
    tool_call_id: str | None = None
    item_id: str | None = None
    server_url: str | None = None
    injected: bool = False
    invocation_error: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelThought:
    """A piece of the model's reasoning that the provider showed."""

    id: str
    interception_id: str
    content: str
    metadata: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    created_at: datetime


Record: TypeAlias = InterceptionStart | InterceptionEnd | TokenUsage | PromptUsage | ToolUsage | ModelThought


_WORD: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}(?=:|$)")


def without_content(record: Record) -> Record | None:
    """The record without anything that people, models or providers said in their own words; null where nothing else is
    in it."""
    if isinstance(record, PromptUsage | ToolUsage | ModelThought):
        return None
    if not isinstance(record, InterceptionEnd) or not record.status.startswith("upstream_"):
        return record
    word = _WORD.match(record.error_message or "")
    return replace(record, error_message=word and word[0])


def interception_of(record: Record) -> str:
    """The id of the interception that a record belongs to."""
    return record.id if isinstance(record, InterceptionStart) else record.interception_id


def stand_in_end(interception_id: str, at: datetime, message: str) -> InterceptionEnd:
    """An ``interrupted`` end for an interception whose real one nobody has seen: its worker is gone, or stops.

    Should the real one come later all the same, it takes the place of this one. It is told by its id.
    """
    return InterceptionEnd(
        id=f"{_STAND_IN}{interception_id}",
        interception_id=interception_id,
        status="interrupted",
        error_type="interrupted",
        error_message=message,
        ended_at=max(at, started_at_of(interception_id)),
    )


def given_up_end(interception_id: str, at: datetime) -> InterceptionEnd:
    """The end of an interception that did not go on, though its start may have been stored."""
    return InterceptionEnd(
        id=f"{interception_id}.r",
        interception_id=interception_id,
        status="refused",
        error_type="refused",
        error_message="The request was given up while it was admitted.",
        ended_at=at,
    )


def is_stand_in(end: InterceptionEnd) -> bool:
    """Whether an end gives way to a real one."""
    return end.id == f"{_STAND_IN}{end.interception_id}"


def shard_of_key(key_id: str) -> int:
    """The shard of an API key, and of the interceptions it is used for."""
    return crc32(key_id.encode("utf-8", "surrogatepass")) % SHARDS


def shard_of(interception_id: str) -> int:
    """The shard of an interception: the last digit of its id.

    :raises ValueError: for what is no interception id.
    """
    return int(interception_id[-1:], 16)


def milliseconds_of(moment: datetime) -> int:
    """Whole milliseconds since the epoch, rounded down: in integers, for floats lose one in fifty."""
    return (moment - _EPOCH) // _MILLISECOND


def make_interception_id(started_at: datetime, shard: int, randomness: int) -> str:
    """An interception's id: UUIDv7 from a time and 70 random bits, whose last digit is the shard."""
    milliseconds = milliseconds_of(started_at) & 0xFFFF_FFFF_FFFF
    low = ((randomness >> 12) & 0x3FFF_FFFF_FFFF_FFF) << 4 | shard
    number = milliseconds << 80 | 0x7 << 76 | (randomness & 0xFFF) << 64 | 0b10 << 62 | low & (1 << 62) - 1
    return f"{number:032x}"


def id_prefix(moment: datetime) -> str:
    """The first twelve digits that the ids of this millisecond have: lower than every id made later."""
    return f"{milliseconds_of(moment) & 0xFFFF_FFFF_FFFF:012x}"


def started_at_of(interception_id: str) -> datetime:
    """The time in an interception's id, to the millisecond; no later than there are dates."""
    return datetime.fromtimestamp(min(int(interception_id[:12], 16), _LAST) / 1000, UTC)
