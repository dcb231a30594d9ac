"""Pure: the stand-in's Anthropic Messages API."""

from __future__ import annotations

import json
from collections.abc import Iterator

from flask_aibridge.testing.turn import Document, Question, Saying, last_words, required

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class Messages:
    """``/v1/messages``: https://platform.claude.com/docs/en/api/messages."""

    def question(self, document: Document) -> Question:
        """Read a request."""
        model = required(document, "model", str)
        limit = required(document, "max_tokens", int)
        return Question(model, last_words(required(document, "messages", list)), limit)

    def document(self, saying: Saying) -> Document:
        """Return a whole message."""
        content = [{"type": "text", "text": saying.text}]
        usage = _usage(saying, saying.output_tokens)
        return _message(saying) | {"content": content, "stop_reason": _stop_reason(saying), "usage": usage}

    def sse(self, saying: Saying, request: Document) -> Iterator[bytes]:
        """Yield the events of a message with one block of text."""
        yield _event("message_start", message=_message(saying))
        yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        yield _event("ping")
        for token in saying:
            yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": token})
        yield _event("content_block_stop", index=0)
        stop = {"stop_reason": _stop_reason(saying), "stop_sequence": None}
        yield _event("message_delta", delta=stop, usage={"output_tokens": saying.output_tokens})
        yield _event("message_stop")

    def error(self, status: int, message: str, request_id: str) -> Document:
        """Return an error document."""
        kind = _ERROR_TYPES.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}

    def error_event(self, message: str, request_id: str) -> bytes:
        """Return what an overloaded API sends in the middle of a stream."""
        return _event("error", error={"type": "overloaded_error", "message": message}, request_id=request_id)


def model_entry(model: str) -> Document:
    """Describe a model as ``/v1/models/<id>`` does."""
    return {
        "type": "model",
        "id": model,
        "display_name": f"{model} (stand-in)",
        "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": "active",
    }


def model_list(models: list[str]) -> Document:
    """List models as ``/v1/models`` does."""
    entries = [model_entry(model) for model in models]
    return {"data": entries, "has_more": False, "first_id": models[0], "last_id": models[-1]}


def _message(saying: Saying) -> Document:
    return {
        "id": f"msg_{saying.id}",
        "type": "message",
        "role": "assistant",
        "model": saying.question.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(saying, 1),
    }


def _usage(saying: Saying, output_tokens: int) -> Document:
    return {
        "input_tokens": saying.question.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output_tokens,
        "service_tier": "standard",
    }


def _stop_reason(saying: Saying) -> str:
    return "max_tokens" if saying.cut else "end_turn"


def _event(name: str, **members: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **members})}\n\n".encode()
