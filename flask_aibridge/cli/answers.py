"""What the commands that administer the gateway have in common: finding the app's parts, and answering people."""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, ParamSpec, TypeVar

import click
from flask import current_app

from flask_aibridge.api.problems import Problem
from flask_aibridge.cli.layout import Column, Layout, printable
from flask_aibridge.errors import AIBridgeError

MAX_STDIN: Final = 64 * 1024
"""Characters of secrets that are read from standard input: more is something else that was piped in by mistake."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


def for_people(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Have a command say what is wrong in a sentence, and exit with 1."""

    @functools.wraps(command)
    def called(*arguments: _P.args, **options: _P.kwargs) -> _R:
        try:
            return command(*arguments, **options)
        except Problem as problem:
            raise click.ClickException(printable(problem.detail)) from None
        except AIBridgeError as error:
            raise click.ClickException(printable(str(error))) from None

    return called


def app_state() -> Any:
    """``app.extensions["aibridge"]`` of the current app."""
    state = current_app.extensions.get("aibridge")
    if state is None:
        raise click.ClickException(
            f"The application {current_app.name!r} has no AIBridge; call AIBridge(app) or init_app(app) in it."
        )
    return state


def print_json(document: object) -> None:
    """A document for programs."""
    click.echo(json.dumps(document, indent=2))


def print_table(titles: Sequence[str | Column], rows: Sequence[Sequence[str]]) -> None:
    """Rows for people, below the titles of their columns; an empty cell is a dash. What comes from outside cannot break
    a line, or tell the terminal anything."""
    columns = [Column(title) if isinstance(title, str) else title for title in titles]
    table = [[printable(cell) or "-" for cell in row] for row in rows]
    layout = Layout(columns, table, room())
    click.echo(layout.titles)
    for row in table:
        click.echo(layout.line(row))


def room() -> int | None:
    """How many cells wide the terminal is that is printed to; null for a pipe or a file, whose lines have no bound."""
    return shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else None


def read_lines(what: str) -> list[str]:
    """The lines of standard input, without those that are empty.

    :param what: what is expected there, for the message that nothing is.
    """
    text = sys.stdin.read(MAX_STDIN + 1)
    if len(text) > MAX_STDIN:
        raise click.ClickException(
            f"There are more than {MAX_STDIN} characters on standard input: is that {what}?"
        )
    lines = [each.strip() for each in text.splitlines() if each.strip()]
    if not lines:
        raise click.ClickException(f"There is nothing on standard input; {what} is expected there.")
    return lines


def read_variable(name: str) -> str:
    """A secret from an environment variable."""
    value = os.environ.get(name, "").strip()
    if not value:
        raise click.ClickException(f"The environment variable {name!r} is not set, or empty.")
    return value
