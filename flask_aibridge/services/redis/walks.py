"""Walks all shards at once, so that what they hold comes as one list, newest first.

Each shard is asked for a few items, and again where those were too few: one round trip for all shards that are short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from flask_aibridge.services.cursors import Place
from flask_aibridge.services.records import SHARDS

MAX_ROUNDS: Final = 8
"""Round trips for one page. Two are enough where an index holds just what is asked for; more are made where filters
leave little of it, and then the page ends where the walk has come to."""

SPARE: Final = 8
"""How many more than its share every shard is asked for at first: most often enough, since shards are alike."""

MORE: Final = 4
"""How many times as much a shard that was short is asked for the next time: it may have all there is, as the shard of a
key has of its user."""


class Step(NamedTuple):
    """What a shard answered: items, highest first, and the place down to which they are all; null for the end."""

    items: Sequence[Place]
    reached: Place | None


class Fetch(Protocol):
    """Asks shards for up to ``wanted`` items each, below the place that each has reached; null at the beginning."""

    def __call__(self, reached: Mapping[int, Place | None], wanted: int) -> Mapping[int, Step]: ...


@dataclass
class _Walk:
    items: list[Place] = field(default_factory=list)
    reached: Place | None = None
    ended: bool = False


class NewestFirst:
    """The items of all shards, from high places to low ones, as they are taken.

    :param fetch: asks the shards.
    """

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._walks = {shard: _Walk() for shard in range(SHARDS)}
        self._rounds = 0

    @property
    def ended(self) -> bool:
        """Whether everything has been taken."""
        return all(walk.ended and not walk.items for walk in self._walks.values())

    @property
    def reached(self) -> Place | None:
        """The place down to which everything is known; null at the beginning."""
        places = [walk.reached for walk in self._walks.values() if not walk.ended]
        if not places:
            return ()
        known = [place for place in places if place is not None]
        return max(known) if len(known) == len(places) else None

    def take(self, count: int) -> list[Place]:
        """The next items: fewer than ``count`` at the end, or where so many would take too many round trips."""
        while (short := self._short_of(count)) and self._rounds < MAX_ROUNDS:
            self._ask(short, count)
        reached = self.reached
        known = [] if reached is None else [place for place in self._sorted() if place >= reached]
        taken = known[:count]
        if taken:
            for walk in self._walks.values():
                walk.items = [place for place in walk.items if place < taken[-1]]
        return taken

    def _short_of(self, count: int) -> dict[int, _Walk]:
        """The shards that have to be asked before the next ``count`` items are known."""
        found = self._sorted()
        lowest = found[count - 1] if len(found) >= count else None
        return {
            shard: walk
            for shard, walk in self._walks.items()
            if not walk.ended and (lowest is None or walk.reached is None or walk.reached > lowest)
        }

    def _ask(self, short: Mapping[int, _Walk], count: int) -> None:
        wanted = min(count, (count // SHARDS + SPARE) * MORE**self._rounds)
        self._rounds += 1
        for shard, step in self._fetch(
            {shard: walk.reached for shard, walk in short.items()}, wanted
        ).items():
            walk = self._walks[shard]
            walk.items += step.items
            walk.reached, walk.ended = step.reached, step.reached is None

    def _sorted(self) -> list[Place]:
        """What has been found, each once: a session may be in several shards at the same time."""
        return sorted({place for walk in self._walks.values() for place in walk.items}, reverse=True)
