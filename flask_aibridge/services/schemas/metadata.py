"""Pure: what JSON, and every store and encoding behind it, can hold of any text and any metadata."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any, Final

MAX_METADATA: Final = 16 * 1024
"""Characters of a record's metadata as JSON."""

MAX_DEPTH: Final = 8
"""Levels of metadata: what is nested deeper is no metadata, and may be endless."""

MAX_TYPE_NAME: Final = 64
"""Characters of a type's name in a description."""

quoted: Final = encode_basestring
"""A string as JSON text."""

compact: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
"""A document as JSON text."""

_replace_surrogates = re.compile("[\ud800-\udfff]").sub


def well_formed(text: str) -> str:
    """The text with U+FFFD for each lone surrogate, which no encoding and no store takes."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return _replace_surrogates("\ufffd", text)
    return text


def plain_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as JSON can hold it, within ``MAX_METADATA``.

    Each value that JSON has no form for (an object, NaN, an integer of more than 64 bits, something nested more than
    ``MAX_DEPTH`` levels) is replaced by a description that names its type and shows nothing of it. So is one that does
    not fit in; where not even descriptions do, the rest is left out.
    """
    kept: dict[str, Any] = {}
    room = MAX_METADATA
    for key, value in dict(metadata).items():
        name, plain = well_formed(_key_of(key)), _plain(value, MAX_DEPTH)
        cost = _cost(name, plain)
        if cost > room:
            plain = f"<{_type_of(value)}, too large>"
            cost = _cost(name, plain)
        if cost > room:
            break
        room -= cost
        kept[name] = plain
    return kept


def _cost(name: str, plain: Any) -> int:
    return len(quoted(name)) + len(compact(plain)) + 2  # the colon and the comma


def _fits(number: int) -> bool:
    return -(2**63) <= number < 2**63


def _key_of(key: object) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    return str(key) if isinstance(key, int) and _fits(key) else f"<{_type_of(key)}>"


def _type_of(value: object) -> str:
    return type(value).__name__[:MAX_TYPE_NAME]


def _plain(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return well_formed(str.__str__(value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int.__int__(value) if _fits(value) else "<int of more than 64 bits>"
    if isinstance(value, float):
        return float.__float__(value) if math.isfinite(value) else f"<float {float.__repr__(value)}>"
    if isinstance(value, (Mapping, list, tuple)):
        return _plain_container(value, depth - 1)
    return well_formed(f"<{_type_of(value)}>")


def _plain_container(value: Any, depth: int) -> Any:
    if not depth:
        return well_formed(f"<{_type_of(value)}, nested too deep>")
    if isinstance(value, Mapping):
        return {well_formed(_key_of(key)): _plain(entry, depth) for key, entry in dict(value).items()}
    return [_plain(entry, depth) for entry in list(value)]
