"""The Redis that is measured: an embedded one of its own, or one at a URL, under a prefix of its own."""

from __future__ import annotations

import os
import secrets
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

import redis

from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.redis.store import RedisStore

SCANNED = 1000
SAVED_WITHIN_SECONDS = 300


@dataclass
class Server:
    """One server. ``own`` tells whether it may be killed."""

    url: str
    own: bool

    def __post_init__(self) -> None:
        self.client: Any = redis.Redis.from_url(self.url, decode_responses=True)

    def cpu(self) -> float:
        """Seconds of CPU that the server has used."""
        info = self.client.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def reads(self) -> int:
        """How often the server has read from a client: a request that fits the buffer is one."""
        return int(self.client.info("stats")["total_reads_processed"])

    def memory(self) -> int:
        """Bytes that the server has allocated."""
        return int(self.client.info("memory")["used_memory"])

    def memory_of_streams(self, prefix: str) -> int:
        """Bytes that the streams for consumers take, whose length is bounded."""
        names = self.client.scan_iter(f"{prefix}:*:stream", count=SCANNED)
        return sum(self.client.memory_usage(name, samples=0) or 0 for name in names)

    def version(self) -> str:
        info = self.client.info("server")
        name = "Valkey" if "valkey_version" in info else "Redis"
        return f"{name} {info.get('valkey_version') or info['redis_version']}"

    def wait_for_saves(self) -> None:
        """Return when the server writes nothing in the background any more: it competes with what is measured.

        :raises TimeoutError: where it goes on for longer than all that is recorded here gives reason to.
        """
        until = monotonic() + SAVED_WITHIN_SECONDS
        while self._is_saving():
            if monotonic() > until:
                raise TimeoutError(f"The server has been saving for more than {SAVED_WITHIN_SECONDS} s.")
            sleep(0.5)

    def _is_saving(self) -> bool:
        info = self.client.info("persistence")
        kinds = ("rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled")
        return any(info.get(kind) for kind in kinds)

    def kill(self) -> None:
        """As a crash does."""
        os.kill(int(self.client.info("server")["process_id"]), signal.SIGKILL)
        self.client.close()

    @contextmanager
    def store(self, **options: Any) -> Iterator[tuple[RedisStore, str]]:
        """An empty store with its prefix; deleted afterwards."""
        prefix = f"aibridge-benchmark-{secrets.token_hex(4)}"
        store = RedisStore(RedisConnection(self.url), keys=Keys(prefix), **options)
        try:
            yield store, prefix
        finally:
            store.close()
            self._delete(prefix)

    def _delete(self, prefix: str) -> None:
        try:
            names = []
            for name in self.client.scan_iter(f"{prefix}:*", count=SCANNED):
                names.append(name)
                if len(names) == SCANNED:
                    self.client.unlink(*names)
                    names.clear()
            if names:
                self.client.unlink(*names)
        except redis.RedisError:
            if not self.own:
                raise


@contextmanager
def running(url: str | None) -> Iterator[Server]:
    """A server at a URL, or an embedded one in a temporary folder that ends with the context."""
    if url is not None:
        yield Server(url, own=False)
        return
    from flask_aibridge.services.embedded import EmbeddedServer

    with tempfile.TemporaryDirectory(prefix="aibridge-") as folder:
        from pathlib import Path

        embedded = EmbeddedServer(Path(folder) / "aibridge")
        try:
            yield Server(embedded.acquire(), own=True)
        finally:
            embedded.release()
