"""Pure: text from outside laid out for a terminal: nothing in it that a terminal would obey, in columns that fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from unicodedata import combining, east_asian_width

__all__ = ["Column", "Layout", "cut", "fitted", "line", "printable", "widths"]

GAP: Final = "  "

LEAST: Final = 6
"""Characters that are left of a column that has to give way: enough to guess the rest."""


class Column:
    """One column of a table.

    :param gives_way: whether it is cut where the terminal is too narrow.
    :param right: whether it stands to the right, as numbers do.
    :param leaves: where cutting is not enough, columns are left out, those with the highest number first; one with 0
        never is.
    """

    def __init__(self, title: str, *, gives_way: bool = False, right: bool = False, leaves: int = 0) -> None:
        self.title = title
        self.gives_way = gives_way
        self.right = right
        self.leaves = leaves


class Layout:
    """How the rows of a table are laid out: which columns there are, and how wide.

    :param rows: printable texts; later ones may be longer, and are cut where their column gives way.
    :param room: cells of a terminal, or null where there is no bound.
    """

    def __init__(self, columns: Sequence[Column], rows: Iterable[Sequence[str]], room: int | None) -> None:
        wanted = widths(columns, rows)
        self._places = list(range(len(columns))) if room is None else _kept(columns, wanted, room)
        self._columns = [columns[n] for n in self._places]
        sizes = [wanted[n] for n in self._places]
        self._sizes = sizes if room is None else fitted(self._columns, sizes, room)

    @property
    def titles(self) -> str:
        """The first line."""
        return line(self._columns, [column.title for column in self._columns], self._sizes)

    def line(self, row: Sequence[str]) -> str:
        """The line of a row."""
        return line(self._columns, [row[n] for n in self._places], self._sizes)


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


def _kept(columns: Sequence[Column], wanted: Sequence[int], room: int) -> list[int]:
    """The places of the columns for which there is room, once all that give way are cut as far as can be."""
    least = [min(size, LEAST) if each.gives_way else size for each, size in zip(columns, wanted, strict=True)]
    places = list(range(len(columns)))
    while sum(least[n] + len(GAP) for n in places) - len(GAP) > room:
        leaving = [n for n in places if columns[n].leaves]
        if not leaving:
            break
        places.remove(max(leaving, key=lambda n: columns[n].leaves))
    return places


def line(columns: Sequence[Column], row: Sequence[str], sizes: Sequence[int]) -> str:
    """One row of a table."""
    cells = (_cell(column, text, size) for column, text, size in zip(columns, row, sizes, strict=True))
    return GAP.join(cells).rstrip()


def _cell(column: Column, text: str, size: int) -> str:
    text = cut(text, size) if column.gives_way else text
    padding = " " * (size - width_of(text))
    return padding + text if column.right else text + padding
