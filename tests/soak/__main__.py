"""The long soak: ``python -m tests.soak --minutes 5``. It prints what came of it; exit status 1 where that is wrong."""

from __future__ import annotations

import argparse
import sys

from tests.soak.report import growing
from tests.soak.soaking import EVERYTHING, Plan, soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Soak two hosts in faults.")
    parser.add_argument("--minutes", type=float, default=5.0, help="of load (default: 5)")
    parser.add_argument("--clients", type=int, default=10, help="that ask at the same time (default: 10)")
    parser.add_argument("--log", help="a file for what the hosts logged")
    arguments = parser.parse_args()
    seconds = arguments.minutes * 60
    plan = Plan(
        seconds, EVERYTHING, pause=4.0, quiet=10.0, warm_up=min(20.0, seconds / 10), clients=arguments.clients
    )
    report = soak(plan)
    report.wrong.extend(growing(report))
    if arguments.log:
        with open(arguments.log, "w", encoding="utf-8") as log:
            log.write(report.logs)
    print(report)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
