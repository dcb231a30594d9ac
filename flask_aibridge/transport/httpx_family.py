"""What the faces for httpx and httpx2 share: the two libraries have one interface under two names.

The faces stand beside the one for urllib3, on the same exchange. Each names its library once, and everything
that a client sees (responses, streams, exceptions) is that library's own.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from .exchange import Exchange
from .head import Head
from .mounted import MountedApp
from .pipe import Channel, ReaderGone
from .request_body import InMemoryInput, StreamedInput
from .response_body import ResponseBody
from .urllib3 import WSGIPoolManager

__all__ = ["Face", "SyncFace", "patience"]

# Hosts seen before. Bounded, since every host is served; past the bound it is emptied.
_ORIGINS_KNOWN_MAX: Final = 64


class Face:
    """What the sync and the async face share: from their library's request to an environ, from a head to a
    response.
    """

    library: Any  # the module: httpx or httpx2

    def __init__(self, manager: WSGIPoolManager) -> None:
        if not isinstance(manager, WSGIPoolManager):
            raise TypeError(
                f"{type(self).__name__} takes a WSGIPoolManager, not {type(manager).__name__}: "
                "pass what transport_for() returned, or WSGIPoolManager(app)."
            )
        self._mounted: MountedApp = manager.mounted
        self._origins: dict[tuple[str, bytes, int | None], Any] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} to {self._mounted.app!r}>"

    def _environ(self, request: Any) -> dict[str, Any]:
        url = request.url
        key = (url.scheme, url.raw_host, url.port)
        origin = self._origins.get(key)
        if origin is None:
            if len(self._origins) >= _ORIGINS_KNOWN_MAX:
                self._origins.clear()
            self._check_url(url)
            origin = self._mounted.mount.origin(url.scheme, url.raw_host.decode("ascii"), url.port)
            self._origins[key] = origin
        try:
            environ: dict[str, Any] = origin.environ(
                request.method, url.raw_path.decode("ascii"), request.headers.raw
            )
        except ValueError as error:
            raise self.library.LocalProtocolError(str(error)) from error
        return environ

    def _check_url(self, url: Any) -> None:
        if url.scheme not in ("http", "https") or not url.host:
            raise self.library.UnsupportedProtocol(
                f"The URL must begin with http:// or https:// and a host; it is {str(url)!r}."
            )

    def _content(self, request: Any) -> bytes | None:
        """The request's body, where it is there as a whole."""
        try:
            content: bytes = request.content
        except self.library.RequestNotRead:
            return None
        return content

    def _begin(self, environ: dict[str, Any], request_body: InMemoryInput | StreamedInput) -> Exchange:
        """Start an exchange; a slot has been taken for it."""
        try:
            exchange = Exchange(self._mounted.app, environ, request_body)
        except BaseException:
            self._mounted.slots.give_back()
            raise
        try:
            exchange.start(self._mounted.slots)
        except RuntimeError as error:
            raise self.library.ConnectError(f"Failed to establish a new connection: {error}") from error
        return exchange

    def _no_slot(self, timeouts: Mapping[str, float | None]) -> Exception:
        kind = self.library.ConnectTimeout
        if patience(timeouts) != timeouts.get("connect"):
            kind = self.library.PoolTimeout
        error: Exception = kind(
            f"All {self._mounted.slots.limit} concurrent calls were taken for {patience(timeouts)} seconds. "
            "Raise max_concurrency?"
        )
        return error

    def _no_head(self, error: Exception) -> Exception:
        mapped: Exception
        if isinstance(error, TimeoutError):
            mapped = self.library.ReadTimeout("The app sent no response in time.")
        else:
            mapped = self.library.RemoteProtocolError(f"No response: {error}")
        return mapped

    def _broken(self, error: Exception) -> Exception:
        mapped: Exception
        if isinstance(error, TimeoutError):
            mapped = self.library.ReadTimeout("The app sent nothing more in time.")
        else:
            mapped = self.library.RemoteProtocolError(
                "peer closed connection without sending complete message body (incomplete read)"
            )
        return mapped

    def _response(self, head: Head, stream: Any) -> Any:
        return self.library.Response(
            head.status,
            headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in head.headers],
            stream=stream,
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": head.reason.encode("latin-1")},
        )


class SyncFace(Face):
    """A transport for the library's ``Client``."""

    stream_type: Any  # makes the library's stream of a SyncBody

    def handle_request(self, request: Any) -> Any:
        """Call the app; returns the library's response as soon as its head is committed.

        Raises the library's ``ConnectTimeout`` (no free slot), ``ConnectError`` (no thread), ``ReadTimeout``
        (no head in time), ``LocalProtocolError`` (a request that could not be sent).
        """
        timeouts = request.extensions.get("timeout", {})
        environ = self._environ(request)
        content = self._content(request)
        slots = self._mounted.slots
        if not slots.try_take() and not slots.take(patience(timeouts)):
            raise self._no_slot(timeouts)
        if content is not None:
            exchange = self._begin(environ, InMemoryInput(content))
        else:
            exchange = self._begin_and_send(environ, request.stream, timeouts.get("write"))
        read_timeout = timeouts.get("read")
        try:
            head = exchange.await_head(read_timeout)
        except OSError as error:
            raise self._no_head(error) from error
        whole = exchange.whole_body()
        if whole is not None:
            return self._response(head, self.library.ByteStream(whole))
        body = ResponseBody(exchange, head, method=request.method, timeout=read_timeout, strict=True)
        return self._response(head, self.stream_type(SyncBody(body, self._broken)))

    def _begin_and_send(
        self, environ: dict[str, Any], parts: Iterator[bytes], timeout: float | None
    ) -> Exchange:
        channel = Channel()
        exchange = self._begin(environ, StreamedInput(channel))
        try:
            for part in parts:
                if part:
                    channel.put(part, timeout=timeout)
        except ReaderGone:
            return exchange  # the app has answered without reading all of it, as it may
        except BaseException as error:
            channel.end(error=error)
            exchange.cancel()
            if isinstance(error, TimeoutError):
                raise self.library.WriteTimeout("The app did not read the request body in time.") from error
            raise
        channel.end()
        return exchange

    def close(self) -> None:
        """Nothing to close: exchanges belong to their responses."""


class SyncBody:
    """A response body as the library iterates it: what has arrived, as it arrives."""

    def __init__(self, body: ResponseBody, broken: Callable[[Exception], Exception]) -> None:
        self._body = body
        self._broken = broken

    def __iter__(self) -> Iterator[bytes]:
        read1 = self._body.read1
        try:
            while data := read1():
                yield data
        except (OSError, http.client.IncompleteRead) as error:
            raise self._broken(error) from error

    def close(self) -> None:
        """Stop reading; before the end, this cancels the exchange."""
        self._body.close()


def patience(timeouts: Mapping[str, float | None]) -> float | None:
    """Seconds to wait for a slot: it is the connection and its place in the pool in one."""
    limits = [limit for limit in (timeouts.get("connect"), timeouts.get("pool")) if limit is not None]
    return min(limits, default=None)
