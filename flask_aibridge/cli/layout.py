"""Pure: text from outside laid out for a terminal: nothing in it that a terminal would obey, in columns that fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from unicodedata import combining, east_asian_width

__all__ = ["Column", "cut", "fitted", "line", "printable", "widths"]

GAP: Final = "  "

LEAST: Final = 6
"""Characters that are left of a column that has to give way: enough to guess the rest."""


class Column:
    """One column of a table.

    :param gives_way: whether it is cut where the terminal is too narrow.
    :param right: whether it stands to the right, as numbers do.
    """

    def __init__(self, title: str, *, gives_way: bool = False, right: bool = False) -> None:
        self.title = title
        self.gives_way = gives_way
        self.right = right


def printable(text: str, *, lines: bool = False) -> str:
    """A text without control characters, whatever sends terminals elsewhere, and what turns the direction of writing.

    :param lines: whether line breaks and tabs stay.
    """
    kept = "\n\t" if lines else ""
    if lines:
        text = text.replace("\r\n", "\n")
    return "".join(
        each if each.isprintable() or each in kept else "\N{REPLACEMENT CHARACTER}" for each in text
    )


def width_of(text: str) -> int:
    """How many cells of a terminal a printable text takes."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(character: str) -> int:
    if combining(character):
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def cut(text: str, width: int) -> str:
    """A text that takes no more cells than ``width``; an ellipsis at its end where it was longer."""
    if width_of(text) <= width:
        return text
    taken, kept = 1, []
    for character in text:
        taken += _cells(character)
        if taken > width:
            break
        kept.append(character)
    return f"{''.join(kept)}…"


def widths(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> list[int]:
    """How wide each column would like to be."""
    found = [width_of(column.title) for column in columns]
    for row in rows:
        found = [max(width, width_of(cell)) for width, cell in zip(found, row, strict=True)]
    return found


def fitted(columns: Sequence[Column], wanted: Sequence[int], room: int) -> list[int]:
    """The widths of columns that fit into so many cells, as far as those that give way can be cut."""
    found = list(wanted)
    excess = sum(found) + len(GAP) * (len(found) - 1) - room
    for _ in range(max(0, excess)):
        cuttable = [n for n, column in enumerate(columns) if column.gives_way and found[n] > LEAST]
        if not cuttable:
            break
        found[max(cuttable, key=lambda n: found[n])] -= 1
    return found


def line(columns: Sequence[Column], row: Sequence[str], sizes: Sequence[int]) -> str:
    """One row of a table."""
    cells = (_cell(column, text, size) for column, text, size in zip(columns, row, sizes, strict=True))
    return GAP.join(cells).rstrip()


def _cell(column: Column, text: str, size: int) -> str:
    text = cut(text, size) if column.gives_way else text
    padding = " " * (size - width_of(text))
    return padding + text if column.right else text + padding
