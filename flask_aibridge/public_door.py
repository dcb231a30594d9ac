"""The public door: a Flask blueprint that asks the licence and then hands the request to the mounted bridge.

One rule catches the URL prefix and everything below it, for every method, exactly as it was sent: no
redirect, no automatic ``OPTIONS``, no 405. A more specific rule below the prefix, a management page for
example, wins over it.

The bridge is called in the thread of the server, with a copy of the environ, before the response is returned
to Flask: its status and headers are known to ``after_request`` functions, and its body is then iterated by
the server, chunk by chunk. The copy has no key ``flask_aibridge.…``, so nothing that comes by this door can
pass for a call in process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Response, after_this_request, current_app, request
from werkzeug.datastructures import Headers
from werkzeug.routing import BaseConverter, Rule

from flask_aibridge.license import Decision, Gate
from flask_aibridge.license.faces import WARNING_HEADER
from flask_aibridge.license.refusal_forms import NO_RETRY, FindType, provider_types, refusal_document
from flask_aibridge.lingering import Lingering

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from flask.blueprints import BlueprintSetupState

__all__ = ["BLUEPRINT", "ENDPOINT", "make_public_door"]

BLUEPRINT: Final = "aibridge"
ENDPOINT: Final = "aibridge.public_door"
GRACE_HEADER: Final = "X-AIBridge-License"

#: Bytes that a bridge may ``write()`` before it returns or yields. They wait in memory, because Flask takes a
#: response only from a function that has returned; a bridge that streams does so by its iterable, which has
#: no such limit.
MAX_WRITTEN: Final = 1024 * 1024

#: Seconds after which a refused client may come again: another process serves it as soon as it connects anew.
RETRY_AFTER: Final = "1"
DRAINING: Final = "The AI bridge is restarting; try again."

# RFC 9112, section 4 and RFC 9110, section 5: what a status line, a field name and a field value are made of.
_STATUS = re.compile(r"[1-9][0-9]{2} [^\x00-\x08\x0a-\x1f\x7f]*")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

_TYPES: Final = provider_types()

#: Environ keys that are this application's own and not part of the request.
_PRIVATE_PREFIX: Final = "flask_aibridge."
_PRIVATE_KEY: Final = "werkzeug.request"


class Below(BaseConverter):
    """Nothing, or a slash and anything at all: newlines, double slashes, dots."""

    regex = r"(?s:/.*)?"
    part_isolating = False
    weight = 1_000_000  # the last to be tried, after every rule that says more


def make_public_door(
    url_prefix: str,
    gate: Gate,
    mounted: Callable[[], WSGIApplication | None],
    *,
    provider_type: FindType = _TYPES.get,
    refusal_status: int = 403,
    draining: Callable[[], bool] = lambda: False,
) -> Blueprint:
    """The blueprint of one app.

    While the licence is in its grace period every response says so, whoever made it: ``X-AIBridge-License: grace``,
    and ``X-AIBridge-Warning`` with the day on which the grace ends.

    :param mounted: called for each request that the gate lets pass; the bridge, or ``None`` for none.
    :param provider_type: whose error shape a refusal has, by the first segment of the path; it must be quick.
    :param refusal_status: the status of a refusal by the gate.
    :param draining: whether this process takes no new requests, because it is about to end; it must be quick.
    """
    blueprint = Blueprint(BLUEPRINT, __name__)
    lingering = Lingering()

    def refused(response: Response) -> Response:
        lingering.discard(request.environ)
        return response

    def public_door(path: str, **_values: str) -> Response:
        decision = gate.check()
        if not decision.open:
            return refused(_closed(decision, provider_type(_first_segment(path)), refusal_status))
        if decision.grace:
            _warn_in_response(gate.notice())
        if draining():
            return refused(_at_the_end(provider_type(_first_segment(path))))
        bridge = mounted()
        if bridge is None:
            return refused(_not_mounted())
        return _call(bridge, _environ_below(request.environ, url_prefix))

    blueprint.record_once(lambda state: _add_rules(state, url_prefix, public_door))
    return blueprint


def _add_rules(state: BlueprintSetupState, url_prefix: str, view: Callable[..., Response]) -> None:
    """The rules, added to the map itself: Flask's ``add_url_rule`` would choose the methods and answer
    ``OPTIONS``."""
    url_map = state.app.url_map
    url_map.converters["aibridge_below"] = Below
    host = "<aibridge_host>" if url_map.host_matching else None
    for websocket in (False, True):  # an attempt to open a WebSocket is a request too, and is answered as one
        url_map.add(
            Rule(
                f"{url_prefix}<aibridge_below:path>",
                endpoint=ENDPOINT,
                methods=None,
                merge_slashes=False,
                strict_slashes=False,
                websocket=websocket,
                host=host,
            )
        )
    state.app.view_functions[ENDPOINT] = view


def _first_segment(path: str) -> str:
    return path.lstrip("/").partition("/")[0]


def _closed(decision: Decision, provider_type: str | None, status: int) -> Response:
    document = refusal_document(provider_type, status, decision.message, decision.code)
    response = _answer(status, document)
    response.headers.add(*NO_RETRY)
    return response


def _at_the_end(provider_type: str | None) -> Response:
    # The server closes the connection, as it does with every one while it stops: PEP 3333 leaves that to it alone.
    document = refusal_document(provider_type, 503, DRAINING, "draining")
    response = _answer(503, document)
    response.headers["Retry-After"] = RETRY_AFTER
    return response


def _not_mounted() -> Response:
    return _answer(404, {"message": "aibridge handler not mounted", "code": "not_mounted"})


def _answer(status: int, document: Mapping[str, Any]) -> Response:
    response = Response(json.dumps(document), status, mimetype="application/json")
    # A proxy may keep a 404 for a while by its own judgement (RFC 9110, section 15.5.5); this one ends with a
    # setting.
    response.headers["Cache-Control"] = "no-store"
    return response


def _warn_in_response(notice: str | None) -> None:
    """Mark the response of this request, also one that is made of an exception."""

    @after_this_request
    def mark(response: Response) -> Response:
        response.headers[GRACE_HEADER] = "grace"
        if notice is not None:  # the grace may have ended since the decision
            response.headers[WARNING_HEADER] = notice
        return response


def _environ_below(environ: WSGIEnvironment, url_prefix: str) -> WSGIEnvironment:
    """A copy of the environ as an app mounted at the prefix sees it; the body is not touched."""
    below = {
        key: value
        for key, value in environ.items()
        if not key.startswith(_PRIVATE_PREFIX) and key != _PRIVATE_KEY
    }
    # Werkzeug's routing takes leading slashes for one.
    path = "/" + environ.get("PATH_INFO", "").lstrip("/")
    below["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "").rstrip("/") + url_prefix
    below["PATH_INFO"] = path[len(url_prefix) :]
    return below


def _call(bridge: WSGIApplication, environ: WSGIEnvironment) -> Response:
    """The bridge's answer, as soon as its head is fixed: at its first bytes, or at its end."""
    body = _Body(bridge, environ)
    complete = body.complete
    response: Response = current_app.response_class(body if complete is None else complete)
    # Replaced, not passed to the constructor, which would add a Content-Type where the bridge has none.
    response.headers = Headers(body.headers)
    response.status = body.status
    if environ["REQUEST_METHOD"] == "HEAD":
        response.automatically_set_content_length = False  # the length of what is not there says nothing
    return response


class _Body:
    """One call of a WSGI app, by PEP 3333, with its head read ahead.

    :raises Exception: whatever the app raises before its head is fixed; ``RuntimeError`` for an app that
        breaks the protocol.
    """

    def __init__(self, app: WSGIApplication, environ: WSGIEnvironment) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self._fixed = False
        self._closed = False
        self._written: list[bytes] = []
        self._written_bytes = 0
        self._iterable: Iterable[bytes] = ()
        try:
            self._iterable = app(environ, self._start_response)
            self._iterator = iter(self._iterable)
            self._read_ahead()
        except BaseException:
            self.close()
            raise

    @property
    def complete(self) -> list[bytes] | None:
        """The whole body, where the app gave it at once and there is nothing to close."""
        if type(self._iterable) not in (list, tuple):
            return None
        return [*self._written, *self._iterator]

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._written:
            return self._take_written()
        try:
            chunk = next(self._iterator)
        except StopIteration:
            if self._written:
                return self._take_written()
            raise
        if self._written:  # what was written during this step came before what it yielded
            return self._take_written() + chunk
        return chunk

    def close(self) -> None:
        """Close the app's iterable, once."""
        if self._closed:
            return
        self._closed = True
        close = getattr(self._iterable, "close", None)
        if close is not None:
            close()

    def __del__(self) -> None:
        # An after_request function that raises drops the response before a server could close it.
        self.close()

    def _read_ahead(self) -> None:
        """Run the app until it has produced its first bytes, which fixes its head, or has ended."""
        while not self._written:
            chunk = next(self._iterator, None)
            if chunk is None:
                break
            if chunk:
                self._written.append(chunk)
        if not self.status:
            raise RuntimeError(
                "The bridge did not call start_response() before the first byte of its body (PEP 3333)."
            )
        self._fixed = True

    def _take_written(self) -> bytes:
        taken = b"".join(self._written)
        self._written.clear()
        self._written_bytes = 0
        return taken

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        if exc_info is not None:
            try:
                self._replace_head(exc_info)
            finally:
                exc_info = None  # PEP 3333: no reference cycle with the traceback
        elif self.status:
            raise RuntimeError(
                "The bridge called start_response() a second time without exc_info (PEP 3333)."
            )
        _check_head(status, headers)
        self.status, self.headers = status, list(headers)
        return self._write

    def _replace_head(self, exc_info: Any) -> None:
        if self._fixed or self._written:
            raise exc_info[1].with_traceback(exc_info[2])

    def _write(self, data: bytes, /) -> None:
        self._written_bytes += len(data)
        if self._written_bytes > MAX_WRITTEN:
            raise RuntimeError(
                f"The bridge passed more than {MAX_WRITTEN} bytes to write() at once; "
                "return an iterable instead."
            )
        if data:
            self._written.append(data)


def _check_head(status: str, headers: list[tuple[str, str]]) -> None:
    """Refuse a head that a server would send as something else: a second header, or a second response."""
    if not _STATUS.fullmatch(status):
        raise RuntimeError(
            f"The bridge gave {status!r} as its status; it is three digits, a space and a reason."
        )
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or _CONTROL.search(value):
            raise RuntimeError(
                f"The bridge gave a header {name!r} whose name or value has characters not allowed."
            )


if TYPE_CHECKING:
    _: StartResponse = _Body.__new__(_Body)._start_response
