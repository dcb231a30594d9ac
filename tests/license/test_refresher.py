"""``license.refresher``: a thread that starts with the first request and ends with its owner."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from flask_aibridge.license.refresher import Refresher

pytestmark = pytest.mark.usefixtures("no_leaks")


class Owner:
    """Counts the looks; the first ones wait until they may go on."""

    def __init__(self, *, held: bool = False) -> None:
        self.looks = 0
        self.second_look = threading.Event()
        self.may_look = threading.Event()
        if not held:
            self.may_look.set()
        self.refresher = Refresher(self.look)

    def look(self) -> None:
        assert self.may_look.wait(20)
        self.looks += 1
        if self.looks > 1:
            self.second_look.set()


def test_it_looks_again_and_again(deadline: float) -> None:
    """After the first look, with nobody asking."""
    owner = Owner()
    with closing(owner.refresher):
        assert not owner.refresher.is_running
        owner.refresher.settle(lambda: False)
        assert owner.looks >= 1
        assert owner.refresher.is_settled
        assert owner.second_look.wait(deadline)


def test_what_suffices_does_not_wait() -> None:
    """But it is not settled before the first look, or another feature would be refused for want of it."""
    owner = Owner(held=True)
    with closing(owner.refresher):
        owner.refresher.settle(lambda: True)
        assert owner.refresher.is_running
        assert not owner.refresher.is_settled
        owner.may_look.set()


def test_nobody_waits_long() -> None:
    """A store that hangs holds the first requests up for a second, and then none."""
    owner = Owner(held=True)
    with closing(owner.refresher):
        owner.refresher.settle(lambda: False)
        assert owner.looks == 0
        assert owner.refresher.is_settled
        owner.may_look.set()


def test_there_is_one_thread(deadline: float) -> None:
    """However many requests come first."""
    owner = Owner(held=True)
    with closing(owner.refresher):
        before = threading.active_count()
        together = threading.Barrier(8)

        def request() -> None:
            together.wait(deadline)
            owner.refresher.settle(lambda: True)

        requests = [threading.Thread(target=request, daemon=True) for _ in range(8)]
        for each in requests:
            each.start()
        for each in requests:
            each.join(deadline)
        assert threading.active_count() == before + 1
        owner.may_look.set()


def test_where_nothing_is_to_be_looked_for_none_starts() -> None:
    """It is settled from the start."""
    owner = Owner()
    refresher = Refresher(owner.look, needed=False)
    assert refresher.is_settled
    refresher.close()
    assert refresher.is_settled


def test_where_no_thread_can_be_started_requests_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without waiting; it is said once and tried again."""

    def refuses(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    owner = Owner()
    with monkeypatch.context() as patch, closing(owner.refresher):
        patch.setattr(threading.Thread, "start", refuses)
        owner.refresher.settle(lambda: False)
        owner.refresher.settle(lambda: False)
        assert not owner.refresher.is_running
        assert len([record for record in caplog.records if "cannot be started" in record.getMessage()]) == 1
    with closing(owner.refresher):
        owner.refresher.settle(lambda: False)
        assert owner.looks >= 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_was_killed_is_replaced(deadline: float) -> None:
    """As a greenlet may be."""
    killed = threading.Event()

    class Killed(Owner):
        def look(self) -> None:
            if not killed.is_set():
                killed.set()
                raise SystemExit
            super().look()

    owner = Killed()
    with closing(owner.refresher):
        owner.refresher.settle(lambda: True)
        assert killed.wait(deadline)
        for _ in range(1000):
            if owner.looks:
                break
            owner.refresher.settle(lambda: False)
        assert owner.looks >= 1


def test_its_repr_tells_whether_it_runs() -> None:
    """And nothing else."""
    owner = Owner()
    with closing(owner.refresher):
        assert repr(owner.refresher) == "<Refresher not running>"
        owner.refresher.settle(lambda: False)
        assert repr(owner.refresher) == "<Refresher running>"
