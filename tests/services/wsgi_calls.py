"""One request to a WSGI app, checked for PEP 3333 on the way."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from flask_aibridge.services.rpc.protocol import VERSION_HEADER
from flask_aibridge.transport import Cancellation


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.document["error"]
        return error


def environ_of(
    path: str, body: bytes = b"{}", headers: dict[str, str | None] | None = None, *, in_process: bool = True
) -> dict[str, Any]:
    """A request of a client of this version; a header that is null is left out."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
    }
    setup_testing_defaults(environ)
    environ["wsgi.input"] = io.BytesIO(body)
    if in_process:
        environ["flask_aibridge.cancellation"] = Cancellation()
    for name, value in {VERSION_HEADER: "1.0", "Content-Length": str(len(body)), **(headers or {})}.items():
        key = name.upper().replace("-", "_")
        if value is not None:
            environ[key if key == "CONTENT_LENGTH" else f"HTTP_{key}"] = value
    return environ


def answer_of(app: Any, environ: dict[str, Any]) -> Answer:
    """All of an app's answer."""
    head: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Any:
        head.extend([status, headers])
        return None

    iterable = validator(app)(environ, start_response)
    try:
        body = b"".join(iterable)
    finally:
        iterable.close()  # type: ignore[attr-defined]  # the validator's has it
    return Answer(int(head[0].split()[0]), dict(head[1]), body)


def ask(server: Any, path: str, body: bytes | str | dict[str, Any] = b"{}", **options: Any) -> Answer:
    """A call, by its path and arguments."""
    if isinstance(body, dict):
        body = json.dumps(body)
    content = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    return answer_of(server, environ_of(path, content, **options))
