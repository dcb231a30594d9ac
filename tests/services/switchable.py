"""A store of configuration that can be away, counts its reads, and lets a test in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

from flask_aibridge.errors import ServicesUnavailable
from flask_aibridge.services.memory.store import MemoryStore
from flask_aibridge.services.storage import ConfigStore


class SwitchableStore:
    """Opens as itself. While ``away`` every method raises ``ServicesUnavailable``."""

    def __init__(self, store: ConfigStore | None = None) -> None:
        self.store: ConfigStore = MemoryStore() if store is None else store
        self.away = False
        self.reads = 0
        self.opened = 0
        self.before_read: Callable[[], object] = lambda: None

    def __call__(self) -> SwitchableStore:
        self.opened += 1
        return self

    def config_version(self) -> int:
        return self._here().config_version()

    def config_rows(self, table: str) -> tuple[int, Mapping[str, str]]:
        self.reads += 1
        self.before_read()
        return self._here().config_rows(table)

    def put_config_row(self, table: str, name: str, text: str) -> int:
        return self._here().put_config_row(table, name, text)

    def delete_config_row(self, table: str, name: str) -> int | None:
        return self._here().delete_config_row(table, name)

    def seed_config(self, table: str, rows: Mapping[str, str], digest: str) -> str | None:
        return self._here().seed_config(table, rows, digest)

    def watch_config(self) -> AbstractContextManager[Iterator[int]]:
        return self._here().watch_config()

    def _here(self) -> ConfigStore:
        if self.away:
            raise ServicesUnavailable("The store is away.", 2.5)
        return self.store
