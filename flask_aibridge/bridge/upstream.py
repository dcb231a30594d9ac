"""The one seam to the providers: a request goes out, a status, headers and a body that can be stopped come
back.

The bridge neither retries nor follows redirects: the SDKs in front of it do, and both together would
multiply. A body is read as it comes. A caller that gives up is felt at once, also while the provider has not
answered yet: shutting the socket down wakes whoever waits on it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from http.client import HTTPException
from typing import TYPE_CHECKING

import urllib3
from urllib3.exceptions import HTTPError, ReadTimeoutError

from flask_aibridge.bridge.caller import Cancellation
from flask_aibridge.bridge.connections import Line, UpstreamPool, current_line
from flask_aibridge.bridge.direct import DirectResponse
from flask_aibridge.bridge.received import READ_SIZE, ReceivedResponse
from flask_aibridge.bridge.switch import (
    Switch,
    UpstreamBroken,
    UpstreamCancelled,
    UpstreamFailure,
    UpstreamSilent,
    UpstreamTimeout,
)

if TYPE_CHECKING:
    from flask_aibridge.bridge.intercept.turn import Turn
    from flask_aibridge.bridge.intercept.vocabulary import Item

__all__ = [
    "Answer",
    "Switch",
    "Upstream",
    "UpstreamBroken",
    "UpstreamCancelled",
    "UpstreamFailure",
    "UpstreamPool",
    "UpstreamSilent",
    "UpstreamTimeout",
]


class Answer:
    """A provider's answer: its head, and its body as it arrives.

    Where it came on a connection of ``UpstreamPool``, its reader may be ``patient``: wait a while for more, do
    something else, and wait on. Once it is ``unheard``, nobody listens any more: it is read on for the account, and
    nothing further is begun for it.
    """

    unheard = False

    def __init__(
        self,
        response: urllib3.BaseHTTPResponse | DirectResponse,
        switch: Switch,
        forget: Callable[[], None],
        received: ReceivedResponse | None = None,
    ) -> None:
        self.status = response.status
        self.reason = response.reason or ""
        self.headers = list(response.headers.items())
        self.patient = received is not None
        self._response = response
        self._received = received
        self._switch = switch
        self._forget = forget
        if received is not None:
            received.open_body(response.length_remaining)

    def read(self, patience: float | None = None) -> bytes:
        """Return the bytes that have arrived, waiting for the first; none at all means the body is whole.

        :param patience: of a ``patient`` answer, seconds of silence after which ``UpstreamSilent`` is raised.

        Raises ``UpstreamBroken`` for a body that broke off, ``UpstreamTimeout`` after a silence,
        ``UpstreamCancelled`` when the exchange was stopped from this side.
        """
        received = self._received
        try:
            data = self._response.read1(READ_SIZE) if received is None else received.receive(patience)
        except UpstreamSilent:
            raise
        except Exception as error:
            raise _failure(error, self._switch, UpstreamBroken) from error
        if self._switch.thrown:
            # A socket that was shut down can look like the end of a body that has no length.
            raise UpstreamCancelled("the caller gave up")
        if not data:
            self._let_go()
        if received is not None and received.fp is None:
            self._give_back(received)
        return data

    def unsaid(self, turn: Turn) -> Iterable[Item]:
        """What is known of an answer that is not read to its end, and that ``turn``, which has followed it, could not
        know: to be noted before what that says itself."""
        return ()

    def close(self) -> None:
        """Give the connection back if the body was read to its end, and close it otherwise."""
        self._let_go()
        self._response.close()
        self._response.release_conn()

    def _give_back(self, received: ReceivedResponse) -> None:
        """Let the next request have the connection as soon as the last byte is here."""
        self._let_go()
        connection = self._response.connection
        if connection is None:
            return  # it was given back with the last bytes: by now it is somebody else's, or closed
        if not received.reusable:
            connection.close()
        self._response.release_conn()

    def _let_go(self) -> None:
        self._switch.detach()
        self._forget()


class Upstream:
    """Sends requests to providers through one pool; see ``UpstreamPool`` for the default.

    A pool of another kind uses its own timeouts, and an exchange on it can be stopped once the head has
    arrived.
    """

    def __init__(self, pool: urllib3.PoolManager | None = None) -> None:
        self._given = pool
        self._pool = pool if pool is not None else UpstreamPool()
        self._pid = os.getpid()

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        cancellation: Cancellation | None = None,
    ) -> Answer:
        """Send one request and return the answer's head, with the body still to be read.

        Raises ``UpstreamTimeout`` when no head came in time, ``UpstreamCancelled`` when the caller gave up
        before it did, and ``UpstreamFailure`` when the provider cannot be reached. The answer must be closed.
        """
        switch = Switch()
        forget = cancellation.on_cancel(switch.throw) if cancellation is not None else _nothing
        try:
            answer = self._exchange(switch, forget, method, url, headers, body)
        except BaseException as error:
            switch.detach()
            forget()
            if not isinstance(error, Exception):
                raise
            raise _failure(error, switch) from error
        return answer

    @property
    def can_be_stopped(self) -> bool:
        """Whether an exchange can be, at any time."""
        return isinstance(self._pool, UpstreamPool)

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.clear()

    def _exchange(
        self,
        switch: Switch,
        forget: Callable[[], None],
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
    ) -> Answer:
        line, pool = Line(switch), self._live_pool()
        if isinstance(pool, UpstreamPool):
            direct = pool.exchange(line, method, url, headers, body)
            return Answer(direct, switch, forget, direct)
        token = current_line.set(line)
        try:
            response = pool.urlopen(
                method,
                url,
                body=body or (None if method in ("GET", "HEAD", "DELETE") else b""),
                headers=headers,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        finally:
            current_line.reset(token)
        if not switch.attached:
            _attach_late(switch, response)
        return Answer(response, switch, forget, line.response)

    def _live_pool(self) -> urllib3.PoolManager:
        # Connections must not be shared with the process that this one was forked from: two would read one stream.
        if self._pid != os.getpid():
            if self._given is None:
                self._pool = UpstreamPool()
            else:
                self._pool.clear()
            self._pid = os.getpid()  # last: another thread that sees it takes the pool
        return self._pool


def _failure(
    error: Exception, switch: Switch, kind: type[UpstreamFailure] = UpstreamFailure
) -> UpstreamFailure:
    if switch.thrown or isinstance(error, UpstreamCancelled):
        return UpstreamCancelled("the caller gave up")
    described = f"{type(error).__name__}: {error}"
    if isinstance(error, (ReadTimeoutError, TimeoutError)):
        return UpstreamTimeout(described)
    if isinstance(error, (HTTPError, HTTPException, OSError)):
        return kind(described)
    raise error


def _attach_late(switch: Switch, response: urllib3.BaseHTTPResponse) -> None:
    def stop() -> None:
        with suppress(RuntimeError, ValueError, OSError):  # it has been read to its end, or closed
            response.shutdown()

    try:
        switch.attach(stop)
    except UpstreamCancelled:
        response.close()
        raise


def _nothing() -> None:
    return
