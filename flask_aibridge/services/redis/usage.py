"""Usage by hour, and the names of models and clients, as they are summed in Redis."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

from flask_aibridge.services.cursors import first_hour
from flask_aibridge.services.records import SHARDS
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.redis.scripts import Call, Script
from flask_aibridge.services.storage import Grouping, TokenSums, UsageRow

MAX_FIELDS: Final = 2000
"""Fields of roll-ups that one call reads, about: a millisecond or two, in which the server does nothing else."""

MAX_NAMES: Final = 10_000
"""Names that are listed, those seen last: they come from outside, and no host has so many models."""

_USAGE: Final = Script("usage")
_NAMES: Final = Script("names")


class Sum(NamedTuple):
    """One field of a roll-up: what is summed, and of what."""

    user: str
    provider: str
    model: str
    name: str


_Hours: TypeAlias = Iterator[tuple[str, list[Any]]]


def usage(
    connection: RedisConnection,
    keys: Keys,
    *,
    since: datetime,
    until: datetime,
    group_by: Sequence[Grouping],
    wanted: Mapping[str, str | None],
) -> tuple[UsageRow, ...]:
    """The roll-ups of a time, summed by group.

    :param wanted: the user, provider and model that are asked for, null for any.
    :raises ValueError: for groups that there are not.
    """
    _check_grouping(group_by)
    sums: dict[tuple[Any, ...], Counter[str]] = {}
    parsed: dict[str, Sum] = {}  # every hour has the same fields again
    for hour, flat in _hours(connection, keys, since, until):
        start = datetime(int(hour[:4]), int(hour[4:6]), int(hour[6:8]), int(hour[8:]), tzinfo=UTC)
        for field, value in zip(flat[::2], flat[1::2], strict=True):
            what = parsed.get(field) or parsed.setdefault(field, Sum(*json.loads(field)))
            if all(each is None or each == getattr(what, name) for name, each in wanted.items()):
                labels = tuple([_LABELS[grouping](start, what) for grouping in group_by])
                sums.setdefault(labels, Counter())[what.name] += int(value)
    return tuple(_row(group_by, labels, sums[labels]) for labels in sorted(sums))


_LABELS: Final[Mapping[str, Callable[[datetime, Sum], Any]]] = {
    "day": lambda hour, what: hour - timedelta(hours=hour.hour),
    "hour": lambda hour, what: hour,
    "user": lambda hour, what: what.user,
    "provider": lambda hour, what: what.provider,
    "model": lambda hour, what: what.model,
}


def _check_grouping(group_by: Sequence[Grouping]) -> None:
    unknown = [grouping for grouping in group_by if grouping not in get_args(Grouping)]
    if unknown:
        raise ValueError(f"Usage cannot be grouped by {unknown[0]!r}: use {', '.join(get_args(Grouping))}.")
    if {"day", "hour"} <= set(group_by):
        raise ValueError("Usage is grouped by day or by hour: leave one of them out.")


def _hours(connection: RedisConnection, keys: Keys, since: datetime, until: datetime) -> _Hours:
    """Hours that have roll-ups, and the fields and values of each, of every shard."""
    left = dict.fromkeys(range(SHARDS), f"[{first_hour(since)}")
    while left:
        calls = [
            Call(
                _USAGE,
                [keys.hours(shard)],
                (keys.shard(shard), begin, f"({first_hour(until)}", str(MAX_FIELDS)),
            )
            for shard, begin in left.items()
        ]
        replies = dict(zip(left, connection.run_many(calls), strict=True))
        left = {shard: f"({reached}" for shard, (_, reached) in replies.items() if reached}
        for found, _ in replies.values():
            yield from json.loads(found)


def _row(group_by: Sequence[Grouping], labels: tuple[Any, ...], sums: Mapping[str, int]) -> UsageRow:
    named = {
        "period" if grouping in ("day", "hour") else grouping: label
        for grouping, label in zip(group_by, labels, strict=True)
    }
    tokens = TokenSums(
        input=sums["input"],
        output=sums["output"],
        cache_read=sums["cache_read"],
        cache_write=sums["cache_write"],
        extra={name.removeprefix("x:"): value for name, value in sums.items() if name.startswith("x:")},
    )
    return UsageRow(requests=sums["requests"], tokens=tokens, **named)


def names(
    connection: RedisConnection, keys: Keys, kind: Literal["model", "client"], initiator: str | None
) -> tuple[str, ...]:
    """Every model or client seen."""
    calls = [Call(_NAMES, [keys.names(shard, kind, initiator)], (str(MAX_NAMES),)) for shard in range(SHARDS)]
    found = {name for reply in connection.run_many(calls) for name in reply}
    return tuple(sorted(found))
