"""Admission and recording on Redis: one script each, so that what belongs together is written together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

from flask_aibridge.config import RateLimit, parse_rate_limit
from flask_aibridge.errors import Unauthorized
from flask_aibridge.services.api_keys import parse, secret_hash
from flask_aibridge.services.interfaces import Admission, Authorization, Credential, RateStanding, Scopes
from flask_aibridge.services.rate_limits import refusal_of, standing_of
from flask_aibridge.services.records import (
    SHARDS,
    InterceptionEnd,
    InterceptionStart,
    ModelThought,
    PromptUsage,
    Record,
    TokenUsage,
    ToolUsage,
    is_stand_in,
    shard_of,
    shard_of_key,
    without_content,
)
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.redis.scripts import INTERCEPTION, Argument, Call, Script
from flask_aibridge.services.schemas.fields import MAX_NAME, Text
from flask_aibridge.services.schemas.messages import encode, kind_of

ADMIT: Final = Script("admit", *INTERCEPTION, "gcra")
RECORD: Final = Script("record", *INTERCEPTION)

RECORDS_PER_CALL: Final = 200
"""Records that one call of the script stores: a few milliseconds, in which Redis does nothing else."""

_NOT_COUNTED: Final = "-"

_read_text: Final = Text(MAX_NAME).read
"""Cuts a text as the stored JSON has it."""

_read_json: Final = json.JSONDecoder().raw_decode
"""What the scripts have written, and nothing around it: looking for spaces takes longer than reading the rest."""

_any_extra: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class RedisRecording:
    """Admits requests and stores records.

    :param record_content: whether prompts, tool usages and thoughts are stored; they are dropped otherwise.
    :param lease_seconds: for how long a process counts as alive after ``renew``.
    """

    def __init__(
        self, connection: RedisConnection, keys: Keys, *, record_content: bool, lease_seconds: float
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._lease_milliseconds = int(lease_seconds * 1000)
        self._record_content = record_content
        self._script_keys = [(keys.shard(number), keys.index(number)) for number in range(SHARDS)]

    def admit(
        self,
        start: InterceptionStart | None,
        credential: Credential | None,
        *,
        limit: RateLimit | None = None,
        counted_as: str | None = None,
    ) -> Admission:
        """As ``Store.admit``. One round trip, if the start is in the shard of its key (``shard_of_key``); else two, and
        then a start that comes again is counted again. For what ``counted_as`` names that is so in a cluster alone."""
        if credential is None:
            return self._admit_anyone(start, limit, counted_as)
        key_id, digest = _presented(credential)
        rate = "" if limit is None else str(limit)
        if start is None:
            return self._admit_key(key_id, digest, rate, ())
        anonymous = _anonymous(start)
        text = encode(anonymous)
        if shard_of(start.id) == shard_of_key(key_id):
            return self._admit_key(key_id, digest, rate, (start.id, text, *_fields(anonymous)))
        admission = self._admit_key(key_id, digest, rate, ())
        if admission.authorization is not None:
            self.record([replace(start, initiator=admission.authorization.user, key_id=key_id)])
        return admission

    def authorize(self, credential: Credential) -> Authorization:
        """As ``Authorizer.authorize``."""
        key_id, digest = _presented(credential)
        authorization = self._admit_key(key_id, digest, _NOT_COUNTED, ()).authorization
        if authorization is None:  # a key that exists has an owner
            raise Unauthorized("unknown")
        return authorization

    def _admit_anyone(
        self, start: InterceptionStart | None, limit: RateLimit | None, counted_as: str | None
    ) -> Admission:
        described = () if start is None else (start.id, encode(start), *_fields(start))
        shard = 0 if start is None else shard_of(start.id)
        if limit is None or counted_as is None:
            return Admission(None, self._run(shard, (), ("", "", "", *described)))
        counter = (self._keys.rate(counted_as),)
        its_shard = shard_of_key(counted_as)
        if start is None or shard == its_shard or not self._connection.address.is_cluster:
            return _counted(
                self._run(its_shard if start is None else shard, counter, ("", "", str(limit), *described))
            )
        admission = _counted(self._run(its_shard, counter, ("", "", str(limit))))
        self._run(shard, (), ("", "", "", *described))
        return admission

    def _admit_key(self, key_id: str, digest: str, rate: str, start: Sequence[Argument]) -> Admission:
        reply = self._run(shard_of_key(key_id), (), (key_id, digest, rate, *start))
        version, owner, name, providers, models, own_limit, *standing = _read_json(reply)[0]
        scopes = Scopes(_names(providers), _names(models))
        limit = parse_rate_limit(own_limit) if own_limit else None
        return Admission(
            Authorization(owner, key_id, name or None, scopes, limit), version, _standing(standing)
        )

    def _run(self, shard: int, more_keys: tuple[str, ...], args: Sequence[Argument]) -> Any:
        """The script's answer, unless it is a refusal."""
        reply = self._connection.run(ADMIT, (*self._script_keys[shard], *more_keys), args)
        if not isinstance(reply, list):
            return reply
        if len(reply) == 1:
            raise Unauthorized(reply[0])
        _, limit, wait = reply
        raise refusal_of(parse_rate_limit(limit), wait)

    def record(self, records: Sequence[Record]) -> None:
        """As ``Recorder.record``; in a cluster, one round trip for each shard that the records belong to."""
        batches: dict[int, list[list[Argument]]] = {}
        for record in records:
            args = self._args(record)
            if args:
                batches.setdefault(shard_of(str(args[0])[:33]), []).append(args)
        self._connection.run_many(
            [
                Call(RECORD, self._script_keys[shard], [arg for args in part for arg in args])
                for shard, batch in batches.items()
                for part in _parts(batch)
            ]
        )

    def _args(self, record: Record) -> list[Argument]:
        """The arguments of one record, as ``record.lua`` describes them; none for content that is not stored."""
        to_args = _TO_ARGS.get(type(record))
        if to_args is None:
            kind_of(record)  # says which kinds there are
            raise TypeError(f"{type(record).__name__} is no record.")
        text = encode(record)
        if self._record_content:
            return to_args(record, text)
        kept = without_content(record)
        if kept is None:
            return []
        return to_args(kept, text if kept is record else encode(kept))

    def renew(self, worker: str) -> None:
        """As ``Recorder.renew``."""
        self._connection.execute("SET", self._keys.worker(worker), 1, "PX", self._lease_milliseconds)

    def record_swept(self, ends: Sequence[InterceptionEnd]) -> None:
        """Store ends that nobody reported. Each gives way to a real one, also to one that was first."""
        batches: dict[int, list[Argument]] = {}
        for end in ends:
            args = batches.setdefault(shard_of(end.interception_id), [])
            args += (f"w{end.interception_id}{end.status}", encode(end))
        self._connection.run_many(
            [Call(RECORD, self._script_keys[shard], args) for shard, args in batches.items()]
        )


def _presented(credential: Credential) -> tuple[str, str]:
    """The id of the key and the hash of the secret, which is empty where there is none to check."""
    if credential.key is None:
        if not credential.key_id:  # the script takes it for no key at all
            raise Unauthorized("unknown")
        return credential.key_id, ""
    key_id, secret = parse(credential.key)
    return key_id, secret_hash(secret)


def _counted(reply: str) -> Admission:
    version, *standing = _read_json(reply)[0]
    return Admission(None, version, _standing(standing))


def _standing(parts: Sequence[Any]) -> RateStanding | None:
    if not parts:
        return None
    limit, remaining, next_in = parts
    return standing_of(parse_rate_limit(limit), remaining, next_in)


def _anonymous(start: InterceptionStart) -> InterceptionStart:
    if start.initiator is None and start.key_id is None:
        return start
    return replace(start, initiator=None, key_id=None)


def _names(text: str | Literal[False]) -> tuple[str, ...] | None:
    return tuple(json.loads(text)) if text else None


def _parts(batch: list[list[Argument]]) -> list[list[list[Argument]]]:
    return [batch[at : at + RECORDS_PER_CALL] for at in range(0, len(batch), RECORDS_PER_CALL)]


def _fields(start: InterceptionStart) -> tuple[str, ...]:
    """What filters read, in the order of ``FIELDS`` in ``interception.lua``."""
    return (
        start.initiator or "",
        start.provider,
        _text(start.model),
        _text(start.client),
        _text(start.source),
        _text(start.session_id),
        start.worker,
        _text(start.correlating_tool_call_id),
    )


def _text(text: str | None) -> str:
    return _read_text(text) if text else ""


def _of_start(record: InterceptionStart, text: str) -> list[Argument]:
    return [f"s{record.id}", text, *_fields(record)]


def _of_end(record: InterceptionEnd, text: str) -> list[Argument]:
    kind = "i" if is_stand_in(record) else "e"
    return [f"{kind}{record.interception_id}{record.status}", text]


def _of_usage(record: TokenUsage, text: str) -> list[Argument]:
    extra = _any_extra(dict(record.extra)) if record.extra else "{}"
    counts = f"[{record.input},{record.output},{record.cache_read},{record.cache_write},{extra}]"
    return [f"u{record.interception_id}{record.id}", text, counts]


def _of_prompt(record: PromptUsage, text: str) -> list[Argument]:
    return [f"p{record.interception_id}{record.id}", text]


def _of_tool(record: ToolUsage, text: str) -> list[Argument]:
    return [f"t{record.interception_id}{record.id}", text, _text(record.tool_call_id)]


def _of_thought(record: ModelThought, text: str) -> list[Argument]:
    return [f"m{record.interception_id}{record.id}", text]


_TO_ARGS: Final[dict[type[Any], Callable[[Any, str], list[Argument]]]] = {
    InterceptionStart: _of_start,
    InterceptionEnd: _of_end,
    TokenUsage: _of_usage,
    PromptUsage: _of_prompt,
    ToolUsage: _of_tool,
    ModelThought: _of_thought,
}
