"""``flask aibridge license …``: licences, from the terminal: those of this installation, and a vendor's new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click
from flask.cli import with_appcontext

from flask_aibridge.api.license_changes import install_license, remove_license
from flask_aibridge.api.licenses import document
from flask_aibridge.api.signals import COMMAND_LINE
from flask_aibridge.cli.answers import app_state, for_people, print_json, print_table
from flask_aibridge.cli.license_inspect import inspect, named_features, verdict
from flask_aibridge.cli.license_texts import read_license_argument, refusals_exit
from flask_aibridge.cli.license_vendor import issue, keygen
from flask_aibridge.license.licenses import day_of

if TYPE_CHECKING:
    from flask_aibridge.license.holder import LicenseHolder
    from flask_aibridge.license.licenses import License

__all__ = ["license_group"]

_COLUMNS: Final = (
    "id",
    "customer",
    "source",
    "standing",
    "term ends",
    "grace ends",
    "features",
    "why not",
)


@click.group("license")
def license_group() -> None:
    """Licences: install, list, inspect and remove them, or issue them.

    \b
    Exit codes:
      0  done; of 'inspect': the licence is in its paid term
      1  not done: no such licence, no store, a file that cannot be read, …
      2  the command was not called as it should be
      3  the licence is refused, or over ('install', 'inspect', 'issue')
      4  the licence is in its grace period ('inspect')
      5  the licence is not valid yet ('inspect')
    """


license_group.add_command(keygen)
license_group.add_command(issue)
license_group.add_command(inspect)


@license_group.command()
@click.argument("license_", metavar="TOKEN|FILE|-")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_appcontext
@for_people
@refusals_exit
def install(license_: str, as_json: bool) -> None:
    """Verify a licence and put it in force in every process, within seconds.

    It is given as its text, as a file, or as - on standard input. One that begins later can be installed today; one
    with the id of another takes its place. Exits with 3 for one that is refused.
    """
    holder = _holder()
    installed = install_license(holder, read_license_argument(license_), by=COMMAND_LINE)
    if as_json:
        print_json(document(installed))
    else:
        click.echo(f"The licence {installed.id} is installed. {verdict(installed, _now(holder)).message}")
    _warn(holder)


@license_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_appcontext
@for_people
def list_licenses(as_json: bool) -> None:
    """List every licence, also those that do not count: those of the configuration, then those installed."""
    holder = _holder()
    licenses, now = holder.licenses(), _now(holder)
    if as_json:
        print_json([_listed(each, now) for each in licenses])
    elif licenses:
        print_table(_COLUMNS, [_row(each, now) for each in licenses])
    else:
        click.echo("There are no licences. Install one with 'flask aibridge license install FILE'.")
    _warn(holder)


@license_group.command()
@click.argument("license_id", metavar="ID")
@with_appcontext
@for_people
def remove(license_id: str) -> None:
    """Remove the installed licence ID everywhere, within seconds."""
    holder = _holder()
    remove_license(holder, license_id, by=COMMAND_LINE)
    click.echo(f"The licence {license_id} is removed.")
    _warn(holder)


@license_group.command("deployment-id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_appcontext
@for_people
def deployment_id(as_json: bool) -> None:
    """Print the id of this installation, which a vendor may bind a licence to."""
    found = _holder().deployment_id()
    if as_json:
        print_json({"deployment_id": found})
    else:
        click.echo(found)


def _holder() -> LicenseHolder:
    holder: LicenseHolder = app_state().gate.holder
    return holder


def _now(holder: LicenseHolder) -> float:
    """The time that the licences are judged by, which is not the clock's where that was turned back."""
    return holder.in_force.time(holder.clock())


def _warn(holder: LicenseHolder) -> None:
    """Say what an administrator should do something about, beside what a pipe gets."""
    for warning in holder.entitlements().warnings:
        click.echo(f"Warning: {warning.message}", err=True)


def _listed(license_: License, now: float) -> dict[str, Any]:
    judged = verdict(license_, now)
    return {
        **document(license_),
        "source": license_.source,
        "standing": judged.standing,
        "code": judged.code,
        "message": judged.message,
    }


def _row(license_: License, now: float) -> tuple[str, ...]:
    judged, claims = verdict(license_, now), license_.claims
    if claims is None:
        return license_.id, "", license_.source, judged.standing, "", "", "", judged.code or ""
    return (
        license_.id,
        claims.sub,
        license_.source,
        judged.standing,
        day_of(claims.license_expires),
        day_of(claims.exp),
        named_features(claims),
        judged.code or "",
    )
