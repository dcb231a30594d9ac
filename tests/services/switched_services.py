"""Services over a store in memory that a test can switch off, slow down and look into; and records to put in."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import flask_aibridge
from flask_aibridge.errors import InvalidRecord, ServicesUnavailable, Unauthorized
from flask_aibridge.services.interfaces import (
    AccessTokens,
    Admission,
    Authorization,
    Credential,
    MCPServerConfig,
    ProviderSet,
)
from flask_aibridge.services.memory.store import MemoryStore
from flask_aibridge.services.records import (
    InterceptionEnd,
    InterceptionStart,
    PromptUsage,
    Record,
    TokenUsage,
    make_interception_id,
)
from tests.conftest import DEADLINE_SECONDS

STARTED = datetime(2026, 11, 22, 12, tzinfo=UTC)
_numbers = itertools.count(1)


class SwitchedServices:
    """All four services in one object, away while ``away`` is set."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.away = False
        self.changed = threading.Condition()
        self.batches: list[list[Record]] = []
        """What was stored, call by call."""
        self.calls: list[str] = []
        self.authorizations: dict[str, Authorization] = {}
        """By key, or key_id."""
        self.refused: Unauthorized | None = None
        self.invalid: set[str] = set()
        self.unexpected: dict[str, Exception] = {}
        self.version = 0
        self.gate = threading.Event()
        """A call of ``record`` waits for it."""
        self.gate.set()

    @property
    def recorder(self) -> SwitchedServices:
        return self

    @property
    def authorizer(self) -> SwitchedServices:
        return self

    @property
    def mcp_configurator(self) -> SwitchedServices:
        return self

    @property
    def provider_configurator(self) -> SwitchedServices:
        return self

    def admit(self, start: InterceptionStart | None, credential: Credential | None) -> Admission:
        with self._call("admit"):
            authorization = None if credential is None else self._authorize(credential)
            if start is not None:
                self._refuse([start])
                self.store.admit(start, None)
            return Admission(authorization, self.version)

    def authorize(self, credential: Credential) -> Authorization:
        with self._call("authorize"):
            return self._authorize(credential)

    def record(self, records: Sequence[Record]) -> None:
        assert self.gate.wait(DEADLINE_SECONDS)
        with self._call("record"):
            self._refuse(records)
            self.store.record(records)
            self.batches.append(list(records))

    def renew(self, worker: str) -> None:
        with self._call(f"renew {worker}"):
            pass

    def maintain(self) -> None:
        with self._call("maintain"):
            pass

    def mcp_servers(self, user: str) -> tuple[MCPServerConfig, ...]:
        raise NotImplementedError

    def mcp_access_tokens(self, user: str, server_ids: Sequence[str]) -> AccessTokens:
        raise NotImplementedError

    def providers(self) -> ProviderSet:
        raise NotImplementedError

    @contextmanager
    def watch_providers(self) -> Iterator[Iterator[int]]:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is open."""

    def count(self, call: str) -> int:
        return sum(each.split()[0] == call for each in self.calls)

    def wait_for(self, condition: Callable[[], object], seconds: float = DEADLINE_SECONDS) -> None:
        """Return when, after some call, the condition holds."""
        with self.changed:
            assert self.changed.wait_for(condition, seconds), self.calls[-10:]

    @contextmanager
    def _call(self, name: str) -> Iterator[None]:
        try:
            self.calls.append(name)
            if self.away:
                raise ServicesUnavailable("The store is away.")
            yield
        finally:
            with self.changed:
                self.changed.notify_all()

    def _authorize(self, credential: Credential) -> Authorization:
        if self.refused is not None:
            raise self.refused
        found = self.authorizations.get(credential.key or credential.key_id or "")
        if found is None:
            raise Unauthorized("unknown")
        return found

    def _refuse(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.id in self.invalid:
                raise InvalidRecord("TokenUsage.input: it is wrong.")
            if record.id in self.unexpected:
                raise self.unexpected[record.id]


def new_id() -> str:
    return make_interception_id(STARTED, 3, next(_numbers) << 12)


def start(interception_id: str | None = None) -> InterceptionStart:
    return InterceptionStart(
        id=interception_id or new_id(),
        initiator="ada",
        provider="openai",
        provider_type="openai",
        started_at=STARTED,
    )


def usage(interception_id: str, record_id: str | None = None, tokens: int = 1) -> TokenUsage:
    return TokenUsage(
        id=record_id or f"u{next(_numbers)}",
        interception_id=interception_id,
        input=tokens,
        created_at=STARTED,
    )


def prompt(interception_id: str, text: str = "How are you?") -> PromptUsage:
    return PromptUsage(
        id=f"p{next(_numbers)}", interception_id=interception_id, prompt=text, created_at=STARTED
    )


def end(interception_id: str) -> InterceptionEnd:
    return InterceptionEnd(
        id=f"e{next(_numbers)}", interception_id=interception_id, status="completed", ended_at=STARTED
    )


def run_beside_the_tests(script: str, *arguments: str) -> subprocess.Popen[str]:
    """A script of this folder, started as a process that imports what this one does: the installed package."""
    here = Path(__file__).resolve()
    installed = Path(flask_aibridge.__file__).resolve().parents[1]
    return subprocess.Popen(
        [sys.executable, "-P", "-X", "dev", str(here.with_name(f"{script}.py")), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(installed), str(here.parents[2])))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], object]) -> None:
    """What announces itself to nobody is looked at often."""
    give_up, pause = monotonic() + DEADLINE_SECONDS, threading.Event()
    while not condition():
        assert monotonic() < give_up
        pause.wait(0.005)
