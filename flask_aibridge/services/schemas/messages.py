"""Pure: one marshmallow schema per message, which is its form on the wire and in the store alike.

The form is a JSON object with the names of the dataclass's fields. Times are RFC 3339 in UTC with microseconds; null
fields are left out; fields that nobody knows are ignored, since a later minor version may add some. Limits and what
happens beyond them are those of ``schema_fields``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from flask_aibridge.config import ProviderSettings
from flask_aibridge.errors import InvalidRecord
from flask_aibridge.services import interfaces, records
from flask_aibridge.services.records import ENDS, MAX_TOKENS
from flask_aibridge.services.schemas.codec import Codec, Many, Message, One
from flask_aibridge.services.schemas.fields import (
    MAX_CONTENT,
    MAX_EXTRA,
    MAX_NAME,
    MAX_SECRET,
    MAX_TEXT,
    MAX_VERSION,
    Count,
    Flag,
    InterceptionId,
    Limit,
    Metadata,
    Moment,
    Name,
    Names,
    RecordId,
    Table,
    Text,
    Word,
)


class InterceptionStart(Message):
    """A request is about to be forwarded."""

    record_type = records.InterceptionStart

    id = InterceptionId(required=True)
    initiator = Name(allow_none=True, load_default=None)
    provider = Name(required=True)
    provider_type = Name(required=True)
    route = Text(MAX_NAME)
    model = Text(MAX_NAME, allow_none=True)
    client = Text(MAX_NAME, allow_none=True)
    user_agent = Text(MAX_TEXT, allow_none=True)
    source = Text(MAX_NAME, allow_none=True)
    session_id = Text(MAX_NAME, allow_none=True)
    key_id = Name(allow_none=True)
    in_process = Flag()
    correlating_tool_call_id = Text(MAX_NAME, allow_none=True)
    credential_kind = Word(("centralized", "byok"))
    credential_hint = Text(MAX_NAME, allow_none=True)
    worker = Name(empty=True)
    metadata = Metadata()
    started_at = Moment(required=True)


class InterceptionEnd(Message):
    """An interception has ended."""

    record_type = records.InterceptionEnd

    id = RecordId(required=True)
    interception_id = InterceptionId(required=True)
    status = Word(ENDS, required=True)
    http_status = Count(999, allow_none=True)
    error_type = Text(MAX_NAME, allow_none=True)
    error_message = Text(MAX_TEXT, allow_none=True)
    credential_hint = Text(MAX_NAME, allow_none=True)
    ended_at = Moment(required=True)


class TokenUsage(Message):
    """The tokens of one answer."""

    record_type = records.TokenUsage

    id = RecordId(required=True)
    interception_id = InterceptionId(required=True)
    message_id = Text(MAX_NAME)
    input = Count(MAX_TOKENS)
    output = Count(MAX_TOKENS)
    cache_read = Count(MAX_TOKENS)
    cache_write = Count(MAX_TOKENS)
    extra = Table(Name(), Count(MAX_TOKENS), MAX_EXTRA)
    metadata = Metadata()
    created_at = Moment(required=True)


class PromptUsage(Message):
    """What the user asked."""

    record_type = records.PromptUsage

    id = RecordId(required=True)
    interception_id = InterceptionId(required=True)
    message_id = Text(MAX_NAME)
    prompt = Text(MAX_CONTENT, required=True)
    metadata = Metadata()
    created_at = Moment(required=True)


class ToolUsage(Message):
    """A tool that the model called."""

    record_type = records.ToolUsage

    id = RecordId(required=True)
    interception_id = InterceptionId(required=True)
    message_id = Text(MAX_NAME)
    tool = Text(MAX_NAME, required=True)
    input = Text(MAX_CONTENT)
    tool_call_id = Text(MAX_NAME, allow_none=True)
    item_id = Text(MAX_NAME, allow_none=True)
    server_url = Text(MAX_TEXT, allow_none=True)
    injected = Flag()
    invocation_error = Text(MAX_TEXT, allow_none=True)
    metadata = Metadata()
    created_at = Moment(required=True)


class ModelThought(Message):
    """A piece of the model's reasoning."""

    record_type = records.ModelThought

    id = RecordId(required=True)
    interception_id = InterceptionId(required=True)
    content = Text(MAX_CONTENT, required=True)
    metadata = Metadata()
    created_at = Moment(required=True)


class MCPServerConfig(Message):
    """An MCP server whose tools may be injected."""

    record_type = interfaces.MCPServerConfig

    id = Name(required=True)
    url = Name(MAX_TEXT, required=True)
    tool_allow_regex = Name(MAX_TEXT, empty=True, allow_none=True)
    tool_deny_regex = Name(MAX_TEXT, empty=True, allow_none=True)


class AccessTokens(Message):
    """Answers of a batch, by server id."""

    record_type = interfaces.AccessTokens

    tokens = Table(Name(), Name(MAX_SECRET))
    errors = Table(Name(), Name(MAX_TEXT, empty=True))


class Credential(Message):
    """An API key, or the id of one."""

    record_type = interfaces.Credential

    key = Name(MAX_SECRET, empty=True, allow_none=True)
    key_id = Name(empty=True, allow_none=True)


class Scopes(Message):
    """To what a key is limited."""

    record_type = interfaces.Scopes

    providers = Names(Name(), allow_none=True)
    models = Names(Name(), allow_none=True)


class Authorization(Message):
    """Whom a credential belongs to."""

    record_type = interfaces.Authorization

    user = Name(required=True)
    key_id = Name(allow_none=True)
    display_name = Text(MAX_NAME, allow_none=True)
    scopes = One(Scopes)
    rate_limit = Limit(allow_none=True, load_default=None)


class RateStanding(Message):
    """Where a caller stands under a rate limit."""

    record_type = interfaces.RateStanding

    limit = Limit(required=True)
    remaining = Count(MAX_VERSION, required=True)
    reset_after = Count(MAX_VERSION, required=True)


class Admission(Message):
    """A request may go ahead."""

    record_type = interfaces.Admission

    authorization = One(Authorization, allow_none=True, load_default=None)
    config_version = Count(MAX_VERSION)
    rate = One(RateStanding, allow_none=True, load_default=None)


class ProviderSettingsSchema(Message):
    """A provider's settings. It holds secrets."""

    record_type = ProviderSettings

    name = Name(required=True)
    type = Name(required=True)
    base_url = Name(MAX_TEXT, required=True)
    keys = Names(Name(MAX_SECRET))


class ProviderConfig(Message):
    """A provider as the host keeps it. It holds secrets."""

    record_type = interfaces.ProviderConfig

    settings = One(ProviderSettingsSchema, required=True)
    enabled = Flag()


class ProviderSet(Message):
    """Every provider of the host. It holds secrets."""

    record_type = interfaces.ProviderSet

    providers = Many(ProviderConfig, required=True)
    version = Count(MAX_VERSION)


class APIKey(Message):
    """An API key as it is listed."""

    record_type = interfaces.APIKey

    id = Name(required=True)
    owner = Name(required=True)
    display_name = Text(MAX_NAME)
    scopes = One(Scopes)
    created_at = Moment(required=True)
    expires_at = Moment(allow_none=True)
    revoked_at = Moment(allow_none=True)
    last_used_at = Moment(allow_none=True)
    rate_limit = Limit(allow_none=True, load_default=None)


_CODECS: Final = {
    schema.record_type.__name__: Codec(schema())
    for schema in (
        InterceptionStart,
        InterceptionEnd,
        TokenUsage,
        PromptUsage,
        ToolUsage,
        ModelThought,
        MCPServerConfig,
        AccessTokens,
        Credential,
        Scopes,
        Authorization,
        RateStanding,
        Admission,
        ProviderSettingsSchema,
        ProviderConfig,
        ProviderSet,
        APIKey,
    )
}

_BY_TYPE: Final = {codec.schema.record_type: codec for codec in _CODECS.values()}

SCHEMAS: Final[Mapping[str, Message]] = {kind: codec.schema for kind, codec in _CODECS.items()}
"""The schema of each kind of message."""

RECORD_KINDS: Final = (
    "InterceptionStart",
    "InterceptionEnd",
    "TokenUsage",
    "PromptUsage",
    "ToolUsage",
    "ModelThought",
)
"""The kinds that a recorder takes."""


def kind_of(record: object) -> str:
    """The kind of a message: its dataclass's name.

    :raises TypeError: for what is no message.
    """
    kind = type(record).__name__
    codec = _CODECS.get(kind)
    if codec is None or codec.schema.record_type is not type(record):
        raise TypeError(f"{kind} is no message of the services; the messages are {', '.join(_CODECS)}.")
    return kind


def load(kind: str, document: Any) -> Any:
    """The message of a parsed JSON document.

    :raises InvalidRecord: naming the field and what is wrong with it, never its value.
    """
    codec = _CODECS.get(kind)
    if codec is None:
        raise InvalidRecord(f"There is no kind of message of that name; there are {', '.join(_CODECS)}.")
    return codec.load(document)


def decode(kind: str, text: str | bytes) -> Any:
    """The message of JSON text.

    :raises InvalidRecord: for text that is no JSON, too, such as a corrupt row.
    """
    try:
        document = _parse(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError):
        raise InvalidRecord(f"{kind}: the text is not JSON; it is corrupt or not a record.") from None
    return load(kind, document)


def encode(record: object) -> str:
    """The message as compact JSON text, in which every character can be encoded.

    :raises InvalidRecord: for one that ``load`` would refuse, naming the field.
    :raises TypeError: for what is no message.
    """
    codec = _BY_TYPE.get(type(record))
    return (codec or _CODECS[kind_of(record)]).encode(record)


def _no_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON.")


_parse: Final = json.JSONDecoder(parse_constant=_no_constant).decode
