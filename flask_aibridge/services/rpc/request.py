"""A request as the server of the services' RPC reads it: who calls, which call, in time, with which arguments."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from flask_aibridge.errors import InvalidRecord, ProtocolMismatch, ServiceError, ServicesUnavailable
from flask_aibridge.services.rpc.protocol import (
    CALLS,
    MAX_BODY_BYTES,
    TIMEOUT_HEADER,
    VERSION,
    VERSION_HEADER,
    Call,
    check_versions,
    parse_timeout,
    parse_version,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_log = logging.getLogger("flask_aibridge.services.rpc.client")

_BY_PATH: Final = {call.path: call for call in CALLS.values()}

DRAIN_BYTES: Final = 64 * 1024
"""What is read of the body of a request that is refused, so that the answer arrives before the connection is reset."""


class Refused(Exception):
    """A request is not served, whatever its call: the status, the error for its body, and headers that RFC 9110
    asks for with the status."""

    def __init__(self, status: HTTPStatus, error: ServiceError, *headers: tuple[str, str]) -> None:
        super().__init__(str(error))
        self.status = status
        self.error = error
        self.headers = headers


def checked_key(key: str) -> str:
    """A shared key that a header can hold.

    :raises ValueError: without showing the key.
    """
    if not isinstance(key, str) or not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(
            "shared_key must be visible ASCII without spaces, such as secrets.token_urlsafe() gives."
        )
    return key


def digest_of(key: str) -> bytes:
    """What is compared: as long whatever the key's length, and telling nothing of it by where it differs."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def check_caller(environ: WSGIEnvironment, key_digest: bytes | None) -> None:
    """Return for callers of this process, and for those that know the shared key (its digest)."""
    if "flask_aibridge.cancellation" in environ:
        return
    if key_digest is None:
        raise Refused(
            HTTPStatus.FORBIDDEN,
            ProtocolMismatch(
                "This server has no shared key and serves only its own process. Give Server and Client the "
                "same shared_key to call it over HTTP."
            ),
        )
    scheme, _, key = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(digest_of(key.strip()), key_digest):
        raise Refused(
            HTTPStatus.UNAUTHORIZED,
            ProtocolMismatch(
                "The shared key is missing or another than the server's. Give Server and Client the same."
            ),
            ("WWW-Authenticate", "Bearer"),
        )


def call_of(environ: WSGIEnvironment) -> Call:
    """Which call it is, by its path."""
    call = _BY_PATH.get(environ.get("PATH_INFO", ""))
    if call is None:
        raise Refused(HTTPStatus.NOT_FOUND, ProtocolMismatch("There is no such call; check the base URL."))
    if environ["REQUEST_METHOD"] != "POST":
        mismatch = ProtocolMismatch("Calls are made with POST.")
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, mismatch, ("Allow", "POST"))
    return call


def check_version(environ: WSGIEnvironment) -> None:
    """Return where the client's version is one that is served."""
    try:
        check_versions(parse_version(environ.get(_environ_key(VERSION_HEADER))), VERSION)
    except ProtocolMismatch as mismatch:
        raise Refused(HTTPStatus.BAD_REQUEST, mismatch) from None


def _environ_key(header: str) -> str:
    return f"HTTP_{header.upper().replace('-', '_')}"


def read_arguments(environ: WSGIEnvironment) -> dict[str, Any]:
    """The JSON object of the body."""
    text = environ.get("CONTENT_LENGTH") or ""
    if not (text.isascii() and text.isdigit()):
        raise Refused(HTTPStatus.LENGTH_REQUIRED, InvalidRecord("A call needs a Content-Length."))
    if len(text) > len(str(MAX_BODY_BYTES)) or int(text) > MAX_BODY_BYTES:
        sentence = f"A call has at most {MAX_BODY_BYTES} bytes; send fewer records at once."
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, InvalidRecord(sentence))
    body = _read(environ, int(text))
    try:
        arguments = json.loads(body.decode())
    except (ValueError, RecursionError):
        raise Refused(HTTPStatus.BAD_REQUEST, InvalidRecord("The body is not JSON.")) from None
    if not isinstance(arguments, dict):
        raise Refused(HTTPStatus.BAD_REQUEST, InvalidRecord("The body is not a JSON object."))
    return arguments


def _read(environ: WSGIEnvironment, length: int) -> bytes:
    try:
        body: bytes = environ["wsgi.input"].read(length)
    except Exception:
        body = b""  # the client has left; what a server raises then has no common class
    if len(body) != length:
        raise ServicesUnavailable("The request broke off.")
    environ["wsgi.input"] = None
    return body


def drain(environ: WSGIEnvironment) -> None:
    """Read what is short of a body that nobody wants."""
    length = environ.get("CONTENT_LENGTH") or ""
    if environ["wsgi.input"] is None or len(length) > len(str(DRAIN_BYTES)) or not length.isdecimal():
        return
    try:
        environ["wsgi.input"].read(min(int(length), DRAIN_BYTES))
    except Exception:  # the answer goes out or does not; there is nothing else to do
        _log.debug("The body of a refused request could not be read.", exc_info=True)


def check_deadline(environ: WSGIEnvironment, call: Call, started: float) -> None:
    """Return where the caller still waits."""
    timeout = parse_timeout(environ.get(_environ_key(TIMEOUT_HEADER)), call)
    cancellation = environ.get("flask_aibridge.cancellation")
    if monotonic() - started >= timeout or (cancellation is not None and cancellation.cancelled):
        raise ServicesUnavailable(f"{call.name} came too late: its deadline of {timeout:g} s had passed.")
