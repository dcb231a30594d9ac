"""What a management route reads of a request's body."""

from __future__ import annotations

import json
from typing import Any, Final

from flask import request
from marshmallow import Schema

from flask_aibridge.api.problems import Problem

MAX_BODY: Final = 256 * 1024
"""Bytes of a request's body: far more than any of the documents that are sent here needs."""


def read_body(schema: Schema) -> dict[str, Any]:
    """The body of the current request, a JSON object, as the schema loads it; no body is an empty object.

    :raises Problem: 413 for a body that is too large, 415 for one that does not say that it is JSON, 400
        ``not_json`` for one that is not.
    :raises marshmallow.ValidationError: for fields that are missing, wrong or unknown; a problem document by the
        blueprint's error handler.
    """
    loaded: dict[str, Any] = schema.load(_document())
    return loaded


def _document() -> Any:
    body = _body()
    if not body:
        return {}
    if not request.is_json:
        raise Problem(415, "json_required", "Send the body as JSON, with 'Content-Type: application/json'.")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        # What the parser says has a position but nothing of the body, which may hold secrets.
        reason = getattr(error, "msg", "it cannot be decoded")
        raise Problem(400, "not_json", f"The body is no JSON document: {reason}.") from None


def _body() -> bytes:
    """The body, read to its end or its limit whatever length the request says it has: a server that marks the end
    itself (``wsgi.input_terminated``) need not know one."""
    body = bytearray()
    while len(body) <= MAX_BODY and (chunk := request.stream.read(MAX_BODY + 1 - len(body))):
        body += chunk
    # Nothing is left of a stream that a function of the host's has read; Werkzeug has kept what it was then.
    data = bytes(body) or request.get_data()
    if len(data) > MAX_BODY:
        raise Problem(413, "too_large", f"The body is larger than {MAX_BODY} bytes.")
    return data
