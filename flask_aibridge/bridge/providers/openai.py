"""OpenAI: Chat Completions and Responses. Its base URL contains ``/v1``, or whatever another server has in
that place."""

from __future__ import annotations

from flask_aibridge.bridge.intercept.chat_completions import ChatCompletions
from flask_aibridge.bridge.intercept.responses import Compaction, Responses
from flask_aibridge.bridge.providers.base import Provider
from flask_aibridge.bridge.providers.routes import (
    READ,
    Route,
    RouteTable,
    named,
    named_elsewhere,
    named_if_any,
)

_ERROR_CODES = {
    401: "invalid_api_key",
    404: "unknown_url",
    413: "request_too_large",
    415: "unsupported_content_encoding",
    426: "upgrade_required",
    429: "rate_limit_exceeded",
    503: "service_unavailable",
}


class OpenAI(Provider):
    """An instance of the OpenAI API, or of one of the many servers that speak it."""

    type = "openai"
    credential_headers = ("Authorization",)
    routes = RouteTable(
        (
            Route("/v1/chat/completions", ("POST",), ChatCompletions, models=named),
            Route("/v1/responses", ("POST",), Responses, websocket=True, models=named),
            Route("/v1/responses/compact", ("POST",), Compaction, models=named),
            Route("/v1/responses/input_tokens", ("POST",), models=named_if_any),
            # What is fetched here was counted when it was made, so these answers are not followed.
            Route("/v1/responses/{response}", (*READ, "DELETE")),
            Route("/v1/responses/{response}/cancel", ("POST",)),
            Route("/v1/responses/{response}/input_items", READ),
            Route("/v1/responses/*", (*READ, "POST", "DELETE"), models=named_if_any),
            Route("/v1/conversations", ("POST",)),
            Route("/v1/conversations/{conversation}", (*READ, "POST", "DELETE")),
            Route("/v1/conversations/{conversation}/items", (*READ, "POST")),
            Route("/v1/conversations/{conversation}/items/{item}", (*READ, "DELETE")),
            Route("/v1/embeddings", ("POST",), models=named),
            Route("/v1/models", READ),
            Route("/v1/models/*", READ),
            Route("/v1/files", (*READ, "POST"), lists=True),
            Route("/v1/files/{file}", (*READ, "DELETE")),
            Route("/v1/files/{file}/content", READ),
            Route("/v1/batches", (*READ, "POST"), lists=True, models=named_elsewhere),
            Route("/v1/batches/{batch}", READ),
            Route("/v1/batches/{batch}/cancel", ("POST",)),
        )
    )

    def error(self, status: int, message: str, interception_id: str) -> dict[str, object]:
        """Return ``{"error": {message, type, param, code}}``."""
        kind = "server_error" if status >= 500 else "invalid_request_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": _ERROR_CODES.get(status)}}

    def carry(self, key: str) -> dict[str, str]:
        """Return a bearer token."""
        return {"Authorization": f"Bearer {key}"}

    def _below_base(self, path: str) -> str:
        # As a whole segment: the rest has to begin with a slash, not with one that is percent-encoded.
        return path.removeprefix("/v1") if path.startswith("/v1/") else path
