"""The face for httpx: transports for its ``Client`` and ``AsyncClient``. Needs the extra ``[httpx]``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx

from .httpx_async import AsyncBody, AsyncFace
from .httpx_family import SyncBody, SyncFace

__all__ = ["AsyncWSGITransport", "WSGITransport"]


class _SyncStream(httpx.SyncByteStream):
    """A body of the type that ``httpx.Client`` insists on."""

    def __init__(self, body: SyncBody) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        self._body.close()


class _AsyncStream(httpx.AsyncByteStream):
    """A body of the type that ``httpx.AsyncClient`` insists on."""

    def __init__(self, body: AsyncBody) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._body.__aiter__()

    async def aclose(self) -> None:
        self._body.close()


class WSGITransport(SyncFace, httpx.BaseTransport):
    """``httpx.Client(transport=WSGITransport(manager))``: every request of the client goes to the manager's
    app.

    :param manager: a :class:`~flask_aibridge.transport.WSGIPoolManager`, such as ``transport_for()`` returns.
    :raises TypeError: for anything else.
    """

    library = httpx
    stream_type = _SyncStream


class AsyncWSGITransport(AsyncFace, httpx.AsyncBaseTransport):
    """``httpx.AsyncClient(transport=AsyncWSGITransport(manager))``: every request of the client goes to the
    manager's app.

    It is not bound to a loop: one transport serves clients of several, one after the other or at once.

    :param manager: a :class:`~flask_aibridge.transport.WSGIPoolManager`, such as ``transport_for()`` returns.
    :raises TypeError: for anything else.
    """

    library = httpx
    stream_type = _AsyncStream
