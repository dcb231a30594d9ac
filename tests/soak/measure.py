"""Descriptors, threads and memory of processes, by ``/proc``, and how they grow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Final

MEASURES: Final = ("descriptors", "threads", "memory")
BOUND: Final = 0.01
"""How much a process may grow over the last half of a soak, as a part of what it had."""

FLOOR_SAMPLES: Final = 3
"""Samples of which the least counts."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process had at one time, in kilobytes of resident memory."""

    at: float
    descriptors: int
    threads: int
    memory: int


def sample(pid: int, at: float) -> Sample | None:
    """Null where the process is gone."""
    try:
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return Sample(at, descriptors, int(lines["Threads"]), int(lines["VmRSS"].split()[0]))


def growth(samples: Sequence[Sample], measure: str) -> float:
    """By how much a measure grew from the first to the last: Theil and Sen's slope (the median of those between any
    two), times the time between.

    It is that of the floor, the least of every few samples: connections that wait for the next request come and go,
    and what leaks stays.
    """
    seen = [(each.at, value) for each, value in zip(samples, values(samples, measure), strict=True)]
    parts = max(2, len(seen) // FLOOR_SAMPLES)
    floors = [
        min(seen[len(seen) * part // parts : len(seen) * (part + 1) // parts], key=lambda each: each[1])
        for part in range(parts)
    ]
    slopes = [(late - early) / (at - before) for (before, early), (at, late) in combinations(floors, 2)]
    return median(slopes) * (samples[-1].at - samples[0].at)


def grows(samples: Sequence[Sample], measure: str) -> bool:
    """Whether it grew by more than the bound. Descriptors and threads are whole: less than one more is none."""
    bound = BOUND * median(values(samples, measure))
    return growth(samples, measure) > (bound if measure == "memory" else max(bound, 0.99))


def values(samples: Sequence[Sample], measure: str) -> list[float]:
    """One measure of each sample."""
    return [float(getattr(each, measure)) for each in samples]
