"""The streaming driver: a body that is relayed while it arrives, for every provider."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from flask_aibridge.bridge.intercept.turn import Turn, UnreadTurn
from flask_aibridge.bridge.intercept.vocabulary import Item, Relay
from flask_aibridge.bridge.intercept.wire_format import WireFormat
from flask_aibridge.bridge.interception import Interception
from flask_aibridge.bridge.occupancy import uncounted
from flask_aibridge.bridge.sse import LONGEST_END, ends_event
from flask_aibridge.bridge.upstream import Answer, UpstreamCancelled, UpstreamFailure, UpstreamSilent

logger = logging.getLogger("flask_aibridge.bridge")

GOODBYE = "The AI bridge is shutting down; try again."
"""The last event of a stream that outlasts the time a server is given to stop."""


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


@dataclass(frozen=True, slots=True)
class Manner:
    """How a stream goes on when nothing comes, or nobody listens.

    :param words: what the bridge may say itself between two events, and how; null where it may say nothing.
    :param ping_seconds: seconds of silence after which it says that the stream lives.
    :param drain_seconds: seconds that the answer is read on when its caller has left; null for not at all.
    """

    words: WireFormat | None = None
    ping_seconds: float | None = None
    drain_seconds: float | None = None


class StreamedBody:
    """The iterable that a WSGI server is given for a body of unknown length.

    Bytes are handed over before they are read along, so following an answer never delays it. A body that
    breaks off raises in the server's hands, which is the one way to have the caller see it as incomplete.
    However it ends, the interception is finished once, at the latest in ``close``, or by the thread that reads on
    after it.
    """

    def __init__(
        self,
        answer: Answer,
        turn: Turn,
        interception: Interception,
        held: Iterable[Item] = (),
        manner: Manner = Manner(),
    ) -> None:
        self._answer = answer
        self._turn = turn
        self._interception = interception
        self._items: Iterator[Item] = iter(held)
        self._settle: Callable[[], None] | None = None  # how it ends, known once there is no more to read
        self._words = manner.words
        self._patience = manner.ping_seconds if manner.words or manner.drain_seconds else None
        self._said: bytes | None = None  # the bridge's own words, not handed over yet
        self._tail = b""  # the last bytes that were handed over
        self._unheard = False  # bytes came that the caller had not waited for
        self._ahead = b""  # the first bytes, where ``begin`` waited for them
        self._begun = True
        self._closed = False
        self._exchange = interception.exchange or uncounted()
        self._drain_seconds = manner.drain_seconds or 0.0
        self._exchange.outlives = bool(self._drain_seconds) and answer.patient
        self._exchange.grace = None  # from here on it is seen to here

    def begin(self) -> None:
        """Wait for the first bytes, before the head goes out: an answer that breaks off without any is none.

        Raises ``UpstreamFailure`` for such a one; the interception is to be finished then.
        """
        self._begun = False
        self._ahead = next(self, b"")
        self._begun = True

    def __iter__(self) -> StreamedBody:
        return self

    def __next__(self) -> bytes:
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            return ahead
        while True:
            data = self._next_relay()
            if data:
                self._interception.sent(data)
                self._tail = data if len(data) >= LONGEST_END else self._tail[-LONGEST_END:] + data
                return data
            if self._settle is not None:
                self._finish_reading(self._settle)
                raise StopIteration
            self._items = self._read()
            if self._said is not None:
                said, self._said = self._said, None
                return said

    def close(self) -> None:
        """End the exchange: a connection whose body was read to its end goes back to the pool, any other is closed, or
        read on by a thread of its own. In the child of a fork no more than the child's descriptor is closed."""
        if self._closed:
            return
        self._closed = True
        if not self._interception.is_ours:
            self._leave()
            return
        try:
            # What was handed over last has not been read along yet, and may hold the answer's last word.
            self._note_rest()
            reads_on = self._reads_on()
        except BaseException:
            self._leave()
            raise
        if not reads_on:
            self._end()

    def _finish_reading(self, settle: Callable[[], None]) -> None:
        try:
            settle()
            # A method of its own would keep the whole exchange for the garbage collector.
            self._settle = _nothing
        finally:
            self._exchange.leave()  # already now: some middleware forgets to close what it has read to its end

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
            data = self._answer.read(self._patience)
        except UpstreamSilent:
            self._pass_time()
            return iter(())
        except UpstreamCancelled as stopped:
            return self._stop(stopped)
        except UpstreamFailure as failure:
            self._settle = partial(self._break_off, failure)
            return self._cut()
        except BaseException as error:
            self._items = self._cut()
            self._note_rest()
            self._interception.finish("interrupted", type(error).__name__)
            raise
        if data:
            self._unheard = self._unheard or (self._exchange.left and not self._interception.over)
            return self._turn.feed(data)
        self._settle = self._finish_at_end
        return self._turn.finish()

    def _cut(self) -> Iterator[Item]:
        """What is known, where no more is read."""
        try:
            yield from self._answer.unsaid(self._turn)
        except Exception as error:
            # Not its own words, which may quote the answer; and it must not keep the interception from ending.
            logger.error(
                "interception %s: what was used cannot be told: %s",
                self._interception.id,
                type(error).__name__,
            )
        yield from self._turn.cut()

    def _pass_time(self) -> None:
        if self._words is not None and self._is_between_events():
            self._said = self._words.ping
        elif self._exchange.left:
            self._said = b""  # there is nothing to say, but whoever takes it finds that nobody listens

    def _is_between_events(self) -> bool:
        return not self._tail or ends_event(self._tail)

    def _stop(self, stopped: UpstreamCancelled) -> Iterator[Item]:
        interception = self._interception
        if not self._begun:
            self._settle = partial(self._break_off, stopped)
            return self._cut()
        if not interception.interrupted:
            # Nobody is left to see that the body is incomplete.
            self._settle = interception.finish_early
            return self._cut()
        self._items = self._cut()
        self._note_rest()  # not handed over: what was held back is half an event
        whole = interception.over
        interception.finish_early()
        self._settle = interception.finish_early  # which has been done
        if not whole and self._words is not None and self._is_between_events():
            self._said = self._words.error_event(GOODBYE, interception.id, self._tail)
        elif not whole:
            self._settle = partial(self._break_off, stopped)
        return iter(())

    def _break_off(self, failure: UpstreamFailure) -> None:
        if self._begun:
            self._interception.finish("upstream_truncated", str(failure))
        raise failure

    def _finish_at_end(self) -> None:
        if self._unheard:
            self._interception.finish("client_closed")
        elif self._exchange.left:
            self._interception.finish_early()
        else:
            self._interception.finish_at_end()

    def _reads_on(self) -> bool:
        """Have what is left read on, where that is wanted and anything is to be learned from it."""
        exchange = self._exchange
        if (
            not exchange.outlives
            or exchange.interrupted
            or self._interception.over
            or self._settle is not None
        ):
            return False
        if not exchange.detach():
            return False
        thread = threading.Thread(target=self._drain, name="aibridge-drain", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread to spare
            logger.warning("interception %s is not read on: %s", self._interception.id, error)
            return False
        return True

    def _drain(self) -> None:
        self._answer.unheard = True
        try:
            self._read_on(time.monotonic() + self._drain_seconds)
        finally:
            self._unheard = True
            self._end()

    def _read_on(self, deadline: float) -> None:
        data = b"."
        while data and not self._interception.over:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            try:
                data = self._answer.read(left)
            except (UpstreamFailure, UpstreamSilent):
                return
            self._items = self._turn.feed(data) if data else self._turn.finish()
            self._note_rest()

    def _end(self) -> None:
        try:
            if self._settle is None:
                self._items = self._cut()
                self._note_rest()
            if self._unheard:
                self._interception.finish("client_closed")
            else:
                self._interception.finish_early()
        finally:
            self._leave()

    def _leave(self) -> None:
        try:
            self._answer.close()
        finally:
            self._exchange.leave()


def _nothing() -> None:
    """What is left to do when the end has been seen to."""
