"""Rows of configuration in a memory store, and who watches them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Condition
from typing import Final

WATCHED_TABLES: Final = ("providers", "mcp")
TOKENS_PREFIX: Final = "mcp-tokens:"


class ConfigTables:
    """Rows by table and name, and one version for all that is watched.

    :param changed: notified of each change. Callers hold it in every method but :meth:`watch`.
    """

    def __init__(self, changed: Condition) -> None:
        self.version = 0
        self._changed = changed
        self._tables: dict[str, dict[str, str]] = {}
        self._digests: dict[str, str] = {}
        self._watches: set[_Watch] = set()

    def rows(self, table: str) -> Mapping[str, str]:
        return dict(self._tables.get(_known(table), {}))

    def put(self, table: str, name: str, text: str) -> int:
        self._tables.setdefault(_known(table), {})[name] = text
        return self._count_up(table)

    def delete(self, table: str, name: str) -> int | None:
        if self._tables.get(_known(table), {}).pop(name, None) is None:
            return None
        return self._count_up(table)

    def seed(self, table: str, rows: Mapping[str, str], digest: str) -> str | None:
        if _known(table) in self._digests:
            return self._digests[table]
        self._digests[table] = digest
        self._tables[table] = {**rows, **self._tables.get(table, {})}
        self._count_up(table)
        return None

    def _count_up(self, table: str) -> int:
        if table in WATCHED_TABLES:
            self.version += 1
            self._changed.notify_all()
        return self.version

    @contextmanager
    def watch(self) -> Iterator[Iterator[int]]:
        """Versions, until the context or all watches are closed."""
        watch = _Watch(self, self._changed)
        with self._changed:
            self._watches.add(watch)
        try:
            yield watch
        finally:
            with self._changed:
                self._watches.discard(watch)
                watch.end()

    def end_watches(self) -> None:
        for watch in self._watches:
            watch.end()


class _Watch(Iterator[int]):
    def __init__(self, tables: ConfigTables, changed: Condition) -> None:
        self._tables = tables
        self._changed = changed
        self._told: int | None = None
        self._ended = False

    def __next__(self) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._told != self._tables.version)
            if self._ended:
                raise StopIteration
            self._told = self._tables.version
            return self._told

    def end(self) -> None:
        self._ended = True
        self._changed.notify_all()


def _known(table: str) -> str:
    if table not in WATCHED_TABLES and not table.startswith(TOKENS_PREFIX):
        known = ", ".join((*WATCHED_TABLES, f"{TOKENS_PREFIX}<user>"))
        raise ValueError(f"There is no table {table!r} of configuration: use one of {known}.")
    return table
