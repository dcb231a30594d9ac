"""``services.token_fetching``: a callback of the host's, asked at once for many, and never waited for too long."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Iterator

import pytest

from flask_aibridge.services.configuration.token_fetching import (
    MAX_THREADS,
    MAX_TOKEN,
    NO_ACCESS,
    TokenFetcher,
    fits_a_header,
)

SECRET = "tok-very-secret"


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Set after the test, so that callbacks which hang come to an end."""
    event = threading.Event()
    yield event
    event.set()


def test_all_are_fetched_at_once(deadline: float) -> None:
    """Each callback returns only when the others have been called."""
    together = threading.Barrier(8)

    def load(user: str, server_id: str) -> str:
        together.wait(deadline)
        return f"{user}-{server_id}"

    ids = [f"s{number}" for number in range(8)]
    tokens, errors = TokenFetcher(deadline).fetch(load, "alice", ids)

    assert tokens == {one: f"alice-{one}" for one in ids}
    assert errors == {}


def test_more_than_there_are_threads_for(deadline: float) -> None:
    """The next one is taken as soon as one is done."""
    ids = [f"s{number}" for number in range(MAX_THREADS * 3)]
    tokens, errors = TokenFetcher(deadline).fetch(lambda _user, one: one, "alice", ids)
    assert (tokens, errors) == ({one: one for one in ids}, {})


def test_one_that_hangs_costs_nobody_else(released: threading.Event) -> None:
    """It is answered for at the deadline; what it says later is not heard."""

    def load(_user: str, server_id: str) -> str:
        if server_id == "slow":
            released.wait()
        return server_id

    fetcher = TokenFetcher(0.2)
    tokens, errors = fetcher.fetch(load, "alice", ["a", "slow", "b"])

    assert tokens == {"a": "a", "b": "b"}
    assert errors == {"slow": "the token could not be fetched: there was no answer within 0.2 seconds"}


def test_threads_are_bounded_across_batches(released: threading.Event, deadline: float) -> None:
    """Callbacks that hang take the threads there are and no more; who finds none is answered at the deadline."""
    running, most = [0], [0]
    lock = threading.Lock()

    def load(_user: str, _server_id: str) -> str:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        released.wait()
        with lock:
            running[0] -= 1
        return "x"

    fetcher = TokenFetcher(0.1)
    for _ in range(3):
        _, errors = fetcher.fetch(load, "alice", [f"s{number}" for number in range(MAX_THREADS)])
        assert len(errors) == MAX_THREADS
    assert most[0] == MAX_THREADS

    released.set()
    tokens, _ = _patient(fetcher, deadline).fetch(lambda _user, one: one, "alice", ["a"])
    assert tokens == {"a": "a"}


def _patient(fetcher: TokenFetcher, seconds: float) -> TokenFetcher:
    fetcher._seconds = seconds
    return fetcher


@pytest.mark.usefixtures("no_leaks")
def test_threads_end_with_their_batch(deadline: float) -> None:
    """There is no pool that idles, and nothing that a fork could lose."""
    TokenFetcher(deadline).fetch(lambda _user, one: one, "alice", ["a", "b", "c"])


def test_a_failure_is_told_without_its_message(caplog: pytest.LogCaptureFixture, deadline: float) -> None:
    """The message may hold what the token was asked for with; the log has where it failed."""

    def load(_user: str, server_id: str) -> str:
        if server_id == "exit":
            raise SystemExit(SECRET)
        if server_id == "bad":
            raise RuntimeError(SECRET)
        return "fine"

    tokens, errors = TokenFetcher(deadline).fetch(load, "alice", ["bad", "exit", "good"])

    assert tokens == {"good": "fine"}
    assert errors == {
        "bad": "the token could not be fetched: the application's callback failed with RuntimeError",
        "exit": "the token could not be fetched: the application's callback failed with SystemExit",
    }
    assert "in load" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("token", ["", " ", "a b", "é", "x\r\nX: y", b"token", 1, "x" * (MAX_TOKEN + 1)])
def test_what_is_no_token_is_told(token: object, deadline: float) -> None:
    """It could not be sent, or would be sent as something else."""
    assert not fits_a_header(token)
    tokens, errors = TokenFetcher(deadline).fetch(lambda *_: token, "alice", ["a"])  # type: ignore[arg-type]
    assert tokens == {}
    assert errors == {
        "a": "the token could not be fetched: what the application's callback returned is no bearer token"
    }


def test_none_is_no_token(deadline: float) -> None:
    """In the model's words."""
    assert TokenFetcher(deadline).fetch(lambda *_: None, "alice", ["a"]) == ({}, {"a": NO_ACCESS})
    assert fits_a_header("x" * MAX_TOKEN)


def test_the_callers_context_is_there(deadline: float) -> None:
    """Tracing, and whatever else a host keeps in context variables; a change in it stays in it."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    variable.set("the caller's")

    def load(_user: str, _server_id: str) -> str:
        found = variable.get()
        variable.set("changed")
        return found.replace(" ", "-")

    tokens, _ = TokenFetcher(deadline).fetch(load, "alice", ["a"])
    assert tokens == {"a": "the-caller's"}
    assert variable.get() == "the caller's"


def test_no_thread_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no more of them; the place that was taken for it is given back."""

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    fetcher = TokenFetcher(0.01)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        for _ in range(MAX_THREADS + 1):
            tokens, errors = fetcher.fetch(lambda *_: "x", "alice", ["a"])
            assert (tokens, list(errors)) == ({}, ["a"])
    assert _patient(fetcher, 20).fetch(lambda *_: "x", "alice", ["a"])[0] == {"a": "x"}


def test_nothing_secret_is_logged(caplog: pytest.LogCaptureFixture, deadline: float) -> None:
    """At its most talkative."""
    caplog.set_level(logging.DEBUG)
    TokenFetcher(deadline).fetch(lambda *_: SECRET, "alice", ["a"])
    assert SECRET not in caplog.text
