"""The circuit breakers of a bridge: one for each provider, endpoint and model. Any number of threads may use them."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from flask_aibridge.bridge.providers.base import Provider
from flask_aibridge.bridge.providers.circuit import Circuit, Verdict
from flask_aibridge.bridge.providers.cool_downs import Lane
from flask_aibridge.config import CircuitBreaker

logger = logging.getLogger("flask_aibridge.bridge")

MAX_CIRCUITS: Final = 1024
"""Circuits that are kept, those used last. The models' names come from callers, so there could be any number; one that
is forgotten is closed."""


class CircuitOpen(Exception):
    """The provider is not to be asked now; ``seconds`` says when to come again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the circuit is open for another {seconds:.1f} s")
        self.seconds = seconds


class Permit:
    """A request that was let through. It has to leave, once, with how it went."""

    def __init__(self, circuits: Circuits, circuit: Circuit, ticket: int, name: str) -> None:
        self._circuits, self._circuit, self._ticket, self._name = circuits, circuit, ticket, name

    def leave(self, verdict: Verdict) -> None:
        """Say how the request went."""
        self._circuits.leave(self._circuit, self._ticket, verdict, self._name)


class Circuits:
    """Counts the failures of each provider, endpoint and model.

    A circuit belongs to the provider object: one whose settings have changed begins anew.

    :param clock: seconds that never go back.
    """

    def __init__(
        self,
        settings: CircuitBreaker,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_circuits: int = MAX_CIRCUITS,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._max_circuits = max_circuits
        self._begin()

    def __len__(self) -> int:
        return len(self._circuits)

    def enter(self, provider: Provider, lane: Lane) -> Permit:
        """Let a request through. Raises ``CircuitOpen``."""
        if self._pid != os.getpid():
            # In a child, whose parent may have been forked while one of its threads held the lock.
            self._begin()
        with self._lock:
            circuit, now = self._circuit((provider, lane)), self._clock()
            ticket = circuit.enter(now)
            if ticket is None:
                raise CircuitOpen(circuit.wait(now))
        return Permit(self, circuit, ticket, f"{provider.name} {lane.route} {lane.model or ''}".rstrip())

    def leave(self, circuit: Circuit, ticket: int, verdict: Verdict, name: str) -> None:
        """Take how a request went; a change of state is logged."""
        with self._lock:
            now = self._clock()
            before = circuit.state(now)
            circuit.leave(ticket, verdict, now)
            after = circuit.state(now)
        if after != before:
            logger.warning("the circuit of %r was %s and is %s", name, before, after)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._circuits: OrderedDict[tuple[Provider, Lane], Circuit] = OrderedDict()
        self._pid = os.getpid()  # last: another thread that sees it takes the lock

    def _circuit(self, place: tuple[Provider, Lane]) -> Circuit:
        circuit = self._circuits.get(place)
        if circuit is None:
            circuit = self._circuits[place] = Circuit(self._settings)
            if len(self._circuits) > self._max_circuits:
                self._circuits.popitem(last=False)
        self._circuits.move_to_end(place)
        return circuit
