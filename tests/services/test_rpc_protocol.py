"""What both sides agree on, without either."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.errors import (
    InvalidRecord,
    NotRecorded,
    ProtocolMismatch,
    ServiceError,
    ServicesUnavailable,
    Unauthorized,
)
from flask_aibridge.services import interfaces
from flask_aibridge.services.rpc.methods import METHODS
from flask_aibridge.services.rpc.protocol import (
    CALLS,
    MAX_RETRY_AFTER,
    VERSION,
    batches,
    check_versions,
    error_document,
    error_from,
    parse_timeout,
    parse_version,
    timeout_text,
    version_text,
)
from flask_aibridge.services.schemas.metadata import compact
from tests.services.messages import json_values

PROTOCOLS = {
    "recorder": interfaces.Recorder,
    "authorizer": interfaces.Authorizer,
    "mcp_configurator": interfaces.MCPConfigurator,
    "provider_configurator": interfaces.ProviderConfigurator,
}


def test_there_is_a_call_for_every_method_of_the_protocols() -> None:
    """And a method of the server for every call but the watch."""
    methods = {
        f"{service}.{name}"
        for service, protocol in PROTOCOLS.items()
        for name in vars(protocol)
        if not name.startswith("_")
    }
    assert set(CALLS) == methods | {"services.admit"}
    assert set(METHODS) == set(CALLS) - {"provider_configurator.watch_providers"}


@pytest.mark.parametrize(
    ("client", "server", "fits"),
    [
        ((1, 0), (1, 0), True),
        ((1, 0), (1, 7), True),
        ((1, 7), (1, 7), True),
        ((1, 8), (1, 7), False),
        ((2, 0), (1, 9), False),
        ((1, 9), (2, 0), False),
        (None, (1, 0), False),
        ((1, 0), None, False),
        (None, None, False),
    ],
)
def test_which_versions_fit(
    client: tuple[int, int] | None, server: tuple[int, int] | None, fits: bool
) -> None:
    """Majors equal, minor not newer than the server's."""
    if fits:
        check_versions(client, server)
    else:
        with pytest.raises(ProtocolMismatch, match="RPC"):
            check_versions(client, server)


@given(st.tuples(st.integers(0, 9999), st.integers(0, 9999)))
def test_a_version_comes_back(version: tuple[int, int]) -> None:
    """As it was sent."""
    assert parse_version(version_text(version)) == version


@given(st.text())
def test_any_text_is_a_version_or_none(text: str) -> None:
    """Never an error."""
    version = parse_version(text)
    assert version is None or check_versions(version, version) is None  # type: ignore[func-returns-value]


def test_the_version_of_this_release() -> None:
    """It is part of the contract with other releases: change it on purpose."""
    assert VERSION == (1, 0)


@given(st.floats(0, 3600))
def test_a_timeout_comes_back(seconds: float) -> None:
    """To the microsecond."""
    call = CALLS["services.admit"]
    assert parse_timeout(timeout_text(seconds), call) == pytest.approx(seconds, abs=1e-6)
    assert parse_timeout(None, call) == call.timeout


@given(st.text())
def test_any_text_is_a_timeout_or_refused(text: str) -> None:
    """Finite, and not below 0."""
    try:
        assert 0 <= parse_timeout(text, CALLS["services.admit"]) < 1e6
    except InvalidRecord:
        assert not text.isdecimal() or not text.isascii() or len(text) > 6


@pytest.mark.parametrize(
    "error",
    [
        Unauthorized("revoked"),
        InvalidRecord("TokenUsage.input: is too large."),
        ServicesUnavailable("Away.", 0.0),
        ServicesUnavailable("Away.", 2.0, not_asked=True),
        NotRecorded("Full.", 5.0),
        NotRecorded("Broken."),
        ProtocolMismatch("Old."),
        ServiceError("Else."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_back(error: ServiceError) -> None:
    """Of the same class, with what the class keeps."""
    back = error_from(json.loads(compact(error_document(error))))
    assert type(back) is type(error)
    assert back.__reduce__() == error.__reduce__()


@pytest.mark.parametrize(
    ("seconds", "travels"), [(float("inf"), MAX_RETRY_AFTER), (float("nan"), 1.0), (-1.0, 0.0)]
)
def test_a_wait_is_bounded_when_it_travels(seconds: float, travels: float) -> None:
    """Nobody waits for ever, and JSON has no infinity."""
    back = error_from(json.loads(compact(error_document(ServicesUnavailable("Away.", seconds)))))
    assert isinstance(back, ServicesUnavailable)
    assert back.retry_after == travels


def test_a_hosts_own_class_travels_as_the_known_one_above_it() -> None:
    """The client need not have it."""

    class RedisAway(ServicesUnavailable):
        pass

    class Own(ServiceError):
        retry_after = object()

    assert type(error_from(error_document(RedisAway("Away.", 2.0)))) is ServicesUnavailable
    assert type(error_from(error_document(Own("x" * 10_000)))) is ServiceError


@given(
    json_values
    | st.fixed_dictionaries(
        {
            "class": st.sampled_from(
                ["Unauthorized", "NotRecorded", "ServicesUnavailable", "InvalidRecord", "X"]
            )
        },
        optional={"message": json_values, "reason": json_values, "retry_after": json_values},
    )
)
def test_any_document_is_some_error(document: Any) -> None:
    """One that can be waited for, where it says how long."""
    error = error_from(document)
    retry_after = getattr(error, "retry_after", None)
    assert retry_after is None or 0 <= retry_after <= MAX_RETRY_AFTER


@given(
    st.lists(st.integers().map(str) | st.just('"\u4e2d"'), max_size=50), st.integers(2, 60), st.integers(1, 9)
)
def test_batches_keep_order_and_bounds(texts: list[str], limit: int, count: int) -> None:
    """Nothing is lost; a batch is over the limit only where one text alone is."""
    made = list(batches(texts, limit, count))
    assert [entry for batch in made for entry in json.loads(batch)] == [json.loads(text) for text in texts]
    for batch in made:
        entries = json.loads(batch)
        assert 1 <= len(entries) <= count
        assert len(entries) == 1 or len(batch.encode()) <= limit
