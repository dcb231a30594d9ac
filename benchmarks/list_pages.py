"""How long pages take, among ten thousand interceptions and among a million.

There is a store of each size, and they take turns: what else the machine does meanwhile slows all of them alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from time import sleep

from measure import Comparison, Contestant, Figure, Section, Spread, Target, Timing, run_rounds, timed
from recorded import MODELS, USERS, history
from redis_server import Server

from flask_aibridge.errors import ServicesUnavailable
from flask_aibridge.services.records import Record
from flask_aibridge.services.storage import MAX_LIMIT, Query, Store

LIMIT = 50
PAGES_AT_ONCE = 2
"""Pages of one store before it is another's turn."""

PLACES = 20
"""How many places in the middle pages are taken from, in turn: a page that is read again and again is an easy one."""

FLAT = Target(1.2)
SEEDED_AT_ONCE = 1000
"""Records of one call of the store."""

MAX_RETRIES = 30


def measure(server: Server, *, sizes: Sequence[int], repeats: int) -> Section:
    """Times of each kind of page at each size, and how many times the smallest's they are."""
    with ExitStack() as stores:
        pages = {}
        for size in sizes:
            store, _ = stores.enter_context(server.store(retention_days=0))
            _seed(store, size)
            pages[size] = _pages(store, size)
        server.wait_for_saves()
        figures = [
            figure
            for name in pages[sizes[0]]
            for figure in _figures(name, {size: pages[size][name] for size in sizes}, repeats)
        ]
    return Section(
        f"List pages of {LIMIT}",
        figures,
        notes=["in ms; a ratio is to the fewest interceptions, in the same moment"],
    )


def _seed(store: Store, count: int) -> None:
    records = itertools.chain.from_iterable(history(count, seed=count))
    while batch := list(itertools.islice(records, SEEDED_AT_ONCE)):
        _record(store, batch)


def _record(store: Store, batch: Sequence[Record]) -> None:
    """Store records, which may be done again: a busy machine may not answer in half a second, a gateway's patience."""
    for _ in range(MAX_RETRIES):
        try:
            return store.record(batch)
        except ServicesUnavailable as error:
            sleep(error.retry_after)
    return store.record(batch)


def _pages(store: Store, size: int) -> dict[str, Callable[[], object]]:
    of_user = Query(initiator=USERS[3])
    of_errors = Query(model=MODELS[4], status="upstream_error")
    cursors = itertools.cycle(_cursors(store, size))
    return {
        "first page": lambda: _full(store, Query()),
        "page in the middle, by cursor": lambda: _full(store, Query(), next(cursors)),
        "first page of one user": lambda: _full(store, of_user),
        "first page of one model's errors": lambda: _full(store, of_errors),
    }


def _full(store: Store, query: Query, cursor: str | None = None) -> None:
    found = len(store.interceptions(query, limit=LIMIT, cursor=cursor).interceptions)
    if found != LIMIT:
        raise RuntimeError(f"a page has {found} interceptions, not {LIMIT}: there is nothing to compare")


def _cursors(store: Store, size: int) -> list[str]:
    """Places all over the middle half."""
    found, limit = [], min(MAX_LIMIT, size // (2 * PLACES))
    cursor = None
    for _ in range(size // limit * 3 // 4):
        cursor = store.interceptions(Query(), limit=limit, cursor=cursor).next
        if cursor is None:
            raise RuntimeError("there are no pages in the middle")
        found.append(cursor)
    middle = found[len(found) // 3 :]
    return middle[:: max(1, len(middle) // PLACES)]


def _figures(name: str, calls: dict[int, Callable[[], object]], repeats: int) -> list[Figure]:
    labels = {size: f"{name}, {size:,}" for size in calls}
    first, *larger = labels.values()
    contestants = [Contestant(labels[size], timed(call), call) for size, call in calls.items()]
    comparisons = [
        Comparison(f"{label} : {first.rpartition(' ')[2]}", label, first, FLAT) for label in larger
    ]
    timings, ratios = run_rounds(contestants, comparisons, rounds=repeats, batch=PAGES_AT_ONCE)
    return [*map(_in_milliseconds, timings), *ratios]


def _in_milliseconds(timing: Timing) -> Figure:
    return Figure(timing.name, Spread(*(each / 1000 for each in timing.microseconds)), "ms")
