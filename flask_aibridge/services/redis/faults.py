"""What redis-py raises, told apart: Redis away, Redis not able, or a mistake of ours."""

from __future__ import annotations

from typing import Final

import redis

DROPPED: Final = (redis.ConnectionError, redis.TimeoutError, redis.InvalidResponse, OSError)
"""A connection that is no good any more."""

TIMED_OUT: Final = (redis.TimeoutError, TimeoutError)
"""A server that did not answer in time."""

AWAY: Final = (*DROPPED, redis.exceptions.ClusterDownError, redis.exceptions.RedisClusterException)
"""There is no server that could answer."""

STEPPED_DOWN: Final = (
    "it is a read-only replica; a failover is under way, or AIBRIDGE_REDIS_URL names the wrong server"
)

_MOVING: Final = "the cluster is moving the data to another node"
_MEMORY: Final = "its memory is full (maxmemory): give it more, or keep records for less time"
_PERMISSION: Final = (
    "the user of AIBRIDGE_REDIS_URL lacks a permission; it needs all commands on its own keys"
)
_CLUSTER: Final = "the cluster is down: some of its slots are served by no node"
_UNAUTHENTICATED: Final = "it wants a password, and AIBRIDGE_REDIS_URL has none"
_REFUSED: Final = "it does not accept the user and password of AIBRIDGE_REDIS_URL"

# redis-py has classes for some errors and takes their first word away.
_BY_CLASS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (redis.exceptions.OutOfMemoryError, _MEMORY),
    (redis.exceptions.ReadOnlyError, STEPPED_DOWN),
    (redis.exceptions.BusyLoadingError, "it is loading its data after a start"),
    (redis.exceptions.MasterDownError, "its master is away"),
    (redis.exceptions.ClusterDownError, _CLUSTER),
    (redis.exceptions.ClusterError, _MOVING),
    (redis.exceptions.TryAgainError, _MOVING),
    (
        redis.exceptions.MovedError,
        "the data is on another node of a cluster: AIBRIDGE_REDIS_URL has to begin with redis+cluster://",
    ),
    (redis.exceptions.AskError, _MOVING),
    (redis.exceptions.AuthenticationWrongNumberOfArgsError, _REFUSED),
    (redis.exceptions.NoPermissionError, _PERMISSION),
    (redis.exceptions.AuthorizationError, _PERMISSION),
)

# The others by their text, and also those above, since a server of version 6 wraps what happens inside a script.
_BY_TEXT: Final = (
    ("OOM command not allowed", _MEMORY),
    ("You can't write against a read only replica", STEPPED_DOWN),
    ("MISCONF", "it cannot save to its disk and therefore takes no writes; its own log says why"),
    ("NOREPLICAS", "fewer replicas are connected than min-replicas-to-write asks for"),
    ("BUSY ", "it is busy with a script of somebody else's"),
    ("non local key", _MOVING),
    ("CLUSTERDOWN", _CLUSTER),
    ("NOPERM", _PERMISSION),
    ("Authentication required", _UNAUTHENTICATED),
    ("NOAUTH", _UNAUTHENTICATED),
    ("WRONGPASS", _REFUSED),
    ("invalid username-password pair", _REFUSED),
    ("invalid password", _REFUSED),
    ("max number of clients reached", "it takes no more connections (maxclients)"),
)


def why_unable(error: Exception) -> str | None:
    """Why Redis answers and yet does not do what it is asked; null where the mistake is ours."""
    for kind, why in _BY_CLASS:
        if isinstance(error, kind):
            return why
    text = str(error)
    return next((why for sign, why in _BY_TEXT if sign in text), None)


def why_away(error: Exception) -> str:
    """Why there is no answer. Never the error's own text, which may repeat what was sent."""
    if isinstance(error, TIMED_OUT):
        return "it does not answer in time"
    if isinstance(error, redis.InvalidResponse):
        return "what answers there is neither Redis nor Valkey"
    return why_unable(error) or "no connection can be made, or it was closed"
