"""Who is asking a management route, and whether they administer the gateway."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from flask import request

from flask_aibridge.api.problems import Problem
from flask_aibridge.errors import Unauthorized
from flask_aibridge.services.api_keys import presented_keys
from flask_aibridge.services.interfaces import Authorizer, Credential

__all__ = ["Access", "Loader", "Viewer"]

Loader: TypeAlias = Callable[[], str | None]
"""A callback of the host: the name of who is logged in to the current ``flask.request``, or null for nobody."""

ADMINISTRATOR: Final = "administrator"
"""The name of whoever presents the administrator's token."""

_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="aibridge"'}
_SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")
_SET_UP: Final = (
    "Nobody administers this gateway yet. Set AIBRIDGE_ADMIN_TOKEN and send it as 'Authorization: Bearer …', "
    "or tell who the administrators of this application are with a callback, @bridge.admin_loader."
)


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who is asking. An administrator sees and changes everything, everybody else what is their own."""

    name: str
    administrator: bool

    def may_see(self, owner: str | None) -> bool:
        """Tell whether something of ``owner``'s may be shown."""
        return self.administrator or owner == self.name


class Access:
    """Says who is asking, by what the request carries.

    In order: the administrator's token, the host's ``admin_loader``, a user's API key, the host's ``user_loader``.
    Both loaders may be set later; they are called with ``flask.request`` at hand, as Flask-Login's are.

    A request that is known by a loader, and thus perhaps by a cookie alone, may change something only with a JSON
    content type; requests with a token or a key need none.

    :param admin_token: ``AIBRIDGE_ADMIN_TOKEN``; only its digest is kept.
    :param authorizer: gives the authorizer that API keys are checked by, at the first key.
    """

    def __init__(
        self,
        *,
        authorizer: Callable[[], Authorizer],
        admin_token: str | None = None,
        admin_loader: Loader | None = None,
        user_loader: Loader | None = None,
    ) -> None:
        self.admin_loader = admin_loader
        self.user_loader = user_loader
        self._admin_digest = _digest(admin_token) if admin_token else None
        self._authorizer = authorizer

    def __repr__(self) -> str:
        token = "set" if self._admin_digest else "not set"
        return f"<{type(self).__name__}: admin_loader={self.admin_loader!r}, administrator's token {token}>"

    def viewer(self) -> Viewer:
        """Who makes the current ``flask.request``.

        :raises Problem: 401 for credentials that are not accepted, or missing; 403 ``access_not_configured`` for a
            request without any where nothing is set up; 415 ``json_required`` for a change that a page of another
            site could have sent.
        :raises ServicesUnavailable: where an API key cannot be checked now.
        """
        presented = presented_keys(request.environ)
        viewer = self._by_token(presented) or self._by_loader(self.admin_loader, administrator=True)
        viewer = viewer or self._by_key(presented) or self._by_loader(self.user_loader, administrator=False)
        if viewer is None:
            raise self._nobody(presented)
        return viewer

    def require_administrator(self) -> Viewer:
        """Who makes the current request, where that is an administrator.

        :raises Problem: as ``viewer``, and 403 ``administrator_required`` for everybody else; 403
            ``access_not_configured`` in place of a 401 where nobody can be an administrator.
        """
        try:
            viewer = self.viewer()
        except Problem as problem:
            if problem.status != 401 or self._administrators_are_known:
                raise
            raise Problem(403, "access_not_configured", _SET_UP) from None
        if viewer.administrator:
            return viewer
        remedy = "" if self._administrators_are_known else f" {_SET_UP}"
        raise Problem(403, "administrator_required", f"Only an administrator may do this.{remedy}")

    @property
    def _administrators_are_known(self) -> bool:
        return self._admin_digest is not None or self.admin_loader is not None

    def _by_token(self, presented: tuple[str, ...]) -> Viewer | None:
        if self._admin_digest is None:
            return None
        # Digests have one length: the time that comparing takes says nothing about the token, nor how long it is.
        fits = [hmac.compare_digest(_digest(key), self._admin_digest) for key in presented]
        return Viewer(ADMINISTRATOR, administrator=True) if any(fits) else None

    def _by_key(self, presented: tuple[str, ...]) -> Viewer | None:
        for key in presented:
            try:
                return Viewer(self._authorizer().authorize(Credential(key=key)).user, administrator=False)
            except Unauthorized:
                continue  # the other header may carry a good one
        return None

    def _by_loader(self, loader: Loader | None, *, administrator: bool) -> Viewer | None:
        name = None if loader is None else loader()
        if name is None:
            return None
        if not isinstance(name, str) or not name:
            kind = "admin_loader" if administrator else "user_loader"
            raise TypeError(
                f"The {kind} callback must return a name (a str that is not empty) or None; "
                f"it returned a value of type {type(name).__name__}."
            )
        _refuse_foreign_changes()
        return Viewer(name, administrator)

    def _nobody(self, presented: tuple[str, ...]) -> Problem:
        if presented:
            return Problem(401, "unauthorized", "The credentials are not accepted.", headers=_CHALLENGE)
        if not self._administrators_are_known and self.user_loader is None:
            return Problem(403, "access_not_configured", _SET_UP)
        detail = (
            "This needs credentials: an API key or the administrator's token, as 'Authorization: Bearer …'."
        )
        return Problem(401, "unauthorized", detail, headers=_CHALLENGE)


def _refuse_foreign_changes() -> None:
    """Refuse a change that a page of another site may have had the browser send, cookies and all (CSRF).

    Such a page can send forms, whose three content types are none of JSON; for ``application/json`` the browser asks
    this application first (CORS), and unless the host says otherwise the answer is no. So the content type proves that
    the request is the application's own, without a token that every client would have to fetch.
    """
    if request.method in _SAFE_METHODS or request.is_json:
        return
    raise Problem(
        415,
        "json_required",
        "A change by a logged-in session needs 'Content-Type: application/json', also where there is no body: "
        "pages of other sites cannot send it.",
    )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
