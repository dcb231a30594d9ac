"""Streams asked for by both doors, as their callers do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import urllib3

from flask_aibridge.bridge import Bridge
from flask_aibridge.testing import serve_stand_in
from flask_aibridge.transport import Source, TransportFactory
from tests.bridge.wsgi import DEADLINE

MESSAGES, CHAT, RESPONSES = "anthropic/v1/messages", "openai/v1/chat/completions", "openai/v1/responses"
QUESTION = {"model": "m", "stream": True, "stream_options": {"include_usage": True}, "messages": []}
EVENT = b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}\n\n'
DONE = b"data: [DONE]\n\n"
KEY = {"Authorization": "Bearer aib_1_secret"}

DOORS = pytest.mark.parametrize("door", ["public", "in process"])

LEAVES_NOTHING = pytest.mark.usefixtures("no_leaks")
"""For the public door: in process an idle worker keeps its descriptors for a second, which other tests look at."""


@contextmanager
def asked(door: str, bridge: Bridge, path: str, **question: Any) -> Iterator[urllib3.BaseHTTPResponse]:
    """Ask through a door, by HTTP or in process."""
    options: dict[str, Any] = {"json": QUESTION | question, "preload_content": False, "retries": False}
    if door == "in process":
        provider, _, below = path.partition("/")
        manager = TransportFactory(bridge).transport_for(provider, Source.AGENTS)
        response = manager.request("POST", f"https://provider/{below}", timeout=DEADLINE, **options)
        yield response
        response.close()
        return
    with serve_stand_in(bridge) as served, urllib3.PoolManager(timeout=DEADLINE) as pool:
        response = pool.request("POST", f"{served.base_url}/{path}", headers=KEY, **options)
        yield response
        response.close()
