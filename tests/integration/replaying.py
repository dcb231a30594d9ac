"""An application with both doors before a provider that replays recordings, and everything that is recorded of it."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from flask import Flask

from flask_aibridge import AIBridge, Source
from flask_aibridge.app_state import AppState
from flask_aibridge.bridge import Bridge
from flask_aibridge.license.issuing import SigningKey, issue_license
from flask_aibridge.services.interfaces import Admission, Credential, ProviderConfigurator
from flask_aibridge.services.records import (
    InterceptionEnd,
    InterceptionStart,
    Record,
    TokenUsage,
    ToolUsage,
    interception_of,
)
from flask_aibridge.testing import Received, StandInProvider, serve_stand_in
from flask_aibridge.testing.stand_in import ConnectionDropped
from flask_aibridge.transport import WSGIPoolManager
from tests import recordings
from tests.recordings import Recording

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PREFIX = "/api/v2/aibridge"
API_KEY = "aib_alice_secret"
PROVIDER_KEY = "sk-provider"
DEADLINE = 20.0
"""Seconds to wait for an event that must come."""

RECORDINGS = {recording.name: recording for recording in recordings.ALL}

ABOUT_A_KEY = (401, 429)
"""Statuses that say something about the provider's key: a bridge keeps it in mind, so they need a host of their own."""

_EVENT = re.compile(rb"(?<=\n\n)|(?<=\r\n\r\n)|(?<=\r\r)")


@dataclass
class Endless:
    """An answer that begins as a recording does, for so many events, and then has something to say until nobody
    listens; ``left`` tells that."""

    recording: Recording
    events: int

    def __post_init__(self) -> None:
        self.left = threading.Event()

    def pieces(self) -> Iterator[bytes]:
        try:
            yield from pieces(self.recording.body)[: self.events]
            while not self.left.wait(0.02):
                yield b": still there\n\n"
        finally:
            self.left.set()


Answer: TypeAlias = Recording | Endless


class ReplayingProvider:
    """Gives the answers that it is told to, one for each request; without any it is a stand-in that says ``tokens``."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._stand_in = StandInProvider(answer=tokens, keys=[PROVIDER_KEY])
        self._answers: deque[Answer] = deque()
        self.requests: list[Received] = []

    def play(self, *answers: str | Answer) -> None:
        """Answer by these, in this order."""
        self._answers.extend(RECORDINGS[each] if isinstance(each, str) else each for each in answers)

    def forget(self) -> None:
        self._answers.clear()
        self.requests.clear()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not self._answers:
            answered = self._stand_in(environ, start_response)
            self.requests.append(self._stand_in.requests[-1])
            return answered
        self.requests.append(received(environ))
        answer = self._answers.popleft()
        recording = answer.recording if isinstance(answer, Endless) else answer
        headers = list(recording.headers)
        if recording.media_type != "text/event-stream":
            headers.append(("Content-Length", str(len(recording.body) + recording.is_cut)))
        start_response(f"{recording.status} Replayed", headers)
        return answer.pieces() if isinstance(answer, Endless) else _body(recording)


def _body(recording: Recording) -> Iterator[bytes]:
    yield from pieces(recording.body)
    if recording.is_cut:
        raise ConnectionDropped


def pieces(body: bytes) -> list[bytes]:
    """The events of a stream; what has none, whole."""
    return [piece for piece in _EVENT.split(body) if piece]


def received(environ: WSGIEnvironment) -> Received:
    headers = {name[5:].replace("_", "-").lower(): environ[name] for name in environ if name[:5] == "HTTP_"}
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))
    return Received(
        environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", ""), headers, body
    )


class Told(NamedTuple):
    """What was recorded of one interception, from its start, by its initiator, to its end."""

    start: InterceptionStart
    records: list[Record]

    @property
    def end(self) -> InterceptionEnd:
        (end,) = (record for record in self.records if isinstance(record, InterceptionEnd))
        return end

    @property
    def tokens(self) -> tuple[int, int] | None:
        """Those that went in and those that came out; null where nothing said how many."""
        usages = [record for record in self.records if isinstance(record, TokenUsage)]
        assert len(usages) <= 1
        return (usages[0].input, usages[0].output) if usages else None

    @property
    def tools(self) -> list[tuple[str, str, str | None]]:
        """The calls of tools: name, arguments, the call's id."""
        calls = [record for record in self.records if isinstance(record, ToolUsage)]
        return [(call.tool, call.input, call.tool_call_id) for call in calls]


class Witness:
    """Passes on to the services what the bridge records, and keeps it."""

    def __init__(self, opened: Callable[[], Any]) -> None:
        self._opened = opened
        self._changed = threading.Condition()
        self._told: dict[str, Told] = {}

    def __call__(self) -> Witness:
        return self

    @property
    def provider_configurator(self) -> ProviderConfigurator:
        configurator: ProviderConfigurator = self._opened().provider_configurator
        return configurator

    @property
    def worker(self) -> str:
        worker: str = self._opened().worker
        return worker

    def check(self, credential: Credential) -> None:
        self._opened().check(credential)

    def admit(self, start: InterceptionStart | None, credential: Credential | None) -> Admission:
        admission: Admission = self._opened().admit(start, credential)
        if start is not None:
            if admission.authorization is not None:
                start = replace(start, initiator=admission.authorization.user)
            self._told[start.id] = Told(start, [])
        return admission

    def record(self, record: Record) -> None:
        self._opened().record(record)
        with self._changed:
            told = self._told.get(interception_of(record))
            if told is not None:  # else it is of a test before, and forgotten
                told.records.append(record)
            self._changed.notify_all()

    def ended(self, number: int) -> list[Told]:
        """So many interceptions, in the order of their starts, once all of them have ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._ends() >= number, DEADLINE), "the records' ends"
            told = list(self._told.values())
        assert len(told) == number
        return told

    def forget(self) -> None:
        self._told.clear()

    def _ends(self) -> int:
        return sum(
            any(isinstance(record, InterceptionEnd) for record in told.records)
            for told in [*self._told.values()]
        )


class Host:
    """One application, served, for as long as a ``with`` block lasts. ``bridge_at(provider)`` is the public door,
    ``manager(provider)`` the one in process."""

    def __init__(self, tokens: Sequence[str] = ("Hel", "lo")) -> None:
        self.provider = ReplayingProvider(tokens)
        self._stack = ExitStack()

    def __enter__(self) -> Host:
        provider = self._stack.enter_context(serve_stand_in(self.provider))
        signing = SigningKey.generate("clients")
        self.app = Flask("host", static_folder=None)
        self.app.config.update(
            AIBRIDGE_PROVIDERS={
                "anthropic": {"type": "anthropic", "base_url": provider.base_url, "keys": [PROVIDER_KEY]},
                "openai": {
                    "type": "openai",
                    "base_url": f"{provider.base_url}/v1",
                    "keys": [PROVIDER_KEY],
                },
            },
            AIBRIDGE_REDIS_URL="memory://",
            AIBRIDGE_API_KEYS={"alice": API_KEY},
            AIBRIDGE_LICENSE_PUBLIC_KEYS={signing.kid: signing.public_pem},
            AIBRIDGE_LICENSE=issue_license(signing),
        )
        self.extension = AIBridge(self.app)
        state: AppState = self.app.extensions["aibridge"]
        self._stack.callback(state.close)
        self.witness = Witness(state.recording)
        bridge = Bridge(recording=self.witness)
        self._stack.callback(bridge.close)
        self.extension.register(bridge)
        self.url = self._stack.enter_context(serve_stand_in(self.app)).base_url
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def bridge_at(self, provider: str) -> str:
        """The address of a provider by the public door, as its SDK wants it."""
        return f"{self.url}{PREFIX}/{provider}" + ("/v1" if provider == "openai" else "")

    def manager(self, provider: str, source: str = Source.AGENTS) -> WSGIPoolManager:
        return self.extension.transport_for(provider, source)

    def forget(self) -> None:
        """Begin anew: no answers, no requests, no records."""
        self.provider.forget()
        self.witness.forget()
