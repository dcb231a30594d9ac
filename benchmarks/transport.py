"""How fast the in-process transport is, beside its peers and beside the floors that nothing can go below.

    python -m pip install . -r benchmarks/requirements.txt
    python benchmarks/transport.py            # some minutes; --quick takes less and scatters more

Linux only. Leave the machine alone meanwhile: on a busy one the ratios widen (see the quartiles) before
they move.

What is measured
    json      a small JSON POST through every face, beside the in-process clients of httpx2, httpx, Werkzeug
              and requests-wsgi-adapter, urllib3 over loopback to gunicorn, and urllib3 with a canned response
    sse       2,000 server-sent events of 94 bytes, beside a bare pipe between two threads
    event     one event to a reader that waits for it, one way and round trip, beside a bare pipe
    streams   1,000 streams open at once in asyncio, beside as many bare pipes: memory, delivery, lateness

How to read it
    A figure `a : b` is a ratio of times: above 1, a took longer. Each round runs all contestants one after
    the other in short batches, in an order that turns from round to round; the ratio is taken within the
    round, and the table gives the median of the rounds and the quartiles around it. A target is judged by
    the median.

    All but `streams` is pinned to one core, gunicorn too. Between two cores, the waking of a thread takes
    one of two times, by luck, and the difference is larger than the code that is measured. On one core
    there is nothing to gain from overlap either: what is counted is work.

    The second table has each contestant's own time, and the objects in reference cycles that one operation
    leaves to the garbage collector, which is off inside the batches, for all.

    The apps are in apps.py: the same objects for everyone. What pulls (httpx, httpx2, Werkzeug) runs the
    app in the caller's thread, one step for each read: it has no timeout, no cancellation and nothing ahead
    of the reader.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import one_event
import open_streams
import report
import small_json
import sse_stream
from measure import Section

ROUNDS = 60
QUICK_ROUNDS = 10

JSON_BATCH = 100
SSE_BATCH = 2
EVENT_BATCH = 100
"""Operations of a batch: a batch should take a few hundredths of a second at most, or a round falls apart."""

STREAM_RUNS = 3


def plan(rounds: int, cpus: set[int], *, quick: bool) -> dict[str, Callable[[], Section]]:
    """Return what measures each section, by the name that --only takes."""
    return {
        "json": partial(small_json.measure, rounds=rounds, batch=JSON_BATCH),
        "sse": partial(sse_stream.measure, rounds=rounds, batch=SSE_BATCH),
        "event": partial(one_event.measure, rounds=rounds, batch=EVENT_BATCH),
        "streams": partial(
            open_streams.measure,
            runs=1 if quick else STREAM_RUNS,
            streams=open_streams.STREAMS,
            seconds=open_streams.SECONDS,
            cpus=sorted(cpus),
        ),
    }


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds, one run of the streams")
    parser.add_argument("--rounds", type=_positive, help=f"rounds of each section; default: {ROUNDS}")
    parser.add_argument(
        "--only",
        action="append",
        choices=("json", "sse", "event", "streams"),
        help="a section; may be repeated",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures there, unrounded, as JSON"
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"there must be at least one round, not {number}")
    return number


def run(sections: Iterable[Callable[[], Section]]) -> list[Section]:
    """Measure each section and print it as soon as it is there."""
    done = []
    for measure in sections:
        done.append(measure())
        print(report.render(done[-1]), flush=True)
    return done


def main() -> None:
    """Pin the process to one core, then measure and print."""
    options = arguments()
    cpus = os.sched_getaffinity(0)
    core = max(cpus)  # not the first one, which is where most systems handle their interrupts
    os.sched_setaffinity(0, {core})
    described = report.machine()
    for name, text in described.items():
        print(f"{name + ':':10}{text}")
    print(f"{'pinned:':10}to core {core} of {sorted(cpus)}, except for the open streams\n", flush=True)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    planned = plan(rounds, cpus, quick=options.quick)
    done = run(planned[name] for name in planned if not options.only or name in options.only)
    if options.json:
        options.json.write_text(json.dumps(report.as_json(described, done), indent=2) + "\n")
    missed = sum(figure.met is False for section in done for figure in section.figures)
    print("All targets are met." if not missed else f"Targets missed: {missed}.")


if __name__ == "__main__":
    main()
