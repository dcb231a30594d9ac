"""Walking all shards as one list, newest first."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.services.cursors import Place
from flask_aibridge.services.records import SHARDS
from flask_aibridge.services.redis.walks import MAX_ROUNDS, NewestFirst, Step


class Shards:
    """Lists of numbers, which give no more than ``at_once`` at a time and may look at no more than ``examined``."""

    def __init__(
        self, items: Mapping[int, list[int]], *, only_even: bool = False, examined: int = 10**6
    ) -> None:
        self.items = {shard: sorted(items.get(shard, []), reverse=True) for shard in range(SHARDS)}
        self.only_even = only_even
        self.examined = examined
        self.rounds = 0
        self.given = 0

    def fetch(self, reached: Mapping[int, Place | None], wanted: int) -> dict[int, Step]:
        self.rounds += 1
        steps = {shard: self._step(shard, place, wanted) for shard, place in reached.items()}
        self.given += sum(len(step.items) for step in steps.values())
        return steps

    def _step(self, shard: int, place: Place | None, wanted: int) -> Step:
        rest = [item for item in self.items[shard] if place is None or item < place[0]]
        found: list[Place] = []
        for item in rest[: self.examined]:
            if not self.only_even or item % 2 == 0:
                found.append((item,))
                if len(found) == wanted:
                    return Step(found, (item,))
        return Step(found, None if len(rest) <= self.examined else (rest[self.examined - 1],))


NUMBERS = st.dictionaries(
    st.integers(0, SHARDS - 1), st.lists(st.integers(0, 10_000), unique=True, max_size=60), max_size=SHARDS
)


@given(NUMBERS, st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_items_come_in_order_each_once(items: dict[int, list[int]], counts: list[int]) -> None:
    """However many are taken at a time, and however they are spread over the shards."""
    walk = NewestFirst(Shards(items).fetch)
    taken = [place[0] for count in counts for place in walk.take(count)]
    everything = sorted({item for each in items.values() for item in each}, reverse=True)
    assert taken == everything[: sum(counts)]
    if sum(counts) > len(everything):
        assert walk.ended


@given(NUMBERS, st.integers(1, 30), st.integers(1, 5))
def test_a_walk_that_finds_little_stops_and_can_go_on(
    items: dict[int, list[int]], count: int, examined: int
) -> None:
    """Where the rounds are up it says how far everything is known; going on from there misses nothing."""
    shards = Shards(items, only_even=True, examined=examined)
    found: list[int] = []
    begin: Place | None = None

    def fetch(reached: Mapping[int, Place | None], wanted: int) -> dict[int, Step]:
        return shards.fetch({shard: place or begin for shard, place in reached.items()}, wanted)

    for _ in range(1000):
        shards.rounds = 0
        walk = NewestFirst(fetch)
        taken = walk.take(count)
        assert shards.rounds <= MAX_ROUNDS
        found += [place[0] for place in taken]
        if walk.ended:
            break
        begin = taken[-1] if len(taken) == count else walk.reached
    assert found == sorted({n for each in items.values() for n in each if n % 2 == 0}, reverse=True)


def test_alike_shards_are_asked_once_and_for_little() -> None:
    """A page of a hundred out of ten thousand costs a few hundred items, not sixteen hundred."""
    shards = Shards({shard: list(range(shard, 10_000, SHARDS)) for shard in range(SHARDS)})
    assert len(NewestFirst(shards.fetch).take(100)) == 100
    assert (shards.rounds, shards.given <= 300) == (1, True)


def test_one_shard_with_everything_is_asked_a_few_times() -> None:
    """Where a single key is all the traffic there is."""
    shards = Shards({7: list(range(5000))})
    assert len(NewestFirst(shards.fetch).take(1000)) == 1000
    assert shards.rounds <= 4
