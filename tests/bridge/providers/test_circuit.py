"""A circuit breaker, against a model of its own that is written down as plainly as can be."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flask_aibridge.bridge.providers.circuit import RETRY_HALF_OPEN, Circuit, Verdict
from flask_aibridge.config import CircuitBreaker

DEFAULTS = CircuitBreaker()


def passed(circuit: Circuit, now: float, verdict: Verdict) -> bool:
    """Send one request; whether it was let through."""
    ticket = circuit.enter(now)
    if ticket is not None:
        circuit.leave(ticket, verdict, now)
    return ticket is not None


def opened(now: float = 0.0, breaker: CircuitBreaker = DEFAULTS) -> Circuit:
    circuit = Circuit(breaker)
    for _ in range(breaker.failure_threshold):
        assert passed(circuit, now, "failure")
    return circuit


def test_it_opens_after_so_many_failures_in_a_row_and_recovers() -> None:
    """The whole cycle of the model."""
    circuit = Circuit(DEFAULTS)
    for _ in range(4):
        assert passed(circuit, 0.0, "failure")
    assert passed(circuit, 0.0, "success")
    for _ in range(5):
        assert circuit.state(1.0) == "closed"
        assert passed(circuit, 1.0, "failure")
    assert not passed(circuit, 30.9, "success")
    assert circuit.wait(30.0) == 1.0
    for _ in range(3):
        assert circuit.state(31.0) == "half_open"
        assert passed(circuit, 31.0, "success")
    assert circuit.state(31.0) == "closed"


def test_one_failure_opens_a_half_open_circuit_again() -> None:
    """For the whole time-out."""
    circuit = opened()
    assert passed(circuit, 30.0, "success")
    assert passed(circuit, 30.0, "failure")
    assert circuit.wait(31.0) == 29.0
    assert not passed(circuit, 59.9, "success")


def test_a_half_open_circuit_lets_only_so_many_through() -> None:
    """The rest wait for what becomes of them."""
    circuit = opened()
    tickets = [circuit.enter(30.0) for _ in range(4)]
    assert tickets[3] is None
    assert None not in tickets[:3]
    assert circuit.wait(30.0) == RETRY_HALF_OPEN


def test_a_request_without_a_verdict_makes_room_for_another() -> None:
    """Or three callers who hang up would keep it half open for ever."""
    circuit = opened()
    for _ in range(10):
        assert passed(circuit, 30.0, "unknown")
    for _ in range(3):
        assert passed(circuit, 30.0, "success")
    assert circuit.state(30.0) == "closed"


def test_failures_are_forgotten_after_the_interval() -> None:
    """Which begins with the first of them; zero is for ever."""
    for breaker, state in ((DEFAULTS, "closed"), (CircuitBreaker(interval=0), "open")):
        circuit = Circuit(breaker)
        for number in range(5):
            assert passed(circuit, number * 2.5, "failure")
        assert circuit.state(10.0) == state


def test_a_late_answer_counts_and_one_of_an_earlier_state_does_not() -> None:
    """Time-outs take longer than the interval; what was asked before it opened must not close it."""
    circuit = Circuit(DEFAULTS)
    tickets = [circuit.enter(0.0) for _ in range(6)]
    for ticket in tickets[:5]:
        assert ticket is not None
        circuit.leave(ticket, "failure", 600.0)
    assert circuit.state(600.0) == "open"
    assert circuit.state(630.0) == "half_open"
    assert tickets[5] is not None
    circuit.leave(tickets[5], "failure", 630.0)
    assert circuit.state(630.0) == "half_open"


class Machine(RuleBasedStateMachine):
    """Any sequence of requests, answers and waits; the model keeps the list of what has happened."""

    breaker = CircuitBreaker(failure_threshold=3, interval=10, timeout=30, max_requests=2)

    def __init__(self) -> None:
        super().__init__()
        self.circuit = Circuit(self.breaker)
        self.now = 0.0
        self.running: list[tuple[int, int]] = []  # ticket, era
        self.era = 0  # of the state, as the model counts them
        self.opened_at: float | None = None
        self.half_open = False
        self.failures: list[float] = []
        self.successes = 0

    def turn(self, *, opened_at: float | None = None, half_open: bool = False) -> None:
        self.era, self.opened_at, self.half_open = self.era + 1, opened_at, half_open
        self.failures, self.successes = [], 0

    @rule(seconds=st.sampled_from([0.5, 5.0, 10.0, 29.5, 30.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.opened_at is not None and self.now >= self.opened_at + 30:
            self.turn(half_open=True)
        if self.failures and self.now >= self.failures[0] + 10:
            self.failures = []

    @rule()
    def enter(self) -> None:
        mine = [ticket for ticket, era in self.running if era == self.era]
        may = self.opened_at is None and (not self.half_open or len(mine) + self.successes < 2)
        ticket = self.circuit.enter(self.now)
        assert (ticket is not None) == may
        if ticket is None:
            assert 0 < self.circuit.wait(self.now) <= 30
        else:
            self.running.append((ticket, self.era))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), verdict=st.sampled_from(["success", "failure", "unknown"]))
    def leave(self, data: st.DataObject, verdict: Verdict) -> None:
        ticket, era = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.circuit.leave(ticket, verdict, self.now)
        if era != self.era or verdict == "unknown":
            return
        if verdict == "success":
            self.failures, self.successes = [], self.successes + self.half_open
            if self.half_open and self.successes == 2:
                self.turn()
        else:
            self.failures.append(self.now)
            if self.half_open or len(self.failures) == 3:
                self.turn(opened_at=self.now)

    @invariant()
    def states_agree(self) -> None:
        expected = "open" if self.opened_at is not None else "half_open" if self.half_open else "closed"
        assert self.circuit.state(self.now) == expected


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("verdict", ["success", "failure", "unknown"])
def test_a_ticket_of_another_state_changes_nothing(verdict: Verdict) -> None:
    """Not the room that there is either."""
    circuit = Circuit(DEFAULTS)
    late = circuit.enter(0.0)
    assert late is not None
    for _ in range(5):
        assert passed(circuit, 0.0, "failure")
    tickets = [circuit.enter(30.0) for _ in range(3)]
    circuit.leave(late, verdict, 30.0)
    assert None not in tickets
    assert circuit.enter(30.0) is None
