"""What one worker carries: 10, 100 and 1,000 callers at once.

    python -m pip install '.[embedded]' gunicorn gevent
    python benchmarks/load.py --peers      # four minutes; with the peers ten, and another few to install them

Linux only. Leave the machine alone meanwhile: CPU and memory hardly depend on what else it does, latencies do.

What is measured
    streams   of five events a second, as a model speaks: how many of a crowd are held at once, CPU of an event, the
              delay that is added to it, memory
    requests  whose answer takes a second, or five of a thousand at once, and comes in one piece: the same, and CPU of a
              request

    by the public door of one worker of gunicorn, gthread with a thread for each caller, and gevent. Ours checks a key,
    which is in Redis, and records every request with its prompt, tokens and end. With --peers LiteLLM's proxy, and a
    bare reverse proxy of some 30 lines of Flask under gthread, neither of which keeps anything.

How to read it
    Callers come 150 in a second to stream and 250 to be answered at once, each on a connection of its own, all from one
    asyncio process. CPU is that of all threads of the worker, what it stores after the answer included, less what it
    uses when nobody asks. Growth is CPU for each of the largest crowd, as a multiple of that for each of the smallest:
    at 1 it is linear. Memory is resident, beyond that of a worker that is warm. The delay of an event is from when the
    provider wrote it until it was read, less the delay of those that come straight from the provider to the same
    process at the same time: a median less a median, a percentile less a percentile. Events are looked at while all of
    the crowd are there, but for two in a hundred. The delay of a request is what its whole answer takes longer.

    Each round begins with new workers; the table gives the median of the rounds and the quartiles around it. Where the
    machine gives a worker less of a processor than its crowd needs, it says so by its delays, and by streams that end
    before all have begun.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import resource
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import gateway_apps
import gateway_peers
import report
from canned_provider import (
    MODEL,
    THOUGHTFUL,
    TIMED,
    TIMED_RATE,
    canned_provider,
)
from gateway_load import Client, body_of
from gateway_load import Target as Address
from gateway_servers import Serving, gunicorn, litellm
from load_crowd import Crowd, Outcome, gather
from measure import Figure, Section, Spread, Target, spread
from recorded import key_of
from redis_server import Server, running

ROUNDS = 3
CROWDS = (10, 100, 1000)
QUICK_CROWDS = (10, 100)
DIRECT = 20
"""Callers who ask the provider itself, beside each crowd."""

WARM = 50
IDLE_SECONDS = 1.0
PAGE = resource.getpagesize()
DESCRIPTORS = 8192
"""A stream needs two in a worker, and one each in the processes of its caller and its provider."""

GTHREAD = ("--worker-class", "gthread", "--threads", "1024", "--worker-connections", "2048")
GEVENT = ("--worker-class", "gevent", "--worker-connections", "2048")
HOOKS = ("--config", "python:flask_aibridge.gunicorn")
OURS = {"ours, gthread": (*GTHREAD, *HOOKS), "ours, gevent": (*GEVENT, *HOOKS)}
BARE = "bare Flask proxy, gthread"

GROWTH_AIM = Target(1.1)
"""A growth of 1 is linear; a tenth is what two measurements of the same may differ by."""
NO_ERRORS = Target(0)


class Asked(NamedTuple):
    """What a crowd asks for."""

    body: bytes
    spread: float
    """Seconds within which they come."""

    seconds: float
    """That the answer takes: longer than that."""

    streamed: bool


STREAMS, REQUESTS = f"Streams of {TIMED_RATE} events a second", "Requests whose answer takes a while"
STREAMS_A_SECOND, REQUESTS_A_SECOND = 150.0, 250.0
"""Who comes to stream is served beside the events of all who are there already."""


def _asked(kind: str, size: int) -> Asked:
    streamed = kind == STREAMS
    models, spread = (TIMED, size / STREAMS_A_SECOND) if streamed else (THOUGHTFUL, size / REQUESTS_A_SECOND)
    seconds = next(seconds for seconds in models if seconds > 2 * spread or seconds == max(models))
    return Asked(body_of(models[seconds], stream=streamed), spread, seconds, streamed)


@dataclass(frozen=True)
class Lap:
    """One crowd at one server, in one round."""

    held: int
    errors: Counter[str]
    cpu: float
    """ms for each caller, its events included."""

    event_cpu: float
    """µs, while all were there."""

    memory: float
    """MiB for a hundred callers."""

    delay: float
    tail: float
    """ms added, median and 99th percentile."""


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def _warm_up(serving: Serving) -> None:
    with contextlib.closing(Client(serving.target)) as client:
        for number in range(WARM):
            client.ask(body_of(MODEL, stream=bool(number % 2)))


def _idle_rate(serving: Serving) -> float:
    time.sleep(0.5)
    before = serving.cpu()
    time.sleep(IDLE_SECONDS)
    return (serving.cpu() - before) / IDLE_SECONDS


def _laps(serving: Serving, direct: Address, crowds: tuple[int, ...]) -> Iterator[tuple[str, int, Lap]]:
    """All crowds at one server that is fresh, small ones first."""
    _warm_up(serving)
    idle, empty = _idle_rate(serving), _resident(serving.pid)
    for size in crowds:
        for kind in (STREAMS, REQUESTS):
            asked = _asked(kind, size)
            crowd = Crowd(
                serving.target,
                direct,
                asked.body,
                (size, DIRECT),
                asked.spread,
                asked.seconds,
                lambda: (serving.cpu(), float(_resident(serving.pid))),
            )
            outcome = gather(crowd)
            yield kind, size, _lap(outcome, asked.streamed, idle, empty)


def _lap(outcome: Outcome, streamed: bool, idle: float, empty: int) -> Lap:
    held, since, until = outcome.held()
    first, last = outcome.samples[0], outcome.samples[-1]
    size = len(outcome.callers)
    cpu = last[1] - first[1] - idle * (last[0] - first[0])
    events = sum(since <= moment < until for each in outcome.callers for moment, _ in each.events)
    event_cpu = outcome.cpu_at(until) - outcome.cpu_at(since) - idle * (until - since)
    delay, tail = _added(outcome, streamed, since, until)
    return Lap(
        held,
        Counter(outcome.errors),
        cpu / size * 1e3,
        event_cpu / events * 1e6 if events else float("nan"),
        (max(sample[2] for sample in outcome.samples) - empty) / size * 100 / 2**20,
        delay,
        tail,
    )


def _added(outcome: Outcome, streamed: bool, since: float, until: float) -> tuple[float, float]:
    ours, theirs = (
        [
            each
            for caller in callers
            for moment, each in (
                caller.events if streamed else [(since, (caller.ended - caller.asked) * 1e3)]
            )
            if since <= moment < until
        ]
        for callers in (outcome.callers, outcome.direct)
    )
    if len(ours) < 2 or len(theirs) < 2:
        return float("nan"), float("nan")
    added = (_percentile(ours, of) - _percentile(theirs, of) for of in (50, 99))
    return next(added), next(added)


def _percentile(values: list[float], of: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[of - 1]


Laps = Mapping[str, Mapping[int, list[Lap]]]
"""Of one kind: by server and crowd."""


def _contestants(
    provider: str, server: Server, prefix: str, peers: Path | None
) -> dict[str, contextlib.AbstractContextManager[Serving]]:
    host = urlsplit(provider).hostname or ""
    path = "/v1/chat/completions"
    _, credential = key_of(1)
    ours = Address(host, 0, f"/api/v2/aibridge/openai{path}", {"Authorization": f"Bearer {credential.key}"})
    variables = {gateway_apps.PROVIDER: provider}
    recorded = {**variables, gateway_apps.REDIS: server.url, gateway_apps.PREFIX: prefix}
    found = {name: gunicorn(name, "gateway", ours, recorded, worker) for name, worker in OURS.items()}
    if peers is not None:
        found[BARE] = gunicorn(BARE, "proxy", Address(host, 0, path), variables, GTHREAD)
        found["LiteLLM's proxy"] = litellm(peers, provider)
    return found


def measure(
    provider: str, server: Server, peers: Path | None, *, crowds: tuple[int, ...], rounds: int
) -> list[Section]:
    """A section for each kind of answer."""
    parts = urlsplit(provider)
    direct = Address(parts.hostname or "", parts.port or 0, "/v1/chat/completions")
    laps: dict[str, dict[str, dict[int, list[Lap]]]] = {
        kind: defaultdict(lambda: defaultdict(list)) for kind in (STREAMS, REQUESTS)
    }
    with server.store() as (store, prefix):
        store.put_api_key(key_of(1)[0])
        for number in range(rounds):
            contestants = list(_contestants(provider, server, prefix, peers).items())
            for name, serving in contestants if number % 2 else contestants[::-1]:
                print(f"round {number + 1} of {rounds}: {name} …", file=sys.stderr, flush=True)
                try:
                    with serving as listening:
                        for kind, size, lap in _laps(listening, direct, crowds):
                            laps[kind][name][size].append(lap)
                except RuntimeError as error:
                    if name in OURS:
                        raise
                    print(f"without {name}: {error}\n", flush=True)
    return [_section(kind, own) for kind, own in laps.items()]


def _section(kind: str, laps: Laps) -> Section:
    figures: list[Figure] = []
    notes = []
    for name in [*OURS, *(each for each in laps if each not in OURS)]:
        figures += _figures(name, laps[name], streamed=kind == STREAMS)
        for size, own in laps[name].items():
            said = sum((lap.errors for lap in own), Counter())
            notes += [f"{name}, {size:,} at once: {many} × {error}" for error, many in said.most_common(3)]
    return Section(kind, figures, notes=notes)


def _spread(values: Sequence[float]) -> Spread:
    """Of the rounds in which there was something to see."""
    return spread([value for value in values if not math.isnan(value)] or [math.nan])


def _figures(name: str, laps: Mapping[int, list[Lap]], *, streamed: bool) -> list[Figure]:
    ours = name in OURS
    largest = max(laps)
    least = min(lap.held for lap in laps[largest])
    errors = sum(sum(lap.errors.values()) for own in laps.values() for lap in own)
    figures = [
        Figure(
            f"{name}: held at once", spread([least]), "", Target(largest, at_least=True) if ours else None
        ),
        Figure("  errors of all rounds", spread([errors]), "", NO_ERRORS if ours else None),
    ]
    what, unit = ("CPU of an event", "µs") if streamed else ("CPU of a request", "ms")
    cpu = {size: [lap.event_cpu if streamed else lap.cpu for lap in own] for size, own in laps.items()}
    for size, each in cpu.items():
        figures.append(Figure(f"  {what}, {size:,}", _spread(each), unit))
    growth = [many / few for many, few in zip(cpu[largest], cpu[min(laps)], strict=True)]
    figures.append(Figure("  growth", _spread(growth), "×", GROWTH_AIM if ours else None))
    for size, own in laps.items():
        figures.append(Figure(f"  delay added, {size:,}", _spread([lap.delay for lap in own]), "ms"))
        figures.append(Figure("    99th percentile", _spread([lap.tail for lap in own]), "ms"))
    memory = [lap.memory for lap in laps[largest]]
    figures.append(Figure("  memory for a hundred", spread(memory), "MiB"))
    return figures


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--peers", action="store_true", help="measure LiteLLM's and a bare proxy, too")
    parser.add_argument("--quick", action="store_true", help="one round, and no thousand")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--url", help="a Redis to record to, redis://… or unix://…, not an embedded one")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures there, unrounded, as JSON"
    )
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = arguments()
    peers = gateway_peers.python() if options.peers else None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, DESCRIPTORS)), hard))
    crowds, rounds = (QUICK_CROWDS, 1) if options.quick else (CROWDS, options.rounds)
    began = time.monotonic()
    with canned_provider() as provider, running(options.url) as server:
        described = {**report.machine(), "server": server.version()}
        for name, text in described.items():
            print(f"{name + ':':10}{text}")
        print(flush=True)
        sections = measure(provider, server, peers, crowds=crowds, rounds=rounds)
        print("\n".join(report.render(section) for section in sections), flush=True)
    print(f"It took {time.monotonic() - began:.0f} s; load average {os.getloadavg()[0]:.2f}.")
    if options.json:
        options.json.write_text(json.dumps(report.as_json(described, sections), indent=2) + "\n")
    missed = sum(figure.met is False for section in sections for figure in section.figures)
    print("All aims are met." if not missed else f"Aims missed: {missed}.")


if __name__ == "__main__":
    main()
