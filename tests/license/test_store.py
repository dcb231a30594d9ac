"""``license.store``: the store in memory does what a store does."""

from __future__ import annotations

import pytest

from flask_aibridge.license.store import LicenseStore, MemoryLicenseStore
from tests.license.store_contract import NOW, StoreContract


class TestMemory(StoreContract):
    @pytest.fixture
    def store(self) -> LicenseStore:
        return MemoryLicenseStore(clock=lambda: NOW)


def test_the_next_turn_comes() -> None:
    """When its time is there, and not a moment before."""
    now = [NOW]
    store = MemoryLicenseStore(clock=lambda: now[0])
    assert store.take_turn(60) == 0
    now[0] += 59
    assert store.take_turn(60) == 1
    now[0] += 1
    assert store.take_turn(60) == 0


def test_a_clock_turned_back_does_not_lock_a_turn() -> None:
    """Nobody waits longer than the turn is long."""
    now = [NOW]
    store = MemoryLicenseStore(clock=lambda: now[0])
    store.take_turn(60)
    now[0] -= 100_000
    assert store.take_turn(60) == 0


def test_two_installations_differ() -> None:
    """Each has an id of its own."""
    assert MemoryLicenseStore().deployment_id() != MemoryLicenseStore().deployment_id()
