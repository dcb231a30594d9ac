"""Pure: the fields that messages are made of, each with its limits and two ways of reading and writing it.

One way is marshmallow's (``_serialize``, ``_deserialize``): it says what the form is, and what is wrong with a value.
The other (``write``, ``read``) is for the request path: ``write`` makes JSON text of a Python value, ``read`` makes the
Python value of a parsed one, and both raise one of ``WRONG`` for what the first way would refuse or knows more about.

Three kinds of text are told apart. A *name* says who or what something belongs to: it is refused where it is too long
or no Unicode, for cut names would be one another's. A *text* only describes: it is cut to its limit, and what is no
Unicode in it becomes U+FFFD, so that no caller keeps a request out of the account by sending an odd header. *Metadata*
is anything: what cannot be written is replaced by a description.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from marshmallow import ValidationError, fields, validate

from flask_aibridge.config import RateLimit, parse_rate_limit
from flask_aibridge.config.rate_limits import FORM
from flask_aibridge.services.schemas.metadata import compact, plain_metadata, quoted, well_formed

MAX_ID: Final = 64
"""Characters of a record's id: room for a UUID in any spelling, and an ordinal behind it."""

MAX_NAME: Final = 256
"""Characters of a name, and of what becomes part of an index: users, providers, models, sessions."""

MAX_TEXT: Final = 2048
"""Characters of a description: a ``User-Agent``, a URL, an error message. About what browsers accept as a URL."""

MAX_SECRET: Final = 16 * 1024
"""Characters of a key or token: larger JWTs than that fit in no header."""

MAX_CONTENT: Final = 1024 * 1024
"""Characters of a prompt, the arguments of a tool or a thought: the context of the largest models is a few times that,
but nobody types it."""

MAX_ENTRIES: Final = 1000
"""Entries of a list or mapping: far more than a host has providers, or a token patterns."""

MAX_EXTRA: Final = 64
"""Extra token counts of one answer; each becomes a field of the hour's roll-up."""

MAX_VERSION: Final = 2**53 - 1
"""The largest version: what Lua and JavaScript still count exactly."""

WRONG: Final = (TypeError, ValueError, LookupError, AttributeError, OverflowError)
"""What ``read`` and ``write`` raise for a value that is not plainly right."""

_is_interception_id = re.compile(r"[0-9a-f]{32}").fullmatch
_is_record_id = re.compile(rf"[!-~]{{1,{MAX_ID}}}").fullmatch
_RFC3339: Final = "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ"
_is_rfc3339 = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII
).fullmatch


class Text(fields.String):
    """A description: cut to ``limit`` characters, the last then being an ellipsis."""

    def __init__(self, limit: int, **options: Any) -> None:
        super().__init__(validate=validate.Length(max=limit), **options)
        self.limit = limit
        self.inline = f"quoted(value) if len(value) <= {limit} else None"

    def _cut(self, value: str) -> str:
        return well_formed(value if len(value) <= self.limit else f"{value[: self.limit - 1]}…")

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_: Any) -> Any:
        return self._cut(value) if isinstance(value, str) else value

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> str:
        if not isinstance(value, str):
            raise self.make_error("invalid")
        return self._cut(value)

    def write(self, value: str) -> str:
        return quoted(value if len(value) <= self.limit else self._cut(value))

    def read(self, value: Any) -> str:
        if type(value) is not str:
            raise TypeError
        return value if len(value) <= self.limit and value.isascii() else self._cut(value)


class Name(fields.String):
    """A name: never cut, never changed."""

    def __init__(self, limit: int = MAX_NAME, *, empty: bool = False, **options: Any) -> None:
        super().__init__(validate=validate.Length(min=0 if empty else 1, max=limit), **options)
        self.least, self.limit = 0 if empty else 1, limit
        fits = f"type(value) is str and {self.least} <= len(value) <= {limit} and value.isascii()"
        self.inline = f"quoted(value) if {fits} else None"

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_: Any) -> Any:
        return value

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> str:
        if not isinstance(value, str):
            raise self.make_error("invalid")
        if well_formed(value) is not value:
            raise ValidationError("Not Unicode: it has a lone surrogate.")
        return value

    def read(self, value: Any) -> str:
        if type(value) is not str or not self.least <= len(value) <= self.limit:
            raise TypeError
        if not value.isascii():
            value.encode()
        return value

    def write(self, value: str) -> str:
        return quoted(self.read(value))


class RecordId(Name):
    """The id of a record: visible ASCII."""

    def __init__(self, **options: Any) -> None:
        super().__init__(MAX_ID, **options)
        self.inline = "quoted(value) if type(value) is str and {field}.matches(value) else None"

    matches = staticmethod(_is_record_id)
    sentence = f"Must be 1 to {MAX_ID} visible ASCII characters."

    def _deserialize(self, value: Any, attr: str | None, data: Any, **options: Any) -> str:
        text = super()._deserialize(value, attr, data, **options)
        if not self.matches(text):
            raise ValidationError(self.sentence)
        return text

    def read(self, value: Any) -> str:
        if type(value) is not str or not self.matches(value):
            raise TypeError
        return value


class InterceptionId(RecordId):
    """The id of an interception."""

    matches = staticmethod(_is_interception_id)
    sentence = "Must be the 32 lower-case hexadecimal digits of an interception's id."


class Word(fields.String):
    """One of a closed list."""

    def __init__(self, words: tuple[str, ...], **options: Any) -> None:
        super().__init__(validate=validate.OneOf(words), **options)
        self.texts = {word: quoted(word) for word in words}
        self.inline = "{field}.texts[value]"

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_: Any) -> Any:
        return value

    def write(self, value: str) -> str:
        return self.texts[value]

    def read(self, value: Any) -> str:
        if value not in self.texts:
            raise ValueError
        return str(value)


class Count(fields.Integer):
    """A whole number from ``minimum`` to ``maximum``."""

    def __init__(self, maximum: int, minimum: int = 0, **options: Any) -> None:
        super().__init__(strict=True, validate=validate.Range(minimum, maximum), **options)
        self.inline = f"str(value) if type(value) is int and {minimum} <= value <= {maximum} else None"
        self._minimum, self._maximum = minimum, maximum

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_: Any) -> Any:
        return value

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.make_error("invalid")
        return value

    def read(self, value: Any) -> int:
        if type(value) is not int or not self._minimum <= value <= self._maximum:
            raise ValueError
        return value

    def write(self, value: int) -> str:
        if type(value) is not int or not self._minimum <= value <= self._maximum:
            raise ValueError
        return str(value)


class Flag(fields.Boolean):
    """True or false, and nothing that is like it."""

    inline = "'true' if value is True else 'false' if value is False else None"

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_: Any) -> Any:
        return value

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid")
        return value

    def read(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise TypeError
        return value

    def write(self, value: bool) -> str:
        return "true" if self.read(value) else "false"


class Moment(fields.DateTime):
    """An aware time: RFC 3339 in UTC, always with microseconds, so that text sorts as time."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_: Any) -> Any:
        if not isinstance(value, datetime):
            return value
        try:
            return self._text(value)
        except (OverflowError, ValueError):
            return value.isoformat()

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> datetime:
        try:
            return self.read(value)
        except WRONG:
            raise ValidationError("Not a time with its zone, as in RFC 3339.") from None

    @staticmethod
    def _text(value: datetime) -> str:
        if value.tzinfo is not UTC:
            if value.utcoffset() is None:
                raise ValueError
            value = value.astimezone(UTC)
        # As isoformat does, but for the zone, which it asks twice: a third less.
        return _RFC3339 % (
            value.year,
            value.month,
            value.day,
            value.hour,
            value.minute,
            value.second,
            value.microsecond,
        )

    def write(self, value: datetime) -> str:
        return f'"{self._text(value)}"'

    def read(self, value: Any) -> datetime:
        if not _is_rfc3339(value):
            raise ValueError
        moment = datetime.fromisoformat(value)
        return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


class Limit(fields.Field[RateLimit]):
    """A rate limit, as text."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_: Any) -> Any:
        return str(value) if isinstance(value, RateLimit) else value

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> RateLimit:
        try:
            return self.read(value)
        except WRONG:
            raise ValidationError(f"Must be {FORM}.") from None

    def read(self, value: Any) -> RateLimit:
        return parse_rate_limit(value)

    def write(self, value: RateLimit) -> str:
        if type(value) is not RateLimit:
            raise TypeError
        return f'"{value}"'


class Metadata(fields.Dict):
    """Anything under names, as far as JSON goes; see :func:`plain_metadata`."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_: Any) -> Any:
        return plain_metadata(value) if isinstance(value, Mapping) else value

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise self.make_error("invalid")
        return plain_metadata(value)

    def read(self, value: Any) -> dict[str, Any]:
        return plain_metadata(value) if value.keys() else {}

    def write(self, value: Mapping[str, Any]) -> str:
        return compact(plain_metadata(value)) if value.keys() else "{}"


class Table(fields.Dict):
    """Values of one field under names, ``limit`` of them at most."""

    def __init__(self, keys: Name, values: Count | Name, limit: int = MAX_ENTRIES, **options: Any) -> None:
        super().__init__(keys=keys, values=values, validate=validate.Length(max=limit), **options)
        self._key, self._value, self._limit = keys, values, limit

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_: Any) -> Any:
        return dict(value) if isinstance(value, Mapping) else value

    def read(self, value: Any) -> dict[str, Any]:
        if len(value) > self._limit:
            raise ValueError
        return {self._key.read(key): self._value.read(entry) for key, entry in value.items()}

    def write(self, value: Mapping[str, Any]) -> str:
        if len(value) > self._limit:
            raise ValueError
        key, entry = self._key.write, self._value.write
        return f"{{{','.join([f'{key(name)}:{entry(value[name])}' for name in value])}}}"


class Names(fields.List[Any]):
    """A list of names."""

    def __init__(self, name: Name, **options: Any) -> None:
        super().__init__(name, validate=validate.Length(max=MAX_ENTRIES), **options)
        self._name = name

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_: Any) -> Any:
        return list(value) if isinstance(value, (list, tuple)) else value

    def _deserialize(self, value: Any, attr: str | None, data: Any, **options: Any) -> Any:
        return tuple(super()._deserialize(value, attr, data, **options))

    def read(self, value: Any) -> tuple[str, ...]:
        if type(value) not in (list, tuple) or len(value) > MAX_ENTRIES:
            raise TypeError
        return tuple([self._name.read(entry) for entry in value])

    def write(self, value: tuple[str, ...]) -> str:
        return f"[{','.join([quoted(name) for name in self.read(value)])}]"
