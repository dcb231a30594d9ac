"""What the tests of the bridge share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_aibridge.bridge import Bridge
from flask_aibridge.config import ProviderSettings
from flask_aibridge.observability import InterceptionEnded
from flask_aibridge.testing import Served, StandInProvider, serve_stand_in


class RecordingHook:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[InterceptionEnded] = []

    def interception_ended(self, record: InterceptionEnded) -> None:
        self.records.append(record)

    @property
    def record(self) -> InterceptionEnded:
        (record,) = self.records
        return record


@pytest.fixture
def hook() -> RecordingHook:
    return RecordingHook()


@pytest.fixture
def stand_in() -> Iterator[Served[StandInProvider]]:
    with serve_stand_in(StandInProvider(answer=["Hel", "lo"], keys=["sk-host"])) as served:
        yield served


MakeBridge = Callable[..., Bridge]


@pytest.fixture
def make_bridge(hook: RecordingHook) -> Iterator[MakeBridge]:
    """Return a function that builds a bridge with the providers ``anthropic`` and ``openai`` at one base URL."""
    bridges: list[Bridge] = []

    def make(base_url: str, *, keys: tuple[str, ...] = ("sk-host",), **options: Any) -> Bridge:
        providers = [
            ProviderSettings("anthropic", "anthropic", base_url, keys),
            ProviderSettings("openai", "openai", f"{base_url}/v1", keys),
        ]
        options = {"api_keys": {"alice": "aib_1_secret"}, "hooks": [hook], **options}
        bridges.append(Bridge(providers, **options))
        return bridges[-1]

    yield make
    for bridge in bridges:
        bridge.close()


@pytest.fixture
def bridge(make_bridge: MakeBridge, stand_in: Served[StandInProvider]) -> Bridge:
    """A bridge in front of the stand-in."""
    return make_bridge(stand_in.base_url)
