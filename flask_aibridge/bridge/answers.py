"""What a caller gets: the provider's answer, or the bridge's own in the provider's place."""

from __future__ import annotations

import json
from collections.abc import Iterable
from http.client import responses
from typing import TypeAlias

from flask_aibridge.bridge.headers import media_type, response_headers
from flask_aibridge.bridge.intercept.blocking import held_body
from flask_aibridge.bridge.intercept.streaming import GuardedTurn, StreamedBody
from flask_aibridge.bridge.intercept.turn import BlockingTurn, StreamingTurn, Turn, UnreadTurn
from flask_aibridge.bridge.interception import Interception
from flask_aibridge.bridge.providers.base import Provider, Route
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

_CLIENT_CLOSED = 499
"""What is recorded for callers who left before the head, as nginx does; nobody receives it."""

Response: TypeAlias = tuple[str, list[tuple[str, str]], Iterable[bytes]]
"""Status line, headers, body."""


def relay(answer: Answer, route: Route, interception: Interception) -> Response:
    """Hand the provider's answer on, and follow it."""
    if answer.status < 200:
        raise UpstreamFailure(f"the provider answered with the interim status {answer.status}")
    interception.status = answer.status
    headers = response_headers(answer.headers, answer.status)
    kind = media_type(headers)
    turn = GuardedTurn(_turn(answer, route, kind), interception.id)
    if kind == "application/json" or kind.endswith("+json"):
        return _status_line(answer), headers, held_body(answer, turn, interception)
    if kind == _SSE:
        headers.append(("X-Accel-Buffering", "no"))  # nginx would collect a stream before it passes it on
    return _status_line(answer), headers, StreamedBody(answer, turn, interception)


def _turn(answer: Answer, route: Route, kind: str) -> Turn:
    encoding = next(
        (value for name, value in answer.headers if name.lower() == "content-encoding"), "identity"
    )
    if route.wire_format is None or encoding.strip().lower() != "identity":
        return UnreadTurn()
    wire_format = route.wire_format()
    return StreamingTurn(wire_format) if kind == _SSE else BlockingTurn(wire_format)


def failed(interception: Interception, provider: Provider | None, failure: UpstreamFailure) -> Response:
    """Say that the provider gave no whole answer."""
    if isinstance(failure, UpstreamCancelled):
        refused = Refused(_CLIENT_CLOSED, "The caller closed the request.")
        return refusal(interception, provider, refused, "client_closed")
    name = provider.name if provider is not None else ""
    if isinstance(failure, UpstreamTimeout):
        status, message = 504, f"The provider {name!r} did not answer in time."
    elif isinstance(failure, UpstreamBroken):
        status, message = 502, f"The provider {name!r} broke off its answer."
    else:
        status, message = (
            502,
            f"The provider {name!r} could not be reached, or gave no answer that can be read.",
        )
    outcome: Outcome = "upstream_truncated" if isinstance(failure, UpstreamBroken) else "upstream_error"
    return refusal(interception, provider, Refused(status, message, error=str(failure)), outcome)


def refusal(
    interception: Interception, provider: Provider | None, refused: Refused, outcome: Outcome
) -> Response:
    """Say no, in the provider's own form where it is known which provider is meant."""
    document: dict[str, object] = {"message": refused.message, "code": _code(refused.status)}
    if provider is not None:
        document = provider.error(refused.status, refused.message, interception.id)
    body = json.dumps(document).encode()
    interception.status = refused.status
    interception.sent(body)
    interception.finish(outcome, refused.error or refused.message)
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
