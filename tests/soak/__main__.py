"""The long soak: ``python -m tests.soak --minutes 5``. It prints what came of it; exit status 1 where that is wrong."""

from __future__ import annotations

import argparse
import sys

from tests.soak.soaking import EVERYTHING, Plan, growing, soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Soak two hosts in faults.")
    parser.add_argument("--minutes", type=float, default=5.0, help="of load (default: 5)")
    parser.add_argument("--clients", type=int, default=6, help="that ask at the same time (default: 6)")
    parser.add_argument("--log", help="a file for what the hosts logged")
    arguments = parser.parse_args()
    report = soak(Plan(arguments.minutes * 60, EVERYTHING, pause=4.0, quiet=10.0, clients=arguments.clients))
    report.wrong.extend(growing(report))
    if arguments.log:
        with open(arguments.log, "w", encoding="utf-8") as log:
            log.write(report.logs)
    print(report)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
