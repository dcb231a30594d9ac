"""What a caller gets: the provider's answer, or the bridge's own in the provider's place."""

from __future__ import annotations

import json
from collections.abc import Iterable
from http.client import responses
from typing import TypeAlias

from flask_aibridge.bridge.headers import media_type, response_headers
from flask_aibridge.bridge.intercept.blocking import held_body
from flask_aibridge.bridge.intercept.decoding import DecodedTurn, decoder_for
from flask_aibridge.bridge.intercept.streaming import GuardedTurn, Manner, StreamedBody
from flask_aibridge.bridge.intercept.turn import BlockingTurn, StreamingTurn, Turn, UnreadTurn
from flask_aibridge.bridge.intercept.wire_format import WireFormat
from flask_aibridge.bridge.interception import INTERRUPTED, Interception
from flask_aibridge.bridge.occupancy import refusal_while_draining
from flask_aibridge.bridge.options import BridgeOptions
from flask_aibridge.bridge.providers.base import Provider
from flask_aibridge.bridge.request import Refused
from flask_aibridge.bridge.upstream import (
    Answer,
    UpstreamBroken,
    UpstreamCancelled,
    UpstreamFailure,
    UpstreamTimeout,
)
from flask_aibridge.observability.hooks import Outcome

_SSE = "text/event-stream"

_PLAIN = ("", "identity")
"""Content codings that leave the bytes as they are."""

_BODILESS = (204, 304)

_CLIENT_CLOSED = 499
"""What is recorded for callers who left before the head, as nginx does; nobody receives it."""

Response: TypeAlias = tuple[str, list[tuple[str, str]], Iterable[bytes]]
"""Status line, headers, body."""


def relay(
    answer: Answer, wire_format: WireFormat | None, interception: Interception, options: BridgeOptions
) -> Response:
    """Hand the provider's answer on, and follow it, as ``wire_format`` has followed the request."""
    if answer.status < 200:
        raise UpstreamFailure(f"the provider answered with the interim status {answer.status}")
    interception.status = answer.status
    named = {name.lower(): value for name, value in reversed(answer.headers)}  # of several the first counts
    interception.request_id = named.get("request-id") or named.get("x-request-id") or None
    headers = response_headers(answer.headers, answer.status)
    kind, encoding = media_type(headers), named.get("content-encoding", "").strip().lower()
    read = turn_for(answer.status, kind, encoding, wire_format)
    turn = GuardedTurn(read, interception.id)
    if kind == "application/json" or kind.endswith("+json"):
        return _status_line(answer), headers, held_body(answer, turn, interception)
    if kind != _SSE:
        return _status_line(answer), headers, StreamedBody(answer, turn, interception)
    headers = _stream_headers(headers, wire_format)
    manner = Manner() if isinstance(read, UnreadTurn) else _manner(headers, encoding, wire_format, options)
    return _status_line(answer), headers, StreamedBody(answer, turn, interception, manner=manner)


def _stream_headers(headers: list[tuple[str, str]], wire_format: WireFormat | None) -> list[tuple[str, str]]:
    """Have nobody between the bridge and the caller keep the stream, or collect it before it is passed on."""
    dropped = {"x-accel-buffering"}
    if wire_format is not None and wire_format.withholder() is not None:
        dropped.add("content-length")
    kept = [each for each in headers if each[0].lower() not in dropped]
    kept.append(("X-Accel-Buffering", "no"))
    if not any(name.lower() == "cache-control" for name, _ in kept):
        kept.append(("Cache-Control", "no-cache"))
    return kept


def _manner(
    headers: list[tuple[str, str]], encoding: str, wire_format: WireFormat | None, options: BridgeOptions
) -> Manner:
    """How a followed stream goes on. Nothing can be said within one that is compressed, or whose length is told."""
    plain = encoding in _PLAIN and not any(name.lower() == "content-length" for name, _ in headers)
    drain = options.drain_seconds if options.on_disconnect == "drain" else None
    return Manner(wire_format if plain else None, options.ping_seconds, drain)


def turn_for(status: int, kind: str, encoding: str, wire_format: WireFormat | None) -> Turn:
    """The machine for an answer of a status, media type and content coding: by what it is, not by what was asked for.
    Without a wire format, or a decoder for the coding, nothing of it is read."""
    if wire_format is None or status in _BODILESS:
        return UnreadTurn(wire_format)
    turn = StreamingTurn(wire_format) if kind == _SSE else BlockingTurn(wire_format)
    if encoding in _PLAIN:
        return turn
    decoder = decoder_for(encoding)
    return UnreadTurn(wire_format) if decoder is None else DecodedTurn(turn, decoder)


def failed(interception: Interception, provider: Provider | None, failure: UpstreamFailure) -> Response:
    """Say that the provider gave no whole answer, or was not waited for."""
    if interception.interrupted:
        return refusal(interception, provider, refusal_while_draining(INTERRUPTED), "interrupted")
    if isinstance(failure, UpstreamCancelled):
        refused = Refused(_CLIENT_CLOSED, "The caller closed the request.")
        return refusal(interception, provider, refused, "client_closed")
    name = provider.name if provider is not None else ""
    status, error_type = 502, "unreachable"
    outcome: Outcome = "upstream_error"
    message = f"The provider {name!r} could not be reached, or gave no answer that can be read."
    if isinstance(failure, UpstreamTimeout):
        status, error_type = 504, "timeout"
        message = f"The provider {name!r} did not answer in time."
    elif isinstance(failure, UpstreamBroken):
        outcome, error_type = "upstream_truncated", "upstream_truncated"
        message = f"The provider {name!r} broke off its answer."
    return refusal(interception, provider, Refused(status, message, error=str(failure)), outcome, error_type)


def refusal(
    interception: Interception,
    provider: Provider | None,
    refused: Refused,
    outcome: Outcome,
    error_type: str | None = None,
) -> Response:
    """Say no, in the provider's own form where it is known which provider is meant."""
    document: dict[str, object] = {"message": refused.message, "code": _code(refused.status)}
    if provider is not None:
        document = provider.error(refused.status, refused.message, interception.id)
    body = json.dumps(document).encode()
    interception.status = refused.status
    interception.sent(body)
    interception.finish(outcome, refused.error or refused.message, error_type)
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *refused.headers]
    return f"{refused.status} {_reason(refused.status)}", headers, [body]


def _code(status: int) -> str:
    return _reason(status).lower().replace(" ", "_").replace("-", "_")


def _reason(status: int) -> str:
    return responses.get(status, "Unknown" if status != _CLIENT_CLOSED else "Client Closed Request")


def _status_line(answer: Answer) -> str:
    # The provider's own words, such as "Overloaded" for 529, unless they cannot stand in a status line.
    reason = answer.reason.strip()
    fits = reason and reason.isascii() and reason.isprintable()
    return f"{answer.status} {reason if fits else _reason(answer.status)}"
