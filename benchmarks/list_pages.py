"""How long pages take, among ten thousand interceptions and among a million."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

from measure import Figure, Section, Spread, Target, spread
from recorded import MODELS, USERS, history
from redis_server import Server

from flask_aibridge.services.storage import MAX_LIMIT, Query, Store

LIMIT = 50
FLAT = Target(1.2)
SEEDED_AT_ONCE = 1000
"""Records of one call of the store."""


def measure(server: Server, *, sizes: Sequence[int], repeats: int) -> Section:
    """Median times of each kind of page at each size, and how many times the smallest's they are."""
    times: dict[int, Mapping[str, Spread]] = {}
    with server.store(retention_days=0) as (store, _):
        known = 0
        for size in sizes:
            _seed(store, size - known, seed=size)
            known = size
            times[size] = {name: _timed(call, repeats) for name, call in _pages(store, size).items()}
    return Section(
        f"List pages of {LIMIT}",
        [figure for name in times[sizes[0]] for figure in _figures(name, times)],
        notes=["in ms; ratios are of the medians, to the fewest interceptions"],
    )


def _seed(store: Store, count: int, seed: int) -> None:
    records = itertools.chain.from_iterable(history(count, seed))
    while batch := list(itertools.islice(records, SEEDED_AT_ONCE)):
        store.record(batch)


def _pages(store: Store, size: int) -> dict[str, Callable[[], object]]:
    deep = _cursor_at(store, size // 2)
    of_user = Query(initiator=USERS[3])
    of_errors = Query(model=MODELS[4], status="upstream_error")
    return {
        "first page": lambda: store.interceptions(Query(), limit=LIMIT),
        "page in the middle, by cursor": lambda: store.interceptions(Query(), limit=LIMIT, cursor=deep),
        "first page of one user": lambda: _full(store, of_user),
        "first page of one model's errors": lambda: _full(store, of_errors),
    }


def _full(store: Store, query: Query) -> None:
    found = len(store.interceptions(query, limit=LIMIT).interceptions)
    if found != LIMIT:
        raise RuntimeError(f"a page has {found} interceptions, not {LIMIT}: there is nothing to compare")


def _cursor_at(store: Store, place: int) -> str:
    cursor = None
    for _ in range(max(1, place // MAX_LIMIT)):
        cursor = store.interceptions(Query(), limit=MAX_LIMIT, cursor=cursor).next
    if cursor is None:
        raise RuntimeError("there is no page in the middle")
    return cursor


def _timed(call: Callable[[], object], repeats: int) -> Spread:
    for _ in range(5):
        call()
    laps = []
    for _ in range(repeats):
        began = perf_counter()
        call()
        laps.append((perf_counter() - began) * 1e3)
    return spread(laps)


def _figures(name: str, times: Mapping[int, Mapping[str, Spread]]) -> list[Figure]:
    smallest, *larger = times
    base = times[smallest][name]
    figures = [Figure(f"{name}, {smallest:,}", base, "ms")]
    for size in larger:
        taken = times[size][name]
        ratio = Spread(*(each / base.median for each in taken))
        figures += [Figure(f"{name}, {size:,}", taken, "ms"), Figure(f"  : {smallest:,}", ratio, "×", FLAT)]
    return figures
