"""What is in a Redis, as plain data, for tests that look at the stored form."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

Client: TypeAlias = Any
"""redis-py's client; its types know no text replies."""


def contents(client: Client, prefix: str) -> dict[str, Any]:
    """Every key below the prefix, without it: hashes and sorted sets as dictionaries, streams as lists."""
    found: dict[str, Any] = {}
    for name in sorted(client.scan_iter(f"{prefix}:*", count=1000)):
        found[name.removeprefix(f"{prefix}:")] = _content(client, name)
    return found


def _content(client: Client, name: str) -> Any:
    kind = client.type(name)
    if kind == "hash":
        return {field: _parsed(value) for field, value in client.hgetall(name).items()}
    if kind == "zset":
        return dict(client.zrange(name, 0, -1, withscores=True))
    if kind == "set":
        return client.smembers(name)
    if kind == "stream":
        return [(entry["kind"], json.loads(entry["record"])) for _, entry in client.xrange(name)]
    return client.get(name)


def _parsed(value: str) -> Any:
    """JSON objects as such, since the order of their members says nothing."""
    return json.loads(value) if value.startswith("{") else value


def calls_of(client: Client, command: str) -> int:
    """How often the server has run a command."""
    stats = client.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))
