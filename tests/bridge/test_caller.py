"""Who is asking, by either door."""

from __future__ import annotations

from typing import Any

import pytest

from flask_aibridge.bridge.caller import credential_of, key_id_of, source_of
from flask_aibridge.services.interfaces import Credential
from tests.bridge.wsgi import FakeCancellation

IN_PROCESS: dict[str, Any] = {"flask_aibridge.cancellation": FakeCancellation()}


@pytest.mark.parametrize(
    ("environ", "key"),
    [
        ({"HTTP_AUTHORIZATION": "Bearer aib_1_a"}, "aib_1_a"),
        ({"HTTP_AUTHORIZATION": "bearer  aib_2_b "}, "aib_2_b"),
        ({"HTTP_X_API_KEY": " aib_2_b "}, "aib_2_b"),
        ({"HTTP_AUTHORIZATION": "Bearer sk-other", "HTTP_X_API_KEY": "aib_1_a"}, "aib_1_a"),
        ({"HTTP_AUTHORIZATION": "Bearer aib_1_a", "HTTP_X_API_KEY": "sk-other"}, "aib_1_a"),
        ({"HTTP_X_AIBRIDGE_TOKEN": " own-token ", "HTTP_X_API_KEY": "aib_1_a"}, "own-token"),
        ({"HTTP_X_AIBRIDGE_TOKEN": " ", "HTTP_X_API_KEY": "aib_1_a"}, "aib_1_a"),
        ({"HTTP_AUTHORIZATION": "Bearer host-key", "HTTP_X_API_KEY": "sk-other"}, "host-key"),
        ({"HTTP_AUTHORIZATION": "Basic aib_1_a"}, None),
        ({"HTTP_AUTHORIZATION": "aib_1_a"}, None),
        ({"HTTP_AUTHORIZATION": "Bearer"}, None),
        ({"HTTP_X_API_KEY": " "}, None),
        ({}, None),
    ],
)
def test_a_key_may_come_in_either_header(environ: dict[str, str], key: str | None) -> None:
    """A bearer token or ``X-Api-Key``; of two, the one that is a key of this gateway."""
    assert credential_of(environ) == (None if key is None else Credential(key=key))


def test_in_process_the_headers_are_not_looked_at() -> None:
    """They carry what an SDK was given to be content; on whose behalf a call is made is said by the key id."""
    environ = IN_PROCESS | {"HTTP_X_API_KEY": "aib_1_a"}
    assert credential_of(environ) is None
    assert credential_of(environ | {"flask_aibridge.key_id": "k1"}) == Credential(key_id="k1")


def test_from_outside_source_and_key_id_mean_nothing() -> None:
    """Only the transport's cancellation says that a call is in process."""
    environ = {"flask_aibridge.source": "agents", "flask_aibridge.key_id": "k1"}
    assert credential_of(environ) is None
    assert source_of(environ) is None
    assert source_of(IN_PROCESS | environ) == "agents"


@pytest.mark.parametrize(
    ("credential", "key_id"),
    [
        (None, None),
        (Credential(key_id="k1"), "k1"),
        (Credential(key="aib_k1_secret"), "k1"),
        (Credential(key="aib_k1_se_cret"), "k1"),
        (Credential(key="aib_k1"), None),
        (Credential(key="sk-k1_secret_x"), None),
    ],
)
def test_the_id_in_a_credential(credential: Credential | None, key_id: str | None) -> None:
    """It says where the records are kept, before anybody has said whether the key is good."""
    assert key_id_of(credential) == key_id
