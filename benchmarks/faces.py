"""Flask-AIBridge's transport under each client library, ready to be measured."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import requests

from flask_aibridge.transport import WSGIPoolManager
from flask_aibridge.transport.httpx import WSGITransport as HttpxTransport
from flask_aibridge.transport.httpx2 import AsyncWSGITransport as AsyncHttpx2Transport
from flask_aibridge.transport.httpx2 import WSGITransport as Httpx2Transport
from flask_aibridge.transport.requests import WSGIAdapter

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

BASE_URL = "http://bridge.invalid"
"""Any host does: the transport never looks it up."""


@dataclass(frozen=True)
class Faces:
    """One client of each kind, all of them on the same manager, and the loop of the asynchronous one."""

    pool: WSGIPoolManager
    session: requests.Session
    httpx2_client: httpx2.Client
    httpx2_async_client: httpx2.AsyncClient
    httpx_client: httpx.Client
    runner: asyncio.Runner


@contextlib.contextmanager
def faces(app: WSGIApplication, environ: Mapping[str, Any] | None = None) -> Iterator[Faces]:
    """Yield clients whose every request calls `app`, and close them."""
    with contextlib.ExitStack() as stack:
        manager = WSGIPoolManager(app, environ=environ)
        runner = stack.enter_context(asyncio.Runner())
        async_client = httpx2.AsyncClient(transport=AsyncHttpx2Transport(manager))
        stack.callback(lambda: runner.run(async_client.aclose()))
        yield Faces(
            pool=manager,
            session=stack.enter_context(session_with(WSGIAdapter(manager))),
            httpx2_client=stack.enter_context(httpx2.Client(transport=Httpx2Transport(manager))),
            httpx2_async_client=async_client,
            httpx_client=stack.enter_context(httpx.Client(transport=HttpxTransport(manager))),
            runner=runner,
        )


def session_with(adapter: requests.adapters.BaseAdapter) -> requests.Session:
    """Return a Session that sends everything through `adapter` and ignores the environment's proxies."""
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", adapter)
    return session
