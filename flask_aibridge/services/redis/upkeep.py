"""Upkeep on Redis: what dead workers left running is ended, what was kept for long enough is deleted.

Every process does it every few seconds, one at a time, a little at a time.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from math import ceil
from time import monotonic
from typing import Any, Final

from flask_aibridge.services.records import GONE, SHARDS, InterceptionEnd, stand_in_end
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.redis.scripts import INTERCEPTION, Call, Script

OVERDUE: Final = Script("overdue")
EXPIRE: Final = Script("expire", *INTERCEPTION)
UNLOCK: Final = Script("unlock")

LOCK_SECONDS: Final = 10
"""How long an upkeep that died keeps others from theirs: several times what one takes."""

SWEEP_SECONDS: Final = 0.25
"""How long one sweep goes on. What is left is done by the next."""

EXPIRE_SECONDS: Final = 0.25
"""The same of deleting: with one upkeep every few seconds, Redis is busy with it for a few per cent of its time."""

SWEEP_BATCH: Final = 200
"""Running interceptions that one call lists."""

FIRST_BATCH: Final = 10
"""What is deleted of each kind in each shard first: all shards together take a few milliseconds."""

EXPIRE_BATCH: Final = 100
"""What one call deletes of each kind: a few milliseconds, in which Redis does nothing else."""

ORPHAN_DAYS: Final = 30
"""How long records wait for the start that they belong to, whatever the retention: it may lie in the spool of a host
that is down. One that was never stored anywhere never comes."""

DAY_MILLISECONDS: Final = 86_400_000


class RedisUpkeep:
    """Ends and deletes.

    :param record_swept: stores the ends of interceptions that nobody ended.
    :param heal: what else is to be done under the lock.
    :param retention_days: for how long interceptions are kept, 0 for ever.
    :param content_retention_days: the same of their content, if not as long.
    :param lease_seconds: how old a running interception has to be before its worker is looked at.
    :param sweep_grace: seconds for which Redis has to have been there, so that every live worker has renewed its lease.
    """

    def __init__(
        self,
        connection: RedisConnection,
        keys: Keys,
        *,
        record_swept: Callable[[Sequence[InterceptionEnd]], None],
        heal: Callable[[], None],
        retention_days: float,
        content_retention_days: float | None,
        lease_seconds: float,
        sweep_grace: float,
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._record_swept = record_swept
        self._heal = heal
        self._kept = _milliseconds(retention_days)
        self._content_kept = _milliseconds(content_retention_days or 0)
        self._lease = int(lease_seconds * 1000)
        self._sweep_grace = sweep_grace

    def maintain(self) -> None:
        """As ``Recorder.maintain``."""
        with self._lock() as is_ours:
            if is_ours:
                self._heal()
                self._sweep()
                self._expire()

    @contextmanager
    def _lock(self) -> Iterator[bool]:
        """Whether this process does the upkeep now. Two at once do no harm, but waste time."""
        name, holder = self._keys.lock("upkeep"), secrets.token_hex(8)
        taken = self._connection.execute("SET", name, holder, "NX", "EX", LOCK_SECONDS)
        try:
            yield bool(taken)
        finally:
            if taken:
                self._connection.run(UNLOCK, (name,), (holder,))

    def _sweep(self) -> None:
        healthy_since = self._connection.healthy_since
        if healthy_since is None or monotonic() - healthy_since < self._sweep_grace:
            return
        until = monotonic() + SWEEP_SECONDS
        passed_over = dict.fromkeys(range(SHARDS), 0)
        while passed_over and monotonic() < until:
            passed_over = self._sweep_batch(passed_over)

    def _sweep_batch(self, passed_over: dict[int, int]) -> dict[int, int]:
        """End a batch in each shard; the shards that have more, and how many of theirs are alive so far."""
        calls = [
            Call(OVERDUE, self._of(shard), (self._lease, offset, SWEEP_BATCH))
            for shard, offset in passed_over.items()
        ]
        found = dict(zip(passed_over, map(_overdue, self._connection.run_many(calls)), strict=True))
        alive = self._alive({worker for _, pairs in found.values() for _, worker in pairs})
        dead = {
            shard: [stand_in_end(each, now, GONE) for each, worker in pairs if worker not in alive]
            for shard, (now, pairs) in found.items()
        }
        self._record_swept([end for ends in dead.values() for end in ends])
        return {
            shard: passed_over[shard] + SWEEP_BATCH - len(dead[shard])
            for shard, (_, pairs) in found.items()
            if len(pairs) == SWEEP_BATCH
        }

    def _alive(self, workers: set[str]) -> set[str]:
        if not workers:
            return set()
        ordered = sorted(workers)
        leases = self._connection.execute("MGET", *(self._keys.worker(worker) for worker in ordered))
        return {worker for worker, lease in zip(ordered, leases, strict=True) if lease is not None}

    def _expire(self) -> None:
        until = monotonic() + EXPIRE_SECONDS
        # A little everywhere, which is most often all there is; then one call at a time, to let others in between.
        calls = [self._expiry(shard, FIRST_BATCH) for shard in range(SHARDS)]
        deleted = self._connection.run_many(calls)
        for shard in (shard for shard, number in enumerate(deleted) if number):
            while monotonic() < until and self._connection.run(*self._expiry(shard, EXPIRE_BATCH)):
                pass

    def _expiry(self, shard: int, batch: int) -> Call:
        return Call(
            EXPIRE, self._of(shard), (self._kept, self._content_kept, _milliseconds(ORPHAN_DAYS), batch)
        )

    def _of(self, shard: int) -> tuple[str, str]:
        return self._keys.shard(shard), self._keys.index(shard)


def _milliseconds(days: float) -> int:
    """Rounded up, for 0 is for ever."""
    return ceil(days * DAY_MILLISECONDS)


def _overdue(reply: list[Any]) -> tuple[datetime, list[tuple[str, str]]]:
    """The server's time; ids and workers."""
    now, *flat = reply
    return datetime.fromtimestamp(now / 1000, UTC), list(zip(flat[::2], flat[1::2], strict=True))
