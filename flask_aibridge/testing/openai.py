"""Pure: the stand-in's OpenAI APIs, Chat Completions and Responses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from flask_aibridge.testing.turn import Document, Question, Saying, last_words, limit_of, required


class _OpenAI:
    def error(self, status: int, message: str, request_id: str) -> Document:
        """Return an error document."""
        kind = "server_error" if status >= 500 else "invalid_request_error"
        code = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}.get(status)
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}


class ChatCompletions(_OpenAI):
    """``/v1/chat/completions``: https://platform.openai.com/docs/api-reference/chat."""

    def question(self, document: Document) -> Question:
        """Read a request."""
        model = required(document, "model", str)
        prompt = last_words(required(document, "messages", list))
        return Question(model, prompt, limit_of(document, "max_completion_tokens", "max_tokens"))

    def document(self, saying: Saying) -> Document:
        """Return a whole completion."""
        message: Document = {"role": "assistant", "content": saying.text, "refusal": None, "annotations": []}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(saying)}
        return _chat(saying, "chat.completion", [choice]) | {"usage": _chat_usage(saying)}

    def sse(self, saying: Saying, request: Document) -> Iterator[bytes]:
        """Yield the chunks of a completion; one with the usage only if it was asked for."""
        options = request.get("stream_options")
        with_usage = isinstance(options, dict) and options.get("include_usage") is True
        no_usage = {"usage": None} if with_usage else {}

        def chunk(delta: Document, reason: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
            return _data(_chat(saying, "chat.completion.chunk", [choice]) | no_usage)

        yield chunk({"role": "assistant", "content": "", "refusal": None})
        for token in saying:
            yield chunk({"content": token})
        yield chunk({}, _finish_reason(saying))
        if with_usage:
            yield _data(_chat(saying, "chat.completion.chunk", []) | {"usage": _chat_usage(saying)})
        yield b"data: [DONE]\n\n"

    def error_event(self, message: str, request_id: str) -> bytes:
        """Return what a failing API sends in the middle of a stream."""
        return _data(self.error(500, message, request_id))


class Responses(_OpenAI):
    """``/v1/responses``: https://platform.openai.com/docs/api-reference/responses."""

    def question(self, document: Document) -> Question:
        """Read a request."""
        model = required(document, "model", str)
        prompt = last_words(required(document, "input", (str, list)))
        return Question(model, prompt, limit_of(document, "max_output_tokens"))

    def document(self, saying: Saying) -> Document:
        """Return a whole response."""
        status = "incomplete" if saying.cut else "completed"
        details = {"reason": "max_output_tokens"} if saying.cut else None
        ended = {"status": status, "incomplete_details": details, "output": [_item(saying, status)]}
        return _response(saying) | ended | {"usage": _responses_usage(saying)}

    def sse(self, saying: Saying, request: Document) -> Iterator[bytes]:
        """Yield the events of a response with one message."""
        for number, (name, members) in enumerate(self._events(saying)):
            yield _named(name, sequence_number=number, **members)

    def error_event(self, message: str, request_id: str) -> bytes:
        """Return the bare ``error`` event."""
        return _named("error", code="server_error", message=message, param=None, sequence_number=0)

    def _events(self, saying: Saying) -> Iterator[tuple[str, Document]]:
        item_place: dict[str, Any] = {"output_index": 0}
        place = item_place | {"item_id": f"msg_{saying.id}", "content_index": 0}
        yield "response.created", {"response": _response(saying)}
        yield "response.in_progress", {"response": _response(saying)}
        yield "response.output_item.added", item_place | {"item": _item(saying, "in_progress")}
        yield "response.content_part.added", place | {"part": _part("")}
        for token in saying:
            yield "response.output_text.delta", place | {"delta": token, "logprobs": []}
        response = self.document(saying)
        yield "response.output_text.done", place | {"text": saying.text, "logprobs": []}
        yield "response.content_part.done", place | {"part": _part(saying.text)}
        yield "response.output_item.done", item_place | {"item": response["output"][0]}
        yield f"response.{response['status']}", {"response": response}


def model_entry(model: str) -> Document:
    """Describe a model as ``/v1/models/<id>`` does."""
    return {"id": model, "object": "model", "created": 1767225600, "owned_by": "stand-in"}


def model_list(models: list[str]) -> Document:
    """List models as ``/v1/models`` does."""
    return {"object": "list", "data": [model_entry(model) for model in models]}


def _chat(saying: Saying, kind: str, choices: list[Document]) -> Document:
    return {
        "id": f"chatcmpl-{saying.id}",
        "object": kind,
        "created": saying.created,
        "model": saying.question.model,
        "service_tier": "default",
        "system_fingerprint": "fp_standin",
        "choices": choices,
    }


def _chat_usage(saying: Saying) -> Document:
    return {
        "prompt_tokens": saying.question.input_tokens,
        "completion_tokens": saying.output_tokens,
        "total_tokens": saying.question.input_tokens + saying.output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _responses_usage(saying: Saying) -> Document:
    return {
        "input_tokens": saying.question.input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": saying.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": saying.question.input_tokens + saying.output_tokens,
    }


def _response(saying: Saying) -> Document:
    return {
        "id": f"resp_{saying.id}",
        "object": "response",
        "created_at": saying.created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": saying.question.limit,
        "metadata": {},
        "model": saying.question.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
    }


def _item(saying: Saying, status: str) -> Document:
    content = [] if status == "in_progress" else [_part(saying.text)]
    return {
        "id": f"msg_{saying.id}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def _part(text: str) -> Document:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _finish_reason(saying: Saying) -> str:
    return "length" if saying.cut else "stop"


def _data(document: Document) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()


def _named(name: str, **members: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **members})}\n\n".encode()
