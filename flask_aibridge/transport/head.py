"""Pure: the head of a response, as an app gives it to ``start_response()``, checked by PEP 3333 and RFC 9110."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["Head", "Headers", "checked_head"]

Headers = list[tuple[str, str]]

_status_line = re.compile(r"([1-9][0-9]{2}) ([^\x00-\x1f\x7f]*)").fullmatch
_is_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_illegal_in_value = re.compile("[\x00\r\n]|[^\x00-\xff]").search

# RFC 9110 section 7.6.1, and "Trailers" as wsgiref.util lists it: they are the server's, and here is no
# connection.
_HOP_BY_HOP: Final = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    )
)

# Names seen so far → (lower case, hop-by-hop). Bounded, since apps may invent names.
_KNOWN_NAMES_MAX: Final = 1024
_known_names: dict[str, tuple[str, bool]] = {}

# Status lines seen before → code and reason. The same bound.
_known_statuses: dict[str, tuple[int, str]] = {}

# Content types seen before, as sent: every response has one, and there are few. The same bound.
_known_headers: set[tuple[str, str]] = set()


class Head(NamedTuple):
    """What comes before the body."""

    status: int
    reason: str
    headers: Headers
    length: int | None  # bytes the body will have, where it is known


def checked_head(status: str, headers: Headers) -> tuple[Head, list[str]]:
    """The head of an app's ``start_response(status, headers)``, and the names of hop-by-hop headers that were
    left out.

    Raises :exc:`AssertionError` with the rule that the app broke.
    """
    try:
        code_and_reason = _known_statuses[status]
    except (KeyError, TypeError):
        code_and_reason = _checked_status(status)
    if type(headers) is not list:
        raise AssertionError(f"The headers must be a list, not {type(headers).__name__} (PEP 3333).")
    left_out: list[str] = []
    kept, length = _checked_headers(headers, left_out)
    return Head(*code_and_reason, kept, length), left_out


def _checked_status(status: str) -> tuple[int, str]:
    if type(status) is not str:
        raise AssertionError(
            f"The status must be a str such as '200 OK', not {type(status).__name__} (PEP 3333)."
        )
    match = _status_line(status) or _status_line(status + " ")
    if match is None:
        raise AssertionError(
            f"The status must be three digits and a reason, such as '200 OK', not {status!r} (PEP 3333)."
        )
    code = int(match[1])
    if code < 200:
        raise AssertionError(f"{code} is not a final status; an app cannot send it (RFC 9110 section 15.2).")
    if any(character > "\xff" for character in match[2]):
        raise AssertionError(f"The reason must be latin-1 text; it is {match[2]!r} (PEP 3333).")
    if len(_known_statuses) < _KNOWN_NAMES_MAX:
        _known_statuses[status] = (code, match[2])
    return code, match[2]


def _checked_headers(headers: Headers, left_out: list[str]) -> tuple[Headers, int | None]:
    kept: Headers = []
    length: int | None = None
    for header in headers:
        try:
            if header in _known_headers:
                kept.append(header)
                continue
        except TypeError:  # unhashable, so certainly not a tuple of two strings
            pass
        if type(header) is not tuple or len(header) != 2:
            raise AssertionError(f"A header must be a tuple of name and value, not {header!r} (PEP 3333).")
        name, value = header
        if not isinstance(name, str) or not isinstance(value, str):
            raise AssertionError(f"The name and value of header {name!r} must be str (PEP 3333).")
        lower, hop_by_hop = _known_names.get(name) or _checked_name(name)
        if _illegal_in_value(value):
            raise AssertionError(
                f"The value of header {name!r} must be latin-1 text without CR, LF or NUL (RFC 9110 section 5.5)."
            )
        if hop_by_hop:
            left_out.append(name)
            continue
        if lower == "content-length":
            previous, length = length, _checked_length(value)
            if previous is not None:
                if previous != length:
                    raise AssertionError(
                        "The app sent two Content-Length headers that differ (RFC 9110 section 8.6)."
                    )
                continue
        cleaned = (name, value.strip(" \t"))
        kept.append(cleaned)
        if (
            lower == "content-type"
            and len(_known_headers) < _KNOWN_NAMES_MAX
            and type(name) is type(value) is str
        ):
            _known_headers.add(cleaned)
    return kept, length


def _checked_name(name: str) -> tuple[str, bool]:
    if not _is_token(name):
        raise AssertionError(
            f"Invalid header name {name!r}: use letters, digits and hyphens (RFC 9110 section 5.1)."
        )
    known = (name.lower(), name.lower() in _HOP_BY_HOP)
    if len(_known_names) < _KNOWN_NAMES_MAX:
        _known_names[name] = known
    return known


def _checked_length(value: str) -> int:
    if not (value.isascii() and value.strip().isdigit()):
        raise AssertionError(
            f"Content-Length must be a number of bytes, not {value!r} (RFC 9110 section 8.6)."
        )
    return int(value)
