"""Pure: the name of every key in Redis, and what is in it.

All names begin with a prefix (``AIBRIDGE_REDIS_PREFIX``, default ``aibridge``) and carry a hash tag, so that what
changes together sits in one slot of a cluster. ``{s0}`` … ``{s15}`` are the shards of ``records.SHARDS``; an
interception, the key it was made with and everything about both is in one shard. ``{config}`` holds the rest.

======================== ====== ====================================================================================
name                     type   what
======================== ====== ====================================================================================
``{sN}:i:<id>``          hash   one interception's accounting. ``start``: the ``InterceptionStart`` as JSON, with
                                initiator and key_id filled in; the fields that filters read, each absent where
                                null: ``user``, ``provider``, ``model``, ``client``, ``source``, ``session``,
                                ``worker``; ``status``;
                                ``end``: the ``InterceptionEnd`` as JSON; ``swept``: "1" where that end is a
                                stand-in (``records.stand_in_end``), which a real one replaces;
                                ``u:<record id>``: a ``TokenUsage`` as JSON; ``t``: the sums of all of them, as JSON
                                ``{"input", "output", "cache_read", "cache_write", "extra": {}}``;
                                ``calls``: digests of the ids of the tool calls it made; ``line``, where it answers a
                                tool call: a link to that call, then, where it is known what made it, the ids of the
                                parent and the root (see ``lineage.lua``)
``{sN}:c:<id>``          hash   its content: ``p:<record id>``, ``t:<record id>``, ``m:<record id>``: a ``PromptUsage``,
                                ``ToolUsage``, ``ModelThought`` as JSON
``{sN}:x``               zset   every interception, all scores 0, so that ids sort as text and thus by time
``{sN}:x:user:<name>``   zset   the same of one user; likewise ``provider``, ``model``, ``session``
``{sN}:x=<status>``      zset   the same of the interceptions that ended in one way, other than ``completed``; likewise
                                ``{sN}:x=<status>:user:<name>`` … ``session``
``{sN}:x:thread:<id>``   zset   the same of a thread whose client names no session, by the id of its root; absent
                                where it is the root alone
``{sN}:calls``           zset   the tool calls made, each a link and the id of the interception, all scores 0
``{sN}:answers``         zset   the interceptions that answer a tool call, each behind its link, all scores 0
``{sN}:sessions``        zset   ``[session, user]`` as JSON → milliseconds of its last start. A session is
                                ``s:<session id>``, or ``i:<root's id>`` of a thread without one
``{sN}:sessions:<user>`` zset   the same of one user: session → milliseconds of its last start
``{sN}:names:model``     zset   every model seen → milliseconds of its last start; ``{sN}:names:model:<user>`` of one
                                user; likewise ``client``
``{sN}:running``         zset   interceptions without an end → milliseconds (of the server's clock) since when
``{sN}:r:<yyyymmddhh>``  hash   the usage of an hour (of ``started_at``, UTC): field
                                ``["user","provider","model",name]`` as JSON (model "" where unknown), with name one
                                of ``requests``, ``input``, ``output``, ``cache_read``, ``cache_write``,
                                ``x:<extra>``; value: the sum
``{sN}:orphans``         zset   interceptions of which something has come, but no start yet, all scores 0
``{sN}:content``         zset   interceptions that have content, all scores 0: what its retention looks through
``{sN}:hours``           zset   the hours that have a roll-up, all scores 0
``{sN}:stream``          stream what happened, for consumers outside: ``kind`` (the dataclass's name) and ``record``
                                (JSON), or, of one that is longer than 4096 bytes, ``interception`` (the id), trimmed
                                to about ``STREAM_LENGTH``; content only where content is recorded
``{sN}:key:<key id>``    hash   an API key: ``owner``, ``name``, ``hash`` (SHA-256 of the secret, hex), ``created``,
                                ``expires``, ``revoked``, ``used`` (milliseconds, absent where null), ``providers``,
                                ``models`` (JSON lists, absent where unlimited), ``old_hash`` and ``old_until`` after a
                                rotation with an overlap, ``rate_limit`` (text, absent where it has none of its own)
``{sN}:rate:<name>``     string what is kept of a caller under a rate limit (``rate_limits``): microseconds; with a
                                time to live, after which it would mean nothing. The name is the id of its API key,
                                or ``user:<name>`` where that has none
``{sN}:k``               zset   the ids of the API keys → milliseconds since when they exist
``{sN}:k:<owner>``       zset   the same of one owner
``{sN}:config``          string a copy of the configuration's version, read with every admission
``{config}:version``     string the configuration's version, counted up with each change of providers or MCP servers
``{config}:providers``   hash   name → the provider as JSON, its keys sealed
``{config}:seeded``      hash   table → what it was seeded from: a digest, to tell when the app's config differs
``{config}:mcp``         hash   id → the MCP server as JSON
``{config}:mcp-tokens:`` hash   of one user (the name ends in it): server id → the sealed access token
``{config}:worker:…``    string a process's lease (the name ends in its id), with a time to live
``{config}:lock:…``      string who does an upkeep job now (the name ends in the job's), with a time to live
======================== ====== ====================================================================================
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

from flask_aibridge.services.records import shard_of, shard_of_key

DEFAULT_PREFIX: Final = "aibridge"

STREAM_LENGTH: Final = 10_000
"""Entries that a shard's stream keeps, about: hours of traffic for a consumer that was away, a few MB of memory,
40 at the most."""

Dimension: TypeAlias = Literal["user", "provider", "model", "session", "thread"]
"""What has an index of its own."""

NameKind: TypeAlias = Literal["model", "client"]
"""What is listed by name."""


class Keys:
    """Spells every key under one prefix."""

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        self.prefix = prefix

    def shard(self, number: int) -> str:
        """What every key of a shard begins with, with a colon at its end. Scripts append the rest themselves."""
        return f"{self.prefix}:{{s{number}}}:"

    def of_interception(self, interception_id: str) -> str:
        """What every key of the interception's shard begins with."""
        return self.shard(shard_of(interception_id))

    def interception(self, interception_id: str) -> str:
        return f"{self.of_interception(interception_id)}i:{interception_id}"

    def content(self, interception_id: str) -> str:
        return f"{self.of_interception(interception_id)}c:{interception_id}"

    def index(
        self, number: int, dimension: Dimension | None = None, value: str = "", *, status: str | None = None
    ) -> str:
        """The index of a shard: of all its interceptions, or of those with one value in one dimension; of those that
        ended so, where a status is given, one of ``RARE_ENDS``."""
        of_all = f"{self.shard(number)}x" + (f"={status}" if status else "")
        return of_all + (f":{dimension}:{value}" if dimension else "")

    def sessions(self, number: int, user: str | None = None) -> str:
        return f"{self.shard(number)}sessions" + (f":{user}" if user is not None else "")

    def names(self, number: int, kind: NameKind, user: str | None = None) -> str:
        return f"{self.shard(number)}names:{kind}" + (f":{user}" if user is not None else "")

    def running(self, number: int) -> str:
        return f"{self.shard(number)}running"

    def hours(self, number: int) -> str:
        return f"{self.shard(number)}hours"

    def stream(self, number: int) -> str:
        return f"{self.shard(number)}stream"

    def api_key(self, key_id: str) -> str:
        return f"{self.shard(shard_of_key(key_id))}key:{key_id}"

    def rate(self, caller: str) -> str:
        """What is kept of a caller whose requests are counted."""
        return f"{self.shard(shard_of_key(caller))}rate:{caller}"

    def api_keys(self, number: int, owner: str | None = None) -> str:
        return f"{self.shard(number)}k" + (f":{owner}" if owner is not None else "")

    def version_copy(self, number: int) -> str:
        return f"{self.shard(number)}config"

    def config(self, rest: str) -> str:
        """A key of the ``{config}`` slot, such as ``version`` or ``providers``."""
        return f"{self.prefix}:{{config}}:{rest}"

    def worker(self, worker: str) -> str:
        return self.config(f"worker:{worker}")

    def lock(self, job: str) -> str:
        return self.config(f"lock:{job}")


def hour_of(moment: datetime) -> str:
    """The hour that a moment's usage is summed under: ``yyyymmddhh`` in UTC."""
    return moment.astimezone(UTC).strftime("%Y%m%d%H")
