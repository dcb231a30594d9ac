"""What the demo prints: plain lines that fit a terminal, with colour where there is one to show it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import click

__all__ = ["Terminal"]

INDENT: Final = "   "
MARGIN: Final = "     "
"""Where the text of an answer begins."""

WIDEST: Final = 100
"""Longer lines are hard to read, however wide the window is."""

_COLUMN_GAP: Final = "  "


class Terminal:
    """Prints the parts of the demo, each at once.

    Without a terminal, or with ``NO_COLOR`` in ``env`` (no-color.org), there are no colour codes.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._color = False if env.get("NO_COLOR") else None
        self._width = min(shutil.get_terminal_size((80, 24)).columns, WIDEST)
        self._steps = 0

    def title(self, text: str) -> None:
        """The first line."""
        self._line(click.style(text, bold=True))

    def facts(self, facts: Iterable[tuple[str, str]]) -> None:
        """Names and values, aligned."""
        pairs = list(facts)
        width = max(len(name) for name, _ in pairs)
        for name, value in pairs:
            self._line(f"{INDENT}{click.style(name.ljust(width), dim=True)}  {value}")

    def step(self, text: str) -> None:
        """The heading of the next part."""
        self._steps += 1
        self._line()
        self._line(click.style(f"{self._steps}. {text}", bold=True))

    def note(self, text: str) -> None:
        """A sentence of the demo's own, wrapped."""
        self._line(click.wrap_text(text, self._width, INDENT, INDENT))

    def said(self, text: str) -> None:
        """A line of a conversation that the demo itself says."""
        self._line(f"{INDENT}{click.style('>', fg='cyan')} {text}")

    def result(self, status: int, text: str = "") -> None:
        """An HTTP status, and what came with it."""
        self._line(
            f"{INDENT}{click.style(str(status), fg='green' if status < 400 else 'red', bold=True)} {text}"
        )

    def failure(self, text: str) -> None:
        """What went wrong, and what to do."""
        wrapped = click.wrap_text(_harmless(text), self._width, "failed: ", INDENT)
        self._line(INDENT + click.style(wrapped[:7], fg="red", bold=True) + wrapped[7:])

    def typed(self, pieces: Iterable[str]) -> None:
        """Text printed piece by piece as it comes, wrapped between pieces and indented."""
        column = 0
        try:
            for piece in pieces:
                if not column:
                    self._write(f"{INDENT}{click.style('<', fg='green')} ")
                    column = len(MARGIN)
                column = self._type(_harmless(piece), column)
        finally:
            if column:
                self._line()

    def _type(self, text: str, column: int) -> int:
        """Print one piece where the cursor is; the column where it is then."""
        if column + len(text.rstrip()) > self._width and text.startswith(" "):
            text = "\n" + text.lstrip(" ")
        self._write(text.replace("\n", f"\n{MARGIN}"))
        _, line_break, last = text.rpartition("\n")
        return len(last) + (len(MARGIN) if line_break else column)

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()
    ) -> None:
        """Rows under their headings; the columns of ``numbers`` stand to the right."""
        right, body = set(numbers), list(rows)
        widths = [max(len(row[i]) for row in [columns, *body]) for i in range(len(columns))]
        for place, row in enumerate([columns, *body]):
            cells = [
                text.rjust(width) if i in right else text.ljust(width)
                for i, (text, width) in enumerate(zip(row, widths, strict=True))
            ]
            line = (INDENT + _COLUMN_GAP.join(cells)).rstrip()
            self._line(click.style(line, dim=True) if place == 0 else line)

    def verbatim(self, text: str) -> None:
        """Lines to copy, exactly as they are, after an empty one."""
        self._line(f"\n{text}")

    def gap(self) -> None:
        """An empty line."""
        self._line()

    def _line(self, text: str = "") -> None:
        click.echo(text, color=self._color)

    def _write(self, text: str) -> None:
        click.echo(text, nl=False, color=self._color)


def _harmless(text: str) -> str:
    """The text without control characters, which a terminal would obey."""
    return "".join(each if each.isprintable() or each == "\n" else " " for each in text)
