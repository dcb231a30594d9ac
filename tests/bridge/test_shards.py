"""What belongs together is recorded together: by key, by session, by process."""

from __future__ import annotations

import os
import secrets
from typing import Any

import pytest

from flask_aibridge.bridge import shards
from flask_aibridge.bridge.interception import Interception
from flask_aibridge.services.interfaces import Credential
from flask_aibridge.services.records import SHARDS, shard_of, shard_of_key

CODEX = {"HTTP_USER_AGENT": "codex_cli_rs/0.40", "HTTP_SESSION_ID": "session-1"}


@pytest.mark.parametrize(
    ("environ", "credential", "name"),
    [
        ({}, Credential(key="aib_k1_secret"), "k1"),
        (CODEX, Credential(key_id="k2"), "k2"),
        (CODEX, Credential(key="a key of another form"), "session-1"),
        (CODEX, None, "session-1"),
    ],
)
def test_a_key_or_else_a_session_says_the_shard(
    environ: dict[str, Any], credential: Credential | None, name: str
) -> None:
    """In every process the same."""
    assert shards.shard_for(environ, credential) == shard_of_key(name)
    assert shard_of(Interception((), environ, credential).id) == shard_of_key(name)


@pytest.mark.parametrize("credential", [None, Credential(key="a key of another form")])
def test_calls_without_either_are_in_the_shard_of_their_process(credential: Credential | None) -> None:
    """An agent's turns stay together."""
    found = {shards.shard_for({"HTTP_USER_AGENT": "OpenAI/Python 3.1"}, credential) for _ in range(50)}
    assert len(found) == 1
    assert found <= set(range(SHARDS))


def test_a_child_of_a_fork_has_a_shard_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the workers of one server spread."""
    monkeypatch.setattr(shards, "_of_this_process", 7)
    monkeypatch.setattr(secrets, "randbelow", lambda limit: limit - 1)
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, bytes([shards.shard_for({}, None)]))
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as answer:
        assert answer.read() == bytes([SHARDS - 1])
    assert os.waitpid(child, 0)[1] == 0
    assert shards.shard_for({}, None) == 7
