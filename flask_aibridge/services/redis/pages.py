"""Pages of interceptions, and single ones, as they are stored in Redis.

A page costs the same whether there are ten thousand interceptions or a million: every shard walks the shortest index
that holds all of what is asked for, from where the last page ended, and no further than a bound.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any, Final, NamedTuple

from flask_aibridge.errors import InvalidRecord
from flask_aibridge.services.cursors import (
    LAST_ID,
    Cursor,
    Place,
    check_limit,
    decode_cursor,
    encode_cursor,
    first_id,
)
from flask_aibridge.services.records import RARE_ENDS, SHARDS, shard_of
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Dimension, Keys
from flask_aibridge.services.redis.scripts import Call, Script
from flask_aibridge.services.redis.walks import NewestFirst, Step
from flask_aibridge.services.schemas.messages import decode
from flask_aibridge.services.storage import MAX_COUNTED, InterceptionView, Page, Query, TokenSums

_log = logging.getLogger(__name__)

MAX_EXAMINED: Final = 250
"""Interceptions that one call looks at where filters have to be tried: for a page, 32 000 at most in all shards and
rounds, which is a tenth of a second's work."""

MAX_COUNTED_AT_ONCE: Final = 2000
"""As many as one call counts: there are fewer of these, once per listing and not per page."""

MAX_COUNT_ROUNDS: Final = -(-MAX_COUNTED // MAX_COUNTED_AT_ONCE)
"""Round trips for a count, where one shard has everything."""

_PAGE: Final = Script("page")
_VIEWS: Final = Script("views")
_INTERCEPTION: Final = Script("one_interception")

_FIELDS: Final[Mapping[str, tuple[str, Dimension | None]]] = {
    "session_id": ("session", "session"),
    "initiator": ("user", "user"),
    "model": ("model", "model"),
    "provider": ("provider", "provider"),
    "client": ("client", None),
    "source": ("source", None),
    "status": ("status", None),
}
"""Filter → the field of the interception's hash, and the dimension that has an index."""


class _Looked(NamedTuple):
    """What a shard answered to a walk."""

    ids: list[str]
    matches: int
    reached: str
    candidates: int


@dataclass(frozen=True)
class _Search:
    """One query, as the shards understand it."""

    connection: RedisConnection
    keys: Keys
    query: Query
    begin: str | None = None

    @property
    def filters(self) -> list[tuple[str, Dimension | None, str]]:
        """Field, dimension and value of what is asked for; without a rare end, which all that is walked has."""
        names = [name for name in _FIELDS if name != "status" or self.rare_end is None]
        asked = [(*_FIELDS[name], getattr(self.query, name)) for name in names]
        return [each for each in asked if each[2] is not None]

    @property
    def rare_end(self) -> str | None:
        """The status that is asked for, if there are indexes of those that ended so."""
        return self.query.status if self.query.status in RARE_ENDS else None

    def look(
        self, below: Mapping[int, str | None], wanted: int, examined: Mapping[int, int]
    ) -> dict[int, _Looked]:
        """Have shards walk on below ids, each a number of interceptions."""
        calls = [self._call(shard, place, wanted, examined[shard]) for shard, place in below.items()]
        replies = self.connection.run_many(calls)
        return {shard: _looked(reply) for shard, reply in zip(below, replies, strict=True)}

    def fetch(self, reached: Mapping[int, Place | None], wanted: int) -> dict[int, Step]:
        """Have shards walk on, for ``NewestFirst``."""
        below = {shard: self.begin if place is None else place[0] for shard, place in reached.items()}
        looked = self.look(below, wanted, dict.fromkeys(below, MAX_EXAMINED if self.filters else wanted))
        return {
            shard: Step([(each,) for each in found.ids], (found.reached,) if found.reached else None)
            for shard, found in looked.items()
        }

    def _call(self, shard: int, below: str | None, wanted: int, examined: int) -> Call:
        filters = self.filters
        dimensions = [(dimension, value) for _, dimension, value in filters if dimension]
        ended = self.rare_end
        indexes = [self.keys.index(shard, *each, status=ended) for each in dimensions]
        indexes = indexes or [self.keys.index(shard, status=ended)]
        triples = [
            (field, value, str(dimensions.index((dimension, value)) + 1) if dimension else "0")
            for field, dimension, value in filters
        ]
        arguments = (self.keys.shard(shard), *self._range(below), str(wanted), str(examined))
        return Call(_PAGE, indexes, (*arguments, *(each for triple in triples for each in triple)))

    def _range(self, below: str | None) -> tuple[str, str]:
        before, after = self.query.started_before, self.query.started_after
        highest = min(below or LAST_ID, LAST_ID if before is None else first_id(before))
        return f"({highest}", "-" if after is None else f"[{first_id(after)}"


def _looked(reply: Any) -> _Looked:
    ids, matches, reached, candidates = reply
    return _Looked(ids.split(), int(matches), reached, int(candidates))


def page(connection: RedisConnection, keys: Keys, query: Query, limit: int, cursor: str | None) -> Page:
    """A page of what matches, newest first. It may be short, even empty, and have a next page all the same."""
    check_limit(limit)
    begin = None if cursor is None else decode_cursor(cursor, query, (str,))
    search = _Search(connection, keys, query, begin.place[0] if begin else None)
    walk = NewestFirst(search.fetch)
    found = walk.take(limit + 1)
    count = begin.total if begin else _count(search)
    following = found[limit - 1] if len(found) > limit else None if walk.ended else walk.reached
    return Page(
        count=count,
        interceptions=tuple(views_of(connection, keys, [place[0] for place in found[:limit]])),
        next=encode_cursor(Cursor(following, count), query) if following else None,
    )


def _count(search: _Search) -> int:
    """The number of matches: exact where one index tells it, else among the newest ``MAX_COUNTED`` of the index."""
    looked = search.look(dict.fromkeys(range(SHARDS)), 0, dict.fromkeys(range(SHARDS), 1))
    candidates = sum(each.candidates for each in looked.values())
    if len(search.filters) == 0 or (len(search.filters) == 1 and search.filters[0][1]):
        return candidates
    share = min(1.0, MAX_COUNTED / max(candidates, 1))
    left = {shard: int(each.candidates * share) - 1 for shard, each in looked.items()}
    return sum(each.matches for each in looked.values()) + _count_on(search, looked, left)


def _count_on(search: _Search, looked: Mapping[int, _Looked], left: dict[int, int]) -> int:
    matches = 0
    for _ in range(MAX_COUNT_ROUNDS):
        below = {shard: each.reached for shard, each in looked.items() if each.reached and left[shard] > 0}
        if not below:
            break
        examined = {shard: min(MAX_COUNTED_AT_ONCE, left[shard]) for shard in below}
        looked = search.look(below, 0, examined)
        left = {shard: left[shard] - examined[shard] for shard in below}
        matches += sum(each.matches for each in looked.values())
    return min(matches, MAX_COUNTED)


def views_of(connection: RedisConnection, keys: Keys, ids: Iterable[str]) -> Iterator[InterceptionView]:
    """The interceptions of these ids in their order, but for those that are gone by now."""
    ids, by_shard = list(ids), dict[int, list[str]]()
    for each in ids:
        by_shard.setdefault(shard_of(each), []).append(each)
    calls = [Call(_VIEWS, [keys.interception(each) for each in group]) for group in by_shard.values()]
    rows: dict[str, Any] = {}
    for group, reply in zip(by_shard.values(), connection.run_many(calls), strict=True):
        rows.update(zip(group, reply, strict=True))
    return (view for each in ids if (view := view_of(rows[each])) is not None)


def view_of(row: Sequence[Any]) -> InterceptionView | None:
    """An interception by its start, status, end, sums of tokens and line as they are stored; null without a start, and
    for what cannot be read, which must not take the rest of a page with it."""
    start, status, end, tokens, line = (*row, None, None, None, None)[:5]
    if start is None:
        return None
    try:
        parent, root = _ancestry(line or "")
        return InterceptionView(
            start=decode("InterceptionStart", start),
            status=status or "running",
            end=None if end is None else decode("InterceptionEnd", end),
            tokens=TokenSums() if tokens is None else _sums(tokens),
            thread_parent_id=parent,
            thread_root_id=root,
        )
    except (ValueError, LookupError, TypeError) as error:
        _log.error("A stored interception is corrupt and left out: %s", error)
        return None


def _ancestry(line: str) -> tuple[str | None, str | None]:
    """The parent and the root, which stand behind a link of 20 digits."""
    return (line[20:52], line[52:84]) if len(line) == 84 else (None, None)


def _sums(text: str) -> TokenSums:
    document = json.loads(text, parse_float=_whole)
    return TokenSums(**{each.name: document[each.name] for each in fields(TokenSums)})


def _whole(text: str) -> int:
    """A sum that a script wrote: beyond 10^14 it has an exponent."""
    return int(float(text))


def interception(connection: RedisConnection, keys: Keys, interception_id: str) -> InterceptionView | None:
    """One interception with everything that is recorded of it, or null."""
    names = [keys.interception(interception_id), keys.content(interception_id)]
    accounting, content = (_pairs(reply) for reply in connection.run_many([Call(_INTERCEPTION, names)])[0])
    view = view_of([accounting.get(name) for name in ("start", "status", "end", "t", "line")])
    if view is None:
        return None
    return replace(
        view,
        usages=_records("TokenUsage", "u:", accounting),
        prompts=_records("PromptUsage", "p:", content),
        tool_calls=_records("ToolUsage", "t:", content),
        thoughts=_records("ModelThought", "m:", content),
    )


def _pairs(flat: Iterable[Any]) -> dict[str, Any]:
    each = iter(flat)
    return dict(zip(each, each, strict=True))


def _records(kind: str, prefix: str, stored: Mapping[str, Any]) -> tuple[Any, ...]:
    records = []
    for text in (text for name, text in stored.items() if name.startswith(prefix)):
        try:
            records.append(decode(kind, text))
        except InvalidRecord as error:
            _log.error("A stored record is corrupt and left out: %s", error)
    return tuple(sorted(records, key=attrgetter("created_at", "id")))
