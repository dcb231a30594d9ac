"""The face for httpx2: transports for its ``Client`` and ``AsyncClient``. Needs the extra ``[httpx2]``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx2

from .httpx_async import AsyncBody, AsyncFace
from .httpx_family import SyncBody, SyncFace

__all__ = ["AsyncWSGITransport", "WSGITransport"]


class _SyncStream(httpx2.SyncByteStream):
    """A body of the type that ``httpx2.Client`` insists on."""

    def __init__(self, body: SyncBody) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        self._body.close()


class _AsyncStream(httpx2.AsyncByteStream):
    """A body of the type that ``httpx2.AsyncClient`` insists on."""

    def __init__(self, body: AsyncBody) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._body.__aiter__()

    async def aclose(self) -> None:
        self._body.close()


class WSGITransport(SyncFace, httpx2.BaseTransport):
    """``httpx2.Client(transport=WSGITransport(manager))``: every request of the client goes to the manager's
    app.

    :param manager: a :class:`~flask_aibridge.transport.WSGIPoolManager`, such as ``transport_for()`` returns.
    :raises TypeError: for anything else.
    """

    library = httpx2
    stream_type = _SyncStream


class AsyncWSGITransport(AsyncFace, httpx2.AsyncBaseTransport):
    """``httpx2.AsyncClient(transport=AsyncWSGITransport(manager))``: every request of the client goes to the
    manager's app.

    It is not bound to a loop: one transport serves clients of several, one after the other or at once.

    :param manager: a :class:`~flask_aibridge.transport.WSGIPoolManager`, such as ``transport_for()`` returns.
    :raises TypeError: for anything else.
    """

    library = httpx2
    stream_type = _AsyncStream
