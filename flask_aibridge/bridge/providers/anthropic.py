"""Anthropic: the Messages API. Its base URL does not contain ``/v1``."""

from __future__ import annotations

from flask_aibridge.bridge.intercept.messages import Messages
from flask_aibridge.bridge.providers.base import Provider
from flask_aibridge.bridge.providers.routes import (
    READ,
    Route,
    RouteTable,
    named,
    named_in_batch,
)

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""https://platform.claude.com/docs/en/api/errors; every other status is an ``api_error``."""


class Anthropic(Provider):
    """An instance of the Anthropic API, or of a server that speaks it."""

    type = "anthropic"
    credential_headers = ("X-Api-Key", "Authorization")
    failures = Provider.failures | {529}
    routes = RouteTable(
        (
            Route("/v1/messages", ("POST",), Messages, models=named),
            Route("/v1/messages/count_tokens", ("POST",), models=named),
            Route("/v1/models", READ),
            Route("/v1/models/*", READ),
            # Claude Code reports here, at its base URL, what it did: to Anthropic, as it would without a bridge.
            Route("/api/event_logging/*", ("POST",)),
            Route("/v1/messages/batches", (*READ, "POST"), lists=True, models=named_in_batch),
            Route("/v1/messages/batches/{batch}", (*READ, "DELETE")),
            Route("/v1/messages/batches/{batch}/cancel", ("POST",)),
            Route("/v1/messages/batches/{batch}/results", READ),
            Route("/v1/files", (*READ, "POST"), lists=True),
            Route("/v1/files/{file}", (*READ, "DELETE")),
            Route("/v1/files/{file}/content", READ),
        )
    )

    def error(self, status: int, message: str, interception_id: str) -> dict[str, object]:
        """Return ``{"type": "error", "error": {type, message}, "request_id"}``."""
        kind = _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": interception_id}

    def carry(self, key: str) -> dict[str, str]:
        """Return ``X-Api-Key``."""
        return {"X-Api-Key": key}

    def _below_base(self, path: str) -> str:
        return path
