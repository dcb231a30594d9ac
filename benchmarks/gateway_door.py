"""By the public door: CPU of the serving process, and the latency that it adds to the provider's."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import gateway_apps
from canned_provider import EVENTS, FAST_EVENTS, LONG
from gateway_load import BLOCKING, FAST_STREAMING, LONG_STREAMING, STREAMING, Client
from gateway_load import Target as Address
from gateway_servers import Serving, gunicorn, litellm
from measure import Figure, Section, Spread, Target, spread
from recorded import key_of
from redis_server import Server

BLOCKING_AIM = Target(0.9)
STREAM_AIM = Target(1.3)
EVENT_AIM = Target(20)

REQUESTS = 200
"""Requests of a round: a few tenths of a second."""

LONG_STREAMS = 4
"""Long streams that run at once: no figure is of one thread that is alone."""

SETTLE_SECONDS = 0.1
"""What is recorded is stored 50 ms later: it belongs to the requests that it is of."""

OURS, UNRECORDED, BARE, DIRECT = "ours", "ours, unrecorded", "bare Flask proxy", "provider"


@dataclass
class _Laps:
    """Of one contestant and one kind of request: ms of CPU a request in each round, and ms that each request took."""

    cpu: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)


@contextlib.contextmanager
def contestants(provider: str, server: Server, peers: Path | None) -> Iterator[list[Serving]]:
    """Everybody, ready to be asked. The provider itself is one of them."""
    parts = urlsplit(provider)
    host, port = parts.hostname or "", parts.port or 0
    row, credential = key_of(1)
    by_key = {"Authorization": f"Bearer {credential.key}"}
    static = {"Authorization": f"Bearer {gateway_apps.STATIC_KEY}"}
    path = "/api/v2/aibridge/openai/v1/chat/completions"
    variables = {gateway_apps.PROVIDER: provider}
    with contextlib.ExitStack() as stack:
        store, prefix = stack.enter_context(server.store())
        store.put_api_key(row)
        recorded = {**variables, gateway_apps.REDIS: server.url, gateway_apps.PREFIX: prefix}
        entered = [
            gunicorn(OURS, "gateway", Address(host, 0, path, by_key), recorded),
            gunicorn(UNRECORDED, "gateway", Address(host, 0, path, static), variables),
            gunicorn(BARE, "proxy", Address(host, 0, "/v1/chat/completions"), variables),
        ]
        servings = [stack.enter_context(each) for each in entered]
        if peers is not None:
            try:
                servings.append(stack.enter_context(litellm(peers, provider)))
            except RuntimeError as error:
                print(f"without LiteLLM's proxy: {error}\n", flush=True)
        yield [Serving(DIRECT, Address(host, port, "/v1/chat/completions"), 0), *servings]


def measure(servings: Sequence[Serving], *, rounds: int) -> list[Section]:
    """One section for each kind of request."""
    return [
        _requests("A blocking request by the public door", servings, BLOCKING, rounds, BLOCKING_AIM),
        _requests(f"A stream of {EVENTS} events by the public door", servings, STREAMING, rounds, STREAM_AIM),
        _events(
            "An event of a long stream by the public door",
            servings,
            FAST_STREAMING,
            FAST_EVENTS,
            rounds,
            f"{LONG_STREAMS} streams at once of {FAST_EVENTS:,} events, as fast as they are taken",
        ),
        _events(
            "An event that comes alone, by the public door",
            servings,
            LONG_STREAMING,
            LONG[0],
            rounds,
            f"{LONG_STREAMS} streams at once of {LONG[0]} events, one every {LONG[1] / 1000:g} ms on each: "
            "most of it is waking up",
        ),
    ]


def _requests(title: str, servings: Sequence[Serving], body: bytes, rounds: int, aim: Target) -> Section:
    laps = {serving.name: _Laps() for serving in servings}
    for serving in servings:
        _ask_many(serving, body, _Laps())
    for number in range(rounds):
        for serving in servings if number % 2 else servings[::-1]:
            lap = laps[serving.name]
            cpu = _cpu_of(serving, lambda serving=serving, lap=lap: _ask_many(serving, body, lap))
            lap.cpu.append(cpu / REQUESTS * 1e3)
    return Section(title, [*_cpu_figures(laps, "ms", aim), *_latency_figures(laps)])


def _ask_many(serving: Serving, body: bytes, lap: _Laps) -> None:
    """On one connection, made anew in each round: servers close what is idle for a while."""
    with contextlib.closing(Client(serving.target)) as client:
        lap.took += [client.ask(body) * 1e3 for _ in range(REQUESTS)]


def _cpu_of(serving: Serving, work: Callable[[], object]) -> float:
    """Seconds of the serving process for some work, and for what it stores of it afterwards."""
    if not serving.pid:
        work()
        return 0.0
    before = serving.cpu()
    work()
    time.sleep(SETTLE_SECONDS)
    return serving.cpu() - before


def _events(
    title: str, servings: Sequence[Serving], body: bytes, events: int, rounds: int, note: str
) -> Section:
    asked = [serving for serving in servings if serving.pid]
    laps = {serving.name: _Laps() for serving in servings}
    with ThreadPoolExecutor(LONG_STREAMS) as pool:
        for number in range(max(2, rounds // 3)):
            for serving in asked if number % 2 else asked[::-1]:
                cpu = _cpu_of(serving, lambda serving=serving: _stream_together(pool, serving, body))
                laps[serving.name].cpu.append(cpu / LONG_STREAMS / events * 1e6)
    return Section(title, _cpu_figures(laps, "µs", EVENT_AIM), notes=[note])


def _stream_together(pool: ThreadPoolExecutor, serving: Serving, body: bytes) -> None:
    for done in [pool.submit(_stream_once, serving, body) for _ in range(LONG_STREAMS)]:
        done.result()


def _stream_once(serving: Serving, body: bytes) -> None:
    client = Client(serving.target)
    try:
        client.ask(body)
    finally:
        client.close()


def _cpu_figures(laps: dict[str, _Laps], unit: str, aim: Target) -> list[Figure]:
    figures = [
        Figure(f"CPU, {name}", spread(lap.cpu), unit, aim if name == OURS else None)
        for name, lap in laps.items()
        if name != DIRECT
    ]
    ours = laps[OURS].cpu
    for name, lap in laps.items():
        if name not in (DIRECT, OURS):
            ratios = [theirs / mine for theirs, mine in zip(lap.cpu, ours, strict=True)]
            figures.append(Figure(f"  {name} : ours", spread(ratios), "×"))
    return figures


def _latency_figures(laps: dict[str, _Laps]) -> list[Figure]:
    direct = laps[DIRECT].took
    figures = [Figure("latency of the provider alone", spread(direct), "ms")]
    for name, lap in laps.items():
        if name != DIRECT:
            added = [each - statistics.median(direct) for each in lap.took]
            figures.append(Figure(f"  added by {name}, median", spread(added), "ms"))
            tail = _percentile_99(lap.took) - _percentile_99(direct)
            figures.append(Figure("    99th percentile", Spread(tail, tail, tail), "ms"))
    return figures


def _percentile_99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]
