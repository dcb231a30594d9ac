"""A soak from its first request to the last comparison."""

from __future__ import annotations

import os
import random
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import Final

import urllib3

from flask_aibridge.errors import ServicesUnavailable
from flask_aibridge.license.issuing import SigningKey, issue_license
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.store import RedisStore
from flask_aibridge.services.storage import InterceptionView, Query
from tests.services.programs import environment, python
from tests.services.servers import Server, redis_binary, started, valkey_binary, wait_until
from tests.soak.accounts import Accounts
from tests.soak.clients import KEY, Clients
from tests.soak.hosts import THREADS, Host, running
from tests.soak.measure import Sample, sample
from tests.soak.provider import Served
from tests.soak.report import Report

LEASE_SECONDS: Final = 5.0
"""After which a worker that was killed is missed; a minute as the package has it."""

SETTLE_SECONDS: Final = 90.0
"""How long sweeps and replays may take in the end."""

QUIET_SECONDS: Final = 2.5
"""Without requests before processes are looked at: threads that nobody needs end after one."""

FAULTS: Final = MappingProxyType(
    {
        "none": 60,
        "slow-start": 6,
        "stall": 5,
        "hang": 1,
        "reset": 5,
        "truncate": 5,
        "error": 5,
        "429": 5,
        "529": 4,
        "500": 4,
    }
)

QUICK: Final = MappingProxyType({"none": 60, "reset": 5, "truncate": 5, "error": 5, "429": 5, "500": 5})
"""Faults that do not take time."""

WARMING: Final = 3 * THREADS
"""Clients of a burst: more than two workers have threads."""

Event = Callable[["Soak"], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a soak is made of.

    :param seconds: of load; more where it takes longer for each of the events to happen once.
    :param events: what goes wrong, in turn, one every ``pause`` seconds.
    :param quiet: how often, in seconds, all is quiet and processes are looked at.
    :param patience: seconds that a client waits for the next byte: longer than a stall, shorter than a hang.
    :param warm_up: seconds of a burst that the last host then gets, so that its processes have all the threads and
        connections that they will ever have, and all that is loaded or cached once.
    :param protect_after: the part of the soak after which one worker of the last host is not killed, nor replaced.
    """

    seconds: float
    events: Sequence[Event]
    pause: float = 2.0
    quiet: float = 15.0
    protect_after: float = 0.25
    warm_up: float = 0.0
    clients: int = 6
    faults: Mapping[str, int] = field(default_factory=lambda: FAULTS)
    leaving: int = 8
    tokens: tuple[int, int] = (5, 60)
    patience: float = 8.0


class Soak:
    """Two hosts, a Redis, a provider and clients, under way."""

    def __init__(self, plan: Plan, redis: Server, hosts: list[Host], provider: str) -> None:
        self.plan, self.redis, self.hosts = plan, redis, hosts
        self.done: Counter[str] = Counter()
        self.chance = random.Random(len(plan.events))
        self.samples: dict[int, list[Sample]] = {}
        self.is_protected = False
        self._provider = provider
        self._wait = threading.Event()
        self.clients = Clients(
            hosts, plan.clients, plan.faults, leaving=plan.leaving, tokens=plan.tokens, patience=plan.patience
        )
        self.burst = Clients(
            hosts[-1:],
            WARMING,
            QUICK,
            leaving=plan.leaving,
            tokens=(1, 5),
            patience=plan.patience,
            seed=WARMING,
        )

    def run(self) -> Report:
        began, since = monotonic(), datetime.now(UTC)
        with self.clients.running():
            self._load(began)
            self._look(began)
        seconds = monotonic() - began
        for host in self.hosts:
            host.settle()
        with closing(RedisStore(RedisConnection(self.redis.url))) as store:
            self._wait_until_settled(store)
            views = all_views(store)
            rows = store.usage(since=since - timedelta(hours=1), until=datetime.now(UTC) + timedelta(hours=1))
        killed = {pid for host in self.hosts for pid in host.killed}
        report = Report(
            Accounts([*self.clients.asked, *self.burst.asked], self._served(), views, rows, killed),
            self.done,
            seconds,
            self.samples,
            [name for host in self.hosts for name in host.spooled()],
            "".join(host.logged() for host in self.hosts),
        )
        report.wrong.extend(report.accounts.wrong())
        report.wrong.extend(f"{name} is left in a spool" for name in report.spooled)
        return report

    def pause(self, seconds: float) -> None:
        self._wait.wait(seconds)

    def _load(self, began: float) -> None:
        plan, number = self.plan, 0
        looked = began
        while (passed := monotonic() - began) < plan.seconds or number < len(plan.events):
            if not self.is_protected and passed >= plan.protect_after * plan.seconds:
                self._protect()
                self._warm_up()
                self._look(began)
                looked = monotonic()
            if self.is_protected and monotonic() - looked >= plan.quiet:
                self._look(began)
                looked = monotonic()
            plan.events[number % len(plan.events)](self)
            number += 1
            self.pause(plan.pause)

    def _protect(self) -> None:
        last = self.hosts[-1]
        self.is_protected = True
        wait_until(lambda: bool(last.gunicorn.workers()), "a worker")
        # The newest: an older one may be of before a reload, and about to end.
        last.protected = last.gunicorn.workers()[-1]
        self.samples = {last.protected: [], last.gunicorn.pid: []}

    def _warm_up(self) -> None:
        if self.plan.warm_up:
            with self.burst.running():
                self.pause(self.plan.warm_up)
            self.done["seconds of warming up"] += int(self.plan.warm_up)

    def _look(self, began: float) -> None:
        """Have all be quiet, and look at the processes that stay."""
        with self.clients.paused():
            self.pause(QUIET_SECONDS)
            for host in self.hosts:
                if host.protected is not None:
                    host.gunicorn.tidy(host.protected)
            for pid, samples in self.samples.items():
                seen = sample(pid, monotonic() - began)
                assert seen is not None, (
                    f"process {pid} is gone, which nobody had killed:\n{self.hosts[-1].logged()}"
                )
                samples.append(seen)

    def _wait_until_settled(self, store: RedisStore) -> None:
        def settled() -> bool:
            with suppress(ServicesUnavailable):
                running_now = store.interceptions(Query(status="running"), limit=1).count
                return not running_now and not any(host.spooled() for host in self.hosts)
            return False

        with suppress(AssertionError):  # what is wrong then is said in words, request by request
            wait_until(settled, "an end of every interception", SETTLE_SECONDS)

    def _served(self) -> dict[str, Served]:
        with urllib3.PoolManager(retries=False) as pool:
            account = pool.request("GET", f"{self._provider}/account").json()
        return {each["marker"]: Served(**each) for each in account}


def all_views(store: RedisStore) -> list[InterceptionView]:
    """Every record."""
    views: list[InterceptionView] = []
    cursor: str | None = None
    while True:
        page = store.interceptions(Query(), limit=500, cursor=cursor)
        views.extend(page.interceptions)
        cursor = page.next
        if cursor is None:
            return views


def kill_a_worker(soak: Soak) -> None:
    """SIGKILL, of one worker of any host."""
    soak.done["workers killed"] += soak.chance.choice(soak.hosts).kill_a_worker(soak.chance)


def kill_redis(soak: Soak) -> None:
    """It is gone for a moment, or, one time in three, again before anybody has got used to it."""
    for _ in range(soak.chance.choice((1, 1, 2))):
        soak.redis.kill()
        soak.pause(soak.chance.uniform(0.2, 1.5))
        soak.redis.start()
        soak.done["Redis killed"] += 1


def freeze_redis(soak: Soak) -> None:
    """It takes connections and answers nothing."""
    soak.redis.freeze()
    soak.pause(soak.chance.uniform(0.2, 1.5))
    soak.redis.thaw()
    soak.done["Redis frozen"] += 1


def _deployed(soak: Soak) -> Host:
    return soak.hosts[0] if soak.is_protected else soak.chance.choice(soak.hosts)


def reload(soak: Soak) -> None:
    """HUP."""
    _deployed(soak).reload()
    soak.done["reloads"] += 1


def replace(soak: Soak) -> None:
    """A new gunicorn, and TERM to the one of before."""
    _deployed(soak).replace()
    soak.done["replacements"] += 1


DEPLOYS: Final = (reload, replace, reload)
EVERYTHING: Final = (kill_a_worker, kill_redis, reload, kill_a_worker, freeze_redis, replace, kill_redis)


@contextmanager
def provider() -> Iterator[str]:
    """The provider's process; its URL."""
    script = str(Path(__file__).with_name("provider.py"))
    process = subprocess.Popen(
        python(script), env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def soak(plan: Plan) -> Report:
    """Do it all."""
    binary = valkey_binary() or redis_binary()
    assert binary is not None, "needs a Redis or Valkey server"
    assert os.path.exists("/proc/self/fd"), "needs Linux, whose /proc tells what processes have"
    redis = Server(binary, tcp=True)
    with started(redis), provider() as url:
        signing = SigningKey.generate("soak")
        config = {
            "AIBRIDGE_REDIS_URL": redis.url,
            "AIBRIDGE_PROVIDERS": {
                "anthropic": {"type": "anthropic", "base_url": url, "keys": ["none"]},
                "openai": {"type": "openai", "base_url": f"{url}/v1", "keys": ["none"]},
            },
            "AIBRIDGE_API_KEYS": {"soak": KEY},
            "AIBRIDGE_LICENSE": issue_license(signing),
            "AIBRIDGE_LICENSE_PUBLIC_KEYS": {"soak": signing.public_base64},
        }
        # One arena, so that memory is what is held, and not what the C library keeps for each thread that there was.
        env = {"SOAK_LEASE": str(LEASE_SECONDS), "MALLOC_ARENA_MAX": "1"}
        hosts = [Host("a", env, config, "--preload"), Host("b", env, config)]
        with running(hosts):
            return Soak(plan, redis, hosts, url).run()
