"""Rate limits by the public door: what callers are told, and who is counted."""

from __future__ import annotations

from typing import Any

import pytest

from flask_aibridge.bridge import Bridge
from flask_aibridge.bridge.options import BridgeOptions
from flask_aibridge.bridge.rate_limiting import rate_limit_headers, too_many_requests
from flask_aibridge.config import parse_rate_limit
from flask_aibridge.errors import RateLimited
from flask_aibridge.services.interfaces import RateStanding
from flask_aibridge.testing import Served, StandInProvider
from tests.bridge.conftest import MakeBridge, RecordingHook
from tests.bridge.wsgi import FakeCancellation, Reply, call

QUESTION = {"model": "m-1", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
LIMIT = parse_rate_limit("2/hour")
KEYS = {"alice": "aib_1_secret", "bob": "aib_2_secret"}


@pytest.fixture
def limited(make_bridge: MakeBridge, stand_in: Served[StandInProvider]) -> Bridge:
    """A bridge that keeps no records, and lets each key make two requests."""
    return make_bridge(stand_in.base_url, api_keys=KEYS, options=BridgeOptions(rate_limit=LIMIT))


def ask(bridge: Bridge, key: str = KEYS["alice"], path: str = "/anthropic/v1/messages") -> Reply:
    return call(bridge, "POST", path, QUESTION, headers={"X-Api-Key": key})


def test_every_answer_says_what_remains(limited: Bridge) -> None:
    """In the words of the draft."""
    replies = [ask(limited) for _ in range(2)]
    assert [reply.status for reply in replies] == [200, 200]
    assert [reply.headers["ratelimit-policy"] for reply in replies] == ['"aibridge";q=2;w=3600'] * 2
    assert replies[0].headers["ratelimit"] == '"aibridge";r=1;t=1800'
    assert replies[1].headers["ratelimit"].startswith('"aibridge";r=0;t=1')


@pytest.mark.parametrize(
    ("path", "word"),
    [("/anthropic/v1/messages", "rate_limit_error"), ("/openai/v1/chat/completions", "rate_limit_exceeded")],
)
def test_one_too_many_is_refused_in_the_provider_s_form(
    limited: Bridge, stand_in: Served[StandInProvider], hook: RecordingHook, path: str, word: str
) -> None:
    """With the time to wait, and the provider is not asked."""
    for _ in range(2):
        ask(limited)
    asked = len(stand_in.stand_in.requests)
    reply = ask(limited, path=path)
    assert reply.status == 429
    assert 1790 < int(reply.headers["retry-after"]) <= 1800
    assert reply.headers["ratelimit"] == f'"aibridge";r=0;t={reply.headers["retry-after"]}'
    assert reply.headers["ratelimit-policy"] == '"aibridge";q=2;w=3600'
    assert "2 requests per hour" in reply.body.decode()
    assert word in reply.body.decode()
    assert len(stand_in.stand_in.requests) == asked
    assert (hook.records[-1].outcome, hook.records[-1].status) == ("refused", 429)


def test_each_key_is_counted_for_itself(limited: Bridge) -> None:
    for _ in range(2):
        ask(limited)
    assert ask(limited).status == 429
    assert ask(limited, KEYS["bob"]).status == 200
    assert ask(limited, "aib_1_wrong").status == 401


def test_callers_in_process_are_not_counted(limited: Bridge) -> None:
    """They have a bound of their own."""
    environ: dict[str, Any] = {"flask_aibridge.cancellation": FakeCancellation()}
    for key_id in (None, "1"):
        named = {} if key_id is None else {"flask_aibridge.key_id": key_id}
        for _ in range(3):
            reply = call(limited, "POST", "/anthropic/v1/messages", QUESTION, **environ, **named)
            assert reply.status == 200
            assert "ratelimit" not in reply.headers


def test_without_a_limit_nothing_is_said(bridge: Bridge) -> None:
    reply = ask(bridge)
    assert reply.status == 200
    assert not {"ratelimit", "ratelimit-policy"} & set(reply.headers)


@pytest.mark.parametrize(("wait", "seconds"), [(0.000001, "1"), (1.0, "1"), (1.000001, "2"), (59.2, "60")])
def test_the_wait_is_rounded_up(wait: float, seconds: str) -> None:
    """Who comes again after it is let through."""
    refused = too_many_requests(RateLimited(wait, "60/minute burst=20"))
    assert dict(refused.headers)["Retry-After"] == seconds


def test_the_headers_are_structured_fields() -> None:
    assert rate_limit_headers(RateStanding(parse_rate_limit("600/minute burst=20"), 7, 3)) == [
        ("RateLimit-Policy", '"aibridge";q=600;w=60'),
        ("RateLimit", '"aibridge";r=7;t=3'),
    ]
