"""httpx and httpx2, sync and async, under one interface: what a test says of one it says of all four."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest

from flask_aibridge.transport import WSGIPoolManager

T = TypeVar("T")

LIBRARIES = ("httpx", "httpx2")


class Family:
    """One library, sync or async. ``run`` runs a coroutine function; the other methods are awaited in it."""

    def __init__(self, name: str, is_async: bool) -> None:
        self.library: Any = pytest.importorskip(name)
        self.face: Any = importlib.import_module(f"flask_aibridge.transport.{name}")
        self.is_async = is_async

    def run(self, main: Callable[[], Awaitable[T]]) -> T:
        async def bounded() -> T:
            return await asyncio.wait_for(main(), 60)

        return asyncio.run(bounded(), debug=False)

    def transport(self, manager: WSGIPoolManager) -> Any:
        return self.face.AsyncWSGITransport(manager) if self.is_async else self.face.WSGITransport(manager)

    def client(self, manager: WSGIPoolManager, **options: Any) -> Client:
        make = self.library.AsyncClient if self.is_async else self.library.Client
        return Client(make(transport=self.transport(manager), **options), self.is_async)


class Client:
    """A client of either kind; every method is awaited."""

    def __init__(self, client: Any, is_async: bool) -> None:
        self.own = client
        self._async = is_async

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._settled(self.own.aclose() if self._async else self.own.close())

    async def _settled(self, result: Any) -> Any:
        return await result if self._async else result

    async def request(self, method: str, url: str, **options: Any) -> Any:
        return await self._settled(self.own.request(method, url, **options))

    async def get(self, url: str, **options: Any) -> Any:
        return await self.request("GET", url, **options)

    async def stream(self, method: str, url: str, **options: Any) -> Opened:
        """A response whose body has not been read."""
        timeout = {"timeout": options.pop("timeout")} if "timeout" in options else {}
        request = self.own.build_request(method, url, **timeout, **options)
        return Opened(await self._settled(self.own.send(request, stream=True)), self._async)


class Opened:
    """A response that is open."""

    def __init__(self, response: Any, is_async: bool) -> None:
        self.own = response
        self._async = is_async

    def iterate(self, how: str, *args: Any) -> AsyncIterator[Any]:
        """``iter_<how>`` or ``aiter_<how>``."""
        if self._async:
            own: AsyncIterator[Any] = getattr(self.own, f"aiter_{how}")(*args)
            return own
        return _awaited(getattr(self.own, f"iter_{how}")(*args))

    def again(self) -> AsyncIterator[bytes]:
        """The stream itself, as the SDKs drain it."""
        stream = self.own.stream
        return stream.__aiter__() if self._async else _awaited(iter(stream))

    async def read(self) -> bytes:
        data: bytes = await self.own.aread() if self._async else self.own.read()
        return data

    async def close(self) -> None:
        if self._async:
            await self.own.aclose()
        else:
            self.own.close()


async def _awaited(iterator: Iterator[T]) -> AsyncIterator[T]:
    for item in iterator:
        yield item
