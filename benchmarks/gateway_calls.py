"""In process: wall and CPU time of a call, by everybody who can be called without a server."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import gateway_apps
from canned_provider import EVENTS
from measure import Figure, Section, Target, spread
from redis_server import Server

OURS, UNRECORDED, PEER = "ours", "ours, unrecorded", "tensorzero"

CALLS = {OURS: 200, UNRECORDED: 200, "urllib3": 300, PEER: 300, "litellm": 40}
"""Calls of a round."""

WARM = 50
STOP_SECONDS = 10.0
AIMS = {"blocking": Target(2), "stream": Target(1)}
"""As multiples of TensorZero's embedded gateway."""

TITLES = {"blocking": "A blocking call in process", "stream": f"A stream of {EVENTS} events in process"}


class Caller(NamedTuple):
    """A contestant's process."""

    name: str
    process: subprocess.Popen[str]

    def run(self, kind: str, count: int) -> dict[str, float]:
        """Make calls; µs of wall and CPU time for each."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{kind} {count}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} has ended; what it says is above")
        times: dict[str, float] = json.loads(answer)
        return times


@contextlib.contextmanager
def callers(provider: str, server: Server, peers: Path | None) -> Iterator[list[Caller]]:
    """Everybody, warmed up. A peer that does not work is left out, and that is said."""
    with contextlib.ExitStack() as stack:
        _, prefix = stack.enter_context(server.store())
        recorded = {gateway_apps.REDIS: server.url, gateway_apps.PREFIX: prefix}
        here = Path(sys.executable)
        asked: list[tuple[str, str, Path, Mapping[str, str]]] = [
            (OURS, "ours", here, recorded),
            (UNRECORDED, "ours", here, {}),
            ("urllib3", "urllib3", here, {}),
        ]
        if peers is not None:
            asked += [(PEER, "tensorzero", peers, {}), ("litellm", "litellm", peers, {})]
        found = []
        for name, who, python, variables in asked:
            caller = stack.enter_context(_running(name, who, python, provider, variables))
            try:
                for kind in TITLES:
                    caller.run(kind, WARM)
            except (RuntimeError, BrokenPipeError) as error:
                if python is here:
                    raise
                print(f"{name} is left out: {error}\n", flush=True)
            else:
                found.append(caller)
        yield found


@contextlib.contextmanager
def _running(
    name: str, who: str, python: Path, provider: str, variables: Mapping[str, str]
) -> Iterator[Caller]:
    script = Path(__file__).with_name("gateway_caller.py")
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [str(python), str(script), who, provider],
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
        try:
            yield Caller(name, process)
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()  # type: ignore[union-attr]
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()  # type: ignore[union-attr]
            if process.returncode:
                said.seek(0)
                sys.stderr.write(said.read()[-3000:].decode(errors="replace"))


def measure(found: list[Caller], *, rounds: int) -> list[Section]:
    """A section for each kind of call."""
    return [_section(kind, found, rounds) for kind in TITLES]


def _section(kind: str, found: list[Caller], rounds: int) -> Section:
    laps: dict[str, list[dict[str, float]]] = {caller.name: [] for caller in found}
    for number in range(rounds):
        for caller in found if number % 2 else found[::-1]:
            laps[caller.name].append(caller.run(kind, CALLS[caller.name]))
    figures: list[Figure] = []
    for clock in ("cpu", "wall"):
        figures += _figures(kind, clock, {name: [lap[clock] for lap in own] for name, own in laps.items()})
    return Section(
        TITLES[kind],
        figures,
        notes=["TensorZero's and LiteLLM's record nothing; theirs is CPU of all threads, too"],
    )


def _figures(kind: str, clock: str, laps: Mapping[str, list[float]]) -> list[Figure]:
    word = clock.upper() if clock == "cpu" else clock
    figures = [Figure(f"{word}, {name}", spread(own), "µs") for name, own in laps.items()]
    for name, own in laps.items():
        if name not in (OURS, UNRECORDED):
            ratios = [mine / theirs for mine, theirs in zip(laps[OURS], own, strict=True)]
            aim = AIMS[kind] if name == PEER else None
            figures.append(Figure(f"  ours : {name}, {word}", spread(ratios), "×", aim))
    if PEER in laps:  # like with like: it records nothing
        ratios = [mine / theirs for mine, theirs in zip(laps[UNRECORDED], laps[PEER], strict=True)]
        figures.append(Figure(f"  ours, unrecorded : {PEER}, {word}", spread(ratios), "×"))
    return figures
