"""Every store keeps the one contract: in memory, on Valkey, on Redis, on a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from flask_aibridge.services.memory.store import MemoryStore
from flask_aibridge.services.storage import Store
from tests.services.contract import StoreContract
from tests.services.contract_records import MakeStore
from tests.services.contract_stores import redis_store

KINDS = ("memory", "valkey", "redis", "cluster")


@pytest.fixture(params=KINDS)
def make_store(request: pytest.FixtureRequest) -> Iterator[MakeStore]:
    """Makes stores of each kind in turn, and closes them after the test."""
    with ExitStack() as stack:

        def make(**options: Any) -> Store:
            store = MemoryStore(**options) if request.param == "memory" else _redis_store(request, **options)
            stack.callback(store.close)
            return store

        yield make


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    """An empty store of each kind in turn."""
    return make_store()


def _redis_store(request: pytest.FixtureRequest, **options: Any) -> Store:
    server = request.getfixturevalue("server_of_kind")(request.param)
    server.flush()
    return redis_store(server.url, request.getfixturevalue("redis_prefix"), **options)


class TestStore(StoreContract):
    """All of it."""
