"""Pure: the errors that providers report, and the classes they are recorded by."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from flask_aibridge.bridge.intercept.vocabulary import Failed

MAX_WORDS: Final = 200
"""Characters of a provider's error message that are kept: enough to know it by, too few to carry a prompt."""

INVALID_RESPONSE: Final = "invalid_response"
"""The class of an answer that is none: a proxy's page, an empty body."""

_BY_STATUS: Final[Mapping[int, str]] = MappingProxyType(
    {
        400: "bad_request",
        401: "unauthorized",
        402: "quota_exceeded",
        403: "forbidden",
        404: "not_found",
        408: "timeout",
        409: "conflict",
        413: "request_too_large",
        422: "bad_request",
        429: "rate_limited",
        504: "timeout",
        529: "overloaded",
    }
)

_BY_WORD: Final[Mapping[str, str]] = MappingProxyType(
    {
        "api_error": "server_error",
        "authentication_error": "unauthorized",
        "billing_error": "quota_exceeded",
        "context_length_exceeded": "bad_request",
        "insufficient_quota": "quota_exceeded",
        "internal_server_error": "server_error",
        "invalid_api_key": "unauthorized",
        "invalid_prompt": "bad_request",
        "invalid_request_error": "bad_request",
        INVALID_RESPONSE: INVALID_RESPONSE,
        "model_not_found": "not_found",
        "not_found_error": "not_found",
        "overloaded": "overloaded",
        "overloaded_error": "overloaded",
        "permission_error": "forbidden",
        "rate_limit": "rate_limited",
        "rate_limit_error": "rate_limited",
        "rate_limit_exceeded": "rate_limited",
        "request_too_large": "request_too_large",
        "requests": "rate_limited",
        "server_error": "server_error",
        "service_unavailable": "server_error",
        "timeout_error": "timeout",
        "tokens": "rate_limited",
    }
)
"""The providers' own words, for errors that come after a good status: Anthropic's ``error.type``, OpenAI's ``type``,
where that is null ``code``."""

OTHER: Final = "provider_error"
"""The class of an error by a word that is unknown here."""


def failure(error: object) -> Failed:
    """Describe the error object that both OpenAI and Anthropic put under ``error``."""
    if not isinstance(error, dict):
        return Failed("error", str(error)[:MAX_WORDS])
    kind = error.get("type") or error.get("code") or "error"
    return Failed(str(kind)[:MAX_WORDS], str(error.get("message") or "")[:MAX_WORDS])


def error_class(status: int, kind: str | None) -> str:
    """The class of an error: by the status where that says it, else by the provider's own word for it."""
    if status >= 400:
        return _BY_STATUS.get(status) or ("server_error" if status >= 500 else "bad_request")
    word = kind or ""
    if len(word) == 3 and word.isascii() and word.isdigit() and int(word) >= 400:
        return error_class(int(word), None)  # OpenRouter's `code` is a status
    return _BY_WORD.get(word, OTHER)
