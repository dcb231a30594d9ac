"""Pure: reading JSON of which nothing is certain."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from itertools import islice
from typing import Any, Final, TypeAlias

Document: TypeAlias = dict[str, Any]

MAX_PARTS: Final = 2_000_000
"""Strings, lists, objects and commas of one document. Each costs up to some 80 bytes of memory, and as little as one of
the text: 32 MiB could become a gigabyte. The longest list of tokens that a request for embeddings may have is 300,000;
a text is one part, however long."""

_FEW: Final = 1024 * 1024
"""Bytes of a document whose parts are not worth counting."""

_PART: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[,\[{]', re.DOTALL)
"""Possessive: nothing is tried in another way."""


def parse_document(data: bytes) -> Document | None:
    """Parse a JSON object; null for anything else, however broken, and for one of more than ``MAX_PARTS``."""
    if has_too_many_parts(data):
        return None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def is_ambiguous(data: bytes, names: Collection[str]) -> bool:
    """Tell whether others may read something else in ``data`` under one of ``names``, in an object or in those below
    these names, than ``parse_document`` does; so they may in anything but a JSON object.

    Of two members with one name some readers take the first and some the last, and some do not mind upper case.
    ``names`` are in lower case.
    """
    if has_too_many_parts(data):
        return True
    try:
        members = json.loads(data, object_pairs_hook=_Members)
    except (ValueError, RecursionError):
        return True
    return not isinstance(members, _Members) or _is_ambiguous(members, names)


def has_too_many_parts(data: bytes) -> bool:
    """Tell whether a document has more than ``MAX_PARTS``, at no cost where it is of usual size."""
    if len(data) <= _FEW or sum(map(data.count, (b",", b"[", b"{", b'"'))) <= MAX_PARTS:
        return False
    # What is within strings does not count.
    return next(islice(_PART.finditer(data), MAX_PARTS, None), None) is not None


class _Members(list[tuple[str, Any]]):
    """The members of an object, all of them."""


def _is_ambiguous(value: Any, names: Collection[str]) -> bool:
    if isinstance(value, _Members):
        found = [(name, inner) for name, inner in value if name.casefold() in names]
        spelled = {name for name, _ in found}
        if len(spelled) < len(found) or not spelled <= set(names):
            return True
        return any(_is_ambiguous(inner, names) for _, inner in found)
    return isinstance(value, list) and any(_is_ambiguous(each, names) for each in value)


def member(document: Document, name: str) -> Document:
    """Return the object under ``name``, or an empty one where there is none."""
    value = document.get(name)
    return value if isinstance(value, dict) else {}
