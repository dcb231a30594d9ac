"""Pure: what is said about a value that cannot work. A secret is never shown, only its type."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from flask_aibridge.errors import ConfigError

VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")
NAME_SHOWN = 80
"""How many characters of a wrong value an error shows: enough to recognise it, and still one line."""


def nearest(word: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {found[0]}?" if found else ""


def wrong(key: str, value: object, allowed: str) -> ConfigError:
    """The error for a value that may be shown."""
    shown = repr(value)
    if len(shown) > NAME_SHOWN:
        shown = shown[:NAME_SHOWN] + "…"
    return ConfigError(f"{key} is {shown}; it must be {allowed}.")


def wrong_secret(key: str, value: object, allowed: str) -> ConfigError:
    """The error for a value that may be secret: its type is all that is shown."""
    return ConfigError(
        f"{key} has a value of type {type(value).__name__} that cannot be used; it must be {allowed}."
    )


def items(key: str, value: object, form: str) -> Iterable[tuple[str, Any]]:
    """The items of a mapping whose keys are names: str, not empty, printable."""
    if not isinstance(value, Mapping):
        raise wrong_secret(key, value, f"a mapping of the form {form}")
    for name in value:
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise wrong(f"a name in {key}", name, "a str that is not empty and has no control characters")
    return value.items()


def frozen(value: Any) -> Mapping[str, Any]:
    return MappingProxyType(dict(value))


def refuse_unknown_fields(key: str, fields: Mapping[Any, Any], known: Sequence[str]) -> None:
    for name in fields:
        if name not in known:
            meant = nearest(str(name), known)
            raise ConfigError(f"{key} has a field {name!r}; the fields are {', '.join(known)}.{meant}")
