"""Pages of sessions, and single ones, as they are stored in Redis.

Each shard lists the sessions it has interceptions of by when they were last active there. A session that several shards
have is where its last activity is; in the others it is passed over. A thread without a session id is in one shard.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from flask_aibridge.services.cursors import (
    Cursor,
    Place,
    check_limit,
    decode_cursor,
    encode_cursor,
    first_score,
)
from flask_aibridge.services.records import SHARDS, shard_of, started_at_of
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.redis.pages import view_of, views_of
from flask_aibridge.services.redis.scripts import Call, Script
from flask_aibridge.services.redis.walks import NewestFirst, Step
from flask_aibridge.services.storage import MAX_COUNTED, InterceptionView, SessionPage, SessionView
from flask_aibridge.services.summaries import root_of, session_of

MAX_SUMMED: Final = 20_000
"""Interceptions that the sessions of one page are summed from, about: a second's work. A page that would need more has
fewer sessions."""

MAX_SESSION: Final = 10_000
"""Interceptions in a shard that one session is summed from, the newest: an agent's every request for days."""

MAX_READ: Final = 500
"""Interceptions that one call reads: a millisecond, and half a megabyte."""

_SESSIONS: Final = Script("by_time")
_SIZES: Final = Script("session_sizes")
_COUNT: Final = Script("count_by_time")
_NAMED: Final = Script("named_sessions")
_VIEWS: Final = Script("session_views")


@dataclass
class _Listing:
    """One question after sessions: of whom (null: of everybody), last active between which times."""

    connection: RedisConnection
    keys: Keys
    initiator: str | None
    after: datetime | None
    before: datetime | None
    begin: Place | None = None
    members: dict[Place, str] = field(default_factory=dict)
    """Place → the session as it is stored."""

    @property
    def question(self) -> tuple[object, ...]:
        return ("sessions", self.initiator, self.after, self.before)

    def fetch(self, reached: Mapping[int, Place | None], wanted: int) -> dict[int, Step]:
        """Have shards walk on, for ``NewestFirst``."""
        calls = [
            Call(_SESSIONS, [self._sessions(shard)], (*self.range(place), str(wanted)))
            for shard, place in reached.items()
        ]
        replies = self.connection.run_many(calls)
        return {shard: self._step(reply, wanted) for shard, reply in zip(reached, replies, strict=True)}

    def _step(self, reply: Sequence[Any], wanted: int) -> Step:
        stored = list(reply[::2])
        times = [int(float(each)) for each in reply[1::2]]
        places = [self._place(*each) for each in zip(stored, times, strict=True)]
        self.members.update(zip(places, stored, strict=True))
        shown = [place for place in places if self.begin is None or place < self.begin]
        return Step(sorted(shown, reverse=True), (times[-1],) if len(places) >= wanted else None)

    def _place(self, stored: str, time: int) -> Place:
        """In the order of the listing: the time, the session, and whose it is."""
        if self.initiator is not None:
            return time, stored, self.initiator
        session, user = json.loads(stored)
        return time, session, user

    def range(self, below: Place | None = None) -> tuple[str, str]:
        """The highest and the lowest time."""
        lowest = "-inf" if self.after is None else str(first_score(self.after))
        if below is not None:
            return f"({below[0]}", lowest
        before = None if self.before is None else first_score(self.before) - 1
        begin = None if self.begin is None else self.begin[0]
        highest = [each for each in (before, begin) if each is not None]
        return str(min(highest)) if highest else "+inf", lowest

    def _sessions(self, shard: int) -> str:
        return self.keys.sessions(shard, self.initiator)

    def sizes(self, places: Sequence[Place]) -> list[tuple[int, int]]:
        """When each session was last active in any shard, and how many interceptions it has, at least."""
        members = [self.members[place] for place in places]
        calls = [
            Call(_SIZES, [self._sessions(shard), *self._indexes(shard, places)], members)
            for shard in range(SHARDS)
        ]
        replies = self.connection.run_many(calls) if places else []
        times = [[int(float(each or -1)) for each in reply[0]] for reply in replies]
        lengths = [[int(each) for each in reply[1]] for reply in replies]
        return [
            (max(row[number] for row in times), max(1, sum(row[number] for row in lengths)))
            for number in range(len(places))
        ]

    def _indexes(self, shard: int, places: Iterable[Place]) -> list[str]:
        return [self.index(shard, place[1]) for place in places]

    def index(self, shard: int, session: str) -> str:
        """Where the interceptions of a session are listed, but for a thread of one."""
        kind, _, name = session.partition(":")
        return self.keys.index(shard, "session" if kind == "s" else "thread", name)

    def count(self) -> int:
        """How many sessions there are: those in several shards once, unless there are more than ``MAX_COUNTED``."""
        calls = [Call(_COUNT, [self._sessions(shard)], self.range()) for shard in range(SHARDS)]
        count = sum(self.connection.run_many(calls))
        if count > MAX_COUNTED:
            return int(count)
        calls = [Call(_NAMED, [self._sessions(shard)], self.range()) for shard in range(SHARDS)]
        named = [each for members in self.connection.run_many(calls) for each in members]
        return int(count) - len(named) + self._ended_in_time(sorted(set(named)))

    def _ended_in_time(self, members: list[str]) -> int:
        """How many of the sessions were not active again, in another shard, after the times asked for."""
        if self.before is None:
            return len(members)
        places = [self._place(member, 0) for member in members]
        self.members.update(zip(places, members, strict=True))
        last = first_score(self.before)
        chunks = (places[first : first + MAX_READ] for first in range(0, len(places), MAX_READ))
        return sum(time < last for chunk in chunks for time, _ in self.sizes(chunk))


def sessions(
    connection: RedisConnection,
    keys: Keys,
    *,
    initiator: str | None,
    active_after: datetime | None,
    active_before: datetime | None,
    limit: int,
    cursor: str | None,
) -> SessionPage:
    """A page of sessions, last active first. It may be short, and have a next page all the same."""
    check_limit(limit)
    listing = _Listing(connection, keys, initiator, active_after, active_before)
    count = listing.count() if cursor is None else 0
    if cursor is not None:
        listing.begin, count = decode_cursor(cursor, listing.question, (int,), (int, str, str))
    walk = NewestFirst(listing.fetch)
    shown, following = _choose(listing, walk, limit)
    return SessionPage(
        count=count,
        sessions=tuple(_summed(listing, shown)),
        next=encode_cursor(Cursor(following, count), listing.question) if following else None,
    )


def _choose(listing: _Listing, walk: NewestFirst, limit: int) -> tuple[list[Place], Place | None]:
    """The sessions of a page, and the place after which the next begins."""
    chosen: list[Place] = []
    summed = 0
    while len(chosen) <= limit:
        taken = walk.take(limit + 1 - len(chosen))
        for place, (time, length) in zip(taken, listing.sizes(taken), strict=True):
            if time != place[0]:
                continue
            summed += min(length, MAX_SESSION)
            if chosen and summed > MAX_SUMMED:
                return chosen[:limit], chosen[:limit][-1]
            chosen.append(place)
        if not taken:
            break
    if len(chosen) > limit:
        return chosen[:limit], chosen[limit - 1]
    return chosen, None if walk.ended else walk.reached


def _summed(listing: _Listing, places: Sequence[Place]) -> Iterable[SessionView]:
    """The sessions at these places, but for those whose interceptions are gone by now."""
    found = _interceptions(listing, sorted({place[1] for place in places}))
    single = [place[1].removeprefix("i:") for place in places if place[1:] not in found]
    for view in views_of(listing.connection, listing.keys, filter(is_interception_id, single)):
        found[f"i:{view.start.id}", view.start.initiator or ""] = [view]
    groups = (found.get((place[1], place[2])) for place in places)
    return (session_of(group) for group in groups if group)


_Groups = dict[tuple[str, str], list[InterceptionView]]


def _interceptions(listing: _Listing, sessions: Sequence[str]) -> _Groups:
    """The interceptions of sessions that an index lists, by session and user."""
    groups: _Groups = {}
    places = {shard: [each for each in sessions if _may_have(shard, each)] for shard in range(SHARDS)}
    left = {shard: _Reading(each) for shard, each in places.items() if each}
    while left:
        calls = [_read(listing, shard, reading) for shard, reading in left.items()]
        replies = zip(list(left.items()), listing.connection.run_many(calls), strict=True)
        for (shard, reading), (rows, reached) in replies:
            for session, stored in zip(reading.sessions, rows, strict=False):
                _group(groups, session, stored)
            reading.go_on(len(rows), len(rows[-1]), reached)
            if not reading.sessions:
                del left[shard]
    return groups


def _may_have(shard: int, session: str) -> bool:
    return session.startswith("s:") or shard == shard_of(session)


@dataclass
class _Reading:
    """Which sessions a shard has not been asked for yet, and where in the first of them it is."""

    sessions: list[str]
    below: str = "+"
    read: int = 0

    def go_on(self, begun: int, read: int, reached: str) -> None:
        """Note that so many sessions were begun, and how far the last of them came."""
        self.read = read + (self.read if begun == 1 else 0)
        ended = not reached or self.read >= MAX_SESSION
        self.sessions = self.sessions[begun if ended else begun - 1 :]
        self.below = "+" if ended else f"({reached}"
        self.read = 0 if ended else self.read


def _read(listing: _Listing, shard: int, reading: _Reading) -> Call:
    indexes = [listing.index(shard, each) for each in reading.sessions]
    arguments = (listing.keys.shard(shard), str(MAX_READ), reading.below, listing.initiator or "")
    return Call(_VIEWS, indexes, arguments)


def _group(groups: _Groups, session: str, rows: Iterable[Sequence[Any]]) -> None:
    for view in map(view_of, rows):
        if view is not None:
            groups.setdefault((session, view.start.initiator or ""), []).append(view)


def session(
    connection: RedisConnection, keys: Keys, session_id: str, initiator: str | None
) -> SessionView | None:
    """One session; of several users', the one that was last active."""
    listing = _Listing(connection, keys, initiator, None, None)
    wanted, single = [f"s:{session_id}"], None
    if is_interception_id(session_id):
        single = next(views_of(connection, keys, [session_id]), None)
        wanted.append(f"i:{root_of(single) if single else session_id}")
    groups = _interceptions(listing, wanted)
    if single and not single.start.session_id and initiator in (None, single.start.initiator):
        groups.setdefault((wanted[-1], single.start.initiator or ""), [single])
    found = [(max(view.start.id[:12] for view in group), *key) for key, group in groups.items()]
    return session_of(groups[max(found)[1:]], timeline=True) if found else None


def is_interception_id(text: str) -> bool:
    """Tell whether a text is the id of an interception."""
    try:
        return len(text) == 32 and text == f"{int(text, 16):032x}" and bool(started_at_of(text))
    except (ValueError, OverflowError):
        return False
