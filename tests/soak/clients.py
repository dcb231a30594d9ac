"""The clients: threads that ask by both doors, in three wire formats, streaming and blocking, as raw HTTP and with the
SDKs; some follow their answer to its end, some leave. Each keeps account of what it was told."""

from __future__ import annotations

import json
import random
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import urllib3
from urllib3.exceptions import HTTPError

from tests.soak.hosts import Host

KEY: Final = "aib_static-key-of-the-soak"
PREFIX: Final = "/api/v2/aibridge"
Door = Literal["public", "in process"]
DOORS: Final[Sequence[Door]] = ("public", "in process")


@dataclass(frozen=True, slots=True)
class Wire:
    """One wire format: where it is asked for, and by what the last event of its streams is known."""

    provider: str
    path: str
    last: bytes

    def document(self, prompt: str, stream: bool) -> dict[str, Any]:
        asked: dict[str, Any] = {"model": "soak-model", "stream": stream}
        if self.path == "v1/responses":
            return asked | {"input": prompt}
        said = {"messages": [{"role": "user", "content": prompt}]}
        return asked | said | ({"max_tokens": 10_000} if self.path == "v1/messages" else {})


WIRES: Final = (
    Wire("anthropic", "v1/messages", b'"message_stop"'),
    Wire("openai", "v1/chat/completions", b"[DONE]"),
    Wire("openai", "v1/responses", b"response.completed"),
)


@dataclass(slots=True)
class Asked:
    """One request, and what its client saw of the answer.

    ``worker`` is null until a head has come; ``whole`` says that the answer was one of the model's and ended as it
    should; ``error`` is why it did not.
    """

    marker: str
    door: Door
    wire: Wire
    stream: bool
    fault: str
    tokens: int
    leaves: bool = False
    sdk: bool = False
    status: int | None = None
    worker: int | None = None
    whole: bool = False
    error: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def prompt(self) -> str:
        return f"order {self.marker} {self.fault} {self.tokens}"

    @property
    def head(self) -> dict[str, str]:
        """Its headers: the session names it in the records, as Codex names its own."""
        names = {"User-Agent": "codex/1.0 (soak)", "session-id": self.marker}
        return names | {"Authorization": f"Bearer {KEY}", "anthropic-version": "2023-06-01"}

    def url(self, address: str) -> str:
        before = PREFIX if self.door == "public" else "/agent"
        return f"{address}{before}/{self.wire.provider}/{self.wire.path}"

    def took(self, status: int, headers: Mapping[str, str]) -> None:
        """A head has come."""
        self.status, self.headers = status, headers
        self.worker = int(headers["X-Worker"]) if "X-Worker" in headers else None


class Clients:
    """Threads that ask, one request after the other.

    :param faults: what is wished for, by weight.
    :param leaving: how many in a hundred leave before the end.
    :param patience: seconds that they wait for the next byte.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        number: int,
        faults: Mapping[str, int],
        *,
        leaving: int,
        tokens: tuple[int, int],
        patience: float,
        seed: int = 0,
    ) -> None:
        self.asked: list[Asked] = []
        self._hosts, self._faults, self._leaving, self._tokens = hosts, faults, leaving, tokens
        self._patience = patience
        self._open, self._ending = threading.Event(), threading.Event()
        self._busy = 0
        self._changed = threading.Condition()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(seed + each,)) for each in range(number)]

    @contextmanager
    def running(self) -> Iterator[None]:
        self._open.set()
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._ending.set()
            self._open.set()
            for thread in self._threads:
                thread.join()
        if self._failures:
            raise self._failures[0]

    @contextmanager
    def paused(self, seconds: float = 60.0) -> Iterator[None]:
        """Nobody asks within the context, and all answers have ended."""
        self._open.clear()
        with self._changed:
            assert self._changed.wait_for(lambda: not self._busy, seconds), "answers that do not end"
        try:
            yield
        finally:
            self._open.set()

    def _run(self, seed: int) -> None:
        chance = random.Random(seed)
        pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(self._patience))
        sdks = _sdks(self._patience)
        try:
            while not self._ending.is_set():
                self._open.wait()
                if not self._enter():
                    continue
                try:
                    self._ask(chance, pool, sdks)
                finally:
                    self._leave()
        except BaseException as error:
            self._failures.append(error)
        finally:
            pool.clear()
            for sdk in sdks.values():
                sdk.close()

    def _enter(self) -> bool:
        with self._changed:
            if not self._open.is_set() or self._ending.is_set():
                return False
            self._busy += 1
            return True

    def _leave(self) -> None:
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def _ask(self, chance: random.Random, pool: urllib3.PoolManager, sdks: Mapping[str, Any]) -> None:
        wire = chance.choice(WIRES)
        asked = Asked(
            uuid.uuid4().hex,
            chance.choice(DOORS),
            wire,
            chance.random() < 0.7,
            chance.choices(list(self._faults), list(self._faults.values()))[0],
            chance.randint(*self._tokens),
        )
        asked.leaves = asked.stream and chance.randrange(100) < self._leaving
        asked.sdk = asked.door == "public" and wire.path in sdks and chance.random() < 0.3
        self.asked.append(asked)
        address = chance.choice(self._hosts).address
        if asked.sdk:
            _ask_by_sdk(asked, address, sdks[wire.path])
        else:
            _ask_raw(asked, address, pool)


def _ask_raw(asked: Asked, address: str, pool: urllib3.PoolManager) -> None:
    body = json.dumps(asked.wire.document(asked.prompt, asked.stream))
    headers = {**asked.head, "Content-Type": "application/json"}
    try:
        answer = pool.request("POST", asked.url(address), body=body, headers=headers, preload_content=False)
    except HTTPError as error:
        asked.error = f"{type(error).__name__}: {error}"
        return
    asked.took(answer.status, answer.headers)
    data = b""
    try:
        while chunk := answer.read1(65536):
            data += chunk
            if asked.leaves and len(data) > 1000:
                answer.close()
                return
        asked.whole = asked.status == 200 and _is_whole(asked, data)
        asked.error = None if asked.whole else data[-300:].decode(errors="replace")
        answer.release_conn()
    except HTTPError as error:
        asked.error = f"{type(error).__name__}: {error}"
        answer.close()


def _is_whole(asked: Asked, data: bytes) -> bool:
    if asked.stream:
        return asked.wire.last in data
    try:
        return "usage" in json.loads(data)
    except ValueError:
        return False


def _sdks(patience: float) -> dict[str, Any]:
    """A client of each SDK that is installed, by the path that it asks."""
    made: dict[str, Any] = {}
    try:
        import anthropic

        made["v1/messages"] = anthropic.Anthropic(
            api_key="none", max_retries=0, timeout=patience, base_url="http://127.0.0.1:9"
        )
        import openai

        made["v1/chat/completions"] = openai.OpenAI(
            api_key="none", max_retries=0, timeout=patience, base_url="http://127.0.0.1:9"
        )
    except ImportError:
        pass
    return made


def _ask_by_sdk(asked: Asked, address: str, sdk: Any) -> None:
    root = asked.url(address).removesuffix(asked.wire.path)
    create: Callable[..., Any]
    if asked.wire.path == "v1/messages":
        create = sdk.with_options(base_url=root).messages.with_raw_response.create
    else:
        create = sdk.with_options(base_url=f"{root}v1").chat.completions.with_raw_response.create
    try:
        raw = create(**asked.wire.document(asked.prompt, asked.stream), extra_headers=asked.head)
        asked.took(raw.status_code, raw.headers)
        answer = raw.parse()
        asked.whole = _follow(asked, answer) if asked.stream else answer.usage is not None
    except Exception as error:  # each SDK has a tree of its own
        if asked.status is None and hasattr(error, "status_code"):
            asked.took(error.status_code, error.response.headers)  # type: ignore[attr-defined]
        asked.error = f"{type(error).__name__}: {error}"


def _follow(asked: Asked, stream: Any) -> bool:
    last = False
    with stream:
        for number, event in enumerate(stream):
            if asked.leaves and number > 3:
                return False
            if asked.wire.path == "v1/messages":
                last = event.type == "message_stop"
            else:
                last = last or bool(event.choices and event.choices[0].finish_reason)
    return last
