"""The account of one request: who asked, what was sent, how it ended."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from flask_aibridge.bridge.caller import Caller
from flask_aibridge.bridge.intercept.vocabulary import Ended, Failed, Item, Usage
from flask_aibridge.observability.hooks import Hook, InterceptionEnded, Outcome, TokenUsage

logger = logging.getLogger("flask_aibridge.bridge")

MAX_MODEL_NAME = 128
"""Characters of a model's name that are recorded. It comes from the caller; real ones have fewer than 80."""

MAX_ERROR = 300
"""Characters of an error's description that are recorded."""


class Interception:
    """One request on its way. Used by one thread at a time; ``finish`` counts once, whoever calls it
    again."""

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self.id = uuid.uuid4().hex
        self.caller = Caller(in_process=False)
        self.provider = self.provider_type = self.route = ""
        self.status = 500
        self.ended = False
        self._hooks = hooks
        self._model: str | None = None
        self._usage: TokenUsage | None = None
        self._failure: str | None = None
        self._bytes_sent = 0
        self._finished = False
        self._started_at = datetime.now(UTC)
        self._started = time.monotonic()
        self._first_byte: float | None = None

    @property
    def model(self) -> str | None:
        """The model that the caller asked for, as far as it could be read."""
        return self._model

    @model.setter
    def model(self, name: object) -> None:
        self._model = name[:MAX_MODEL_NAME] if isinstance(name, str) else None

    def note(self, item: Item) -> None:
        """Take a word that a turn machine said about the answer."""
        match item:
            case Usage(tokens):
                self._usage = tokens
            case Failed(kind, message):
                self._failure = f"{kind}: {message}" if message else kind
            case Ended():
                self.ended = True

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
            self.finish("upstream_truncated", "the stream ended without its terminal event")

    def finish_early(self) -> None:
        """Finish because the caller has left. Leaving after the answer's own last word is no more than its
        end."""
        if self.ended or self._failure is not None:
            self.finish_at_end()
        else:
            self.finish("client_closed")

    def finish(self, outcome: Outcome, error: str | None = None) -> None:
        """Close the account and tell the hooks."""
        if self._finished:
            return
        self._finished = True
        record = self._record(outcome, error or self._failure)
        for hook in self._hooks:
            try:
                hook.interception_ended(record)
            except Exception:
                logger.exception("the hook %s failed on interception %s", type(hook).__name__, self.id)

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
            started_at=self._started_at,
            time_to_first_byte=self._first_byte,
            duration=time.monotonic() - self._started,
            bytes_sent=self._bytes_sent,
            usage=self._usage,
            error=error[:MAX_ERROR] if error else None,
        )
