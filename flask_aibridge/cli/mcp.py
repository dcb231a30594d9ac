"""``flask aibridge mcp …``: MCP servers and users' access tokens for them, from the terminal."""

from __future__ import annotations

from typing import Final

import click
from flask.cli import with_appcontext

from flask_aibridge.api.mcp import (
    document,
    host_configurator,
    listing,
    put_server,
    put_token,
    remove_server,
    remove_token,
)
from flask_aibridge.api.signals import COMMAND_LINE
from flask_aibridge.cli.answers import (
    app_state,
    for_people,
    print_json,
    print_table,
    read_lines,
    read_variable,
)
from flask_aibridge.cli.layout import Column
from flask_aibridge.services.configuration.mcp import HostMCPConfigurator
from flask_aibridge.services.interfaces import MCPServerConfig

__all__ = ["mcp"]

_COLUMNS: Final = (
    Column("id"),
    Column("url", gives_way=True),
    Column("allowed tools", gives_way=True, leaves=1),
    Column("denied tools", gives_way=True, leaves=1),
    Column("from", leaves=2),
    Column("error", gives_way=True),
)


@click.group()
def mcp() -> None:
    """MCP servers whose tools may be injected."""


@mcp.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_appcontext
@for_people
def list_servers(as_json: bool) -> None:
    """List the MCP servers; those that are not used too, with what is wrong with them."""
    entries = _configurator().entries()
    if as_json:
        print_json(listing(entries))
    elif entries:
        rows = [
            (
                entry.id,
                entry.url or "",
                entry.tool_allow_regex or "",
                entry.tool_deny_regex or "",
                entry.origin,
                entry.error or "",
            )
            for entry in entries
        ]
        print_table(_COLUMNS, rows)
    else:
        click.echo("There are no MCP servers. Make one with 'flask aibridge mcp set ID --url https://…'.")


@mcp.command("set")
@click.argument("server_id", metavar="ID")
@click.option("--url", required=True, help="Where the server is.")
@click.option("--allow", metavar="REGEX", help="Only tools with this in their name; by default, all.")
@click.option("--deny", metavar="REGEX", help="No tools with this in their name, allowed or not.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_appcontext
@for_people
def set_server(server_id: str, url: str, allow: str | None, deny: str | None, as_json: bool) -> None:
    """Store the MCP server ID, new or in place of what is stored."""
    server = MCPServerConfig(server_id, url, allow, deny)
    entry, new = put_server(_configurator(), server, by=COMMAND_LINE)
    if as_json:
        print_json(document(entry))
    else:
        click.echo(f"MCP server {server_id} is {'stored' if new else 'changed'}.")


@mcp.command()
@click.argument("server_id", metavar="ID")
@with_appcontext
@for_people
def remove(server_id: str) -> None:
    """Remove the stored MCP server ID; what the app's config names is in force again."""
    remove_server(_configurator(), server_id, by=COMMAND_LINE)
    click.echo(f"MCP server {server_id} is removed.")


@mcp.command()
@click.argument("server_id", metavar="ID")
@click.argument("user")
@click.option("--stdin", "from_stdin", is_flag=True, help="Read the token from standard input.")
@click.option("--env", "variable", metavar="NAME", help="Read the token from this environment variable.")
@click.option("--remove", "removing", is_flag=True, help="Remove the stored token.")
@with_appcontext
@for_people
def token(server_id: str, user: str, from_stdin: bool, variable: str | None, removing: bool) -> None:
    """Store the access token of USER for the MCP server ID. It is asked for, unless an option says where it is."""
    if sum([from_stdin, variable is not None, removing]) > 1:
        raise click.UsageError("Give one of --stdin, --env and --remove.")
    configurator = _configurator()
    if removing:
        remove_token(configurator, user, server_id, by=COMMAND_LINE)
        click.echo(f"The token of {user} for MCP server {server_id} is removed.")
        return
    put_token(configurator, user, server_id, _token(from_stdin, variable), by=COMMAND_LINE)
    click.echo(f"The token of {user} for MCP server {server_id} is stored.")


def _configurator() -> HostMCPConfigurator:
    return host_configurator(app_state().mcp_configurator())


def _token(from_stdin: bool, variable: str | None) -> str:
    if variable is not None:
        return read_variable(variable)
    if not from_stdin:
        asked: str = click.prompt("Token", hide_input=True)
        return asked
    lines = read_lines("a token")
    if len(lines) > 1:
        raise click.ClickException(
            "There is more than one line on standard input; a single token is expected there."
        )
    return lines[0]
