"""What every store of licences does. A subclass gives the fixture ``store``."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable

import pytest

from flask_aibridge.license.store import MAX_INSTALLED, TIME_TOLERANCE, LicenseStore, StoredLicense

NOW = 1_800_000_000.0
"""Where the store's own clock stands, for a store that has one of its own to set."""


class StoreContract:
    """Facts about any store."""

    @pytest.fixture
    def now(self) -> float:
        """What the store's own clock says, about."""
        return NOW

    def test_it_begins_empty(self, store: LicenseStore) -> None:
        """With a version of its own for that."""
        assert store.version() == 0
        assert store.installed() == ()

    def test_what_is_installed_is_kept_as_it_came(self, store: LicenseStore) -> None:
        """In the order of its coming, whatever the ids."""
        store.install("b", "token-b", 1000.25)
        store.install("a", "token-a", 2000.5)
        assert store.installed() == (
            StoredLicense("b", "token-b", 1000.25),
            StoredLicense("a", "token-a", 2000.5),
        )

    def test_the_same_id_is_replaced(self, store: LicenseStore) -> None:
        """There is one of it."""
        store.install("a", "old", 1.0)
        store.install("a", "new", 2.0)
        assert store.installed() == (StoredLicense("a", "new", 2.0),)

    def test_every_change_has_a_version_of_its_own(self, store: LicenseStore) -> None:
        """Installing, replacing, removing and a refresh; each is what is read next."""
        changes: list[Callable[[], int | None]] = [
            lambda: store.install("a", "token", 1.0),
            lambda: store.install("a", "token", 1.0),
            lambda: store.remove("a"),
            store.bump,
        ]
        seen = [store.version()]
        for change in changes:
            version = change()
            assert version == store.version()
            seen.append(version)
        assert len(set(seen)) == len(seen)
        assert seen == sorted(seen)

    def test_what_is_removed_is_gone(self, store: LicenseStore) -> None:
        """The others stay."""
        store.install("a", "token", 1.0)
        store.install("b", "token", 2.0)
        assert store.remove("a") is not None
        assert [each.id for each in store.installed()] == ["b"]

    def test_what_is_not_there_cannot_be_removed(self, store: LicenseStore) -> None:
        """And that is no change."""
        store.install("a", "token", 1.0)
        version = store.version()
        assert store.remove("b") is None
        assert store.version() == version

    def test_there_is_a_bound(self, store: LicenseStore) -> None:
        """One more is not taken and changes nothing; one that is there can be replaced, and room be made."""
        for number in range(MAX_INSTALLED):
            assert store.install(f"id-{number}", "token", 1.0) is not None
        version = store.version()
        assert store.install("one-more", "token", 1.0) is None
        assert store.version() == version
        assert store.install("id-7", "new", 1.0) is not None
        assert store.remove("id-8") is not None
        assert store.install("one-more", "token", 1.0) is not None
        assert len(store.installed()) == MAX_INSTALLED

    def test_the_deployment_id_is_made_once(self, store: LicenseStore) -> None:
        """A UUID, the same for everybody, also for those who ask first at the same time."""
        found: list[str] = []
        askers = [
            threading.Thread(target=lambda: found.append(store.deployment_id()), daemon=True)
            for _ in range(8)
        ]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join(20)
        assert len(found) == 8
        assert set(found) == {store.deployment_id()}
        assert str(uuid.UUID(found[0])) == found[0]

    def test_the_highest_time_never_falls(self, store: LicenseStore, now: float) -> None:
        """To the second."""
        assert store.highest_time(now) == pytest.approx(now, abs=1)
        assert store.highest_time(now - 1000) == pytest.approx(now, abs=1)
        assert store.highest_time(now + 1000) == pytest.approx(now + 1000, abs=1)
        assert store.highest_time(0) == pytest.approx(now + 1000, abs=1)

    def test_a_clock_that_is_years_ahead_is_not_believed(self, store: LicenseStore, now: float) -> None:
        """One host with a wrong clock does not end the licences of all others for good."""
        assert store.highest_time(now + 10 * 365 * 86400) <= now + TIME_TOLERANCE + 60

    def test_a_turn_is_given_once(self, store: LicenseStore) -> None:
        """Who comes later is told how long it is until the next."""
        assert store.take_turn(60) == 0
        assert 0 < store.take_turn(60) <= 60

    def test_its_repr_shows_no_licence(self, store: LicenseStore) -> None:
        """Nor does that of one."""
        store.install("a", "secret-text", 1.0)
        assert "secret-text" not in repr(store) + repr(store.installed())
