"""OpenAI: Chat Completions and Responses. Its base URL contains ``/v1``, or whatever another server has in
that place."""

from __future__ import annotations

from flask_aibridge.bridge.intercept.chat_completions import ChatCompletions
from flask_aibridge.bridge.intercept.responses import Responses
from flask_aibridge.bridge.providers.base import Provider, Route

_ERROR_CODES = {
    401: "invalid_api_key",
    404: "unknown_url",
    413: "request_too_large",
    429: "rate_limit_exceeded",
}


class OpenAI(Provider):
    """An instance of the OpenAI API, or of one of the many servers that speak it."""

    type = "openai"
    routes = (
        Route("/v1/chat/completions", ("POST",), ChatCompletions),
        Route("/v1/responses", ("POST",), Responses, websocket=True),
        # What is fetched here was counted when it was made, so these answers are not followed.
        Route("/v1/responses/*", ("GET", "POST", "DELETE")),
        Route("/v1/embeddings", ("POST",)),
        Route("/v1/models", ("GET", "HEAD")),
        Route("/v1/models/*", ("GET", "HEAD")),
    )

    def error(self, status: int, message: str, interception_id: str) -> dict[str, object]:
        """Return ``{"error": {message, type, param, code}}``."""
        kind = "server_error" if status >= 500 else "invalid_request_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": _ERROR_CODES.get(status)}}

    def _carry(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"}

    def _below_base(self, path: str) -> str:
        return path.removeprefix("/v1")
