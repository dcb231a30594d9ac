"""Paired measurement: every contestant in every round, in short batches, so that they share the machine's
moods.

A ratio is taken within a round, where both sides ran within a few hundredths of a second of each other, and
the median and the quartiles of those ratios are what is reported. A slow moment of the machine then moves
one ratio of many, not the figure; a ratio of two separate medians would not have that property.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import asyncio

Batch = Callable[[int], float]
"""Runs an operation n times and returns what one took, in microseconds."""


@dataclass(frozen=True)
class Contestant:
    name: str
    batch: Batch
    check: Callable[[], None]
    """Runs the operation once, untimed, and raises unless the whole answer arrived."""


class Spread(NamedTuple):
    """A median with the quartiles around it."""

    lower: float
    median: float
    upper: float


@dataclass(frozen=True)
class Target:
    """What a figure has to reach: at most, or at least, the bound."""

    bound: float
    at_least: bool = False

    def met_by(self, figure: float) -> bool:
        return figure >= self.bound if self.at_least else figure <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:,g}"


@dataclass(frozen=True)
class Comparison:
    """The ratio `numerator : denominator`, both names of contestants."""

    label: str
    numerator: str
    denominator: str
    target: Target | None = None


@dataclass(frozen=True)
class Figure:
    """One line of a table of results; `target` is None where the figure is for information."""

    label: str
    spread: Spread
    unit: str = ""
    target: Target | None = None

    @property
    def met(self) -> bool | None:
        """Judged by the median alone, and unrounded."""
        return None if self.target is None else self.target.met_by(self.spread.median)


@dataclass(frozen=True)
class Timing:
    """What one operation of a contestant takes, and the cyclic garbage that it leaves for the collector."""

    name: str
    microseconds: Spread
    garbage: float


@dataclass(frozen=True)
class Section:
    title: str
    figures: Sequence[Figure]
    timings: Sequence[Timing] = ()
    notes: Sequence[str] = ()


@dataclass
class _Laps:
    microseconds: list[float] = field(default_factory=list)
    garbage: list[float] = field(default_factory=list)


def timed(operation: Callable[[], object]) -> Batch:
    """Return the batch of a plain function."""

    def batch(count: int) -> float:
        started = time.perf_counter_ns()
        for _ in range(count):
            operation()
        return (time.perf_counter_ns() - started) / count / 1000

    return batch


def timed_async(runner: asyncio.Runner, operation: Callable[[], Awaitable[object]]) -> Batch:
    """Return the batch of a coroutine function; entering and leaving the loop is not part of the time."""

    async def many(count: int) -> float:
        started = time.perf_counter_ns()
        for _ in range(count):
            await operation()
        return (time.perf_counter_ns() - started) / count / 1000

    return lambda count: runner.run(many(count))


def spread(values: Sequence[float]) -> Spread:
    """Return the quartiles of one or more values."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


def run_rounds(
    contestants: Sequence[Contestant],
    comparisons: Sequence[Comparison],
    *,
    rounds: int,
    batch: int,
) -> tuple[list[Timing], list[Figure]]:
    """Measure all contestants side by side; return their times and the paired ratios that were asked for.

    The garbage collector is off inside a batch and everything older is frozen, for all alike: a collection
    would be charged to whoever happens to run then. What each leaves to collect is counted between the
    batches.
    """
    for contestant in contestants:
        contestant.check()
        contestant.batch(batch)
    laps = {contestant.name: _Laps() for contestant in contestants}
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for number in range(rounds):
            for contestant in _in_turn(contestants, number):
                lap = laps[contestant.name]
                lap.microseconds.append(contestant.batch(batch))
                lap.garbage.append(gc.collect() / batch)
    finally:
        gc.enable()
        gc.unfreeze()
    timings = [
        Timing(name, spread(lap.microseconds), statistics.median(lap.garbage)) for name, lap in laps.items()
    ]
    return timings, [_ratio(comparison, laps) for comparison in comparisons]


def _in_turn(contestants: Sequence[Contestant], number: int) -> Sequence[Contestant]:
    """Rotate who starts, and go backwards every other time: nobody always follows the same neighbour."""
    start = number // 2 % len(contestants)
    order = [*contestants[start:], *contestants[:start]]
    return order[::-1] if number % 2 else order


def _ratio(comparison: Comparison, laps: Mapping[str, _Laps]) -> Figure:
    above = laps[comparison.numerator].microseconds
    below = laps[comparison.denominator].microseconds
    ratios = [ours / theirs for ours, theirs in zip(above, below, strict=True)]
    return Figure(comparison.label, spread(ratios), "×", comparison.target)
