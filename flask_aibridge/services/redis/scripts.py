"""The Lua scripts: their text, their digests, and calls of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Final, NamedTuple, TypeAlias

Argument: TypeAlias = str | int | float
Command: TypeAlias = tuple[Argument, ...]

_FOLDER: Final = files("flask_aibridge.services.redis") / "lua"

INTERCEPTION: Final = ("shard", "lineage", "interception")
"""The files behind which a script stands that writes what belongs to interceptions."""


class Script:
    """One named Lua file, behind the files that it shares functions with.

    :param name: ``lua/<name>.lua``.
    :param after: the names of the files whose text comes first.
    """

    def __init__(self, name: str, *after: str) -> None:
        self.name = name
        self.text = "\n".join((_FOLDER / f"{each}.lua").read_text("utf-8") for each in (*after, name))
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def __repr__(self) -> str:
        return f"<Script {self.name}>"


class Call(NamedTuple):
    """A call of a script: its keys, the first of which says in a cluster where it runs, and its arguments."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Argument] = ()

    def by_digest(self) -> Command:
        """For a server that knows the script."""
        return ("EVALSHA", self.script.digest, len(self.keys), *self.keys, *self.args)

    def by_text(self) -> Command:
        """For a server that does not; from then on it does."""
        return ("EVAL", self.script.text, len(self.keys), *self.keys, *self.args)
