"""Who is asking, by either door."""

from __future__ import annotations

from typing import Any

import pytest

from flask_aibridge.bridge.caller import Caller, StaticKeys, identify
from flask_aibridge.errors import ConfigError
from tests.bridge.wsgi import FakeCancellation

KEYS = StaticKeys({"alice": "aib_1_a", "bob": "aib_2_b"})


@pytest.mark.parametrize(
    ("environ", "user"),
    [
        ({"HTTP_AUTHORIZATION": "Bearer aib_1_a"}, "alice"),
        ({"HTTP_AUTHORIZATION": "bearer  aib_2_b "}, "bob"),
        ({"HTTP_X_API_KEY": "aib_2_b"}, "bob"),
        ({"HTTP_AUTHORIZATION": "Bearer sk-other", "HTTP_X_API_KEY": "aib_1_a"}, "alice"),
        ({"HTTP_AUTHORIZATION": "Bearer aib_1_a", "HTTP_X_API_KEY": "sk-other"}, "alice"),
        ({"HTTP_AUTHORIZATION": "Basic aib_1_a"}, None),
        ({"HTTP_AUTHORIZATION": "aib_1_a"}, None),
        ({"HTTP_AUTHORIZATION": "Bearer aib_1_"}, None),
        ({"HTTP_AUTHORIZATION": "Bearer"}, None),
        ({"HTTP_X_API_KEY": ""}, None),
        ({"HTTP_X_API_KEY": "\xff\ud800"}, None),
        ({}, None),
    ],
)
def test_a_key_may_come_in_either_header(environ: dict[str, str], user: str | None) -> None:
    """A bearer token or ``X-Api-Key``; anything else is nobody's key."""
    assert KEYS.user_of(environ) == user


def test_without_keys_nobody_is_known() -> None:
    """An empty configuration admits no one, not even with an empty key."""
    assert StaticKeys({}).user_of({"HTTP_X_API_KEY": ""}) is None


@pytest.mark.parametrize("key", ["", "  "])
def test_an_empty_key_is_refused(key: str) -> None:
    """It would match every request that brings none."""
    with pytest.raises(ConfigError, match="alice"):
        StaticKeys({"alice": key})


def test_keys_do_not_show() -> None:
    """The object keeps digests only."""
    assert "aib_1_a" not in repr(KEYS) + repr(vars(KEYS))


def test_in_process_callers_need_no_key() -> None:
    """The transport's cancellation is what tells them; source and key id describe the call site."""
    environ: dict[str, Any] = {
        "flask_aibridge.cancellation": FakeCancellation(),
        "flask_aibridge.source": "agents",
        "flask_aibridge.key_id": "k1",
    }
    assert identify(environ, KEYS) == Caller(True, source="agents", key_id="k1")


def test_a_source_alone_admits_nobody() -> None:
    """It is a tag for records, and by the public door it is not even that."""
    environ = {"flask_aibridge.source": "agents", "flask_aibridge.key_id": "k1"}
    assert identify(environ, KEYS) is None
    assert identify(environ | {"HTTP_X_API_KEY": "aib_1_a"}, KEYS) == Caller(False, user="alice")
