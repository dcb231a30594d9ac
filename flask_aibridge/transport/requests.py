"""The face for requests: an adapter for its ``Session``. Needs the extra ``[requests]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests.adapters
from requests import PreparedRequest, Response
from requests.auth import _basic_auth_str
from requests.utils import get_netrc_auth

from .urllib3 import WSGIPoolManager

__all__ = ["WSGIAdapter"]


class WSGIAdapter(requests.adapters.HTTPAdapter):
    """``session.mount("https://", WSGIAdapter(manager))``: the session's requests to that prefix go to the
    manager's app.

    Proxies of the environment, ``verify`` and ``cert`` do not apply: there is no network. ``max_retries`` is
    as for
    :class:`requests.adapters.HTTPAdapter`.

    :param manager: a :class:`~flask_aibridge.transport.WSGIPoolManager`, such as ``transport_for()`` returns.
    :raises TypeError: for anything else.
    """

    def __init__(
        self, manager: WSGIPoolManager, *, max_retries: Any = requests.adapters.DEFAULT_RETRIES
    ) -> None:
        if not isinstance(manager, WSGIPoolManager):
            raise TypeError(
                f"WSGIAdapter takes a WSGIPoolManager, not {type(manager).__name__}: "
                "pass what transport_for() returned, or WSGIPoolManager(app)."
            )
        self._manager = manager
        super().__init__(max_retries=max_retries)

    def __reduce__(self) -> Any:
        raise TypeError(
            "A WSGIAdapter cannot be pickled, nor a session it is mounted on: its app lives in this process. "
            "Mount a new one where the session is used."
        )

    def init_poolmanager(self, *_: Any, **__: Any) -> None:
        """Use the manager that was given."""
        self.poolmanager = self._manager

    def proxy_manager_for(self, *_: Any, **__: Any) -> Any:
        """The manager that was given: no proxy is on the way."""
        return self._manager

    def get_connection_with_tls_context(
        self,
        request: PreparedRequest,
        verify: bool | str | None,
        proxies: Mapping[str, str] | None = None,
        cert: Any = None,
    ) -> Any:
        """The pool for the request's host, whatever the proxies and TLS settings."""
        return self._manager.connection_from_url(request.url or "")

    def request_url(self, request: PreparedRequest, proxies: Any) -> str:
        """The request target: always the path, never the form for a proxy."""
        return request.path_url

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Nothing to verify: there is no TLS."""

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> Response:
        """As :meth:`requests.adapters.HTTPAdapter.send`, without a login from netrc: those are for hosts."""
        return super().send(_without_netrc(request), stream, timeout, verify, cert, None)

    def close(self) -> None:
        """Forget idle connections; exchanges under way go on."""
        self._manager.clear()


def _without_netrc(request: PreparedRequest) -> PreparedRequest:
    """The request, without the login that a session puts into it from ``~/.netrc`` before an adapter sees it.

    It was meant for a host of that name, and the app is none. (Only ``Session.trust_env = False`` keeps a session from
    replacing an ``Authorization`` header of the caller's by it.)
    """
    given = request.headers.get("Authorization", "")
    if not given.startswith("Basic "):
        return request
    login = get_netrc_auth(request.url or "")
    if login is None or given != _basic_auth_str(*login):
        return request
    stripped = request.copy()
    del stripped.headers["Authorization"]
    return stripped
