"""Asking a provider only while its circuit is closed, and telling the circuit how it went."""

from __future__ import annotations

import math
from collections.abc import Callable

from flask_aibridge.bridge.answers import Response
from flask_aibridge.bridge.interception import Interception
from flask_aibridge.bridge.providers.base import Provider
from flask_aibridge.bridge.providers.circuit import Verdict
from flask_aibridge.bridge.providers.circuits import CircuitOpen, Circuits
from flask_aibridge.bridge.providers.cool_downs import Lane
from flask_aibridge.bridge.request import Refused
from flask_aibridge.bridge.upstream import UpstreamCancelled, UpstreamFailure


def guarded(
    circuits: Circuits,
    provider: Provider,
    lane: Lane,
    interception: Interception,
    exchange: Callable[[], Response],
    *,
    own: bool,
) -> Response:
    """Return what ``exchange`` does, if the circuit lets it.

    A failure is a status that the provider's type counts as one, as the caller sees it, and no answer at all. What
    comes in a stream after its head is none. With a key of the caller's ``own`` a 429 speaks of that key alone.

    :raises Refused: with 503 while the circuit is open.
    """
    try:
        permit = circuits.enter(provider, lane)
    except CircuitOpen as error:
        raise _refused(provider, error) from None
    verdict: Verdict = "unknown"
    try:
        response = exchange()
        verdict = _verdict(provider, interception.status, own=own)
        return response
    except UpstreamCancelled:
        raise
    except UpstreamFailure:
        verdict = "failure"
        raise
    except Refused as refused:
        verdict = _verdict(provider, refused.status, own=own)
        raise
    finally:
        permit.leave(verdict)


def _verdict(provider: Provider, status: int, *, own: bool) -> Verdict:
    if own and status == 429:
        return "unknown"
    return "failure" if status in provider.failures else "success"


def _refused(provider: Provider, error: CircuitOpen) -> Refused:
    return Refused(
        503,
        f"circuit breaker is open: provider {provider.name!r} keeps failing and is left alone for now.",
        ("Retry-After", str(max(1, math.ceil(error.seconds)))),
    )
