"""A watch is counted, bounded, kept alive, and ended by either side."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from flask_aibridge.errors import ServicesUnavailable
from tests.services.rpc_fakes import WAYS, CountingObserver, Way, in_memory, over_http

REMOTE = ["in-memory", "http"]

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture(params=REMOTE)
def remote(request: pytest.FixtureRequest) -> Iterator[Way]:
    with WAYS[request.param]() as way:
        yield way


def test_leaving_the_context_ends_the_servers_side(remote: Way, deadline: float) -> None:
    assert remote.server is not None
    with remote.services.provider_configurator.watch_providers() as versions:
        next(versions)
        assert remote.server.watches == 1
    assert remote.fake.versions.wait_for_watching(0, deadline)


def test_leaving_from_another_thread_wakes_the_one_that_waits(remote: Way, deadline: float) -> None:
    watch = remote.services.provider_configurator.watch_providers()
    versions = watch.__enter__()
    next(versions)
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.extend(versions))
    thread.start()
    watch.__exit__(None, None, None)
    thread.join(deadline)
    assert not thread.is_alive()
    assert seen == []
    assert remote.fake.versions.wait_for_watching(0, deadline)


def test_closing_the_client_ends_its_watches(remote: Way, deadline: float) -> None:
    with remote.services.provider_configurator.watch_providers() as versions:
        next(versions)
        remote.services.close()
        assert list(versions) == []
    assert remote.fake.versions.wait_for_watching(0, deadline)


def test_closing_the_server_ends_every_watch(remote: Way, deadline: float) -> None:
    assert remote.server is not None
    with (
        remote.services.provider_configurator.watch_providers() as first,
        remote.services.provider_configurator.watch_providers() as second,
    ):
        assert (next(first), next(second)) == (1, 1)
        assert remote.server.watches == 2
        remote.server.close()
        assert remote.server.watches == 0
        for versions in (first, second):
            with pytest.raises(ServicesUnavailable, match="ended the watch"):
                next(versions)
        with pytest.raises(ServicesUnavailable, match="closing"):
            remote.services.provider_configurator.watch_providers().__enter__()
    assert remote.fake.versions.wait_for_watching(0, deadline)


def test_there_is_a_bound(remote: Way) -> None:
    assert remote.server is not None
    remote.server._max_watches = 1
    with remote.services.provider_configurator.watch_providers() as versions:
        next(versions)
        with pytest.raises(ServicesUnavailable, match="All 1 watches") as caught:
            remote.services.provider_configurator.watch_providers().__enter__()
        assert caught.value.retry_after > 0


def test_changes_that_follow_closely_may_be_one(remote: Way) -> None:
    with remote.services.provider_configurator.watch_providers() as versions:
        next(versions)
        for _ in range(50):
            remote.fake.versions.bump()
        while (version := next(versions)) < 51:
            assert version > 1


def test_an_error_while_watching_comes_with_its_class(remote: Way) -> None:
    with remote.services.provider_configurator.watch_providers() as versions:
        next(versions)
        remote.fake.versions.bump(ServicesUnavailable("Redis is away.", 3.0))
        with pytest.raises(ServicesUnavailable, match="Redis is away") as caught:
            list(versions)
        assert caught.value.retry_after == 3.0


def test_a_watch_is_one_observed_call(deadline: float) -> None:
    for way_of in (in_memory, over_http):
        client_side, server_side = CountingObserver(), CountingObserver()
        with way_of(client_side) as way:
            assert way.server is not None
            way.server._observer = server_side
            with way.services.provider_configurator.watch_providers() as versions:
                next(versions)
                assert client_side.calls == []
                assert server_side.calls == []
            way.server.close()
            assert server_side.left.wait(deadline)
        expected = [("provider_configurator", "watch_providers", None)]
        assert client_side.calls == expected
        assert server_side.calls == expected


def test_iterating_outside_of_the_context_is_refused(remote: Way) -> None:
    with pytest.raises(RuntimeError, match="within its context"):
        next(iter(remote.services.provider_configurator.watch_providers()))  # type: ignore[call-overload]  # on purpose
