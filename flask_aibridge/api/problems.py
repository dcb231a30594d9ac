"""Problem documents (RFC 9457): how every management route says no."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from flask import Response

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """A management route refuses. ``code`` is the stable machine word, ``detail`` the sentence for people; ``more``
    are further members of the document, ``headers`` of the response."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = dict(more or {})

    def response(self) -> Response:
        """The answer: ``{"type", "title", "status", "detail", "code", …}``."""
        document = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.more,
        }
        response = Response(json.dumps(document), self.status, mimetype=MEDIA_TYPE)
        response.headers.update({"Cache-Control": "no-store", **self.headers})
        return response
