"""One call of a WSGI app by PEP 3333, run in a worker thread: its head, its body, its end.

The rules this file keeps:

* the head is committed by the first non-empty chunk, the first ``write()`` or the end of the iterable, not
  before, so that an error handler can still replace it through ``exc_info``;
* each chunk goes out before the next one is asked for;
* the iterable is iterated and closed, once, in one thread and one context;
* ``Content-Length`` is a promise: more is cut off, less is an incomplete body;
* an exception before the head is committed is a 500, one after it an incomplete body; no thread ends by it.
"""

from __future__ import annotations

import functools
import http.client
import logging
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol
from wsgiref.util import FileWrapper

from . import workers
from .cancellation import Cancellation
from .context import callers_context
from .doorbell import Doorbell
from .head import Head, Headers, checked_head
from .pipe import Channel, ReaderGone
from .workers import Slots

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed.wsgi import WSGIApplication

__all__ = ["Exchange", "Head"]

_log = logging.getLogger("flask_aibridge.transport")

_ExcInfo = tuple[type[BaseException], BaseException, "TracebackType"] | tuple[None, None, None]

# Where no body is sent (HEAD, 204, 304) the iterable is run all the same, for its side effects, but nobody's
# leaving would ever end an endless one. Seconds that it gets.
BODILESS_SECONDS: Final = 10.0

_ERROR_BODY: Final = b"Internal Server Error\n"


class Input(Protocol):
    """A ``wsgi.input`` that can be made to fail once the exchange is over."""

    def poison(self) -> None:
        """Fail every later read."""


class Exchange:
    """One call of ``app`` with ``environ``.

    Made and read by the caller; :meth:`start` hands it to a worker. ``doorbell`` is the descriptor that a face
    promises to its callers, opened before the app is called; a face without descriptors passes none.
    """

    # Defaults live in the class, as in Channel.
    head: Head | None = None
    _pending: Head | None = None
    _remaining: int | None = None  # bytes that the Content-Length still promises
    _streaming = False  # the head is committed, and there is no Content-Length to keep
    _bodiless_until = 0.0
    _excessive = False  # the app sent more than its Content-Length; said once
    _slots: Slots | None = None

    def __init__(
        self,
        app: WSGIApplication,
        environ: dict[str, Any],
        request_body: Input,
        doorbell: Doorbell | None = None,
    ) -> None:
        self.cancellation = Cancellation()
        self.channel = Channel(doorbell)
        self._app: WSGIApplication | None = app
        self._environ: dict[str, Any] | None = environ
        self._input: Input | None = request_body
        self._bodiless = environ["REQUEST_METHOD"] == "HEAD"
        environ["wsgi.input"] = request_body
        environ.setdefault("wsgi.errors", sys.stderr)
        environ.setdefault("wsgi.file_wrapper", FileWrapper)
        environ["flask_aibridge.cancellation"] = self.cancellation

    def __repr__(self) -> str:
        status = "no head yet" if self.head is None else self.head.status
        return f"<Exchange {status} {self.channel!r}>"

    # The caller's side

    def start(self, slots: Slots) -> None:
        """Have the app called in a worker thread; a slot of ``slots`` must have been taken, and is given
        back.

        Raises :exc:`RuntimeError` where no thread can be started: nothing was called then, and the slot is
        free.
        """
        self._slots = slots
        try:
            context = callers_context()
            workers.run(functools.partial(context.run, self._run))
        except BaseException:
            self.cancel()  # an interrupt may have come after the worker was called
            self._release()
            raise

    def await_head(self, timeout: float | None) -> Head:
        """The head, as soon as it is committed.

        Raises :exc:`TimeoutError` after ``timeout`` seconds, :exc:`http.client.RemoteDisconnected` where
        somebody cancelled the exchange meanwhile; it is cancelled then.
        """
        channel = self.channel
        try:
            while self.head is None:
                # The head is there before the end is: one that came since the look above is no lack of one.
                if (channel.ended or channel.abandoned) and self.head is None:
                    raise http.client.RemoteDisconnected("The exchange ended without a response.")
                if not channel.wait(timeout):
                    raise TimeoutError("timed out")
        except BaseException:
            self.cancel()
            raise
        return self.head

    def whole_body(self) -> bytes | None:
        """The body, where all of it has arrived and nothing is wrong with it; else ``None``, and nothing is
        taken.
        """
        channel = self.channel
        if not channel.ended or channel.error is not None:
            return None
        data = channel.take()
        channel.close_doorbell()
        return data

    def cancel(self) -> None:
        """End this exchange alone: the app's next write fails, its cancellation fires now. Any thread, any
        time.
        """
        if self.channel.abandon():
            self.cancellation._fire()

    # The worker's side

    def _run(self) -> None:
        try:
            self._call()
        except ReaderGone:
            pass  # the caller left: nobody to tell, nothing wrong
        except BaseException as error:
            self._fail(error)
        finally:
            self._release()

    def _call(self) -> None:
        app, environ = self._app, self._environ
        self._app = self._environ = None
        if app is None or environ is None:
            raise RuntimeError("An exchange is started once.")
        body = app(environ, self._start_response)
        del app, environ
        if type(body) is list or type(body) is tuple:
            self._finish_with(self._joined(body))
            return
        try:
            self._send_all(body)
        finally:
            # Also where iterating raised or the caller left; the end of the body is told after it, so that a
            # caller who has read everything finds the app done.
            close = getattr(body, "close", None)
            if close is not None:
                self._close(close)
        self._finish_with(b"")

    def _release(self) -> None:
        if self._input is not None:
            self._input.poison()
        self._app = self._environ = self._input = None
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.give_back()
        self.channel.end()
        self.cancellation._fire()

    @staticmethod
    def _close(close: Callable[[], object]) -> None:
        try:
            close()
        except ReaderGone:
            pass  # it wrote, as a generator's `finally` may, and the caller has left
        except BaseException:
            _log.exception("close() of the response iterable raised; the response was not affected.")

    # start_response and write

    def _start_response(
        self, status: str, headers: Headers, exc_info: _ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        if exc_info is not None:
            try:
                if self.head is not None and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # PEP 3333: the traceback must not keep this frame alive
        elif self._pending is not None:
            raise AssertionError(
                "start_response() was called twice; the second call needs exc_info (PEP 3333)."
            )
        self._pending, left_out = checked_head(status, headers)
        if left_out:
            # Debug, since every app that proxies an upstream's headers does it.
            names = ", ".join(left_out)
            _log.debug("The app sent hop-by-hop headers, not its to send; left out: %s (PEP 3333).", names)
        return self._write

    def _write(self, data: bytes) -> None:
        """The ``write()`` of PEP 3333: sends ``data``, and the head before it, at once."""
        _check_chunk(data)
        if self.channel.abandoned:
            raise ReaderGone
        if self.channel.ended:
            raise AssertionError("write() was called after the response had ended (PEP 3333).")
        if self.head is None:
            self._commit()
            if not data or self._bodiless:
                self.channel.announce()
        self._send(data)

    # Head and body

    def _commit(self) -> None:
        """Publish the head; the caller learns of it with the first bytes, the end, or an announcement."""
        if self._pending is None:
            raise AssertionError("The app sent a body before it called start_response() (PEP 3333).")
        status, reason, headers, length = self._pending
        if status in (204, 304):
            self._bodiless = True
            if status == 204 and length is not None:  # RFC 9110 section 8.6
                headers = [header for header in headers if header[0].lower() != "content-length"]
        if self._bodiless:
            self._bodiless_until = time.monotonic() + BODILESS_SECONDS
        self._streaming = length is None and not self._bodiless
        self._remaining = None if self._bodiless else length
        self.head = Head(status, reason, headers, 0 if self._bodiless else length)

    def _send_all(self, body: Iterable[bytes]) -> None:
        if isinstance(body, (bytes, str)) or not (hasattr(body, "__iter__") or hasattr(body, "__getitem__")):
            raise AssertionError(
                f"The app returned {type(body).__name__}; it must return an iterable of bytes (PEP 3333)."
            )
        channel = self.channel
        put = channel.put
        for chunk in body:
            if type(chunk) is not bytes:
                _check_chunk(chunk)
            if not chunk:
                if channel._abandoned:
                    raise ReaderGone
            elif self._streaming:
                put(chunk)
            else:
                if self.head is None:
                    self._commit()
                    if self._bodiless:
                        self.channel.announce()
                self._send(chunk)
                if self._excessive:
                    break  # PEP 3333: stop iterating when enough data has been sent

    def _send(self, data: bytes) -> None:
        remaining = self._remaining
        if self._bodiless or not data:
            if self.channel.abandoned or (self._bodiless and time.monotonic() > self._bodiless_until):
                raise ReaderGone
            return
        if remaining is None:
            self.channel.put(data)
            return
        if len(data) > remaining:
            if self._excessive:
                raise AssertionError("The app goes on writing past its Content-Length (PEP 3333).")
            self._warn_excess(len(data) - remaining)
            data = data[:remaining]
        self._remaining = remaining - len(data)
        if data:
            # The last bytes need not be waited for: nothing follows them that would need the room.
            self.channel.put(data, hold=self._remaining > 0)

    def _joined(self, body: list[bytes] | tuple[bytes, ...]) -> bytes:
        for chunk in body:
            _check_chunk(chunk)
        return body[0] if len(body) == 1 else b"".join(body)

    def _finish_with(self, data: bytes) -> None:
        """The end: ``data`` is all that is left of the body."""
        if self.channel.abandoned:
            raise ReaderGone
        if self.head is None:
            if self._pending is None:
                raise AssertionError("The app returned without calling start_response() (PEP 3333).")
            status, reason, headers, length = self._pending
            if length is None and not self._bodiless and status not in (204, 304):
                headers.append(("Content-Length", str(len(data))))
                self._pending = Head(status, reason, headers, len(data))
            self._commit()
        if self._bodiless:
            data = b""
        error: Exception | None = None
        if self._remaining is not None:
            if len(data) > self._remaining:
                self._warn_excess(len(data) - self._remaining)
                data = data[: self._remaining]
            self._remaining -= len(data)
            if self._remaining:
                error = _TooShort(f"The app sent {self._remaining} bytes less than its Content-Length says.")
                _log.warning("%s", error)
        self._release_before_end()
        self.channel.end(data, error)

    def _release_before_end(self) -> None:
        """Free the slot before the caller wakes, so that its next call finds it free."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.give_back()

    def _warn_excess(self, excess: int) -> None:
        self._excessive = True
        _log.warning(
            "The app sent %d bytes more than its Content-Length says; they were cut off (PEP 3333).", excess
        )

    def _fail(self, error: BaseException) -> None:
        if self.channel.abandoned:
            _log.debug("The app raised after its caller had left.", exc_info=error)
            return
        if self.head is None:
            _log.error("The app raised before its response began; the caller gets a 500.", exc_info=error)
            length = len(_ERROR_BODY)
            headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(length))]
            self.head = Head(500, "Internal Server Error", headers, 0 if self._bodiless else length)
            self.channel.end(b"" if self._bodiless else _ERROR_BODY)
            return
        _log.error(
            "The app raised in the middle of its response; the caller gets an incomplete one.", exc_info=error
        )
        self.channel.end(error=error)


class _TooShort(Exception):
    """The body ended before its ``Content-Length``."""


def _check_chunk(chunk: object) -> None:
    if type(chunk) is not bytes and not isinstance(chunk, bytes):
        raise AssertionError(f"The app sent {type(chunk).__name__}; a body consists of bytes (PEP 3333).")
