"""The streaming driver: a body that is relayed while it arrives, for every provider."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from flask_aibridge.bridge.intercept.turn import Turn, UnreadTurn
from flask_aibridge.bridge.intercept.vocabulary import Item, Relay
from flask_aibridge.bridge.interception import Interception
from flask_aibridge.bridge.upstream import Answer, UpstreamCancelled, UpstreamFailure

logger = logging.getLogger("flask_aibridge.bridge")


class GuardedTurn:
    """Keeps a mistake in following an answer away from the answer: it is logged, and the rest is relayed unread.

    It relies on what every turn promises: the bytes come first, then what is found in them.
    """

    def __init__(self, turn: Turn, interception_id: str) -> None:
        self._turn = turn
        self._id = interception_id

    def feed(self, data: bytes) -> Iterator[Item]:
        """Relay ``data``, then say what is found in it, if anything can be."""
        try:
            yield from self._turn.feed(data)
        except Exception as error:
            self._give_up(error)

    def finish(self) -> Iterator[Item]:
        """Say what the end means."""
        try:
            yield from self._turn.finish()
        except Exception as error:
            self._give_up(error)
            yield from self._turn.finish()

    def _give_up(self, error: Exception) -> None:
        logger.error(
            "interception %s cannot be followed any further; it is relayed unread", self._id, exc_info=error
        )
        self._turn = UnreadTurn()


class StreamedBody:
    """The iterable that a WSGI server is given for a body of unknown length.

    Bytes are handed over before they are read along, so following an answer never delays it. A body that
    breaks off raises in the server's hands, which is the one way to have the caller see it as incomplete.
    However it ends, the interception is finished once, at the latest in ``close``.
    """

    def __init__(
        self, answer: Answer, turn: Turn, interception: Interception, held: Iterable[Item] = ()
    ) -> None:
        self._answer = answer
        self._turn = turn
        self._interception = interception
        self._items: Iterator[Item] = iter(held)
        self._at_end = False

    def __iter__(self) -> StreamedBody:
        return self

    def __next__(self) -> bytes:
        while True:
            data = self._next_relay()
            if data:
                self._interception.sent(data)
                return data
            if self._at_end:
                self._interception.finish_at_end()
                raise StopIteration
            self._items = self._read()

    def close(self) -> None:
        """End the exchange: a connection whose body was read to its end goes back to the pool, any other is
        closed."""
        try:
            # What was handed over last has not been read along yet, and may hold the answer's last word.
            while self._next_relay():
                pass
            self._interception.finish_early()
        finally:
            self._answer.close()

    def _next_relay(self) -> bytes:
        for item in self._items:
            if isinstance(item, Relay):
                return item.data
            self._interception.note(item)
        return b""

    def _read(self) -> Iterator[Item]:
        try:
            data = self._answer.read()
        except UpstreamCancelled:
            self._interception.finish_early()
            self._at_end = True  # nobody is left to see that the body is incomplete
            return iter(())
        except UpstreamFailure as failure:
            self._interception.finish("upstream_truncated", str(failure))
            raise
        except BaseException as error:
            self._interception.finish("interrupted", type(error).__name__)
            raise
        self._at_end = not data
        return self._turn.feed(data) if data else self._turn.finish()
