"""The breaker lets calls through while the server answers, one at a time while it does not."""

from __future__ import annotations

import pytest

from flask_aibridge.services.redis.breaker import FAILURES_TO_OPEN, PROBE_SECONDS, Breaker


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock)


def test_failures_in_a_row_open_it(breaker: Breaker) -> None:
    """The last of them is the news."""
    news = [breaker.failed() for _ in range(FAILURES_TO_OPEN)]
    assert news == [False] * (FAILURES_TO_OPEN - 1) + [True]
    assert breaker.enter() == "refused"


def test_a_success_in_between_starts_the_count_again(breaker: Breaker) -> None:
    """A lost connection now and then is no outage."""
    for _ in range(3 * FAILURES_TO_OPEN):
        assert not breaker.failed()
        assert not breaker.succeeded()
    assert breaker.enter() == "call"


def test_a_server_that_cannot_be_reached_opens_it_at_once(breaker: Breaker) -> None:
    """There is nothing to wait for."""
    assert breaker.failed(at_once=True)
    assert breaker.enter() == "refused"


def test_one_caller_at_a_time_sees_whether_it_is_back(breaker: Breaker, clock: Clock) -> None:
    """After a wait, and again after as long when that one fails."""
    breaker.failed(at_once=True)
    for _ in range(3):
        clock.now += PROBE_SECONDS
        assert [breaker.enter(), breaker.enter()] == ["probe", "refused"]
        assert not breaker.failed(), "that it is still away is no news"
    clock.now += PROBE_SECONDS
    assert breaker.enter() == "probe"
    assert breaker.succeeded()
    assert [breaker.enter(), breaker.enter()] == ["call", "call"]


def test_a_prober_that_never_reports_does_not_hold_it_up(breaker: Breaker, clock: Clock) -> None:
    """Another one gets its turn."""
    breaker.failed(at_once=True)
    for _ in range(2):
        clock.now += PROBE_SECONDS
        assert breaker.enter() == "probe"


def test_it_knows_since_when_all_is_well(breaker: Breaker, clock: Clock) -> None:
    """From the first success after the last failure."""
    assert breaker.healthy_since is None
    breaker.succeeded()
    clock.now += 5
    breaker.succeeded()
    assert breaker.healthy_since == 100
    breaker.failed()
    assert breaker.healthy_since is None
    breaker.succeeded()
    assert breaker.healthy_since == 105
