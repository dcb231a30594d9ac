"""What one request asks for, and whether it can be had."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flask_aibridge.bridge.admission import describe
from flask_aibridge.bridge.content_coding import decoded_body
from flask_aibridge.bridge.intercept.documents import Document, is_ambiguous, parse_document
from flask_aibridge.bridge.intercept.wire_format import WireFormat
from flask_aibridge.bridge.interception import Interception
from flask_aibridge.bridge.providers.base import Provider
from flask_aibridge.bridge.providers.directory import Known
from flask_aibridge.bridge.providers.routes import READ, SAYING_MODELS, Route
from flask_aibridge.bridge.request import (
    MAX_REQUEST_BODY,
    Refused,
    is_plain,
    read_body,
    split_path,
    wants_websocket,
)
from flask_aibridge.bridge.uploads import NoPlace, TooSlow, Uploads
from flask_aibridge.services.interfaces import Admission, Scopes
from flask_aibridge.services.records import InterceptionStart

PROBES: Final = frozenset({"", "/", "/api/hello"})
"""What clients ask by ``HEAD``, below a provider's name, to see whether anybody is there. Claude Code does so as it
starts, with no credentials, to have a connection open by the time that it needs one."""

_NO_RETRY: Final = ("X-Should-Retry", "false")


def is_probe(environ: Mapping[str, Any]) -> bool:
    """Tell whether a request only asks whether anybody is there."""
    return environ["REQUEST_METHOD"] == "HEAD" and split_path(environ)[1] in PROBES


class Asked:
    """One request. Nothing is refused before the caller is known."""

    def __init__(self, environ: Mapping[str, Any], interception: Interception, uploads: Uploads) -> None:
        self.environ = environ
        self._uploads = uploads
        self.interception = interception
        self.name, self.path = split_path(environ)
        self.provider: Provider | None = None
        self._route: Route | None = None
        self._known: Known | None = None
        self._refused: Refused | None = None
        self._unreadable: Refused | None = None
        self._received = False
        self._body: bytes | None = None
        self._document: Document | None = None

    @property
    def missed(self) -> bool:
        """Whether this is to be recorded and was not, since it was not known what it is."""
        return self._is_recorded_kind() and not self.interception.recorded

    def find(self, known: Known) -> None:
        """Look the provider and the route up among what is known now."""
        if known is self._known:
            return
        self._known, self._route, self._refused = known, None, None
        self.provider = known.providers.get(self.name)
        if self.provider is None:
            self._refused = _unknown(self.name, known)
            return
        interception = self.interception
        interception.provider, interception.provider_type = self.provider.name, self.provider.type
        if self.name in known.disabled:
            self._refused = _disabled(self.name)
            return
        try:
            self._route = _route(self.environ, self.provider, self.path)
        except Refused as refused:
            self._refused = refused
        else:
            interception.route = self._route.path

    def start(self, worker: str) -> InterceptionStart | None:
        """What is to be recorded, as of the process ``worker``, before the provider is called; null where that is
        nothing, because the request will be refused or is of a kind that is only passed on."""
        if not self._is_recorded_kind():
            return None
        try:
            document = self.document()
        except (NoPlace, TooSlow):
            raise  # before anything is counted or recorded
        except Refused as refused:
            self._unreadable = refused
            return None
        self.interception.model = document.get("model")
        assert self.provider is not None
        return describe(self.environ, self.interception, document, self.provider, worker)

    def wire_format(self, route: Route) -> WireFormat | None:
        """What follows this exchange, its content too where that is recorded; null for what is only passed on."""
        if route.wire_format is None:
            return None
        return route.wire_format(self._document, content=self.interception.recorded)

    def body(self) -> bytes:
        """The request's body, read once, without the codings that it came in. Raises ``Refused``."""
        if self._body is None:
            environ = self.environ
            body = self._uploads.read(environ, self.interception.credential, lambda: read_body(environ))
            self._received = True
            codings = environ.get("HTTP_CONTENT_ENCODING")
            self._body = decoded_body(body, codings, MAX_REQUEST_BODY) if codings else body
        return self._body

    def discard(self) -> None:
        """Deal with a body that was not received, for a request that is refused."""
        if not self._received:
            self._uploads.discard(self.environ)

    def document(self) -> Document:
        """The request's body, read; empty for one that is no JSON object. Raises ``Refused``."""
        if self._document is None:
            self._document = parse_document(self.body()) or {}
        return self._document

    def allowed(self, admission: Admission) -> tuple[Provider, Route]:
        """The provider and the route, for a caller who may use them.

        Raises ``Refused`` where they cannot be had.
        """
        refused = self._refused or self._unreadable
        if refused is not None:
            raise refused
        assert self.provider is not None
        assert self._route is not None
        route = self._route
        if admission.authorization is not None:
            self._check_scopes(admission.authorization.scopes, route)
        return self.provider, route

    def check_listing(self, *, own_account: bool) -> None:
        """Refuse to list what all callers have stored with a key of the host's.

        :param own_account: whether the provider is asked with credentials of the caller's own.
        :raises Refused: for such a list, unless the application itself asks for it.
        """
        is_list = self._route is not None and self._route.lists and self.environ["REQUEST_METHOD"] in READ
        if is_list and not own_account and self.interception.credential is not None:
            raise _lists(self.name)

    def _check_scopes(self, scopes: Scopes, route: Route) -> None:
        if not scopes.allow(self.name, None):
            raise Refused(403, f"This API key may not be used for provider {self.name!r}.", _NO_RETRY)
        if scopes.models is None or route.models is None or self.environ["REQUEST_METHOD"] != "POST":
            return
        if self.body() and is_ambiguous(self.body(), SAYING_MODELS):
            raise _not_for(None, self.name)
        for model in route.models(self.document()):
            if not isinstance(model, str) or not scopes.allow(self.name, model):
                raise _not_for(model, self.name)

    def _is_recorded_kind(self) -> bool:
        refused = self._refused or self._unreadable
        return refused is None and self._route is not None and self._route.wire_format is not None


def _route(environ: Mapping[str, Any], provider: Provider, path: str) -> Route:
    method = environ["REQUEST_METHOD"]
    route = provider.route(path) if is_plain(path) else None
    if route is None:
        raise Refused(
            404,
            f"The AI bridge does not serve {method[:32]} {path[:200]!r} of provider {provider.name!r}.",
        )
    if route.websocket and wants_websocket(environ):
        # RFC 9110 wants an Upgrade header with this status; PEP 3333 keeps apps from setting one. Codex goes on by
        # HTTP after this status and no other.
        raise Refused(426, "The AI bridge serves this over HTTP only: turn WebSockets off in the client.")
    if method not in route.methods:
        allowed = ", ".join(route.methods)
        raise Refused(405, f"{method[:32]} is not allowed here; allowed: {allowed}.", ("Allow", allowed))
    return route


def _unknown(name: str, known: Known) -> Refused:
    names = ", ".join(sorted(known.providers)) or "none; set AIBRIDGE_PROVIDERS"
    return Refused(404, f"There is no provider named {name[:64]!r}. Configured are: {names}.")


def _disabled(name: str) -> Refused:
    # An administrator's decision and no overload: with Retry-After, clients would come again until it is taken back.
    return Refused(503, f"provider_disabled: AI provider {name!r} is disabled.", _NO_RETRY)


def _lists(name: str) -> Refused:
    return Refused(
        403,
        f"This would list what everybody has stored at provider {name!r} with the host's key. "
        "Ask for what is yours by its id.",
        _NO_RETRY,
    )


def _not_for(model: object, name: str) -> Refused:
    if not isinstance(model, str):
        return Refused(
            403,
            f"This API key is limited to certain models of provider {name!r}, and the request does not say for "
            "which model it is, or not in a way that everybody reads alike.",
            _NO_RETRY,
        )
    return Refused(
        403, f"This API key may not be used for model {model[:128]!r} of provider {name!r}.", _NO_RETRY
    )
