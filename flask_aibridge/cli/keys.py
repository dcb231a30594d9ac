"""``flask aibridge key …``: API keys, from the terminal."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, ParamSpec, TypeVar

import click
from flask import current_app
from flask.cli import with_appcontext

from flask_aibridge.api import key_changes
from flask_aibridge.api.keys import document, validated
from flask_aibridge.api.problems import Problem
from flask_aibridge.api.signals import COMMAND_LINE
from flask_aibridge.errors import AIBridgeError
from flask_aibridge.services.storage import Store

__all__ = ["key"]

UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SPAN: Final = re.compile(r"([0-9]{1,9})([smhdw])")

_P = ParamSpec("_P")
_R = TypeVar("_R")


def read_span(text: str) -> timedelta | None:
    """The length of time that a text says; null for none, or for one that no calendar holds."""
    found = _SPAN.fullmatch(text)
    try:
        return None if found is None else timedelta(**{UNITS[found[2]]: int(found[1])})
    except OverflowError:
        return None


def read_moment(text: str) -> datetime | None:
    """The moment that a text says, as a span from now or a date; null for none."""
    try:
        span = read_span(text)
        if span is not None:
            return key_changes.now() + span
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (OverflowError, ValueError):
        return None


def _span(_ctx: click.Context, _parameter: click.Parameter, text: str) -> timedelta:
    span = read_span(text)
    if span is None:
        raise click.BadParameter(f"{text!r} is no length of time; write it as 30m, 1h or 2d.")
    if span > key_changes.MAX_OVERLAP:
        raise click.BadParameter(f"{key_changes.MAX_OVERLAP.days}d is the longest.")
    return span


def _moment(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> datetime | None:
    moment = None if text is None else read_moment(text)
    if text is not None and moment is None:
        raise click.BadParameter(
            f"{text!r} is neither a length of time such as 30d nor a date such as 2030-12-31."
        )
    return moment


def _for_people(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Have a command say what is wrong in a sentence, and exit with 1."""

    @functools.wraps(command)
    def called(*arguments: _P.args, **options: _P.kwargs) -> _R:
        try:
            return command(*arguments, **options)
        except Problem as problem:
            raise click.ClickException(problem.detail) from None
        except AIBridgeError as error:
            raise click.ClickException(str(error)) from None

    return called


def _store() -> Store:
    state = current_app.extensions.get("aibridge")
    if state is None:
        raise click.ClickException(
            f"The application {current_app.name!r} has no AIBridge; call AIBridge(app) or init_app(app) in it."
        )
    store: Store = state.store()
    return store


@click.group()
def key() -> None:
    """API keys for the gateway."""


@key.command()
@click.argument("owner")
@click.option("--name", default="", help="What the key is for, to tell it from others.")
@click.option(
    "--expires",
    metavar="30d|DATE",
    callback=_moment,
    help="When it expires: in a length of time, or on a date (UTC).",
)
@click.option("--provider", "providers", multiple=True, help="Limit it to this provider; may be repeated.")
@click.option(
    "--model", "models", multiple=True, help="Limit it to this model, or to 'gpt-*'; may be repeated."
)
@with_appcontext
@_for_people
def create(
    owner: str, name: str, expires: datetime | None, providers: Sequence[str], models: Sequence[str]
) -> None:
    """Make an API key for OWNER and print it, this once."""
    wanted = {
        "owner": owner,
        "display_name": name,
        "expires_at": None if expires is None else expires.isoformat(),
        "scopes": {"providers": list(providers) or None, "models": list(models) or None},
    }
    issued = key_changes.create_key(_store(), by=COMMAND_LINE, **validated(wanted))
    _print_once(issued)


@key.command("list")
@click.option("--owner", help="Only this user's.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_appcontext
@_for_people
def list_keys(owner: str | None, as_json: bool) -> None:
    """List API keys, newest first, without their secrets."""
    shown = [document(row.key) for row in _store().api_keys() if owner in (None, row.key.owner)]
    if as_json:
        click.echo(json.dumps({"count": len(shown), "keys": shown}, indent=2))
    else:
        _print_table(shown)


@key.command()
@click.argument("key_id", metavar="ID")
@with_appcontext
@_for_people
def revoke(key_id: str) -> None:
    """Revoke the API key ID, for good."""
    revoked = key_changes.revoke_key(_store(), key_id, by=COMMAND_LINE)
    click.echo(f"The API key {revoked.id} of {revoked.owner} is revoked.")


@key.command()
@click.argument("key_id", metavar="ID")
@click.option(
    "--overlap", callback=_span, default="0s", help="How long the old secret is still accepted, as in 1h."
)
@with_appcontext
@_for_people
def rotate(key_id: str, overlap: timedelta) -> None:
    """Give the API key ID another secret and print it, this once."""
    _print_once(key_changes.rotate_key(_store(), key_id, by=COMMAND_LINE, overlap=overlap))


def _print_once(issued: key_changes.IssuedKey) -> None:
    """The key alone on standard output, for pipes; what there is to say about it beside that."""
    click.echo(
        f"The API key {issued.key.id} of {issued.key.owner}. Keep it now: it is not shown again.", err=True
    )
    click.echo(issued.text)


_COLUMNS: Final = (
    "id",
    "owner",
    "display_name",
    "status",
    "created_at",
    "expires_at",
    "last_used_at",
    "limits",
)


def _print_table(shown: Sequence[dict[str, Any]]) -> None:
    if not shown:
        click.echo("There are no API keys. Make one with 'flask aibridge key create OWNER'.")
        return
    rows = [_COLUMNS, *(tuple(_cell(document, column) for column in _COLUMNS) for document in shown)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cell(shown: dict[str, Any], column: str) -> str:
    if column == "limits":
        limits = [f"{kind}: {', '.join(names)}" for kind, names in shown["scopes"].items() if names]
        return "; ".join(limits) or "-"
    value = str(shown[column] or "-")
    return value[:19] + "Z" if column.endswith("_at") and value != "-" else value
