"""The blocking driver: a short answer that is complete before its head goes out, for every provider."""

from __future__ import annotations

from collections.abc import Iterable

from flask_aibridge.bridge.intercept.streaming import StreamedBody
from flask_aibridge.bridge.intercept.turn import Turn
from flask_aibridge.bridge.intercept.vocabulary import Item, Relay
from flask_aibridge.bridge.interception import Interception
from flask_aibridge.bridge.upstream import Answer, UpstreamFailure

MAX_HELD_ANSWER = 1024 * 1024
"""Bytes of a blocking answer that are held back. Up to here an answer is handed over whole, and one that
breaks off becomes a proper error; what is longer is streamed, so that a worker does not hold it."""


def held_body(
    answer: Answer, turn: Turn, interception: Interception, limit: int = MAX_HELD_ANSWER
) -> Iterable[bytes]:
    """Return the body of ``answer``: a list of one piece, or, past ``limit`` bytes, a stream that begins with
    what was held.

    Raises ``UpstreamFailure`` for an answer that breaks off within ``limit``.
    """
    held: list[Item] = []
    size = 0
    while size <= limit:
        try:
            data = answer.read()
        except UpstreamFailure:
            _noted([*held, *turn.cut()], interception)
            raise
        if not data:
            held.extend(turn.finish())
            answer.close()
            return [_settled(held, interception)]
        size += len(data)
        held.extend(turn.feed(data))
    return StreamedBody(answer, turn, interception, held)


def _settled(held: list[Item], interception: Interception) -> bytes:
    body, exchange = b"".join(_noted(held, interception)), interception.exchange
    if exchange is not None and exchange.left:
        interception.finish("client_closed")
        return body
    if body:
        interception.sent(body)
    interception.finish_at_end()
    return body


def _noted(items: list[Item], interception: Interception) -> list[bytes]:
    pieces = []
    for item in items:
        if isinstance(item, Relay):
            pieces.append(item.data)
        else:
            interception.note(item)
    return pieces
