"""Configuration on Redis: tables of rows, one version for all of them, and a copy of it in every shard."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from flask_aibridge.errors import ServicesUnavailable
from flask_aibridge.services.records import SHARDS
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.redis.scripts import Script

_log = logging.getLogger(__name__)

PUT: Final = Script("put_row")
DELETE: Final = Script("delete_row")
SEED: Final = Script("seed")
RAISE: Final = Script("raise_version")

WATCHED: Final = ("providers", "mcp")
TOKENS: Final = "mcp-tokens:"
"""Tables: those whose changes are counted, and what the names of all others begin with."""

POLL_SECONDS: Final = 1.0
"""How often a watch asks for the version: half of what it may be late. A message on a channel would be quicker, but can
be lost, so that asking would be needed all the same."""


class RedisConfig:
    """Keeps rows of configuration."""

    def __init__(self, connection: RedisConnection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys
        self._version = keys.config("version")
        self._copies = [keys.version_copy(number) for number in range(SHARDS)]
        self._watches: weakref.WeakSet[_Watch] = weakref.WeakSet()

    def config_version(self) -> int:
        """As ``ConfigStore.config_version``."""
        return int(self._connection.execute("GET", self._version) or 0)

    def config_rows(self, table: str) -> tuple[int, Mapping[str, str]]:
        """As ``ConfigStore.config_rows``."""
        # The version first: a change in between makes the rows newer than it, never older.
        version, rows = self._connection.pipeline(
            [("GET", self._version), ("HGETALL", self._keys.config(_known(table)))]
        )
        return int(version or 0), rows

    def put_config_row(self, table: str, name: str, text: str) -> int:
        """As ``ConfigStore.put_config_row``."""
        return self._changed(table, self._connection.run(PUT, self._of(table), (name, text, _counts(table))))

    def delete_config_row(self, table: str, name: str) -> int | None:
        """As ``ConfigStore.delete_config_row``."""
        version = self._connection.run(DELETE, self._of(table), (name, _counts(table)))
        return None if version is None else self._changed(table, version)

    def seed_config(self, table: str, rows: Mapping[str, str], digest: str) -> str | None:
        """As ``ConfigStore.seed_config``."""
        keys = (*self._of(table), self._keys.config("seeded"))
        flat = [each for row in rows.items() for each in row]
        reply = self._connection.run(SEED, keys, (table, digest, _counts(table), *flat))
        if isinstance(reply, list):
            return str(reply[0])
        self._changed(table, reply)
        return None

    @contextmanager
    def watch_config(self) -> Iterator[Iterator[int]]:
        """As ``ConfigStore.watch_config``. While Redis is away nothing changes and nothing is raised."""
        watch = _Watch(self)
        self._watches.add(watch)
        try:
            yield watch
        finally:
            watch.end()

    def end_watches(self) -> None:
        """End the iterators of all watches."""
        for watch in list(self._watches):
            watch.end()

    def heal_copies(self) -> None:
        """Raise every copy of the version, and the version itself, to the highest of them.

        They differ where a process died between the two, or a node of a cluster lost its last second.
        """
        names = [self._version, *self._copies]
        found = [int(reply or 0) for reply in self._connection.pipeline([("GET", name) for name in names])]
        highest = max(found)
        self._connection.run_many(
            [
                (RAISE, (name,), (highest,))
                for name, version in zip(names, found, strict=True)
                if version < highest
            ]
        )

    def _of(self, table: str) -> tuple[str, str]:
        return self._version, self._keys.config(_known(table))

    def _changed(self, table: str, version: int) -> int:
        """Copy a new version to every shard. The change itself is stored already, so that a failure here is none."""
        if table not in WATCHED:
            return version
        try:
            self._connection.run_many([(RAISE, (name,), (version,)) for name in self._copies])
        except ServicesUnavailable as error:
            _log.warning("Version %d of the configuration reaches some bridges later: %s", version, error)
        return version


def _known(table: str) -> str:
    if table not in WATCHED and not table.startswith(TOKENS):
        known = ", ".join((*WATCHED, f"{TOKENS}<user>"))
        raise ValueError(f"There is no table {table!r} of configuration: use one of {known}.")
    return table


def _counts(table: str) -> int:
    """Whether the version counts the changes of a table."""
    return int(table in WATCHED)


class _Watch:
    """Versions as they come. It waits in whatever thread asks for the next one, and needs none of its own."""

    def __init__(self, config: RedisConfig) -> None:
        self._config = config
        self._ended = threading.Event()
        self._last: int | None = None

    def __iter__(self) -> _Watch:
        return self

    def __next__(self) -> int:
        while not self._ended.is_set():
            version = self._ask()
            if version is not None and version != self._last and not self._ended.is_set():
                self._last = version
                return version
            self._ended.wait(POLL_SECONDS)
        raise StopIteration

    def _ask(self) -> int | None:
        try:
            return self._config.config_version()
        except ServicesUnavailable:
            if self._last is None:
                raise
            return None

    def end(self) -> None:
        self._ended.set()
