"""One function writes what the fields of a message write one by one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flask_aibridge.services.schemas.fields import Count, Flag, Name, Text, Word
from flask_aibridge.services.schemas.inlining import writer_of
from flask_aibridge.services.schemas.messages import InterceptionEnd


def _field(*, inline: str | None, allow_none: bool) -> Any:
    return SimpleNamespace(inline=inline, allow_none=allow_none, write=lambda value: f"<{value}>")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1, 2), '{"a":<1>,"b":2}'),
        ((None, 2), '{"b":2}'),
        ((1, -2), '{"a":<1>,"b":<-2>}'),
    ],
)
def test_what_is_not_plainly_right_is_written_by_the_field(values: tuple[Any, Any], expected: str) -> None:
    """Null values are left out, also the first; an expression that says nothing leaves the value to ``write``."""
    fields = {
        "a": _field(inline=None, allow_none=True),
        "b": _field(inline="str(value) if value > 0 else None", allow_none=False),
    }
    assert writer_of(fields)(SimpleNamespace(a=values[0], b=values[1])) == expected


def test_without_any_value_it_is_an_empty_object() -> None:
    """There is no comma to take off then."""
    write = writer_of({"a": _field(inline=None, allow_none=True)})
    assert write(SimpleNamespace(a=None)) == "{}"


@pytest.mark.parametrize(
    ("field", "values"),
    [
        (Text(4), ["", "text", "a long text", "ü", '"']),
        (Name(4), ["name", "ü", '"']),
        (Word(("yes", "no")), ["yes", "no"]),
        (Count(9), [0, 9]),
        (Flag(), [True, False]),
        (InterceptionEnd().fields["id"], ["a", '!"~']),
        (InterceptionEnd().fields["interception_id"], ["0" * 32]),
    ],
)
def test_a_field_is_written_as_it_writes_itself(field: Any, values: list[Any]) -> None:
    """The expression of a field and its ``write`` are two spellings of one thing."""
    write = writer_of({"value": field})
    for value in values:
        assert write(SimpleNamespace(value=value)) == f'{{"value":{field.write(value)}}}'


@pytest.mark.parametrize(
    ("field", "value"), [(Name(4), "too long"), (Name(4), ""), (Count(9), 10), (Count(9), True), (Flag(), 1)]
)
def test_what_a_field_refuses_is_refused(field: Any, value: object) -> None:
    """The expression accepts nothing that ``write`` would not."""
    with pytest.raises((TypeError, ValueError)):
        writer_of({"value": field})(SimpleNamespace(value=value))
