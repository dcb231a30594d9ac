"""The streaming driver: a body that is relayed while it arrives, for every provider."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial

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
            yield from self._give_up(error)

    def finish(self) -> Iterator[Item]:
        """Say what the end means."""
        try:
            yield from self._turn.finish()
        except Exception as error:
            yield from self._give_up(error)
            yield from self._turn.finish()

    def cut(self) -> Iterator[Item]:
        """Say what is known."""
        try:
            yield from self._turn.cut()
        except Exception as error:
            yield from self._give_up(error)

    def _give_up(self, error: Exception) -> Iterator[Item]:
        # Not the exception's own words: they may quote the answer.
        logger.error(
            "interception %s cannot be followed any further; it is relayed unread: %s at\n%s",
            self._id,
            type(error).__name__,
            "".join(traceback.format_tb(error.__traceback__)),
        )
        failed, self._turn = self._turn, UnreadTurn()
        with suppress(Exception):
            yield from failed.cut()


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
        self._settle: Callable[[], None] | None = None  # how it ends, known once there is no more to read

    def __iter__(self) -> StreamedBody:
        return self

    def __next__(self) -> bytes:
        while True:
            data = self._next_relay()
            if data:
                self._interception.sent(data)
                return data
            if self._settle is not None:
                self._settle()
                raise StopIteration
            self._items = self._read()

    def close(self) -> None:
        """End the exchange: a connection whose body was read to its end goes back to the pool, any other is
        closed."""
        try:
            # What was handed over last has not been read along yet, and may hold the answer's last word.
            self._note_rest()
            if self._settle is None:
                self._items = self._turn.cut()
                self._note_rest()
            self._interception.finish_early()
        finally:
            self._answer.close()

    def _next_relay(self) -> bytes:
        for item in self._items:
            if isinstance(item, Relay):
                return item.data
            self._interception.note(item)
        return b""

    def _note_rest(self) -> None:
        while self._next_relay():
            pass

    def _read(self) -> Iterator[Item]:
        try:
            data = self._answer.read()
        except UpstreamCancelled:
            # Nobody is left to see that the body is incomplete.
            self._settle = self._interception.finish_early
            return self._turn.cut()
        except UpstreamFailure as failure:
            self._settle = partial(self._break_off, failure)
            return self._turn.cut()
        except BaseException as error:
            self._items = self._turn.cut()
            self._note_rest()
            self._interception.finish("interrupted", type(error).__name__)
            raise
        if data:
            return self._turn.feed(data)
        self._settle = self._interception.finish_at_end
        return self._turn.finish()

    def _break_off(self, failure: UpstreamFailure) -> None:
        self._interception.finish("upstream_truncated", str(failure))
        raise failure
