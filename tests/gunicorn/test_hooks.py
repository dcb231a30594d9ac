"""The hooks by themselves, with a worker that is none of gunicorn's."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import flask_aibridge.gunicorn
from flask_aibridge.gunicorn import advice, prometheus, switching
from flask_aibridge.gunicorn.stopping import QUITTING, Stopping
from tests.services.programs import environment

SIGNALS = (signal.SIGTERM, *QUITTING)


class State:
    """What a worker asks of an app."""

    def __init__(self) -> None:
        self.draining = False
        self.called: list[str] = []
        self.drained = threading.Event()
        self.go_on = threading.Event()

    def drain(self, timeout: float) -> bool:
        self.called.append(f"drain {timeout:.0f}")
        self.drained.set()
        assert timeout == 0 or self.go_on.wait(30)
        return True

    def close(self, timeout: float) -> None:
        self.called.append("close")
        raise RuntimeError("what one cannot do does not keep others from it")


class Worker:
    """gunicorn's, as far as hooks see it."""

    def __init__(self, graceful_timeout: float = 30) -> None:
        self.alive = True
        self.cfg = SimpleNamespace(graceful_timeout=graceful_timeout)
        self.heard = threading.Event()
        self.tmp = SimpleNamespace(notify=self.heard.set)
        self.has_run = False

    def run(self) -> None:
        self.has_run = True


@pytest.fixture
def kept_signals() -> Iterator[None]:
    """The handlers that this process had."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def stopping(worker: Worker, *states: State) -> Stopping:
    return Stopping(worker, lambda: states)  # type: ignore[arg-type, return-value]


@pytest.mark.usefixtures("kept_signals")
def test_term_begins_to_drain_at_once() -> None:
    """After gunicorn's own handler, and in every app; the arbiter hears of the worker meanwhile."""
    worker, state = Worker(), State()

    def gunicorns(number: int, frame: object) -> None:
        worker.alive = False

    signal.signal(signal.SIGTERM, gunicorns)
    found = stopping(worker, state)
    found.watch()
    signal.raise_signal(signal.SIGTERM)
    assert state.drained.wait(30)
    assert state.draining
    assert worker.heard.wait(30)
    state.go_on.set()
    worker.run()
    assert worker.has_run
    found.finish()
    assert state.called == ["drain 25", "close"]


@pytest.mark.usefixtures("kept_signals")
def test_a_worker_that_stops_by_itself_drains_too() -> None:
    """max_requests: there is no signal, so it is looked for."""
    worker, state = Worker(graceful_timeout=4), State()
    state.go_on.set()
    found = stopping(worker, state)
    found.watch()
    worker.alive = False
    assert state.drained.wait(30)
    found.finish()
    assert state.called == ["drain 2", "close"], "of a short time, half is for the streams"


@pytest.mark.usefixtures("kept_signals")
def test_a_loop_that_ends_is_held_until_calls_in_process_have_ended() -> None:
    worker, state = Worker(), State()
    found = stopping(worker, state)
    found.watch()
    running = threading.Thread(target=worker.run)
    running.start()
    assert state.drained.wait(30)
    assert running.is_alive()
    state.go_on.set()
    running.join(30)
    assert not running.is_alive()
    found.finish()


def test_a_worker_that_is_to_end_at_once_ends_although_threads_hold_it() -> None:
    """The streams end with an error, the records are stored, and the process is gone soon."""
    script = """
import signal, sys, threading, time
from tests.gunicorn.test_hooks import State, Worker, stopping
state = State()
signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
found = stopping(Worker(), state)
found.watch()
threading.Thread(target=time.sleep, args=(600,)).start()
try:
    signal.raise_signal(signal.SIGINT)
finally:
    found.end_now(30)
    print(state.called, flush=True)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "['drain 0', 'close']\n")


def test_gunicorn_takes_the_hooks_and_nothing_else_of_the_module() -> None:
    """No other name of it is one of gunicorn's settings."""
    config = pytest.importorskip("gunicorn.config").Config()
    for name in flask_aibridge.gunicorn.__all__:
        config.set(name, getattr(flask_aibridge.gunicorn, name))
    names = set(vars(flask_aibridge.gunicorn)) & set(config.settings)
    assert names == set(flask_aibridge.gunicorn.__all__)


def test_hooks_of_an_arbiter_and_of_a_process_without_a_worker_do_nothing() -> None:
    """gunicorn calls worker_exit in the arbiter too, for a worker that has gone."""
    worker: Any = SimpleNamespace(pid=os.getpid())
    flask_aibridge.gunicorn.worker_exit(None, worker)
    flask_aibridge.gunicorn.worker_int(worker)
    flask_aibridge.gunicorn.worker_abort(worker)


@pytest.mark.parametrize(
    ("kind", "timeout", "grace", "warned"),
    [
        ("gthread", 30, 620, []),
        ("gthread", 0, 620, []),
        ("gthread", 30, 30, ["graceful_timeout = 30"]),
        ("gevent", 5, 620, ["timeout = 5"]),
        ("sync", 30, 620, ["timeout = 30"]),
    ],
)
def test_settings_that_cut_streams_are_warned_of(
    kind: str, timeout: int, grace: int, warned: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    cfg = SimpleNamespace(worker_class_str=kind, timeout=timeout, graceful_timeout=grace)
    advice.warn(cfg, logging.getLogger("test"))
    assert len(caplog.messages) == len(warned)
    assert all(text in message for text, message in zip(warned, caplog.messages, strict=True))


class TestMetrics:
    @pytest.fixture(autouse=True)
    def clean(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.delenv(prometheus.VARIABLE, raising=False)
        monkeypatch.setitem(sys.modules, "gunicorn.app.base", sys)
        yield
        prometheus.remove_directory()
        os.environ.pop(prometheus.VARIABLE, None)

    def test_workers_share_a_directory(self) -> None:
        """A dead worker's own gauges leave it, what it has counted stays; it is removed at the end."""
        pytest.importorskip("prometheus_client")
        prometheus.share_directory()
        folder = Path(os.environ[prometheus.VARIABLE])
        prometheus.give_to_workers(SimpleNamespace(uid=os.geteuid(), gid=os.getegid()))
        for name in ("gauge_livesum_7.db", "gauge_livesum_8.db", "counter_7.db"):
            (folder / name).touch()
        prometheus.forget(7)
        assert {each.name for each in folder.iterdir()} == {"gauge_livesum_8.db", "counter_7.db"}
        prometheus.remove_directory()
        assert not folder.exists()

    def test_one_that_the_operator_named_is_left_alone(self, tmp_path: Path) -> None:
        os.environ[prometheus.VARIABLE] = str(tmp_path)
        prometheus.share_directory()
        prometheus.remove_directory()
        assert os.environ[prometheus.VARIABLE] == str(tmp_path)
        assert tmp_path.exists()

    @pytest.mark.parametrize("missing", ["library", "gunicorn"])
    def test_without_the_library_or_gunicorn_there_is_none(
        self, missing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if missing == "gunicorn":
            monkeypatch.delitem(sys.modules, "gunicorn.app.base")
        monkeypatch.setattr(prometheus, "find_spec", lambda name: None if missing == "library" else sys)
        prometheus.share_directory()
        assert prometheus.VARIABLE not in os.environ
        prometheus.forget(7)


@pytest.mark.parametrize(
    ("worker_class", "threads", "before", "after"),
    [
        ("gthread", 1, 0.005, 0.005),
        ("gthread", 50, 0.005, 0.005),
        ("gthread", 200, 0.005, 0.02),
        ("gthread", 100_000, 0.005, 0.1),
        ("gthread", 200, 0.03, 0.03),
        ("gevent", 200, 0.005, 0.005),
        ("sync", 1, 0.005, 0.005),
    ],
)
def test_threads_demand_the_interpreter_less_often_where_there_are_many(
    worker_class: str, threads: int, before: float, after: float
) -> None:
    """Up to a bound; never more often than the host wants; and nothing of it for workers without threads."""
    kept = sys.getswitchinterval()
    try:
        sys.setswitchinterval(before)
        switching.space_out(SimpleNamespace(worker_class_str=worker_class, threads=threads))
        assert sys.getswitchinterval() == pytest.approx(after)
    finally:
        sys.setswitchinterval(kept)
