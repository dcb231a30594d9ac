"""Messages of every kind, drawn and fixed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

from hypothesis import strategies as st

from flask_aibridge.config import ProviderSettings, RateLimit
from flask_aibridge.services import interfaces, records

NOW = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
INTERCEPTION = records.make_interception_id(NOW, 3, 12345)

START = records.InterceptionStart(
    id=INTERCEPTION, initiator="ada", provider="anthropic", provider_type="anthropic", started_at=NOW
)
END = records.InterceptionEnd(id="e1", interception_id=INTERCEPTION, status="completed", ended_at=NOW)
USAGE = records.TokenUsage(
    id="u1", interception_id=INTERCEPTION, input=3, extra={"reasoning": 2}, created_at=NOW
)
PROMPT = records.PromptUsage(
    id="p1", interception_id=INTERCEPTION, prompt="Why? \u00fc\u4e2d", created_at=NOW
)
TOOL = records.ToolUsage(id="t1", interception_id=INTERCEPTION, tool="search", created_at=NOW)
THOUGHT = records.ModelThought(id="m1", interception_id=INTERCEPTION, content="Hm.", created_at=NOW)
RECORDS: tuple[records.Record, ...] = (START, END, USAGE, PROMPT, TOOL, THOUGHT)

# Everything that Python calls text: lone surrogates and NUL are among it.
anything = st.text(st.characters(exclude_categories=()), max_size=40)
unicode_text = st.text(max_size=40)
names = st.text(min_size=1, max_size=40)
zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-11))])
times = st.datetimes(datetime(1970, 1, 2), datetime(9000, 1, 1), timezones=zones)  # noqa: DTZ001
counts = st.integers(0, records.MAX_TOKENS)
ids = st.text("abcXYZ0189-_.:/", min_size=1, max_size=64)
interception_ids = st.text("0123456789abcdef", min_size=32, max_size=32)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | anything,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3),
    max_leaves=8,
)
odd_values = json_values | st.builds(object) | st.binary(max_size=4) | st.sets(st.integers(), max_size=2)
metadata = st.dictionaries(
    anything | st.integers() | st.tuples(st.integers()), odd_values, max_size=4
).flatmap(lambda mapping: st.sampled_from([mapping, MappingProxyType(mapping)]))


def null_or(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


scopes = st.builds(
    interfaces.Scopes,
    providers=null_or(st.lists(names, max_size=3).map(tuple)),
    models=null_or(st.lists(names, max_size=3).map(tuple)),
)
rate_limits = st.builds(
    RateLimit,
    requests=st.integers(1, 10_000),
    per=st.sampled_from([1, 60, 3600, 86400]),
    burst=st.integers(1, 10_000),
)
rate_standings = st.builds(
    interfaces.RateStanding,
    limit=rate_limits,
    remaining=st.integers(0, 10_000),
    reset_after=st.integers(0, 86400),
)
authorizations = st.builds(
    interfaces.Authorization,
    user=names,
    key_id=null_or(names),
    display_name=null_or(unicode_text),
    scopes=scopes,
    rate_limit=null_or(rate_limits),
)
provider_settings = st.builds(
    ProviderSettings, name=names, type=names, base_url=names, keys=st.lists(names, max_size=3).map(tuple)
)
provider_configs = st.builds(interfaces.ProviderConfig, settings=provider_settings, enabled=st.booleans())
_of_record: dict[str, st.SearchStrategy[Any]] = {
    "id": ids,
    "interception_id": interception_ids,
    "message_id": anything,
    "metadata": metadata,
    "created_at": times,
}

MESSAGES: dict[str, st.SearchStrategy[Any]] = {
    "InterceptionStart": st.builds(
        records.InterceptionStart,
        id=interception_ids,
        initiator=null_or(names),
        provider=names,
        provider_type=names,
        route=anything,
        model=null_or(anything),
        client=null_or(anything),
        user_agent=null_or(anything),
        source=null_or(anything),
        session_id=null_or(anything),
        key_id=null_or(names),
        in_process=st.booleans(),
        correlating_tool_call_id=null_or(anything),
        credential_kind=st.sampled_from(["centralized", "byok"]),
        credential_hint=null_or(anything),
        worker=unicode_text,
        metadata=metadata,
        started_at=times,
    ),
    "InterceptionEnd": st.builds(
        records.InterceptionEnd,
        id=ids,
        interception_id=interception_ids,
        status=st.sampled_from(records.ENDS),
        http_status=null_or(st.integers(100, 599)),
        error_type=null_or(anything),
        error_message=null_or(anything),
        credential_hint=null_or(anything),
        ended_at=times,
    ),
    "TokenUsage": st.builds(
        records.TokenUsage,
        input=counts,
        output=counts,
        cache_read=counts,
        cache_write=counts,
        extra=st.dictionaries(names, counts, max_size=4),
        **_of_record,
    ),
    "PromptUsage": st.builds(records.PromptUsage, prompt=anything, **_of_record),
    "ToolUsage": st.builds(
        records.ToolUsage,
        tool=anything,
        input=anything,
        tool_call_id=null_or(anything),
        item_id=null_or(anything),
        server_url=null_or(anything),
        injected=st.booleans(),
        invocation_error=null_or(anything),
        **_of_record,
    ),
    "ModelThought": st.builds(
        records.ModelThought,
        id=ids,
        interception_id=interception_ids,
        content=anything,
        metadata=metadata,
        created_at=times,
    ),
    "MCPServerConfig": st.builds(
        interfaces.MCPServerConfig,
        id=names,
        url=names,
        tool_allow_regex=null_or(unicode_text),
        tool_deny_regex=null_or(unicode_text),
    ),
    "AccessTokens": st.builds(
        interfaces.AccessTokens,
        tokens=st.dictionaries(names, names, max_size=3),
        errors=st.dictionaries(names, unicode_text, max_size=3),
    ),
    "Credential": st.builds(interfaces.Credential, key=unicode_text)
    | st.builds(interfaces.Credential, key_id=unicode_text),
    "Scopes": scopes,
    "Authorization": authorizations,
    "Admission": st.builds(
        interfaces.Admission,
        authorization=null_or(authorizations),
        config_version=st.integers(0, 2**53 - 1),
        rate=null_or(rate_standings),
    ),
    "RateStanding": rate_standings,
    "ProviderSettings": provider_settings,
    "ProviderConfig": provider_configs,
    "ProviderSet": st.builds(
        interfaces.ProviderSet,
        providers=st.lists(provider_configs, max_size=3).map(tuple),
        version=st.integers(0, 2**53 - 1),
    ),
    "APIKey": st.builds(
        interfaces.APIKey,
        id=names,
        owner=names,
        display_name=unicode_text,
        scopes=scopes,
        created_at=times,
        expires_at=null_or(times),
        revoked_at=null_or(times),
        last_used_at=null_or(times),
        rate_limit=null_or(rate_limits),
    ),
}
"""A strategy for each kind of message."""
