"""``flask aibridge …``: the commands, each loaded when it is called.

Flask loads this module whenever the ``flask`` command runs, in every application where the package is installed,
so nothing heavier than click is imported here.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import Final

import click

__all__ = ["aibridge"]

#: Command → ``module:attribute``. They stand above this module: a command may use the whole package.
COMMANDS: Final = MappingProxyType(
    {
        "demo": "flask_aibridge.demo.command:demo",
        "interceptions": "flask_aibridge.cli.interceptions:interceptions",
        "key": "flask_aibridge.cli.keys:key",
        "license": "flask_aibridge.cli.license:license_group",
        "mcp": "flask_aibridge.cli.mcp:mcp",
        "provider": "flask_aibridge.cli.providers:provider",
        "serve": "flask_aibridge.cli.serve:serve",
    }
)


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, those not loaded yet too."""
        return sorted({*super().list_commands(ctx), *COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, loaded; ``None`` for none of that name."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, attribute = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


@click.group(cls=LazyGroup)
def aibridge() -> None:
    """The AI gateway of Flask-AIBridge. All but the demo work on the application that ``--app`` names."""
