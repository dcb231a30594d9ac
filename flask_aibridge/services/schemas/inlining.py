"""Pure: one function that writes all the fields of a message, made of their sources, as ``dataclasses`` makes its own.

To call something for each field takes longer than what is done there. So a field may say in Python how a value that is
plainly right is written; for every other value, and where a field says nothing, its ``write`` is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask_aibridge.services.schemas.metadata import quoted

_CALL = "{field}.write(value)"


def writer_of(fields: Mapping[str, Any]) -> Callable[[Any], str]:
    """What writes the JSON object of a record with these fields, by their names; null values are left out.

    A field has ``write`` and ``allow_none``. Its ``inline``, if it has one, is an expression of ``value``, ``quoted``
    and ``{field}``, which is itself: what ``write(value)`` returns, or null where that is to be called.
    """
    lines = ["def write(record):"]
    for number, (name, field) in enumerate(fields.items()):
        lines += [f"    value = record.{name}", f"    text{number} = {_text_of(name, number, field)}"]
    texts = "".join(f"{{text{number}}}" for number in range(len(fields)))
    lines.append(f"    return '{{' + f'{texts}'[1:] + '}}'")
    names = {"quoted": quoted} | {f"field{number}": field for number, field in enumerate(fields.values())}
    source = "\n".join(lines)
    # Of the classes' own sources: no value is part of it.
    exec(source, names)  # noqa: S102  # nosec B102
    made: Callable[[Any], str] = names["write"]
    return made


def _text_of(name: str, number: int, field: Any) -> str:
    inline, call = getattr(field, "inline", None), _CALL
    source = call if inline is None else f"(({inline}) or {call})"
    source = f"""',"{name}":' + {source.format(field=f"field{number}")}"""
    return f"'' if value is None else {source}" if field.allow_none else source
