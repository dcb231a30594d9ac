"""Many callers at once, in one asyncio process: raw HTTP/1.1, as cheap as can be.

Beside those of the gateway some ask the provider itself, at the same time: what is slow about the machine or about this
process, both feel.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic, monotonic_ns
from typing import Any

from canned_provider import TIME
from gateway_load import Target

STRAGGLERS = 45.0
"""Seconds after the last answer is due at which those that are missing are given up, and count as errors."""

SAMPLE_SECONDS = 0.1
SETTLE_SECONDS = 0.3
"""What is recorded is stored a moment after the answer, and belongs to it."""

FULL = 0.98
"""Of the most that were ever open at once: while so many are, the crowd is as large as it was meant to be."""


@dataclass
class Caller:
    """What one of them saw; moments of the clock ``monotonic``."""

    asked: float = 0.0
    opened: float = 0.0
    ended: float = 0.0
    events: list[tuple[float, float]] = field(default_factory=list)
    """When each came, and the ms it was on its way."""

    error: str = "no whole answer in time"


@dataclass
class Outcome:
    """Of a crowd."""

    callers: list[Caller]
    direct: list[Caller]
    samples: list[tuple[float, float, float]]
    """Moments, seconds of CPU and bytes of memory of the process that answers."""

    @property
    def errors(self) -> list[str]:
        return [caller.error for caller in (*self.callers, *self.direct) if caller.error]

    def held(self) -> tuple[int, float, float]:
        """The most that were answered at once, and from when until when about as many were. Those whose answer comes in
        one piece count from when they asked."""
        steps = []
        for each in self.callers:
            if each.opened and not each.error:
                steps += [(each.opened if each.events else each.asked, 1), (each.ended, -1)]
        steps.sort()
        counts, count = [], 0
        for moment, change in steps:
            count += change
            counts.append((moment, count))
        most = max((count for _, count in counts), default=0)
        full = [index for index, (_, count) in enumerate(counts) if count >= most * FULL]
        if not full:
            return 0, 0.0, 0.0
        return most, counts[full[0]][0], counts[min(full[-1] + 1, len(counts) - 1)][0]

    def cpu_at(self, moment: float) -> float:
        """Seconds that had been used by then, as the samples around it say."""
        before = max((sample for sample in self.samples if sample[0] <= moment), default=self.samples[0])
        after = min((sample for sample in self.samples if sample[0] > moment), default=self.samples[-1])
        if after[0] <= before[0]:
            return before[1]
        share = (moment - before[0]) / (after[0] - before[0])
        return before[1] + share * (after[1] - before[1])


class _Connection(asyncio.Protocol):
    """One request and its answer, whose end is seen in its last bytes."""

    def __init__(self, message: bytes, caller: Caller, done: asyncio.Future[None]) -> None:
        self._message = message
        self._caller = caller
        self._done = done
        self._head = b""
        self._tail = b""
        self._length: int | None = None
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        transport.write(self._message)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        caller = self._caller
        now = monotonic_ns()
        for sent in TIME.findall(data):
            caller.events.append((now / 1e9, (now - int(sent)) / 1e6))
        if not caller.opened:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            caller.opened = now / 1e9
            self._read_head(head.lower())
        self._left -= len(data)
        self._tail = (self._tail + data)[-200:]
        if self._left <= 0 if self._length is not None else self._tail.endswith(b"0\r\n\r\n"):
            self._end(now / 1e9)

    def _read_head(self, head: bytes) -> None:
        _, found, length = head.partition(b"\r\ncontent-length:")
        if found:
            self._length = self._left = int(length.partition(b"\r\n")[0])
        if not head.startswith(b"http/1.1 200"):
            self._caller.error = head.partition(b"\r\n")[0].decode(errors="replace")
            self._transport.close()

    def _end(self, now: float) -> None:
        self._caller.ended = now
        self._caller.error = "" if self._length is not None or b"[DONE]" in self._tail else "cut short"
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._caller.ended:
            self._caller.ended = monotonic()
            if self._caller.error.startswith("no whole"):
                self._caller.error = f"broke off: {exc}"
        if not self._done.done():
            self._done.set_result(None)


def _message(target: Target, body: bytes) -> bytes:
    headers = {
        "Host": f"{target.host}:{target.port}",
        "User-Agent": "OpenAI/Python 3.0.0",
        "Accept": "application/json",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **target.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {target.path} HTTP/1.1\r\n{lines}\r\n".encode() + body


async def _call(target: Target, message: bytes, caller: Caller, after: float) -> None:
    await asyncio.sleep(after)
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    caller.asked = monotonic()
    transport = None
    try:
        transport, _ = await loop.create_connection(
            lambda: _Connection(message, caller, done), target.host, target.port
        )
        await done
    except asyncio.CancelledError:
        caller.ended = monotonic()  # so that the end of its connection is not taken for the gateway's doing
        raise
    except OSError as error:
        caller.error = str(error)
    finally:
        if transport is not None:
            transport.abort()


async def _sample(take: Callable[[], tuple[float, float]], samples: list[tuple[float, float, float]]) -> None:
    while True:
        samples.append((monotonic(), *take()))
        await asyncio.sleep(SAMPLE_SECONDS)


@dataclass(frozen=True)
class Crowd:
    """Who asks whom what.

    :param counts: how many ask the gateway, and how many its provider.
    :param spread: seconds within which all of them come, at moments of chance.
    :param seconds: that an answer takes.
    :param take: what the process that answers has used of CPU and memory.
    """

    target: Target
    direct: Target
    body: bytes
    counts: tuple[int, int]
    spread: float
    seconds: float
    take: Callable[[], tuple[float, float]]


async def _gather(crowd: Crowd) -> Outcome:
    through, direct = crowd.counts
    rng = random.Random(through)  # the same crowd each time
    outcome = Outcome([Caller() for _ in range(through)], [Caller() for _ in range(direct)], [])
    sampling = asyncio.create_task(_sample(crowd.take, outcome.samples))
    asked: Sequence[tuple[Target, list[Caller]]]
    asked = ((crowd.target, outcome.callers), (crowd.direct, outcome.direct))
    calls = [
        asyncio.create_task(_call(where, _message(where, crowd.body), caller, rng.uniform(0, crowd.spread)))
        for where, callers in asked
        for caller in callers
    ]
    _, late = await asyncio.wait(calls, timeout=crowd.spread + crowd.seconds + STRAGGLERS)
    for call in late:
        call.cancel()
    await asyncio.sleep(SETTLE_SECONDS)
    sampling.cancel()
    await asyncio.gather(*calls, sampling, return_exceptions=True)
    with contextlib.suppress(OSError):
        outcome.samples.append((monotonic(), *crowd.take()))
    return outcome


def gather(crowd: Crowd) -> Outcome:
    """Have all of them ask, and wait for all answers."""
    return asyncio.run(_gather(crowd))
