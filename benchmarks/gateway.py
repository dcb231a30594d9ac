"""How fast the gateway is, recording to Redis, beside a bare proxy and beside other gateways.

    python -m pip install '.[embedded]' gunicorn
    python benchmarks/gateway.py --peers      # five minutes, and another few to install the peers the first time

Linux only. Leave the machine alone meanwhile: times of CPU hardly depend on what else it does, latencies do.

What is measured
    door      by the public door, one gthread worker of gunicorn: CPU of the serving process for a blocking request, a
              stream of 20 events, and an event of long streams; latency added to that of the provider. Beside a bare
              reverse proxy of some 30 lines of Flask and, with --peers, LiteLLM's proxy
    process   in process: wall and CPU time of a call, beside urllib3 straight to the provider and, with --peers,
              TensorZero's embedded gateway and LiteLLM's SDK

How to read it
    All contestants take turns within each round, each in a process of its own; ratios are taken within a round, and the
    table gives the median and the quartiles around it. An aim is judged by the median. CPU is that of all threads of
    the one process, what it stores after the answer included. The provider is canned bytes behind asyncio, in a process
    of its own. Ours checks a key, which is in Redis, and records every request with its prompt, tokens and end, but
    where it says `unrecorded`; none of the others keeps anything.

    The peers go into a virtual environment of their own in the user's cache folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import gateway_calls
import gateway_door
import gateway_peers
import report
from canned_provider import canned_provider
from measure import Section
from redis_server import Server, running

ROUNDS = 12
QUICK_ROUNDS = 4


def _door(provider: str, server: Server, peers: Path | None, rounds: int) -> list[Section]:
    with gateway_door.contestants(provider, server, peers) as servings:
        return gateway_door.measure(servings, rounds=rounds)


def _process(provider: str, server: Server, peers: Path | None, rounds: int) -> list[Section]:
    with gateway_calls.callers(provider, server, peers) as found:
        return gateway_calls.measure(found, rounds=rounds)


SECTIONS: dict[str, Callable[[str, Server, Path | None, int], list[Section]]] = {
    "door": _door,
    "process": _process,
}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--peers", action="store_true", help="install and measure LiteLLM and TensorZero")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds, not {ROUNDS}")
    parser.add_argument("--url", help="a Redis to record to, redis://… or unix://…, not an embedded one")
    parser.add_argument("--only", action="append", choices=tuple(SECTIONS), help="a section; may be repeated")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures there, unrounded, as JSON"
    )
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = arguments()
    peers = gateway_peers.python() if options.peers else None
    done: list[Section] = []
    with canned_provider() as provider, running(options.url) as server:
        described = {**report.machine(), "server": server.version()}
        for name, text in described.items():
            print(f"{name + ':':10}{text}")
        print(flush=True)
        for name, measure in SECTIONS.items():
            if not options.only or name in options.only:
                sections = measure(provider, server, peers, QUICK_ROUNDS if options.quick else ROUNDS)
                done += sections
                print("\n".join(report.render(section) for section in sections), flush=True)
    if options.json:
        options.json.write_text(json.dumps(report.as_json(described, done), indent=2) + "\n")
    missed = sum(figure.met is False for section in done for figure in section.figures)
    print("All aims are met." if not missed else f"Aims missed: {missed}.")


if __name__ == "__main__":
    main()
