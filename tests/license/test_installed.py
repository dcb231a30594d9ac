"""``license.installed``: a store is read when it has changed, and not otherwise."""

from __future__ import annotations

import threading

import pytest

from flask_aibridge.errors import ConfigError
from flask_aibridge.license.installed import Installed
from flask_aibridge.license.store import MemoryLicenseStore
from tests.license.signed import NOW, Installation


@pytest.fixture
def installation() -> Installation:
    return Installation()


def installed(installation: Installation, *, exists: bool = True) -> Installed:
    return Installed(installation.store, lambda: exists, installation.clock)


def test_only_the_version_is_asked_for(installation: Installation) -> None:
    """While nothing changes: one call a look."""
    found = installed(installation)
    assert found.look()
    asked = installation.store.asked
    assert [found.look(), found.look()] == [False, False]
    assert installation.store.asked == asked + 2
    installation.store.install("a", "x.y.z", NOW)
    assert found.look()
    assert [each.id for each in found.kept.licenses] == ["a"]


def test_nothing_is_read_that_cannot_be_there(installation: Installation) -> None:
    """Nor is the store opened."""
    assert not installed(installation, exists=False).look()
    assert installation.store.opened == 0


def test_who_changes_something_has_it_read(installation: Installation) -> None:
    """Whatever the version."""
    found = installed(installation)
    found.look()
    found.forget_version()
    assert found.look()


def test_going_away_is_news_once(installation: Installation) -> None:
    """And coming back is news again."""
    found = installed(installation)
    found.look()
    installation.store.away = True
    assert [found.look(), found.look()] == [True, False]
    assert found.away_since == NOW
    assert [each.code for each in found.warnings()] == ["license_store_away"]
    installation.store.away = False
    assert [found.look(), found.look()] == [True, False]
    assert list(found.warnings()) == []


def test_it_is_unknown_until_it_has_been_reached(installation: Installation) -> None:
    """Not before it was asked, and never again afterwards."""
    found = installed(installation)
    assert not found.is_unknown
    installation.store.away = True
    found.look()
    assert found.is_unknown
    installation.store.away = False
    found.look()
    installation.store.away = True
    found.look()
    assert not found.is_unknown


def test_a_read_that_fails_half_way_is_made_again(installation: Installation) -> None:
    """What was known before stays known meanwhile."""

    class Failing(MemoryLicenseStore):
        fails = True

        def deployment_id(self) -> str:
            if self.fails:
                raise OSError
            return super().deployment_id()

    store = Failing(installation.clock)
    installation.store.store = store
    found = installed(installation)
    installation.store.install("a", "x.y.z", NOW)
    found.look()
    assert not found.kept.licenses
    store.fails = False
    found.look()
    assert [each.id for each in found.kept.licenses] == ["a"]


def test_without_a_store_there_is_nothing_to_open() -> None:
    """And looking finds nothing new."""
    found = Installed(None, lambda: True, lambda: NOW)
    assert not found.look()
    with pytest.raises(ConfigError, match="configuration"):
        found.open()


def test_after_a_fork_nobody_else_is_looking(installation: Installation) -> None:
    """What was locked in the parent is not in the child."""
    found = installed(installation)
    found._looking.acquire()
    found.reset()
    done = threading.Thread(target=found.look, daemon=True)
    done.start()
    done.join(20)
    assert not done.is_alive()


def test_without_a_store_the_process_remembers_the_time(installation: Installation) -> None:
    """So that a clock turned back revives nothing as long as it runs."""
    found = installed(installation, exists=False)
    found.look()
    installation.clock.now += 100
    found.look()
    installation.clock.now -= 1_000
    found.look()
    assert found.highest == NOW + 100
