"""Credentials stay where they belong: each has a mark of its own, everything is tried by both doors, and then all that
was written is searched for the marks."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from flask_aibridge.bridge import Bridge
from flask_aibridge.bridge.options import BridgeOptions
from flask_aibridge.bridge.upstream import UpstreamBroken
from flask_aibridge.config import CircuitBreaker, ProviderSettings
from flask_aibridge.observability import LoggingHook
from flask_aibridge.services.interfaces import ProviderConfig, ProviderSet
from flask_aibridge.services.schemas.messages import encode
from flask_aibridge.testing import AnswerWith, DropAfter, ErrorAfter, StandInProvider, serve_stand_in
from flask_aibridge.testing.stand_in import Failure
from tests.bridge.conftest import RecordingHook
from tests.bridge.test_admission import ScriptedHost
from tests.bridge.wsgi import FakeCancellation, call

pytestmark = pytest.mark.usefixtures("no_leaks")

PROVIDER_KEYS = tuple(f"sk-canary-of-the-host-{number}-0123456789" for number in range(3))
OWN_KEYS = ("sk-canary-of-the-caller-a-0123456789", "sk-canary-of-the-caller-b-0123456789")
GATEWAY_KEY = "aib_canary0_of-the-gateway-0123456789"
ELSEWHERE = "canary-of-another-header-0123456789"
MARKS = (*PROVIDER_KEYS, *OWN_KEYS, GATEWAY_KEY, ELSEWHERE)

BODY = {"model": "m-1", "max_tokens": 5, "messages": [{"role": "user", "content": "Say hello"}]}
PATHS = ("/anthropic/v1/messages", "/openai/v1/chat/completions", "/openai/v1/responses")
OTHERS = {
    "Cookie": f"session={ELSEWHERE}",
    "X-Auth-Token": ELSEWHERE,
    "X-Goog-Api-Key": ELSEWHERE,
    "Api-Key": ELSEWHERE,
    "Proxy-Authorization": f"Bearer {ELSEWHERE}",
    "X-AIBridge-Actor-ID": ELSEWHERE,
    "X-AIBridge-Anything": ELSEWHERE,
    "X-Forwarded-Access-Token": ELSEWHERE,
}
CREDENTIALS: tuple[dict[str, str], ...] = (
    {"Authorization": f"Bearer {GATEWAY_KEY}"},
    {"X-Api-Key": GATEWAY_KEY},
    {"Authorization": f"Bearer {GATEWAY_KEY}", "X-Api-Key": OWN_KEYS[0]},
    {"Authorization": f"Bearer {OWN_KEYS[0]}", "X-Api-Key": GATEWAY_KEY},
    {"Authorization": f"Basic {GATEWAY_KEY}"},
    {"X-AIBridge-Token": GATEWAY_KEY},
    {"X-AIBridge-Token": GATEWAY_KEY, "Authorization": f"Bearer {GATEWAY_KEY}"},
    {"X-AIBridge-Token": GATEWAY_KEY, "Authorization": f"Bearer {OWN_KEYS[0]}"},
    {"X-AIBridge-Token": GATEWAY_KEY, "Authorization": f"Basic {OWN_KEYS[0]}"},
    {"X-AIBridge-Token": GATEWAY_KEY, "Authorization": f"Bearer x, Bearer {GATEWAY_KEY}"},
    {"X-AIBridge-Token": GATEWAY_KEY, "Authorization": f"Bearer {OWN_KEYS[0]}", "X-Api-Key": OWN_KEYS[1]},
    {"X-AIBridge-Token": f"{GATEWAY_KEY}, {GATEWAY_KEY}", "X-Api-Key": OWN_KEYS[1]},
)
FAILURES: tuple[Failure | None, ...] = (
    None,
    AnswerWith(429),
    AnswerWith(401),
    AnswerWith(500, b"<html>"),
    ErrorAfter(1),
    DropAfter(1),
)


class EchoingProvider(StandInProvider):
    """Repeats in its errors what it was sent, in the body and in a header, as debugging proxies do."""

    def __call__(self, environ: Any, start_response: Any) -> Any:
        sent = {key: value for key, value in environ.items() if key.startswith("HTTP_")}

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, [*headers, *(("X-Echo", value) for value in sent.values())], *more)

        if not self._failures or not isinstance(self._failures[0], AnswerWith):
            return super().__call__(environ, start)
        self._failures[0] = AnswerWith(
            self._failures[0].status, {"error": {"type": "echo", "message": json.dumps(sent)}}
        )
        return super().__call__(environ, start)


class ManyKeys(ScriptedHost):
    """Has a provider of each type, with several keys each."""

    def providers(self) -> ProviderSet:
        urls = {"anthropic": self.base_url, "openai": f"{self.base_url}/v1"}
        found = [ProviderSettings(name, name, url, PROVIDER_KEYS) for name, url in urls.items()]
        return ProviderSet(tuple(map(ProviderConfig, found)), 1)


@pytest.mark.parametrize(
    ("door", "byok", "breaker"),
    [
        ("public", True, None),
        ("public", False, None),
        ("in process", False, None),
        ("public", True, CircuitBreaker(failure_threshold=1)),
    ],
)
def test_credentials_stay_where_they_belong(
    door: str, byok: bool, breaker: CircuitBreaker | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A provider sees one of the host's keys or the caller's own, where its SDK would put it; nobody else sees any."""
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    hook = RecordingHook()
    options = BridgeOptions(allow_byok=byok, actor_headers=True, circuit_breaker=breaker)
    sent: set[tuple[str, str]] = set()
    for failure in FAILURES:
        failures = [failure] * 100
        with serve_stand_in(EchoingProvider(answer="a b c", failures=failures)) as served:
            host = ManyKeys(served.base_url)
            bridge = Bridge(recording=partial(_itself, host), hooks=[hook, LoggingHook()], options=options)
            for path in PATHS:
                for number, headers in enumerate(CREDENTIALS):
                    body = BODY | {"input": "Say hello", "stream": bool(number % 2)}
                    environ: dict[str, Any] = {"headers": {**OTHERS, **headers}}
                    if door != "public":
                        environ["flask_aibridge.cancellation"] = FakeCancellation()
                    reply = call(bridge, "POST", path, body, **environ)
                    told += [repr(reply.head), read(reply)]
            told += [repr(bridge), repr(vars(bridge)), repr(host.admitted)]
            told += [encode(start) for start, _ in host.admitted if start is not None]
            told += [encode(record) for record in host.records]
            bridge.close()
            for request in served.stand_in.requests:
                told += [request.path, request.query, request.body.decode(), repr(request)]
                for name, value in request.headers.items():
                    carried = value.removeprefix("Bearer ")
                    if name in ("authorization", "x-api-key") and carried in (*PROVIDER_KEYS, *OWN_KEYS):
                        sent.add((name, carried))
                    else:
                        told.append(value)
    told += [repr(record) for record in hook.records]
    told += [caplog.text, *(repr(vars(record)) for record in caplog.records)]
    for mark in MARKS:
        found = [text for text in told if mark in text]
        assert not found, f"{mark} is in {found[0][:2000]}"
    assert {("x-api-key", key) for key in PROVIDER_KEYS} <= sent
    own = {pair for pair in sent if pair[1] in OWN_KEYS}
    if byok or door != "public":
        assert own == {("authorization", OWN_KEYS[0]), ("x-api-key", OWN_KEYS[1])}
    else:
        assert own == set()


def read(reply: Any) -> str:
    if reply.complete:
        return str(reply.body.decode())
    pieces: list[bytes] = []
    with suppress(UpstreamBroken):
        pieces.extend(reply.iterator)
    reply.close()
    return b"".join(pieces).decode()


def _itself(host: ManyKeys) -> ManyKeys:
    return host
