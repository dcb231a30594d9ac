"""``flask aibridge key …``: API keys, from the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click
from flask.cli import with_appcontext

from flask_aibridge.api import key_changes
from flask_aibridge.api.keys import document, validated
from flask_aibridge.api.signals import COMMAND_LINE
from flask_aibridge.cli.answers import app_state, for_people, print_json, print_table
from flask_aibridge.cli.layout import Column, printable
from flask_aibridge.services.storage import MAX_LIMIT, APIKeyRow, APIKeyStore, Store

__all__ = ["key"]

UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SPAN: Final = re.compile(r"([0-9]{1,9})([smhdw])")


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


def _store() -> Store:
    store: Store = app_state().store()
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
@click.option(
    "--rate-limit", metavar="60/minute", help="Limit how often it may be used, as in '60/minute burst=20'."
)
@with_appcontext
@for_people
def create(
    owner: str,
    name: str,
    expires: datetime | None,
    providers: Sequence[str],
    models: Sequence[str],
    rate_limit: str | None,
) -> None:
    """Make an API key for OWNER and print it, this once."""
    wanted = {
        "owner": owner,
        "display_name": name,
        "expires_at": None if expires is None else expires.isoformat(),
        "scopes": {"providers": list(providers) or None, "models": list(models) or None},
        "rate_limit": rate_limit,
    }
    issued = key_changes.create_key(_store(), by=COMMAND_LINE, **validated(wanted))
    _print_once(issued)


def _every_key(store: APIKeyStore, owner: str | None) -> Iterator[APIKeyRow]:
    cursor, is_last = None, False
    while not is_last:
        page = store.api_keys(owner, limit=MAX_LIMIT, cursor=cursor)
        yield from page.rows
        cursor, is_last = page.next, page.next is None


@key.command("list")
@click.option("--owner", help="Only this user's.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_appcontext
@for_people
def list_keys(owner: str | None, as_json: bool) -> None:
    """List API keys, newest first, without their secrets."""
    shown = [document(row.key) for row in _every_key(_store(), owner)]
    if as_json:
        print_json({"count": len(shown), "keys": shown})
    elif shown:
        print_table(_COLUMNS, [[_cell(each, column.title) for column in _COLUMNS] for each in shown])
    else:
        click.echo("There are no API keys. Make one with 'flask aibridge key create OWNER'.")


@key.command()
@click.argument("key_id", metavar="ID")
@with_appcontext
@for_people
def revoke(key_id: str) -> None:
    """Revoke the API key ID, for good."""
    revoked = key_changes.revoke_key(_store(), key_id, by=COMMAND_LINE)
    click.echo(f"The API key {revoked.id} of {printable(revoked.owner)} is revoked.")


@key.command()
@click.argument("key_id", metavar="ID")
@click.option(
    "--overlap", callback=_span, default="0s", help="How long the old secret is still accepted, as in 1h."
)
@with_appcontext
@for_people
def rotate(key_id: str, overlap: timedelta) -> None:
    """Give the API key ID another secret and print it, this once."""
    _print_once(key_changes.rotate_key(_store(), key_id, by=COMMAND_LINE, overlap=overlap))


def _print_once(issued: key_changes.IssuedKey) -> None:
    """The key alone on standard output, for pipes; what there is to say about it beside that."""
    click.echo(
        f"The API key {issued.key.id} of {printable(issued.key.owner)}. Keep it now: it is not shown again.",
        err=True,
    )
    click.echo(issued.text)


_COLUMNS: Final = (
    Column("id"),
    Column("owner", gives_way=True),
    Column("display_name", gives_way=True, leaves=2),
    Column("status"),
    Column("created_at", leaves=4),
    Column("expires_at", leaves=1),
    Column("last_used_at", leaves=3),
    Column("limits", gives_way=True, leaves=5),
)


def _cell(shown: dict[str, Any], column: str) -> str:
    if column == "limits":
        limits = [f"{kind}: {', '.join(names)}" for kind, names in shown["scopes"].items() if names]
        limits += [shown["rate_limit"]] if shown["rate_limit"] else []
        return "; ".join(limits)
    value = str(shown[column] or "")
    return value[:19] + "Z" if column.endswith("_at") and value else value
