"""A thousand streams in one worker of gunicorn's class ``gevent``, all open at the same time."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flask_aibridge.license.issuing import SigningKey, issue_license
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.store import RedisStore
from flask_aibridge.services.storage import Query
from tests.services.servers import Server, redis_binary, started, valkey_binary, wait_until
from tests.soak.clients import KEY, PREFIX
from tests.soak.hosts import Host, running
from tests.soak.measure import sample

pytest.importorskip("gunicorn")
pytest.importorskip("gevent")
pytestmark = [
    pytest.mark.servers,
    pytest.mark.slow,
    pytest.mark.skipif(valkey_binary() is None and redis_binary() is None, reason="needs a server"),
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc"),
]

STREAMS = 1000
DESCRIPTORS = 5 * STREAMS
"""Each stream has four ends: of its client and the provider here, and two in the worker."""

DEADLINE_SECONDS = 120.0
EVENTS: list[dict[str, object]] = [
    {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 3, "output_tokens": 1}}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "first"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
    {"type": "message_stop"},
]
FIRST, REST = [
    "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in half).encode()
    for half in (EVENTS[:2], EVENTS[2:])
]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@contextmanager
def many_descriptors() -> Iterator[None]:
    """For this process and those that it starts."""
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        pytest.skip(f"needs {DESCRIPTORS} descriptors, and may have {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, DESCRIPTORS), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


class Streams:
    """The provider, and the clients: they all get the first words before anybody gets the rest."""

    def __init__(self) -> None:
        self.begun = 0
        self.all_begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD + FIRST)
            await writer.drain()
            await self.go_on.wait()
            writer.write(REST)
            await writer.drain()

    async def ask(self, port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        asked = {
            "model": "m",
            "max_tokens": 9,
            "stream": True,
            "messages": [{"role": "user", "content": "hi"}],
        }
        body = json.dumps(asked).encode()
        with closing(writer):
            head = f"POST {PREFIX}/anthropic/v1/messages HTTP/1.1\r\nHost: h\r\nX-Api-Key: {KEY}\r\n"
            head += (
                f"Connection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            data = b""
            while b"first" not in data:
                data += (more := await reader.read(65536))
                assert more, data
            self.begun += 1
            if self.begun == STREAMS:
                self.all_begun.set()
            return data + await reader.read()


def test_a_thousand_streams_in_one_worker() -> None:
    binary = valkey_binary() or redis_binary()
    assert binary is not None
    redis = Server(binary)
    with many_descriptors(), started(redis):
        asyncio.run(asyncio.wait_for(_streams(redis), DEADLINE_SECONDS))


async def _streams(redis: Server) -> None:
    streams = Streams()
    server = await asyncio.start_server(streams.serve, "127.0.0.1", 0, backlog=STREAMS)
    signing = SigningKey.generate("k1")
    port = server.sockets[0].getsockname()[1]
    config = {
        "AIBRIDGE_REDIS_URL": redis.url,
        "AIBRIDGE_PROVIDERS": {
            "anthropic": {"type": "anthropic", "base_url": f"http://127.0.0.1:{port}", "keys": ["k"]}
        },
        "AIBRIDGE_API_KEYS": {"alice": KEY},
        "AIBRIDGE_LICENSE": issue_license(signing),
        "AIBRIDGE_LICENSE_PUBLIC_KEYS": {"k1": signing.public_base64},
    }
    # The keep-alive bounds the wait for the first request of a connection too: two seconds, which such a burst exceeds.
    gevent = ("--worker-class", "gevent", "--workers", "1", "--keep-alive", "60")
    connections = ("--worker-connections", str(2 * STREAMS))
    host = Host("g", {"SOAK_LEASE": "60"}, config, *gevent, *connections)
    with running([host]):
        (worker,) = host.gunicorn.workers()
        before = sample(worker, 0)
        asking = [asyncio.create_task(streams.ask(host.gunicorn.port)) for _ in range(STREAMS)]
        waiting = asyncio.create_task(streams.all_begun.wait())
        await asyncio.wait([waiting, *asking], return_when=asyncio.FIRST_COMPLETED)
        failed = [each.exception() or each.result() for each in asking if each.done()]
        assert streams.all_begun.is_set(), f"{streams.begun} of {STREAMS}; {failed[:1]}\n{host.logged()}"
        held = sample(worker, 0)
        assert before is not None
        assert held is not None
        assert held.descriptors >= 2 * STREAMS
        assert held.threads <= before.threads + 20  # greenlets, and not threads but for gevent's own pool
        streams.go_on.set()
        answers = await asyncio.gather(*asking)
        assert all(b'"message_stop"' in answer for answer in answers)
        print(f"{(held.memory - before.memory) / STREAMS:.0f} KB for each of {STREAMS} streams")
        await asyncio.to_thread(_check_records, redis)
    server.close()
    await server.wait_closed()


def _check_records(redis: Server) -> None:
    with closing(RedisStore(RedisConnection(redis.url))) as store:
        wait_until(
            lambda: store.interceptions(Query(status="completed"), limit=1).count == STREAMS, "all records"
        )
        now, hour = datetime.now(UTC), timedelta(hours=1)
        (row,) = store.usage(since=now - hour, until=now + hour)
        assert (row.requests, row.tokens.input, row.tokens.output) == (STREAMS, 3 * STREAMS, 5 * STREAMS)
