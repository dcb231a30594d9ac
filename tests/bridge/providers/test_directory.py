"""The providers that the bridge serves now, kept in step with what the host says."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from flask_aibridge.bridge.providers.directory import REREAD_SECONDS, ProviderDirectory
from flask_aibridge.config import ProviderSettings
from flask_aibridge.errors import ServicesUnavailable
from flask_aibridge.services.interfaces import ProviderConfig, ProviderSet

ONE = ProviderSettings("one", "openai", "http://127.0.0.1:1/v1", ("k1",))
TWO = ProviderSettings("two", "anthropic", "http://127.0.0.1:2", ("k2",))


class Configurator:
    """Says what it is told to, and counts how often it is asked."""

    def __init__(self, version: int, *settings: ProviderSettings) -> None:
        self.reads = 0
        self.away = False
        self.offer(version, *settings)

    def offer(self, version: int, *settings: ProviderSettings, enabled: bool = True) -> None:
        self._offered = ProviderSet(tuple(ProviderConfig(one, enabled) for one in settings), version)

    def providers(self) -> ProviderSet:
        self.reads += 1
        if self.away:
            raise ServicesUnavailable("away")
        return self._offered

    def watch_providers(self) -> AbstractContextManager[Iterator[int]]:
        raise AssertionError("nobody watches here")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_providers_are_read_once_for_a_version(clock: Clock) -> None:
    """Null asks for what is known anyway."""
    configurator = Configurator(3, ONE)
    directory = ProviderDirectory(configurator, clock=clock)
    for version in (None, 3, 3, None):
        assert set(directory.at(version).providers) == {"one"}
    assert configurator.reads == 1


def test_another_version_is_read_for(clock: Clock) -> None:
    """Providers come, go, and are disabled."""
    configurator = Configurator(3, ONE)
    directory = ProviderDirectory(configurator, clock=clock)
    directory.at(3)
    configurator.offer(4, TWO, enabled=False)
    known = directory.at(4)
    assert (set(known.providers), known.disabled, known.version) == ({"two"}, frozenset({"two"}), 4)
    assert configurator.reads == 2


def test_a_configurator_that_never_tells_the_version_is_not_asked_by_each_request(clock: Clock) -> None:
    """One that has its providers from the config is at version 0, whatever else of the configuration changes."""
    configurator = Configurator(0, ONE)
    directory = ProviderDirectory(configurator, clock=clock)
    for _ in range(100):
        directory.at(7)
    assert configurator.reads == 1
    clock.now += REREAD_SECONDS
    for _ in range(100):
        directory.at(7)
    assert configurator.reads == 2


def test_a_store_that_is_back_is_noticed_though_the_version_did_not_change(clock: Clock) -> None:
    """While it was away the seed was told, at version 0."""
    configurator = Configurator(0, ONE)
    directory = ProviderDirectory(configurator, clock=clock)
    directory.at(7)
    configurator.offer(7, TWO)
    clock.now += REREAD_SECONDS
    assert set(directory.at(7).providers) == {"two"}


def test_the_last_known_go_on_where_nothing_can_be_read(clock: Clock) -> None:
    """But something must have been read once."""
    configurator = Configurator(3, ONE)
    configurator.away = True
    directory = ProviderDirectory(configurator, clock=clock)
    with pytest.raises(ServicesUnavailable):
        directory.at(None)
    configurator.away = False
    directory.at(3)
    configurator.away = True
    assert set(directory.at(4).providers) == {"one"}


def test_a_provider_that_did_not_change_stays_the_same_object(clock: Clock) -> None:
    """What it has learned of its keys is not forgotten because another one was changed."""
    configurator = Configurator(3, ONE, TWO)
    directory = ProviderDirectory(configurator, clock=clock)
    before = directory.at(3).providers
    configurator.offer(4, ONE, ProviderSettings("two", "anthropic", TWO.base_url, ("k3",)))
    after = directory.at(4).providers
    assert after["one"] is before["one"]
    assert after["two"] is not before["two"]


def test_one_that_cannot_work_is_left_out(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """And said in the log; the others serve."""
    configurator = Configurator(3, ONE, ProviderSettings("two", "nothing", TWO.base_url))
    assert set(ProviderDirectory(configurator, clock=clock).at(3).providers) == {"one"}
    assert "left out" in caplog.text


def test_a_fork_during_a_read(clock: Clock) -> None:
    """The child reads for itself: the thread that was reading is not there to let others read."""
    directory = ProviderDirectory(Configurator(3, ONE), clock=clock)
    with directory._reading:
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            os._exit(set(directory.at(None).providers) != {"one"})
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
