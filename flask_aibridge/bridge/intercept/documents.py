"""Pure: reading JSON of which nothing is certain."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

Document: TypeAlias = dict[str, Any]


def parse_document(data: bytes) -> Document | None:
    """Parse a JSON object; null for anything else, however broken."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def member(document: Document, name: str) -> Document:
    """Return the object under ``name``, or an empty one where there is none."""
    value = document.get(name)
    return value if isinstance(value, dict) else {}
