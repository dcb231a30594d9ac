"""Faults of a process, each in a process of its own: forks, no descriptors, a full disk, clocks that jump. Run by name
from ``test_faults``, with a folder that is empty. The application is a whole one, with a real Redis."""

from __future__ import annotations

import gc
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.integration.jumping_clock import CLOCK

if __name__ == "__main__" and sys.argv[1] == "clocks_jump":
    CLOCK.install()

from flask import Flask
from urllib3.exceptions import HTTPError, NewConnectionError

from flask_aibridge import AIBridge, Source
from flask_aibridge.app_state import AppState
from flask_aibridge.license.issuing import SigningKey, issue_license
from flask_aibridge.services.recording import availability
from flask_aibridge.services.redis import breaker
from flask_aibridge.services.storage import InterceptionView, Query
from flask_aibridge.testing import StandInProvider, serve_stand_in
from tests.services.servers import Server, redis_binary, started, valkey_binary, wait_until

PATH = "/api/v2/aibridge/anthropic/v1/messages"
KEY = "aib_static-key-of-alice"
DEADLINE_SECONDS = 30.0

# A Redis that is there again is found at once.
availability.FIRST_PAUSE, availability.MAX_PAUSE, breaker.PROBE_SECONDS = 0.02, 0.05, 0.02  # type: ignore[misc]


class Provider(StandInProvider):
    """Says a word, and the rest when it is let; at once where the question is quick."""

    def __init__(self) -> None:
        super().__init__(answer=self._words)
        self.go_on = threading.Event()

    def _words(self, question: str) -> Iterator[str]:
        yield "first "
        if question != "quick":
            assert self.go_on.wait(DEADLINE_SECONDS)
        yield "last"


class Case:
    """An application, what it stands on, and both its doors."""

    def __init__(self, redis: Server, url: str, folder: Path, **config: Any) -> None:
        self.redis = redis
        signing = SigningKey.generate("k1")
        self.app = Flask("host", instance_path=str(folder), static_folder=None)
        self.app.config.update(
            AIBRIDGE_REDIS_URL=redis.url,
            AIBRIDGE_PROVIDERS={"anthropic": {"type": "anthropic", "base_url": url, "keys": ["k"]}},
            AIBRIDGE_API_KEYS={"alice": KEY},
            AIBRIDGE_LICENSE=issue_license(signing, nbf=int(time.time()) - 2 * 86_400),
            AIBRIDGE_LICENSE_PUBLIC_KEYS={"k1": signing.public_pem},
            **config,
        )
        self.bridge = AIBridge(self.app)

    @property
    def state(self) -> AppState:
        state: AppState = self.app.extensions["aibridge"]
        return state

    def public(self, words: str = "quick") -> Stream:
        headers = {"X-Api-Key": KEY}
        answer = self.app.test_client().post(PATH, json=_asked(words), headers=headers, buffered=False)
        return Stream(answer.status_code, answer.headers, iter(answer.iter_encoded()), answer.close)

    def in_process(self, words: str = "quick") -> Stream:
        transport = self.bridge.transport_for("anthropic", Source.AGENTS)
        answer: Any = transport.request(
            "POST",
            "https://api.anthropic.com/v1/messages",
            json=_asked(words),
            preload_content=False,
            retries=False,
        )
        return Stream(answer.status, answer.headers, answer.stream(), answer.close)

    def records(self) -> list[InterceptionView]:
        """All, once none is running."""
        store = self.state.store()
        wait_until(lambda: not store.interceptions(Query(status="running"), limit=1).count, "all ends")
        return list(store.interceptions(Query(), limit=500).interceptions)


class Stream:
    """An answer, as far as it has been read."""

    def __init__(
        self, status: int, headers: Any, chunks: Iterator[bytes], close: Callable[[], object]
    ) -> None:
        self.status, self.headers = status, headers
        self._chunks, self._close = chunks, close
        self.data = b""

    def begun(self) -> Stream:
        while b"first" not in self.data:
            self.data += next(self._chunks)
        return self

    def is_whole(self) -> bool:
        with closing(self):
            self.data += b"".join(self._chunks)
        return self.status == 200 and b'"message_stop"' in self.data and b"last" in self.data

    def close(self) -> None:
        self._close()


def _asked(words: str) -> dict[str, Any]:
    return {
        "model": "m",
        "max_tokens": 9,
        "stream": True,
        "messages": [{"role": "user", "content": words}],
    }


@contextmanager
def case(folder: str, **config: Any) -> Iterator[tuple[Case, Provider]]:
    binary = valkey_binary() or redis_binary()
    assert binary is not None
    redis, provider = Server(binary), Provider()
    with started(redis), serve_stand_in(provider) as served:
        made = Case(redis, served.base_url, Path(folder), **config)
        yield made, provider
        made.state.close()


def fork(folder: str, on_disconnect: str) -> None:
    """With streams open by both doors, and an idle connection to the provider and to Redis: parent and child both go on
    asking, and the child, which drops what it has of the streams, takes nothing away from the parent."""
    with case(folder, AIBRIDGE_ON_DISCONNECT=on_disconnect) as (here, provider):
        assert here.public().is_whole()
        streams = [here.public("slow").begun(), here.in_process("slow").begun()]
        child = os.fork()
        if not child:
            status = 1
            try:
                assert all(each.is_whole() for each in [here.public(), here.in_process()] * 5)
                for stream in streams:
                    stream.close()
                streams.clear()
                gc.collect()
                here.state.close()
                status = 0
            finally:
                os._exit(status)
        assert all(ask().is_whole() for ask in (here.public, here.in_process) * 5)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        provider.go_on.set()
        assert all(stream.is_whole() for stream in streams)
        assert [view.status for view in here.records()] == ["completed"] * (1 + 2 + 2 + 10)


def no_descriptors(folder: str) -> None:
    """Requests are refused cleanly, the streams that are open go on, and then all is as before."""
    with case(folder) as (here, provider):
        assert here.public().is_whole()
        assert here.in_process().is_whole()
        streams = [here.public("slow").begun(), here.in_process("slow").begun()]
        here.state.recording()
        taken = _take_all_descriptors()
        try:
            refused = [here.public() for _ in range(5)]
            for each in refused:
                assert each.status in (502, 503), each.status
                assert b'"type": "error"' in b"".join(each._chunks)
                each.close()
            for _ in range(5):
                _assert_refused(here.in_process)
        finally:
            for descriptor in taken:
                os.close(descriptor)
        provider.go_on.set()
        assert all(stream.is_whole() for stream in streams)
        assert here.public().is_whole()
        assert here.in_process().is_whole()
        statuses = [view.status for view in here.records()]
        assert statuses.count("completed") == 6, statuses
        assert set(statuses) <= {"completed", "upstream_error", "refused"}, statuses


def _assert_refused(ask: Callable[[], Stream]) -> None:
    try:
        answer = ask()
    except (NewConnectionError, HTTPError):
        return
    assert answer.status in (502, 503), answer.status
    answer.close()


def _take_all_descriptors() -> list[int]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    taken = []
    while True:
        try:
            taken.append(os.dup(0))
        except OSError:
            return taken


def full_disk(folder: str, mode: str) -> None:
    """Redis is away, and the disk of the spool is full. Required: requests are told to come again; best effort: they
    pass, and what is lost is counted. With room on the disk all is well, and once Redis is back, all recorded."""
    with case(folder, AIBRIDGE_RECORDING=mode) as (here, _):
        assert here.public().is_whole()
        here.redis.kill()
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, unlimited[1]))
        answers = [ask() for ask in (here.public, here.in_process) * 20]
        whole = sum(answer.is_whole() for answer in answers)
        state = here.state.recording().state()
        if mode == "required":
            assert 2 <= whole < 40
            assert {answer.status for answer in answers} == {200, 503}
            assert all(int(answer.headers["Retry-After"]) for answer in answers if answer.status == 503)
        else:
            assert whole == 40
            assert state.dropped
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        wait_until(lambda: here.public().status == 200, "an answer")
        assert here.in_process().is_whole()
        here.redis.start()
        recording = here.state.recording()
        wait_until(lambda: recording.state().services_away_since is None, "Redis")
        wait_until(lambda: not recording.state().spooled_records, "an empty spool")
        statuses = [view.status for view in here.records()]
        if mode == "required":
            assert len(statuses) >= 1 + whole + 2
            assert recording.state().dropped == 0
        assert statuses.count("completed") >= 3


def clocks_jump(folder: str) -> None:
    """The host's clock is set back and forth, by hours and by days, also while streams are open: everybody is served,
    ids are unique, nothing ends before it began, nobody is taken for dead, and none is lost."""
    with case(folder) as (here, provider):
        assert here.public().is_whole()
        streams = [here.public("slow").begun(), here.in_process("slow").begun()]
        asked = 3
        for jump in (-3600.0, -20 * 3600.0, 3600.0, 20 * 3600.0, 40 * 86400.0, 0.0):
            CLOCK.shift = jump
            here.state.store().maintain()
            for ask in (here.public, here.in_process):
                answer = ask()
                assert answer.is_whole(), (jump, answer.status, answer.data)
                asked += 1
        CLOCK.shift = -3600.0
        provider.go_on.set()
        assert all(stream.is_whole() for stream in streams)
        views = here.records()
        assert [view.status for view in views] == ["completed"] * asked
        assert len({view.start.id for view in views}) == asked
        for view in views:
            assert view.end is not None
            lasted = view.end.ended_at - view.start.started_at
            assert timedelta(0) <= lasted < timedelta(minutes=5), lasted
            assert view.tokens.output == 2


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
