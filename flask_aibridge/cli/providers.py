"""``flask aibridge provider …``: the stored providers, from the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click
from flask.cli import with_appcontext

from flask_aibridge.api.providers import (
    change_provider,
    document,
    entries_of,
    listing,
    remove_provider,
    stored_providers,
    switch_provider,
)
from flask_aibridge.api.signals import COMMAND_LINE, announce
from flask_aibridge.cli.answers import (
    app_state,
    for_people,
    print_json,
    print_table,
    read_lines,
    read_variable,
)
from flask_aibridge.cli.layout import Column
from flask_aibridge.config import DEFAULT_BASE_URLS
from flask_aibridge.services.configuration.providers import ProviderEntry, StoredProviders

__all__ = ["provider"]

_COLUMNS: Final = (
    Column("name"),
    Column("type"),
    Column("base url", gives_way=True, leaves=2),
    Column("enabled"),
    Column("keys", gives_way=True, leaves=1),
    Column("error", gives_way=True),
)


@click.group()
def provider() -> None:
    """Providers that the gateway forwards to."""


@provider.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_appcontext
@for_people
def list_providers(as_json: bool) -> None:
    """List the providers, without their keys."""
    entries = entries_of(app_state().provider_configurator())
    if as_json:
        print_json(listing(entries))
    elif entries:
        print_table(_COLUMNS, [_row(entry) for entry in entries])
    else:
        click.echo("There are no providers. Make one with 'flask aibridge provider set NAME --type … --key'.")


@provider.command("set")
@click.argument("name")
@click.option(
    "--type", "provider_type", type=click.Choice(sorted(DEFAULT_BASE_URLS)), help="The wire format."
)
@click.option("--base-url", help="As for the provider's own SDK; by default, its own.")
@click.option(
    "--key",
    prompt="Key",
    prompt_required=False,
    hide_input=True,
    help="A key. Without a value it is asked for; with one it can be seen in the list of processes.",
)
@click.option("--key-stdin", is_flag=True, help="Read keys from standard input, one in a line, best first.")
@click.option(
    "--key-env", metavar="NAME", multiple=True, help="Read a key from this variable; may be repeated."
)
@click.option("--no-key", is_flag=True, help="It has no key: a server of one's own that asks for none.")
@click.option("--enable/--disable", "enabled", default=None, help="Whether it is served; a new one is.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_appcontext
@for_people
def set_provider(
    name: str,
    provider_type: str | None,
    base_url: str | None,
    key: str | None,
    key_stdin: bool,
    key_env: Sequence[str],
    no_key: bool,
    enabled: bool | None,
    as_json: bool,
) -> None:
    """Store the provider NAME, new or changed. What is not given stays as it is."""
    providers = _providers()
    wanted = {
        "type": provider_type,
        "base_url": base_url,
        "keys": _keys(key, key_stdin, key_env, no_key),
        "enabled": enabled,
    }
    entry, new = change_provider(providers, name, wanted, by=COMMAND_LINE)
    if as_json:
        print_json(document(entry))
        return
    hints = ", ".join(entry.key_hints)
    click.echo(
        f"Provider {name} is {'stored' if new else 'changed'}: {entry.type} at {entry.base_url}, "
        f"{'enabled' if entry.enabled else 'disabled'}, {f'keys {hints}' if hints else 'without a key'}."
    )


@provider.command()
@click.argument("name")
@with_appcontext
@for_people
def enable(name: str) -> None:
    """Serve the provider NAME."""
    switch_provider(_providers(), name, True, by=COMMAND_LINE)
    click.echo(f"Provider {name} is enabled.")


@provider.command()
@click.argument("name")
@with_appcontext
@for_people
def disable(name: str) -> None:
    """Stop serving the provider NAME; its keys stay stored."""
    switch_provider(_providers(), name, False, by=COMMAND_LINE)
    click.echo(f"Provider {name} is disabled.")


@provider.command()
@click.argument("name")
@with_appcontext
@for_people
def remove(name: str) -> None:
    """Remove the provider NAME and its keys, for good."""
    remove_provider(_providers(), name, by=COMMAND_LINE)
    click.echo(f"Provider {name} is removed.")


@provider.command()
@with_appcontext
@for_people
def reseal() -> None:
    """Encrypt all keys with the first AIBRIDGE_SECRET_KEY, after a new one was put there."""
    names = _providers().reseal()
    for name in names:
        announce("updated", "provider", name, by=COMMAND_LINE)
    click.echo(f"Encrypted anew: {', '.join(names)}." if names else "There is nothing to encrypt anew.")


def _providers() -> StoredProviders:
    return stored_providers(app_state().provider_configurator())


def _keys(key: str | None, from_stdin: bool, variables: Sequence[str], none: bool) -> list[str] | None:
    """The keys that were given, by whichever way; null to leave those that are stored."""
    if sum([key is not None, from_stdin, bool(variables), none]) > 1:
        raise click.UsageError("Give keys in one way: --key, --key-stdin, --key-env or --no-key.")
    if key is not None:
        return [key]
    if from_stdin:
        return read_lines("a key")
    if variables:
        return [read_variable(name) for name in variables]
    return [] if none else None


def _row(entry: ProviderEntry) -> tuple[str, ...]:
    enabled = {True: "yes", False: "no", None: ""}[entry.enabled]
    return (
        entry.name,
        str(entry.type or ""),
        str(entry.base_url or ""),
        enabled,
        ", ".join(entry.key_hints),
        entry.error or "",
    )
