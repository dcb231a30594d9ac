"""``services.config_rows``: what is known serves while the store is away, and one read answers many."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from flask_aibridge.errors import ConfigError, ServicesUnavailable
from flask_aibridge.services.configuration.rows import CachedRows, shown
from flask_aibridge.services.memory.store import MemoryStore
from tests.services.switchable import SwitchableStore

LOGGER = "flask_aibridge.services"


def cached(store: Any, fallback: Any = None) -> CachedRows[tuple[tuple[str, str], ...]]:
    return CachedRows(store, "mcp", lambda rows: tuple(sorted(rows.items())), lambda: fallback)


@pytest.fixture
def store() -> SwitchableStore:
    return SwitchableStore()


def test_each_read_is_as_new_as_the_store(store: SwitchableStore) -> None:
    """Version and value together."""
    rows = cached(store)
    assert rows.read() == (0, ())
    version = store.put_config_row("mcp", "a", "1")
    assert rows.read() == (version, (("a", "1"),))


def test_rows_that_did_not_change_are_not_made_sense_of_again(store: SwitchableStore) -> None:
    """Opening sealed keys is work; the version is that of the read all the same."""
    calls: list[Mapping[str, str]] = []
    rows = CachedRows(store, "mcp", lambda found: calls.append(found) or "value", lambda: None)  # type: ignore[func-returns-value]

    store.put_config_row("mcp", "a", "1")
    rows.read()
    version = store.put_config_row("providers", "x", "of another table")

    assert rows.read() == (version, "value")
    assert len(calls) == 1


def test_the_last_known_goes_on_while_the_store_is_away(
    store: SwitchableStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so once, and once that it is back."""
    rows = cached(store)
    store.put_config_row("mcp", "a", "1")
    known = rows.read()
    caplog.clear()
    caplog.set_level(logging.INFO, LOGGER)

    store.away = True
    assert [rows.read() for _ in range(3)] == [known] * 3
    assert [record.message for record in caplog.records] == [
        "the mcp configuration cannot be read from the store (The store is away.): what was read last goes on in "
        "its place"
    ]

    store.away = False
    store.put_config_row("mcp", "a", "2")
    assert rows.read()[1] == (("a", "2"),)
    assert [record.message for record in caplog.records[1:]] == [
        "the store is back: its mcp configuration is in force again"
    ]


def test_what_was_never_read_has_a_fallback(store: SwitchableStore, caplog: pytest.LogCaptureFixture) -> None:
    """At version 0, so that whatever the store says later is another version."""
    store.away = True
    rows = cached(store, fallback=(("from", "config"),))

    assert rows.read() == (0, (("from", "config"),))
    assert "what the app's config says goes on in its place" in caplog.text


def test_without_a_fallback_the_store_is_needed(store: SwitchableStore) -> None:
    """The caller learns when to try again."""
    store.away = True
    with pytest.raises(ServicesUnavailable, match="never read from the store: The store is away") as caught:
        cached(store).read()
    assert caught.value.retry_after == 2.5


def test_no_store_at_all_is_one_that_is_away() -> None:
    """A host without a store has its config."""

    def none() -> MemoryStore:
        raise ConfigError("There is no store: set AIBRIDGE_REDIS_URL.")

    assert cached(none, fallback=()).read() == (0, ())


def test_reads_at_once_share_round_trips(store: SwitchableStore, deadline: float) -> None:
    """Nine that come while the first is under way are one more read together, which began after they came."""
    rows, entered, go_on = cached(store), threading.Event(), threading.Event()
    answers: list[Any] = []

    def block_the_first() -> None:
        if store.reads == 1:
            entered.set()
            assert go_on.wait(deadline)

    store.before_read = block_the_first
    first = threading.Thread(target=lambda: answers.append(rows.read()))
    first.start()
    assert entered.wait(deadline)
    others = [threading.Thread(target=lambda: answers.append(rows.read())) for _ in range(9)]
    asked = threading.Barrier(10)
    flight = rows._flight

    class Announcing:
        """The lock, which tells when somebody waits for it: they have asked by then."""

        def acquire(self, timeout: float) -> bool:
            asked.wait(deadline)
            return flight.acquire(timeout=timeout)

        def release(self) -> None:
            flight.release()

    rows._flight = Announcing()  # type: ignore[assignment]
    for thread in others:
        thread.start()
    asked.wait(deadline)
    version = store.put_config_row("mcp", "a", "1")
    go_on.set()
    for thread in (first, *others):
        thread.join(deadline)

    assert store.reads == 2
    assert len(answers) == 10
    assert answers[1:] == [(version, (("a", "1"),))] * 9


def test_failures_are_shared_too(store: SwitchableStore, deadline: float) -> None:
    """A store that needs its whole deadline to fail must not need it for each of those who wait."""
    store.away = True
    rows, errors = cached(store), []

    def read() -> None:
        try:
            rows.read()
        except ServicesUnavailable as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(deadline)
    assert len(errors) == 20
    assert len({id(error) for error in errors}) == 20


def test_a_read_that_never_ends_is_not_waited_for_for_ever(
    store: SwitchableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that has the lock has died."""
    monkeypatch.setattr("flask_aibridge.services.configuration.rows.FLIGHT_SECONDS", 0.01)
    rows = cached(store, fallback=())
    rows.read()
    assert rows._flight.acquire(timeout=1)

    assert rows.read() == (0, ())


def test_a_fork_during_a_read(store: SwitchableStore) -> None:
    """The child reads for itself: the thread that was reading is not there."""
    rows = cached(store)
    with rows._flight:
        child = os.fork()
        if child == 0:
            signal.alarm(4)  # less than a read would wait
            os._exit(rows.read() != (0, ()))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_store_that_lost_everything_is_prepared_again(store: SwitchableStore) -> None:
    """A version that goes back is the sign."""
    told: list[bool] = []
    rows = CachedRows(store, "mcp", len, lambda: None, lambda _store, *, lost: told.append(lost))
    store.put_config_row("mcp", "a", "1")
    assert rows.read() == (1, 1)

    store.store = MemoryStore()
    assert rows.read() == (0, 0)
    assert told == [False, False, True]


def test_a_long_name_is_cut_for_the_log() -> None:
    """And its line breaks are spelled out."""
    assert shown("a\nb") == "'a\\nb'"
    assert len(shown("x" * 1000)) < 100
