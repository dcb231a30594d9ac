"""What the licence gate adds to a request, and what a thousand licences cost.

    python -m pip install .
    python benchmarks/gate.py                 # a minute; --quick takes less and scatters more

Leave the machine alone meanwhile: on a busy one the ratios widen (see the quartiles) before they move.

What is measured
    request       a Flask view that does nothing, called as a server calls it, beside the same with the gate before it:
                  with one licence, with 1,000 installed, and with none, which refuses
    entitlements  the answer to what 1,000 licences allow together, evaluated anew each time

How to read it
    A figure `a : b` is a ratio of times: above 1, a took longer. Each round runs all contestants one after the other in
    short batches, in an order that turns from round to round; the ratio is taken within the round, and the table gives
    the median of the rounds and the quartiles around it. An aim is judged by the median.

    The thread that looks for changes runs meanwhile, as it does in a server. On Linux all is pinned to one core:
    between two, the waking of a thread takes one of two times, by luck, and the difference is larger than what is
    measured.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import report
from flask import Flask
from measure import Comparison, Contestant, Figure, Section, Target, run_rounds, spread, timed
from werkzeug.test import create_environ

from flask_aibridge.license.gate import Gate
from flask_aibridge.license.holder import LicenseHolder
from flask_aibridge.license.issuing import SigningKey, issue_license
from flask_aibridge.license.store import MemoryLicenseStore

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

LICENSES = 1000
ROUNDS = 300
QUICK_ROUNDS = 40
BATCH = 100
"""Requests of a batch: some hundredths of a second."""

ADDED_AIM = Target(1.03)
ENTITLEMENTS_AIM = Target(50)
KEY = SigningKey.generate("benchmark")


def holder(licenses: int) -> LicenseHolder:
    """A holder with so many installed licences, each of its own term."""
    store, now = MemoryLicenseStore(), int(time.time())
    for number in range(licenses):
        token = issue_license(KEY, jti=f"{number}", license_expires=now + 86400 * (number + 1))
        store.install(f"{number}", token, now)
    return LicenseHolder({KEY.kid: KEY.public_pem}, store=lambda: store)


def request(gate: Gate | None, status: int) -> Contestant:
    """A request for a view that does nothing, but for what it asks of the gate."""
    app = Flask(__name__)

    def plain() -> str:
        return ""

    def gated() -> Any:
        decision = gate.check()  # type: ignore[union-attr]
        return "" if decision.open else ("", 403)

    app.add_url_rule("/", view_func=plain if gate is None else gated)
    environ = create_environ()
    name = "no gate" if gate is None else f"gate, licences: {len(gate.holder.licenses()):,}"
    return Contestant(name, timed(lambda: _call(app, environ)), lambda: _check(app, environ, status))


def _call(app: Flask, environ: WSGIEnvironment) -> list[str]:
    statuses: list[str] = []
    body: Any = app.wsgi_app(dict(environ), lambda status, *_: statuses.append(status))  # type: ignore[arg-type,func-returns-value]
    for _ in body:
        pass
    body.close()
    return statuses


def _check(app: Flask, environ: WSGIEnvironment, status: int) -> None:
    [found] = _call(app, environ)
    if not found.startswith(str(status)):
        raise RuntimeError(f"The answer was {found}, not {status}.")


def measure_request(rounds: int) -> Section:
    """What the gate adds to a request, and whether the number of licences matters."""
    with ExitStack() as stack:
        gates = {}
        for licenses in (0, 1, LICENSES):
            held = holder(licenses)
            stack.callback(held.close)
            gates[licenses] = Gate(holder=held)
            gates[licenses].check()
        plain, none = request(None, 200), request(gates[0], 403)
        one, many = request(gates[1], 200), request(gates[LICENSES], 200)
        comparisons = [
            Comparison("with the gate : without", one.name, plain.name, ADDED_AIM),
            Comparison(f"with the gate, {LICENSES:,} licences : without", many.name, plain.name, ADDED_AIM),
            Comparison("refused : without the gate", none.name, plain.name),
        ]
        timings, figures = run_rounds([plain, one, many, none], comparisons, rounds=rounds, batch=BATCH)
        alone = {number: timed(gates[number].check) for number in (1, LICENSES)}
        figures += [
            Figure(
                f"the gate alone, licences: {number:,}",
                spread([batch(10_000) * 1000 for _ in range(rounds)]),
                "ns",
            )
            for number, batch in alone.items()
        ]
    return Section("A request that does nothing else", figures, timings)


def measure_entitlements(rounds: int) -> Section:
    """How long the answer about a thousand licences takes, once their signatures have been verified."""
    held = holder(LICENSES)
    began = time.perf_counter()
    held.look()
    first = (time.perf_counter() - began) * 1000
    batch = timed(held.entitlements)
    times = [batch(1) / 1000 for _ in range(rounds)]
    figures = [
        Figure(f"entitlements, {LICENSES:,} licences", spread(times), "ms", ENTITLEMENTS_AIM),
        Figure("  the first time, with their signatures", spread([first]), "ms"),
    ]
    return Section("What they allow together", figures)


SECTIONS: dict[str, Callable[[int], Section]] = {
    "request": measure_request,
    "entitlements": measure_entitlements,
}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds, not {ROUNDS}")
    parser.add_argument("--only", action="append", choices=tuple(SECTIONS), help="a section; may be repeated")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures there, unrounded, as JSON"
    )
    return parser.parse_args()


def main() -> None:
    """Measure and print each section as soon as it is there."""
    options = arguments()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    described = report.machine()
    for name, text in described.items():
        print(f"{name + ':':10}{text}")
    print(flush=True)
    done = []
    for name, measure in SECTIONS.items():
        if not options.only or name in options.only:
            done.append(measure(QUICK_ROUNDS if options.quick else ROUNDS))
            print(report.render(done[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(report.as_json(described, done), indent=2) + "\n")
    missed = sum(figure.met is False for section in done for figure in section.figures)
    print("All aims are met." if not missed else f"Aims missed: {missed}.")


if __name__ == "__main__":
    main()
