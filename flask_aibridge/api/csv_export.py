"""Exports as CSV (RFC 4180), for spreadsheets: streamed page by page, and safe to open in one."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from flask import Response, request

__all__ = ["MAX_ROWS", "Chunk", "csv_response", "defuse", "pages", "wants_csv"]

MEDIA_TYPE: Final = "text/csv"

MAX_ROWS: Final = 100_000
"""Rows of one export, about 30 MB: a tenth of what spreadsheets hold, and minutes of one worker's time at most."""

_FORMULA: Final = frozenset("=+-@＝＋－＠")
"""What a spreadsheet takes for the beginning of a formula; the wide forms too, in some languages."""

_LINE: Final = frozenset("\t\r\n")
"""What makes some spreadsheets begin a cell anew."""

_EXTRA: Final = "extra"


class Chunk(NamedTuple):
    """Some rows, as JSON would show them; and the cursor of the rows after them, or null."""

    rows: Sequence[Mapping[str, Any]]
    following: str | None


def wants_csv(asked: str | None) -> bool:
    """Tell whether the current request wants CSV: by the parameter ``format``, or else by its ``Accept``."""
    if asked is not None:
        return asked == "csv"
    return request.accept_mimetypes.best_match(["application/json", MEDIA_TYPE]) == MEDIA_TYPE


def pages(ask: Callable[[int, str | None], Chunk], limit: int | None, cursor: str | None) -> Iterator[Chunk]:
    """The pages of a listing, up to ``limit`` rows or ``MAX_ROWS``.

    :param ask: gives one page, by its size and cursor.
    """
    left = min(limit or MAX_ROWS, MAX_ROWS)
    following = cursor
    while left > 0:
        chunk = ask(min(left, PAGE), following)
        yield chunk
        left -= len(chunk.rows)
        following = chunk.following
        if following is None:
            return


PAGE: Final = 1000
"""Rows that are held at once."""


def csv_response(name: str, columns: Sequence[str], chunks: Iterable[Chunk]) -> Response:
    """An export. The first chunk is made at once, so that what is wrong is answered as a problem; the others as they
    are sent. Where one of those fails, the response breaks off, for a short file must not look like a whole one.

    :param columns: the columns, in order; those of ``token_usage`` are made of its members.
    """
    waiting = iter(chunks)
    first = list(next(([chunk] for chunk in waiting), []))
    response = Response(_lines(columns, chain(first, waiting)), mimetype=MEDIA_TYPE)
    response.headers["Content-Type"] = f"{MEDIA_TYPE}; charset=utf-8; header=present"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _lines(columns: Sequence[str], chunks: Iterable[Chunk]) -> Iterator[str]:
    lines = _Lines()
    lines.write(columns)
    rows, following = 0, None
    for chunk in chunks:
        for row in chunk.rows:
            cells = _cells(row)
            lines.write([cells.get(column) for column in columns])
        rows, following = rows + len(chunk.rows), chunk.following
        yield lines.taken()
    if following is not None:
        lines.write([f"# Cut after {rows} rows. Go on with cursor={following}"])
    yield lines.taken()


class _Lines:
    """Lines of CSV, with CRLF at their ends as RFC 4180 has them."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._writer = csv.writer(_Appending(self._text), lineterminator="\r\n")

    def write(self, cells: Iterable[Any]) -> None:
        self._writer.writerow([defuse(cell) if isinstance(cell, str) else cell for cell in cells])

    def taken(self) -> str:
        text = "".join(self._text)
        self._text.clear()
        return text


class _Appending:
    def __init__(self, texts: list[str]) -> None:
        self.write = texts.append


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row by column: tokens by their kind, further kinds as JSON; lists with semicolons between."""
    cells = {name: "; ".join(value) if isinstance(value, list) else value for name, value in row.items()}
    tokens = dict(row["token_usage"])
    extra = tokens.pop(_EXTRA)
    cells.update({f"{name}_tokens": value for name, value in tokens.items()})
    cells["extra_tokens"] = json.dumps(extra, ensure_ascii=False) if extra else None
    return cells


TOKENS: Final = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "extra_tokens")
"""The columns of ``token_usage``."""


def defuse(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: what begins like one gets an apostrophe before it, as OWASP
    advises for CSV injection; also where white space, or what cannot be seen, stands before."""
    for character in text:
        if character in _FORMULA or character in _LINE:
            return f"'{text}"
        if character.isprintable() and not character.isspace():
            return text
    return text
