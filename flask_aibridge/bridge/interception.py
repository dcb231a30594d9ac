"""The account of one request: who asked, what was sent, how it ended."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from flask_aibridge.bridge.caller import IN_PROCESS, Caller, source_of
from flask_aibridge.bridge.injection.tools import InjectedCall, InjectedTool
from flask_aibridge.bridge.intercept.failures import error_class
from flask_aibridge.bridge.intercept.vocabulary import (
    Ended,
    Failed,
    Item,
    Prompt,
    Thought,
    ToolCall,
    Usage,
)
from flask_aibridge.bridge.occupancy import Exchange
from flask_aibridge.bridge.shards import shard_for
from flask_aibridge.observability.hooks import Hook, InterceptionEnded, Outcome, TokenUsage
from flask_aibridge.services import records
from flask_aibridge.services.interfaces import Authorization, Credential

logger = logging.getLogger("flask_aibridge.bridge")

MAX_MODEL_NAME = 128
"""Characters of a model's name that are recorded. It comes from the caller; real ones have fewer than 80."""

MAX_ERROR = 300
"""Characters of an error's description that are recorded."""

MAX_RECORDS = 200
"""Records of one kind, tool calls or thoughts, of one interception. The longest answers of agents have a few dozen."""

MAX_REQUEST_ID = 128
"""Characters of the provider's id of a request that are recorded; real ones have fewer than 50."""

INTERRUPTED = "the bridge was shutting down"


class Interception:
    """One request on its way. Used by one thread at a time; ``finish`` counts once, whoever calls it
    again, and not in the child of a fork: the request is the parent's, which goes on with it.

    ``record`` takes the records of an interception that was admitted as a recorded one. Its id says in which shard it
    is stored (``shard_for``). ``planned_hint`` is the hint at the provider's key that the start is recorded with,
    ``key_hint`` at the one that the provider was asked with last.
    """

    def __init__(
        self,
        hooks: Sequence[Hook],
        environ: Mapping[str, Any] = MappingProxyType({}),
        credential: Credential | None = None,
        record: Callable[[records.Record], None] | None = None,
    ) -> None:
        self.started_at = datetime.now(UTC)
        shard = shard_for(environ, credential)
        self.id = records.make_interception_id(self.started_at, shard, secrets.randbits(70))
        self.credential = credential
        self.caller = Caller(IN_PROCESS in environ, source=source_of(environ))
        self.provider = self.provider_type = self.route = ""
        self.planned_hint: str | None = None
        self.key_hint: str | None = None
        self.status = 500
        self.ended = False
        self.exchange: Exchange | None = None
        self._hooks = hooks
        self._take_record = record
        self.recorded = False
        self.gateway_headers: list[tuple[str, str]] = []
        self._model: str | None = None
        self._usage: TokenUsage | None = None
        self._failure: Failed | None = None
        self._request_id: str | None = None
        self._counts: dict[str, int] = {}
        self._bytes_sent = 0
        self._finished = False
        self._pid = os.getpid()
        self._started = time.monotonic()
        self._first_byte: float | None = None

    @property
    def presented_key(self) -> str | None:
        """The key by which the caller is to be known, as it was sent; null in process."""
        return None if self.credential is None else self.credential.key

    @property
    def model(self) -> str | None:
        """The model that the caller asked for, as far as it could be read."""
        return self._model

    @model.setter
    def model(self, name: object) -> None:
        self._model = name[:MAX_MODEL_NAME] if isinstance(name, str) else None

    def admitted(self, authorization: Authorization | None, *, recorded: bool) -> None:
        """Take who the caller is, and whether the start was recorded."""
        self.recorded = recorded
        key_id = None if self.credential is None else self.credential.key_id
        user = None
        if authorization is not None:
            key_id, user = authorization.key_id or key_id, authorization.user
        self.caller = Caller(self.caller.in_process, self.caller.source, key_id, user)

    @property
    def is_ours(self) -> bool:
        """Whether it began in this process, and not in the one that this one was forked from."""
        return self._pid == os.getpid()

    @property
    def interrupted(self) -> bool:
        """Whether it is the bridge that ends it, and not a caller who has left already."""
        exchange = self.exchange
        return exchange is not None and exchange.interrupted and not exchange.left

    @property
    def over(self) -> bool:
        """Whether the answer has had its last word, good or bad."""
        return self.ended or self._failure is not None

    @property
    def request_id(self) -> str | None:
        """The provider's own id of the request, by which its support finds it."""
        return self._request_id

    @request_id.setter
    def request_id(self, value: str | None) -> None:
        self._request_id = value[:MAX_REQUEST_ID] if value else None

    def note(self, item: Item) -> None:
        """Take a word that a turn machine said about the answer, and record what it tells."""
        match item:
            case Usage():
                self._usage = item.tokens
                self._record_usage(item)
            case Failed():
                self._failure = item
            case Ended():
                self.ended = True
            case Prompt():
                self._put("p", records.PromptUsage, message_id=item.message_id, prompt=item.text)
            case ToolCall():
                self._record_tool(item)
            case Thought():
                self._put("m", records.ModelThought, content=item.text, metadata={"source": item.source})

    def note_injected(self, call: InjectedCall, tool: InjectedTool | None, error: str | None) -> None:
        """Record a call of a tool that the bridge brought; ``tool`` is null where there is none of that name, ``error``
        what went wrong. Results are not recorded: they are the server's and in no case the model's words."""
        self._put(
            "t",
            records.ToolUsage,
            message_id=call.message_id,
            tool=call.tool if tool is None else tool.name,
            input=call.arguments,
            tool_call_id=call.call_id,
            item_id=call.item_id,
            server_url=None if tool is None else tool.server_url,
            injected=True,
            invocation_error=None if error is None else error[:MAX_ERROR],
            metadata={"kind": "injected"},
        )

    def sent(self, data: bytes) -> None:
        """Count bytes that go to the caller now."""
        if self._first_byte is None:
            self._first_byte = time.monotonic() - self._started
        self._bytes_sent += len(data)

    def finish_at_end(self) -> None:
        """Finish after the last byte of the provider's answer: what it said decides how the request ended."""
        if self._failure is not None or self.status >= 400:
            self.finish("upstream_error")
        elif self.ended:
            self.finish("completed")
        else:
            self.finish("upstream_truncated", "the answer ended without its last word")

    def finish_early(self) -> None:
        """Finish because the caller has left, or the bridge has stopped the exchange. Either is no more than its end
        after the answer's own last word."""
        if self.over:
            self.finish_at_end()
        elif self.interrupted:
            self.finish("interrupted", INTERRUPTED)
        else:
            self.finish("client_closed")

    def finish(self, outcome: Outcome, error: str | None = None, error_type: str | None = None) -> None:
        """Close the account and tell the hooks. ``error_type`` is the class of an error; where it is not given, status,
        outcome and what the provider said tell it."""
        if self._finished or not self.is_ours:
            return
        self._finished = True
        self._record_end(outcome, error or self._failure_in_words(), error_type)
        # The provider's sentence may quote the prompt: it is recorded, where content may be, and hooks get its word.
        record = self._record(outcome, error or (self._failure.kind if self._failure else None))
        for hook in self._hooks:
            try:
                hook.interception_ended(record)
            except Exception:
                logger.exception("the hook %s failed on interception %s", type(hook).__name__, self.id)

    def _failure_in_words(self) -> str | None:
        if self._failure is None:
            return None
        kind, message = self._failure
        return f"{kind}: {message}" if message else kind

    def _error_type(self, outcome: Outcome) -> str | None:
        if outcome in ("completed", "client_closed"):
            return None
        if outcome != "upstream_error":
            return outcome
        return error_class(self.status, None if self._failure is None else self._failure.kind)

    def _record_usage(self, usage: Usage) -> None:
        tokens, message_id, finish_reason = usage
        known = {"finish_reason": finish_reason, "request_id": self._request_id}
        self._put(
            "u",
            records.TokenUsage,
            message_id=message_id,
            input=tokens.input,
            output=tokens.output,
            cache_read=tokens.cache_read,
            cache_write=tokens.cache_write,
            extra=tokens.extra,
            metadata={name: value for name, value in known.items() if value is not None},
        )

    def _record_tool(self, call: ToolCall) -> None:
        self._put(
            "t",
            records.ToolUsage,
            message_id=call.message_id,
            tool=call.name,
            input=call.arguments,
            tool_call_id=call.call_id,
            item_id=call.item_id,
            injected=call.kind == "injected",
            metadata={"kind": call.kind},
        )

    def _put(self, kind: str, make: Callable[..., records.Record], **fields: Any) -> None:
        """Record one more of a kind, under an id that says which: writing it twice is writing it once."""
        if not self.recorded or self._take_record is None:
            return
        self._counts[kind] = number = self._counts.get(kind, 0) + 1
        if number <= MAX_RECORDS:
            record_id = f"{self.id}.{kind}{number}"
            self._take_record(make(id=record_id, interception_id=self.id, created_at=self._now(), **fields))
        elif number == MAX_RECORDS + 1:
            logger.warning(
                "interception %s: no more than %d records of a kind are kept", self.id, MAX_RECORDS
            )

    def _record_end(self, outcome: Outcome, error: str | None, error_type: str | None) -> None:
        if not self.recorded or self._take_record is None:
            return
        if error and self._request_id and outcome == "upstream_error":
            error = f"{error[: MAX_ERROR - MAX_REQUEST_ID - 20]} (request {self._request_id})"
        self._take_record(
            records.InterceptionEnd(
                id=f"{self.id}.e",
                interception_id=self.id,
                status=outcome,
                http_status=self.status,
                error_type=error_type or self._error_type(outcome),
                error_message=error[:MAX_ERROR] if error else None,
                credential_hint=None if self.key_hint == self.planned_hint else self.key_hint,
                ended_at=self._now(),
            )
        )

    def _now(self) -> datetime:
        """By a clock that nobody sets: an interception does not end before it began, nor last for a day."""
        return self.started_at + timedelta(seconds=time.monotonic() - self._started)

    def _record(self, outcome: Outcome, error: str | None) -> InterceptionEnded:
        caller = self.caller
        return InterceptionEnded(
            interception_id=self.id,
            provider=self.provider,
            provider_type=self.provider_type,
            route=self.route,
            model=self._model,
            source=caller.source,
            in_process=caller.in_process,
            user=caller.user,
            key_id=caller.key_id,
            status=self.status,
            outcome=outcome,
            started_at=self.started_at,
            time_to_first_byte=self._first_byte,
            duration=time.monotonic() - self._started,
            bytes_sent=self._bytes_sent,
            usage=self._usage,
            error=error[:MAX_ERROR] if error else None,
        )
