"""What goes over the wire is the protocol's; what comes back is told apart."""

from __future__ import annotations

import re
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from redis.connection import Connection

from flask_aibridge.services.redis.address import parse_redis_url
from flask_aibridge.services.redis.faults import STEPPED_DOWN, why_away, why_unable
from flask_aibridge.services.redis.keys import STREAM_LENGTH
from flask_aibridge.services.redis.scripts import Command, Script
from flask_aibridge.services.redis.wires import (
    CONNECT_SECONDS,
    SOCKET_SECONDS,
    CannotConnect,
    open_wire,
    packed,
)

ARGUMENTS = st.text() | st.integers() | st.floats(allow_nan=False)
COMMANDS = st.tuples(st.sampled_from(["GET", "EVALSHA"]), ARGUMENTS, ARGUMENTS)


@given(st.lists(COMMANDS, min_size=1, max_size=4))
def test_commands_are_packed_as_redis_py_packs_them(commands: list[Command]) -> None:
    """To the byte; this is only quicker."""
    unconnected: Any = Connection
    connection = unconnected(encoding_errors="surrogatepass")
    expected = b"".join(part for command in commands for part in connection.pack_command(*command))
    assert packed(commands) == expected


@pytest.mark.parametrize(
    "url", ["redis+cluster://127.0.0.1:1,127.0.0.1:2", "redis+sentinel://127.0.0.1:1/main", "unix:///none"]
)
def test_where_nobody_listens_nothing_is_connected(url: str) -> None:
    """Of whatever kind."""
    with pytest.raises(CannotConnect):
        open_wire(parse_redis_url(url)).exchange([("PING",)])


def test_no_call_takes_seconds() -> None:
    """The settings are for the path of a request."""
    assert CONNECT_SECONDS + SOCKET_SECONDS < 1


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (
            redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
            "maxmemory",
        ),
        (
            redis.ResponseError("Error running script: @user_script: -OOM command not allowed when"),
            "maxmemory",
        ),
        (
            redis.ResponseError(
                "Error running script: -READONLY You can't write against a read only replica."
            ),
            "replica",
        ),
        (redis.ResponseError("MISCONF Redis is configured to save RDB snapshots, but"), "disk"),
        (redis.ResponseError("NOREPLICAS Not enough good replicas to write."), "min-replicas"),
        (redis.ResponseError("BUSY Redis is busy running a script."), "busy"),
        (redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"), "loading"),
        (redis.exceptions.NoPermissionError("this user has no permissions"), "permission"),
        (redis.AuthenticationError("Authentication required."), "has none"),
        (redis.AuthenticationError("invalid username-password pair or user is disabled."), "does not accept"),
        (redis.exceptions.MovedError("1 127.0.0.1:1"), r"redis\+cluster"),
        (redis.exceptions.TryAgainError("Multiple keys request during rehashing of slot"), "moving"),
        (redis.exceptions.ClusterError("TTL exhausted."), "moving"),
        (redis.exceptions.ClusterDownError("Hash slot not served"), "cluster is down"),
    ],
)
def test_why_redis_does_not_do_it_is_said(error: Exception, why: str) -> None:
    """In words that say what to look at."""
    said = why_unable(error)
    assert said is not None
    assert re.search(why, said), said


def test_a_mistake_is_not_explained_away() -> None:
    """An error of a script or a command is ours."""
    assert why_unable(redis.ResponseError("WRONGTYPE Operation against a key")) is None
    assert why_unable(redis.exceptions.ReadOnlyError("")) == STEPPED_DOWN


def test_an_error_s_own_text_is_not_repeated() -> None:
    """It may hold what was sent, and thus a secret."""
    for error in (redis.ConnectionError("sesame"), redis.TimeoutError("sesame"), OSError("sesame")):
        assert "sesame" not in why_away(error)
    assert "in time" in why_away(redis.TimeoutError("x"))


def test_a_script_is_its_text_and_what_comes_before() -> None:
    """Loaded from the package, wherever it is installed."""
    script = Script("record", "interception")
    assert script.text.startswith(Script("interception").text)
    assert script.text.endswith(Script("record").text)
    assert len(script.digest) == 40
    assert f'STREAM_LENGTH = "{STREAM_LENGTH}"' in script.text
    assert repr(script) == "<Script record>"
