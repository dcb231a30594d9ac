"""Pure: what the schemas have in common: a message as marshmallow sees it, and the fast way past marshmallow.

A ``Codec`` is made of a schema's fields and says what the schema says, at a fiftieth of the cost. What it finds wrong
it puts before the schema, which has the last word and the words for it.
"""

from __future__ import annotations

from typing import Any, ClassVar

from marshmallow import EXCLUDE, Schema, ValidationError, fields, post_dump, post_load, validate

from flask_aibridge.errors import InvalidRecord
from flask_aibridge.services.schemas.fields import MAX_ENTRIES, WRONG
from flask_aibridge.services.schemas.inlining import writer_of
from flask_aibridge.services.schemas.metadata import compact, well_formed


class Message(Schema):
    """The schema of one dataclass, its ``record_type``."""

    class Meta:
        """Fields of a later version are no errors."""

        unknown = EXCLUDE

    record_type: ClassVar[type[Any]]

    @post_dump
    def _leave_out_nulls(self, document: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {name: value for name, value in document.items() if value is not None}

    @post_load
    def _make(self, values: dict[str, Any], **_: Any) -> Any:
        try:
            return self.record_type(**values)
        except ValueError as error:
            raise ValidationError(str(error)) from None


class Codec:
    """Writes and reads one message by its schema's fields."""

    def __init__(self, schema: Message) -> None:
        declared: dict[str, Any] = dict(schema.fields)
        self.schema = schema
        self.kind = schema.record_type.__name__
        self._type = schema.record_type
        self._written = writer_of(declared)
        self._readers = [(name, field.read, field.allow_none) for name, field in declared.items()]
        self._defaults = {name: None for name, field in declared.items() if field.load_default is None}

    def write(self, record: Any) -> str:
        """JSON text, in which lone surrogates may remain; raises one of ``WRONG``."""
        if type(record) is not self._type:
            raise TypeError
        return self._written(record)

    def read(self, document: Any) -> Any:
        """The record of a parsed document; raises one of ``WRONG``."""
        if type(document) is not dict:
            raise TypeError
        values: dict[str, Any] = {**self._defaults}
        for name, read, nullable in self._readers:
            if name in document:
                value = document[name]
                if value is not None:
                    values[name] = read(value)
                elif not nullable:
                    raise TypeError
        return self._type(**values)

    def load(self, document: Any) -> Any:
        """The record of a parsed document; ``InvalidRecord`` where it is none."""
        try:
            return self.read(document)
        except WRONG:
            return self._load(document)

    def encode(self, record: Any) -> str:
        """The record as JSON text; ``InvalidRecord`` where ``load`` would refuse that."""
        try:
            return well_formed(self.write(record))
        except WRONG:
            document = self.schema.dump(record)
            self._load(document)
            return compact(document)

    def _load(self, document: Any) -> Any:
        try:
            return self.schema.load(document)
        except ValidationError as error:
            path, sentence = _first(error.messages)
            raise InvalidRecord(f"{'.'.join([self.kind, *path])}: {sentence}") from None


def _first(messages: Any) -> tuple[list[str], str]:
    """The first complaint: the path of the field, and the sentence."""
    path: list[str] = []
    while isinstance(messages, dict):
        key, messages = next(iter(messages.items()))
        if key not in ("_schema", "key", "value"):
            path.append(str(key))
    return path, str(messages[0])


class One(fields.Nested):
    """Another message."""

    def __init__(self, schema: type[Message], **options: Any) -> None:
        super().__init__(schema, **options)
        self._codec = Codec(schema())

    def write(self, value: Any) -> str:
        return self._codec.write(value)

    def read(self, value: Any) -> Any:
        return self._codec.read(value)


class Many(fields.List[Any]):
    """Other messages of one kind, as a tuple."""

    def __init__(self, schema: type[Message], **options: Any) -> None:
        super().__init__(fields.Nested(schema), validate=validate.Length(max=MAX_ENTRIES), **options)
        self._codec = Codec(schema())

    def _deserialize(self, value: Any, attr: str | None, data: Any, **options: Any) -> Any:
        return tuple(super()._deserialize(value, attr, data, **options))

    def write(self, value: tuple[Any, ...]) -> str:
        if type(value) is not tuple or len(value) > MAX_ENTRIES:
            raise TypeError
        return f"[{','.join([self._codec.write(entry) for entry in value])}]"

    def read(self, value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) > MAX_ENTRIES:
            raise TypeError
        return tuple([self._codec.read(entry) for entry in value])
