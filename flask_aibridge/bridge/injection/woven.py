"""The stream that the rounds of a request make, read as one."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final

from flask_aibridge.bridge.injection.plain import SSE, kind_of
from flask_aibridge.bridge.intercept.documents import member, parse_document
from flask_aibridge.bridge.request import Refused
from flask_aibridge.bridge.switch import UpstreamCancelled, UpstreamFailure, UpstreamSilent
from flask_aibridge.bridge.upstream import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask_aibridge.bridge.injection.rounds import Rounds
    from flask_aibridge.bridge.intercept.turn import Turn
    from flask_aibridge.bridge.intercept.vocabulary import Item

logger = logging.getLogger("flask_aibridge.bridge")

STOP_SECONDS: Final = 1.0
"""How long a thread is waited for that has been told to stop: it is woken where it waits, so that it is at once."""

MAX_REFUSAL: Final = 64 * 1024
"""Bytes of a provider's refusal of a later round that are read for its sentence."""


class WovenStream(Answer):
    """The stream that all rounds make. Tools are run by a thread, so that its reader can be patient."""

    def __init__(self, first: Answer, rounds: Rounds) -> None:
        self.status, self.reason, self.patient = first.status, first.reason, first.patient
        self.headers = [pair for pair in first.headers if pair[0].lower() != "content-length"]
        self._round = first
        self._rounds = rounds
        self._step: Step | None = None
        self._failure: UpstreamFailure | None = None
        self._last = b""
        self._over = False

    def read(self, patience: float | None = None) -> bytes:
        until = None if patience is None else monotonic() + patience
        while not self._over:
            left = None if until is None else until - monotonic()
            if left is not None and left <= 0:
                raise UpstreamSilent
            data = self._next(left)
            if data:
                self._last = data
                return data
        return b""

    def unsaid(self, turn: Turn) -> Iterator[Item]:
        """What the rounds have used of which the caller, and so ``turn``, has not been told."""
        if self._over:
            return
        self._over = True
        step, self._step = self._step, None
        # Where it does not end, it may still be at work on what would be said.
        if step is None or self._ended(step):
            yield from self._rounds.unsaid(turn)

    def close(self) -> None:
        self._over = True
        step, self._step = self._step, None
        if step is not None:
            self._ended(step)
        self._round.close()

    def _ended(self, step: Step) -> bool:
        """Stop a step for which nobody waits; whether it has ended, and recorded what it did."""
        step.leave()
        self._rounds.stop()
        return step.wait_for_its_end(STOP_SECONDS)

    def _next(self, seconds: float | None) -> bytes:
        """What passes to the caller of what comes next, if anything does."""
        if self._failure is not None:
            raise self._failure
        if self._step is not None:
            return self._after_tools(self._step, seconds)
        try:
            data = self._round.read(seconds)
        except UpstreamCancelled:
            raise
        except UpstreamFailure as failure:
            rest = self._end_round()
            # Only now: what was used so far, and what was held, is still said. A round that was whole goes on.
            self._failure, self._over = (None if self._step else failure), False
            return rest
        return self._rounds.weaver.feed(data) if data else self._end_round()

    def _end_round(self) -> bytes:
        rest = self._rounds.weaver.finish()
        self._rounds.note_dropped()
        if self._rounds.weaver.pending and self.unheard:
            raise UpstreamCancelled("nobody waits for a further round")
        if self._rounds.weaver.pending:
            self._round.close()
            self._step = Step(self._rounds.go_on)
        else:
            self._over = True
        return rest

    def _after_tools(self, step: Step, seconds: float | None) -> bytes:
        try:
            answer = step.wait(seconds)
        except UpstreamSilent:
            raise
        except UpstreamCancelled as stopped:
            self._step, self._failure = None, stopped
            raise
        except Refused as refused:
            return self._give_up(refused.message)
        except UpstreamFailure as failure:
            logger.warning("interception %s: a later round failed: %s", self._rounds.interception.id, failure)
            return self._give_up("The provider could not be asked again with the result of a tool.")
        self._step, self._round = None, answer
        if answer.status == 200 and kind_of(answer) == SSE:
            return b""
        return self._give_up(_sentence_of(answer))

    def _give_up(self, message: str) -> bytes:
        """End the stream in words: its head went out long ago."""
        self._over, self._step = True, None
        rounds = self._rounds
        event = rounds.fresh().error_event(message, rounds.interception.id, self._last)
        return rounds.weaver.give_up(event)


class Step:
    """A piece of work in a thread of its own, whose result somebody may wait for, or no longer."""

    def __init__(self, work: Callable[[], Answer]) -> None:
        self._work = work
        self._done = threading.Event()
        self._lock = threading.RLock()  # a garbage collection, in whatever thread, may be what leaves
        self._is_left = False
        self._answer: Answer | None = None
        self._error: BaseException | None = None
        run = contextvars.copy_context().run
        thread = threading.Thread(target=run, args=(self._run,), name="aibridge-tools", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no thread to spare: the reader waits without a ping
            self._run()

    def wait(self, seconds: float | None) -> Answer:
        """The result. Raises what the work raised, and ``UpstreamSilent`` where it is not done in time."""
        if not self._done.wait(seconds):
            raise UpstreamSilent
        if self._error is not None:
            raise self._error
        assert self._answer is not None
        return self._answer

    def wait_for_its_end(self, seconds: float) -> bool:
        """Whether the work is over within so many seconds, well or not."""
        return self._done.wait(seconds)

    def leave(self) -> None:
        """Nobody waits for it: what it may still bring is closed."""
        with self._lock:
            self._is_left = True
            answer = self._answer
        if answer is not None:
            answer.close()

    def _run(self) -> None:
        try:
            answer = self._work()
            with self._lock:
                self._answer = answer
                is_left = self._is_left
            if is_left:
                answer.close()
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()


def _sentence_of(answer: Answer) -> str:
    """What a provider says of a round that it refuses."""
    body = b""
    with suppress(UpstreamFailure):
        while len(body) < MAX_REFUSAL and (data := answer.read()):
            body += data
    answer.close()
    document = parse_document(body) or {}
    said = member(document, "error").get("message")
    what = f"The provider answered {answer.status} when it was asked again with the result of a tool"
    return f"{what}: {said}" if isinstance(said, str) and said else f"{what}."
