"""``flask aibridge interceptions …``: what was asked of the providers, in the terminal.

Exit codes: 0, also where a list is empty; 1 where what is asked for is not there or an answer cannot be had; 2 for a
wrong command line; 75 (``EX_TEMPFAIL``) where the store is away, so that a script may try again.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from threading import Event
from typing import Any, Final, ParamSpec, TypeVar, get_args

import click
from flask.cli import with_appcontext

from flask_aibridge.api.interceptions import document, full_document
from flask_aibridge.cli.answers import app_state, room
from flask_aibridge.cli.following import Follower, pages_of
from flask_aibridge.cli.keys import read_span
from flask_aibridge.cli.layout import Column, Layout, printable
from flask_aibridge.errors import AIBridgeError, ServicesUnavailable
from flask_aibridge.services.records import Status
from flask_aibridge.services.storage import MAX_LIMIT, InterceptionView, Query

__all__ = ["interceptions"]

TRY_AGAIN: Final = 75
"""``EX_TEMPFAIL`` of sysexits.h."""

MAX_LISTED: Final = 100_000
"""Interceptions of one list; a longer one is an export (``GET …/interceptions?format=csv``)."""

COLUMNS: Final = (
    Column("started (UTC)", leaves=2),
    Column("status", leaves=1),
    Column("user", gives_way=True, leaves=3),
    Column("provider", gives_way=True, leaves=7),
    Column("model", gives_way=True, leaves=4),
    Column("by", gives_way=True, leaves=8),
    Column("input", right=True, leaves=6),
    Column("output", right=True, leaves=5),
    Column("seconds", right=True, leaves=9),
    Column("id"),
)

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _for_people(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Have a command say what is wrong in a sentence, and exit with a code that says what kind of thing."""

    @functools.wraps(command)
    def called(*arguments: _P.args, **options: _P.kwargs) -> _R:
        try:
            return command(*arguments, **options)
        except ServicesUnavailable as error:
            raise _TryAgain(printable(str(error))) from None
        except AIBridgeError as error:
            raise click.ClickException(printable(str(error))) from None

    return called


class _TryAgain(click.ClickException):
    exit_code = TRY_AGAIN


def _now() -> datetime:
    return datetime.now(UTC)


def _past(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> datetime | None:
    """A time, or a span before now."""
    if text is None:
        return None
    try:
        span = read_span(text)
        moment = datetime.fromisoformat(text) if span is None else _now() - span
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (OverflowError, ValueError):
        raise click.BadParameter(
            f"{text!r} is neither a length of time such as 2h or 7d, before now, nor a date such as 2030-12-31."
        ) from None


_FILTERS: Final = (
    click.option("--initiator", "--user", "initiator", help="Only this user's."),
    click.option("--provider", help="Only of this provider."),
    click.option("--model", help="Only of this model."),
    click.option("--client", help="Only by this client, such as 'Claude Code'."),
    click.option("--source", help="Only by this call site of the application's own, such as 'agents'."),
    click.option("--session", "session_id", help="Only of this session."),
    click.option("--status", type=click.Choice(get_args(Status)), help="Only those that stand so."),
)
_AS_JSON: Final = click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON object for each, in a line."
)


def _filtered(command: Callable[_P, _R]) -> Callable[_P, _R]:
    for option in reversed(_FILTERS):
        command = option(command)
    return command


@click.group()
def interceptions() -> None:
    """What was asked of the providers, and how it went."""


@interceptions.command("list")
@_filtered
@click.option(
    "--after", "started_after", metavar="2h|DATE", callback=_past, help="Only what started then or later."
)
@click.option(
    "--before", "started_before", metavar="2h|DATE", callback=_past, help="Only what started before."
)
@click.option(
    "--limit", type=click.IntRange(1, MAX_LISTED), default=50, show_default=True, help="How many at most."
)
@_AS_JSON
@with_appcontext
@_for_people
def list_interceptions(limit: int, as_json: bool, **filters: Any) -> None:
    """List interceptions, newest first."""
    printer = _Printer(as_json)
    for views in pages_of(app_state().store(), Query(**filters), limit):
        printer.print(views)
    printer.end()


class _Printer:
    """Prints interceptions under one another: as JSON lines, or as a table."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._layout: Layout | None = None

    def print(self, views: Sequence[InterceptionView]) -> None:
        if self._as_json:
            for view in views:
                # ASCII alone, so nothing in it means anything to a terminal.
                click.echo(json.dumps(document(view)))
        elif views:
            self._print_rows([_row(view) for view in views])
        sys.stdout.flush()

    def _print_rows(self, rows: Sequence[Sequence[str]]) -> None:
        if self._layout is None:
            self._layout = Layout(COLUMNS, rows, room())
            click.secho(self._layout.titles, dim=True)
        for row in rows:
            click.echo(self._layout.line(row))

    def end(self) -> None:
        """Say so where there was nothing; beside what scripts read."""
        if not self._as_json and self._layout is None:
            click.echo("There are no such interceptions.", err=True)


def _row(view: InterceptionView) -> tuple[str, ...]:
    start, end = view.start, view.end
    cells = (
        start.started_at.astimezone(UTC).strftime("%m-%d %H:%M:%S"),
        view.status,
        start.initiator or "-",
        start.provider,
        start.model or "-",
        start.source or start.client or "-",
        str(view.tokens.input + view.tokens.cache_read + view.tokens.cache_write),
        str(view.tokens.output),
        "-" if end is None else f"{(end.ended_at - start.started_at).total_seconds():.1f}",
        start.id,
    )
    return tuple(printable(cell) for cell in cells)


@interceptions.command("show")
@click.argument("interception_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_appcontext
@_for_people
def show_interception(interception_id: str, as_json: bool) -> None:
    """Show the interception ID with everything that is recorded of it."""
    view = app_state().store().interception(interception_id)
    if view is None:
        raise click.ClickException(f"There is no interception {printable(interception_id)}.")
    shown = full_document(view)
    if as_json:
        click.echo(json.dumps(shown, indent=2))
    else:
        _print_facts(shown)


def _print_facts(shown: Mapping[str, Any]) -> None:
    facts = {name: value for name, value in shown.items() if not isinstance(value, dict | list)}
    tokens = dict(shown["token_usage"])
    facts.update(
        {
            f"tokens: {name}": count
            for name, count in (tokens | tokens.pop("extra")).items()
            if name != "extra"
        }
    )
    facts.update({f"error: {name}": value for name, value in (shown["error"] or {}).items()})
    size = max(map(len, map(str, facts)))
    for name, value in facts.items():
        if value is not None:
            click.echo(f"{printable(name).ljust(size)}  {printable(str(value))}")
    for said in _said(shown):
        click.secho(f"\n{printable(said[0])}", bold=True)
        click.echo(printable(said[1], lines=True))


def _said(shown: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was said, in order of time: a heading and the text."""
    said = [
        *((each["created_at"], "Prompt", each["prompt"]) for each in shown["prompts"]),
        *((each["created_at"], "Thought", each["content"]) for each in shown["thoughts"]),
        *(
            (each["created_at"], f"Tool call: {each['tool']}", _tool_call(each))
            for each in shown["tool_calls"]
        ),
    ]
    for at, heading, text in sorted(said, key=lambda each: each[0]):
        yield f"{heading} ({at})", text


def _tool_call(call: Mapping[str, Any]) -> str:
    failed = call["invocation_error"]
    return f"{call['input']}\nfailed: {failed}" if failed else str(call["input"])


@interceptions.command("tail")
@_filtered
@click.option(
    "--limit",
    "-n",
    type=click.IntRange(0, MAX_LIMIT),
    default=10,
    show_default=True,
    help="How many past ones first.",
)
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=1.0,
    show_default=True,
    help="Seconds between looks at the store.",
)
@_AS_JSON
@with_appcontext
@_for_people
def tail_interceptions(limit: int, interval: float, as_json: bool, **filters: Any) -> None:
    """Follow interceptions: print each as it starts, and again as it ends, until Ctrl-C."""
    follower = Follower(app_state().store(), Query(**filters), _Printer(as_json).print)
    try:
        follower.begin(limit)
        while True:
            _wait(interval)
            follower.look()
    except KeyboardInterrupt:
        return


def _wait(seconds: float) -> None:
    Event().wait(seconds)
