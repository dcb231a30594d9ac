"""Worker threads and slots: started on demand, reused, never queued for, bounded by the callers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from urllib3 import Timeout
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError

from flask_aibridge.transport import WSGIPoolManager, workers
from flask_aibridge.transport.workers import Slots
from tests.transport.calls import DEADLINE, TEXT, URL, Scripted, call, eventually, run_script, wait_for

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


@pytest.fixture
def fresh_workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], set[threading.Thread]]]:
    """No worker is there yet; gives those that have come since. Idle ones go soon after the test."""
    before = set(threading.enumerate())
    monkeypatch.setattr(workers, "_workers", workers.Workers())
    yield lambda: set(threading.enumerate()) - before
    monkeypatch.setattr(workers, "IDLE_SECONDS", 0.05)


def test_nothing_starts_at_import_or_in_init() -> None:
    run_script("scenarios_process.py", "nothing_starts_before_the_first_call")


def test_workers_are_daemons_with_a_name_of_ours(fresh_workers: Callable[[], set[threading.Thread]]) -> None:
    assert fresh_workers() == set()
    threads: list[threading.Thread] = []
    call(Scripted(b"x", lambda: threads.append(threading.current_thread())))
    assert threads[0].daemon
    assert threads[0].name.startswith("aibridge-")
    assert fresh_workers() == set(threads)


def test_a_worker_is_used_again(fresh_workers: Callable[[], set[threading.Thread]]) -> None:
    idents: set[int] = set()
    script = Scripted(b"x", lambda: idents.add(threading.get_ident()))
    for _ in range(20):
        call(script)
    # The next call may come before the worker has lain down again, so a second one is there at times.
    assert len(idents) <= 3
    assert len(fresh_workers()) <= 3


def test_streams_at_once_have_a_worker_each(fresh_workers: Callable[[], set[threading.Thread]]) -> None:
    gate = threading.Event()
    idents: set[int] = set()
    script = Scripted(b"x", lambda: idents.add(threading.get_ident()), lambda: wait_for(gate), b"y")
    responses = [call(script, preload_content=False) for _ in range(20)]
    eventually(lambda: len(idents) == 20, "every app runs")
    gate.set()
    assert [response.read() for response in responses] == [b"xy"] * 20


def test_calls_nested_forty_deep_do_not_deadlock() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        depth = int(environ["PATH_INFO"][1:])
        inner = pool.request("GET", f"{URL}/{depth - 1}", preload_content=False) if depth else None
        start_response("200 OK", [TEXT])
        yield b"%d " % depth
        if inner is not None:
            yield from inner.stream()

    pool = WSGIPoolManager(app)
    numbers = pool.request("GET", f"{URL}/40", timeout=DEADLINE).data.split()
    assert [int(number) for number in numbers] == list(range(40, -1, -1))


def test_idle_workers_end(
    fresh_workers: Callable[[], set[threading.Thread]], monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    monkeypatch.setattr(workers, "IDLE_SECONDS", 0.05)
    gate = threading.Event()
    responses = [call(Scripted(b"x", lambda: wait_for(gate)), preload_content=False) for _ in range(5)]
    assert len(fresh_workers()) >= 5
    gate.set()
    for response in responses:
        response.read()
    eventually(lambda: not fresh_workers(), "the idle workers end")
    assert call(Scripted(b"again")).data == b"again"
    eventually(lambda: not fresh_workers(), "the idle workers end once more")


def test_idle_workers_can_be_ended_at_once(
    fresh_workers: Callable[[], set[threading.Thread]], monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    """The leader and its followers, whoever sleeps how; those at work are waited for. The next call starts others."""
    monkeypatch.setattr(workers, "IDLE_SECONDS", 600.0)
    gate = threading.Event()
    responses = [call(Scripted(b"x", lambda: wait_for(gate)), preload_content=False) for _ in range(5)]
    assert workers.running() == 5
    assert not workers.close(0.0), "they are at work"
    gate.set()
    for response in responses:
        response.read()
    assert workers.close(DEADLINE)
    assert not fresh_workers()
    assert workers.running() == 0
    assert call(Scripted(b"again")).data == b"again"
    eventually(lambda: bool(workers._workers._callable), "the next worker sleeps")
    assert workers.close(DEADLINE)
    assert not fresh_workers()


def test_calls_race_with_workers_that_are_about_to_end(
    fresh_workers: Callable[[], set[threading.Thread]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call comes just when its worker gives up waiting for it."""
    monkeypatch.setattr(workers, "IDLE_SECONDS", 0.002)
    pause = threading.Event()
    with ThreadPoolExecutor(4) as executor:

        def repeat(start: int) -> list[bytes]:
            answers = []
            for number in range(150):
                answers.append(call(Scripted(b"x"), timeout=DEADLINE).data)
                pause.wait(((start + number) % 5) / 1000)
            return answers

        results = list(executor.map(repeat, range(4)))
    assert results == [[b"x"] * 150] * 4


def test_a_burst_leaves_few_idle_workers(
    fresh_workers: Callable[[], set[threading.Thread]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "MAX_IDLE", 4)
    gate, ended = threading.Event(), threading.Semaphore(0)
    script = Scripted(b"x", lambda: wait_for(gate), on_close=ended.release)
    responses = [call(script, preload_content=False) for _ in range(30)]
    assert len(fresh_workers()) == 30
    gate.set()
    for response in responses:
        response.read()
        assert ended.acquire(timeout=DEADLINE)
    eventually(lambda: len(fresh_workers()) <= 5, "the surplus workers end; one leads and MAX_IDLE follow")


def test_where_no_thread_starts_nothing_was_called(
    fresh_workers: Callable[[], set[threading.Thread]], monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    def cannot_start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    script = Scripted(b"x")
    pool = WSGIPoolManager(script, max_concurrency=1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", cannot_start)
        for _ in range(3):
            with pytest.raises(NewConnectionError, match="can't start new thread"):
                pool.request("GET", URL, retries=False)
            with pytest.raises(MaxRetryError, match="can't start new thread"):
                pool.request("POST", URL, body=b"x", retries=1)
            with pytest.raises(NewConnectionError):
                pool.request("POST", URL, body=iter([b"x"]), retries=False)
    assert script.calls == []
    assert pool.request("GET", URL).data == b"x"
    monkeypatch.setattr(workers, "IDLE_SECONDS", 0.05)


class Held:
    """A pool of so many slots, all taken by streams that go on until :meth:`let_go`."""

    def __init__(self, limit: int, **options: Any) -> None:
        self.gate = threading.Event()
        self.script = Scripted(b"x", lambda: wait_for(self.gate), b"y")
        self.pool = WSGIPoolManager(self.script, max_concurrency=limit, **options)
        self.responses = [self.pool.request("GET", URL, preload_content=False) for _ in range(limit)]

    def refused(self) -> None:
        """One more call waits for its connect timeout in vain."""
        calls = len(self.script.calls)
        with pytest.raises(ConnectTimeoutError) as refusal:
            self.pool.request("GET", URL, timeout=Timeout(connect=0.05), retries=False)
        assert not isinstance(refusal.value, NewConnectionError)
        assert len(self.script.calls) == calls

    def let_go(self) -> None:
        self.gate.set()


def test_past_the_bound_a_caller_gets_a_connect_timeout() -> None:
    held = Held(2)
    held.refused()
    held.refused()
    held.let_go()
    assert [response.read() for response in held.responses] == [b"xy"] * 2
    assert held.pool.request("GET", URL).data == b"xy"


def test_past_the_bound_a_caller_waits_for_a_slot() -> None:
    held = Held(1)
    answers: list[bytes] = []
    caller = threading.Thread(
        target=lambda: answers.append(held.pool.request("GET", URL, timeout=DEADLINE).data)
    )
    caller.start()
    caller.join(0.05)
    assert len(held.script.calls) == 1
    held.let_go()
    caller.join(DEADLINE)
    assert answers == [b"xy"]


def test_a_slot_is_free_when_the_app_has_ended_not_when_the_caller_has_left() -> None:
    held = Held(1)
    held.responses[0].close()
    held.refused()
    held.let_go()
    held.script.assert_closed_once()
    assert held.pool.request("GET", URL, timeout=DEADLINE).data == b"xy"


def test_a_slot_is_free_as_soon_as_the_response_is_whole() -> None:
    """The next call never waits for the worker of the one before."""
    pool = WSGIPoolManager(Scripted(b"x"), max_concurrency=1)
    for _ in range(50):
        assert (
            pool.request("GET", URL, timeout=Timeout(connect=0.0001, read=DEADLINE), retries=False).data
            == b"x"
        )


def test_each_bound_is_its_managers_own_and_the_rest_share_the_process_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = Held(1)
    assert WSGIPoolManager(Scripted(b"other")).request("GET", URL).data == b"other"
    assert workers.DEFAULT_MAX_CONCURRENCY == 1000
    assert workers.process_slots.limit == 1000
    held.let_go()


@pytest.mark.parametrize("bound", [0, -1])
def test_a_bound_below_one_is_refused(bound: int) -> None:
    with pytest.raises(ValueError, match="max_concurrency"):
        WSGIPoolManager(Scripted(b"x"), max_concurrency=bound)


@pytest.mark.parametrize("bound", ["1", 1.5, True])
def test_a_bound_that_is_no_number_is_refused(bound: Any) -> None:
    with pytest.raises(TypeError, match="max_concurrency"):
        WSGIPoolManager(Scripted(b"x"), max_concurrency=bound)


def test_slots_are_handed_over_in_the_order_of_asking() -> None:
    slots, granted = Slots(1), []
    assert slots.take(0)
    for number in range(3):
        assert slots.want(lambda number=number: granted.append(number))  # type: ignore[misc]
    assert not slots.try_take()
    for number in range(3):
        slots.give_back()
        assert granted == list(range(number + 1))
        assert not slots.try_take()
    slots.give_back()
    assert slots.try_take()


def test_a_slot_that_is_no_longer_wanted_goes_to_the_next() -> None:
    slots, granted = Slots(1), []

    def first() -> None:
        granted.append("first")

    def second() -> None:
        granted.append("second")

    slots.take(0)
    assert slots.want(first)
    assert slots.want(second)
    assert slots.give_up(first) is True
    slots.give_back()
    assert granted == ["second"]
    assert slots.give_up(second) is False  # it has it


def test_slots_survive_callers_that_time_out_at_the_last_moment() -> None:
    """None is lost and none is made up, however timeouts and hand-overs race."""
    slots = Slots(3)
    running, most = [0], [0]
    lock = threading.Lock()

    def work(number: int) -> None:
        for turn in range(200):
            if slots.take(((number + turn) % 4) * 1e-5):
                with lock:
                    running[0] += 1
                    most[0] = max(most[0], running[0])
                with lock:
                    running[0] -= 1
                slots.give_back()

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(work, range(8)))
    assert most[0] <= 3
    assert slots.taken == 0
    assert all(slots.try_take() for _ in range(3))
    assert not slots.try_take()


@pytest.mark.parametrize("seconds", [1e12, float("inf")])
def test_a_wait_for_a_slot_may_be_longer_than_a_lock_can_count(seconds: float) -> None:
    slots = Slots(1)
    assert slots.try_take()
    timer = threading.Timer(0.05, slots.give_back)
    timer.start()
    assert slots.take(seconds)
    timer.join()
