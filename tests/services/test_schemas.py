"""Each message has one form, which the schemas say and the fast way keeps to."""

from __future__ import annotations

import dataclasses
import json
import typing
from datetime import UTC, datetime, timedelta, timezone
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError

from flask_aibridge.errors import InvalidRecord
from flask_aibridge.services import interfaces, records
from flask_aibridge.services.schemas.fields import (
    MAX_CONTENT,
    MAX_ENTRIES,
    MAX_EXTRA,
    MAX_NAME,
    MAX_TEXT,
)
from flask_aibridge.services.schemas.messages import RECORD_KINDS, SCHEMAS, decode, encode, kind_of, load
from flask_aibridge.services.schemas.metadata import compact
from tests.services.messages import (
    END,
    INTERCEPTION,
    MESSAGES,
    NOW,
    PROMPT,
    RECORDS,
    START,
    USAGE,
    json_values,
)

drawn_messages = st.sampled_from(sorted(MESSAGES)).flatmap(lambda kind: MESSAGES[kind])
FORMS = [pytest.param(kind, schema, id=kind) for kind, schema in SCHEMAS.items()]


def _replaced(record: Any, **changes: Any) -> Any:
    """With values that its types do not allow."""
    return dataclasses.replace(record, **changes)


def test_there_is_a_strategy_for_every_kind() -> None:
    """Nothing is left out of the properties below."""
    assert set(MESSAGES) == set(SCHEMAS)


@pytest.mark.parametrize(("kind", "schema"), FORMS)
def test_a_schema_has_the_fields_of_its_dataclass(kind: str, schema: Any) -> None:
    """Same names, same order; required where there is no default; null where the type says so."""
    cls = schema.record_type
    assert cls.__name__ == kind
    types = typing.get_type_hints(cls)
    declared = dataclasses.fields(cls)
    assert list(schema.fields) == [field.name for field in declared]
    for field in declared:
        nullable = type(None) in typing.get_args(types[field.name])
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        assert schema.fields[field.name].allow_none is nullable, field.name
        assert schema.fields[field.name].required is (no_default and not nullable), field.name


@given(drawn_messages)
def test_encode_says_what_the_schema_dumps(message: Any) -> None:
    """The fast way and marshmallow's write the same text."""
    assert encode(message) == compact(SCHEMAS[kind_of(message)].dump(message))


@given(drawn_messages)
def test_what_was_encoded_is_decoded(message: Any) -> None:
    """Every message comes back; a record whose text or metadata cannot be stored as it is, as it was stored."""
    kind = kind_of(message)
    text = encode(message)
    text.encode()
    decoded = decode(kind, text)
    assert decode(kind, text.encode()) == decoded
    assert encode(decoded) == text
    if kind not in RECORD_KINDS:
        assert decoded == message


@given(drawn_messages)
def test_decode_says_what_the_schema_loads(message: Any) -> None:
    """The fast way and marshmallow's read the same message."""
    text = encode(message)
    assert decode(kind_of(message), text) == SCHEMAS[kind_of(message)].load(json.loads(text))


@given(st.data())
def test_load_agrees_with_the_schema_about_damaged_documents(data: st.DataObject) -> None:
    """With a field replaced by anything, both read the same or both refuse."""
    message = data.draw(drawn_messages)
    kind = kind_of(message)
    document = json.loads(encode(message))
    field = data.draw(st.sampled_from([*SCHEMAS[kind].fields, "later_field"]))
    if data.draw(st.booleans()):
        document.pop(field, None)
    else:
        document[field] = data.draw(
            json_values | st.sampled_from(["running", -1, 2**53, "2026-01-01T00:00:00Z"])
        )
    try:
        expected = SCHEMAS[kind].load(document)
    except ValidationError:
        with pytest.raises(InvalidRecord, match=f"^{kind}"):
            load(kind, document)
    else:
        assert load(kind, document) == expected


@given(st.data())
def test_encode_refuses_what_load_would(data: st.DataObject) -> None:
    """With a field of the wrong kind there is a text that can be read back, or an ``InvalidRecord``."""
    record = data.draw(st.sampled_from(RECORDS))
    field = data.draw(st.sampled_from([field.name for field in dataclasses.fields(record)]))
    value = data.draw(json_values | st.builds(object) | st.datetimes())
    refused = ""
    try:
        text = encode(_replaced(record, **{field: value}))
    except InvalidRecord as error:
        refused = str(error)
    else:
        decode(kind_of(record), text)
    assert not refused or f".{field}" in refused


@given(st.sampled_from(sorted(SCHEMAS)), st.text() | st.binary() | json_values.map(json.dumps))
def test_corrupt_text_is_an_invalid_record(kind: str, text: str | bytes) -> None:
    """Whatever a row holds, reading it gives a message or ``InvalidRecord``."""
    try:
        found = kind_of(decode(kind, text))
    except InvalidRecord as error:
        found = str(error)
    assert found.startswith(kind)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "3",
        '"x"',
        "{}",
        "[" * 100_000,
        "NaN",
        '{"id": ' + "1" * 5000 + "}",
        b"\xff\xfe{",
    ],
    ids=["empty", "torn", "null", "list", "number", "string", "no-fields", "deep", "nan", "huge", "bytes"],
)
def test_text_that_is_no_record(text: str | bytes) -> None:
    """None of it is a start."""
    with pytest.raises(InvalidRecord):
        decode("InterceptionStart", text)


def test_nan_in_a_stored_text_is_refused() -> None:
    """NaN is not JSON, though Python reads it."""
    text = encode(USAGE).replace('"metadata":{}', '"metadata":{"a":NaN}')
    with pytest.raises(InvalidRecord, match="not JSON"):
        decode("TokenUsage", text)


def test_the_form_of_a_record() -> None:
    """Compact, snake_case, times in UTC with microseconds, nulls left out, text not escaped more than JSON asks."""
    assert encode(PROMPT) == (
        f'{{"id":"p1","interception_id":"{INTERCEPTION}","message_id":"","prompt":"Why? ü中","metadata":{{}},'
        '"created_at":"2026-03-04T05:06:07.000089Z"}'
    )


def test_fields_of_a_later_version_are_ignored() -> None:
    """A newer minor version may add some."""
    document = {**json.loads(encode(USAGE)), "since_1_7": [1], "another": None}
    assert load("TokenUsage", document) == USAGE


@pytest.mark.parametrize(
    ("kind", "document", "names"),
    [
        ("TokenUsage", {"input": -1}, "TokenUsage.input"),
        ("TokenUsage", {"output": records.MAX_TOKENS + 1}, "TokenUsage.output"),
        ("TokenUsage", {"cache_read": True}, "TokenUsage.cache_read"),
        ("TokenUsage", {"cache_read": 1.0}, "TokenUsage.cache_read"),
        ("TokenUsage", {"extra": {"reasoning": -1}}, "TokenUsage.extra.reasoning"),
        ("TokenUsage", {"extra": {f"n{i}": 1 for i in range(MAX_EXTRA + 1)}}, "TokenUsage.extra"),
        ("TokenUsage", {"id": "x" * 65}, "TokenUsage.id"),
        ("TokenUsage", {"id": ""}, "TokenUsage.id"),
        ("TokenUsage", {"id": "a b"}, "TokenUsage.id"),
        ("TokenUsage", {"interception_id": INTERCEPTION.upper()}, "TokenUsage.interception_id"),
        ("TokenUsage", {"interception_id": f"{INTERCEPTION}\n"}, "TokenUsage.interception_id"),
        ("TokenUsage", {"created_at": "2026-01-01T00:00:00"}, "TokenUsage.created_at"),
        ("TokenUsage", {"created_at": "20260101T000000Z"}, "TokenUsage.created_at"),
        ("TokenUsage", {"created_at": "2026-13-01T00:00:00Z"}, "TokenUsage.created_at"),
        ("TokenUsage", {"created_at": "0001-01-01T00:00:00+05:00"}, "TokenUsage.created_at"),
        ("TokenUsage", {"created_at": 5}, "TokenUsage.created_at"),
        ("TokenUsage", {"created_at": None}, "TokenUsage.created_at"),
        ("TokenUsage", {"metadata": []}, "TokenUsage.metadata"),
        ("InterceptionEnd", {"status": "running"}, "InterceptionEnd.status"),
        ("InterceptionEnd", {"status": "finished"}, "InterceptionEnd.status"),
        ("InterceptionEnd", {"status": ["completed"]}, "InterceptionEnd.status"),
        ("InterceptionEnd", {"http_status": 1000}, "InterceptionEnd.http_status"),
        ("InterceptionStart", {"provider": ""}, "InterceptionStart.provider"),
        ("InterceptionStart", {"provider": "x" * (MAX_NAME + 1)}, "InterceptionStart.provider"),
        ("InterceptionStart", {"initiator": "\ud800"}, "InterceptionStart.initiator"),
        ("InterceptionStart", {"credential_kind": "stolen"}, "InterceptionStart.credential_kind"),
        ("InterceptionStart", {"in_process": 1}, "InterceptionStart.in_process"),
        ("InterceptionStart", {"route": None}, "InterceptionStart.route"),
    ],
)
def test_what_is_beyond_a_limit_is_named(kind: str, document: dict[str, Any], names: str) -> None:
    """The message begins with the field, and the value is not in it."""
    whole = {"TokenUsage": USAGE, "InterceptionEnd": END, "InterceptionStart": START}[kind]
    with pytest.raises(InvalidRecord, match=f"^{names}: ") as caught:
        load(kind, {**json.loads(encode(whole)), **document})
    assert "stolen" not in str(caught.value)


def test_an_error_of_a_nested_message_names_the_whole_path() -> None:
    """Down to the field that is wrong."""
    settings = {"name": "a", "type": "openai", "base_url": ""}
    document = {"providers": [{"settings": settings}]}
    with pytest.raises(InvalidRecord, match=r"^ProviderSet\.providers\.0\.settings\.base_url: "):
        load("ProviderSet", document)
    with pytest.raises(InvalidRecord, match=r"^ProviderSet\.providers: "):
        load("ProviderSet", {"providers": [{"settings": {**settings, "base_url": "x"}}] * (MAX_ENTRIES + 1)})


def test_errors_never_show_a_secret() -> None:
    """A credential that is two, and one that is too long."""
    secret = "aib_id_" + "s3cret" * 4000
    for document in ({"key": "s3cret", "key_id": "k"}, {"key": secret}, {"key": ["s3cret"]}, {}):
        with pytest.raises(InvalidRecord) as caught:
            load("Credential", document)
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("record", "field", "limit"),
    [(PROMPT, "prompt", MAX_CONTENT), (START, "model", MAX_NAME), (START, "user_agent", MAX_TEXT)],
)
def test_descriptions_are_cut_to_their_limit(record: records.Record, field: str, limit: int) -> None:
    """No header and no prompt keeps a request out of the account by its length."""
    kind = kind_of(record)
    long = decode(kind, encode(_replaced(record, **{field: "x" * (limit + 1)})))
    assert getattr(long, field) == "x" * (limit - 1) + "…"
    exact = decode(kind, encode(_replaced(record, **{field: "x" * limit})))
    assert getattr(exact, field) == "x" * limit


def test_a_lone_surrogate_in_a_description_is_replaced() -> None:
    """No store and no encoding takes one."""
    record = dataclasses.replace(PROMPT, prompt="a\ud800b\x00", metadata={"\udfff": ["\ud801"]})
    decoded = decode("PromptUsage", encode(record))
    assert decoded.prompt == "a\ufffdb\x00"
    assert decoded.metadata == {"\ufffd": ["\ufffd"]}


def test_times_of_any_zone_become_utc() -> None:
    """To the microsecond."""
    there = datetime(2026, 3, 4, 10, 36, 7, 89, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    decoded = decode("TokenUsage", encode(dataclasses.replace(USAGE, created_at=there)))
    assert decoded.created_at == NOW
    assert decoded.created_at.tzinfo is UTC


def test_a_time_without_a_zone_is_refused() -> None:
    """Whose day it is would be guesswork."""
    with pytest.raises(InvalidRecord, match=r"TokenUsage\.created_at"):
        encode(dataclasses.replace(USAGE, created_at=datetime(2026, 1, 1)))  # noqa: DTZ001


def test_subclasses_of_plain_types_are_written_as_plain() -> None:
    """An ``HTTPStatus`` is a number, a ``str`` enumeration's member is text."""
    decoded = decode("InterceptionEnd", encode(dataclasses.replace(END, http_status=HTTPStatus.OK)))
    assert type(decoded.http_status) is int


def test_nothing_but_messages_is_encoded() -> None:
    """A class of the same name is another."""

    class TokenUsage:
        pass

    wrongs: list[object] = [TokenUsage(), {}, None]
    for wrong in wrongs:
        with pytest.raises(TypeError, match="no message"):
            encode(wrong)
    with pytest.raises(InvalidRecord, match="no kind"):
        load("Unknown", {})


def test_an_empty_list_of_patterns_is_not_null() -> None:
    """It allows nothing, where null limits to nothing."""
    for scopes in (interfaces.Scopes(), interfaces.Scopes(providers=()), interfaces.Scopes(models=("a*",))):
        assert decode("Scopes", encode(scopes)) == scopes
