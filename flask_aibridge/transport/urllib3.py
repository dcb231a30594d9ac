"""The face for urllib3: a ``PoolManager`` whose connections call a WSGI app.

Only the connection is replaced; pools, retries, redirects, timeouts and responses are urllib3's own classes.
So the exceptions are urllib3's too, by phase: nothing was called yet → ``NewConnectionError`` or
``ConnectTimeoutError``; no head in time → ``ReadTimeoutError``; a body that breaks off → ``ProtocolError``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from urllib3 import HTTPHeaderDict
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.poolmanager import SSL_KEYWORDS, PoolManager
from urllib3.response import BaseHTTPResponse

from .connection import WSGIConnection, WSGIResponse
from .connectionpool import WSGIConnectionPool
from .mounted import MountedApp

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["WSGIConnection", "WSGIConnectionPool", "WSGIPoolManager", "WSGIResponse"]

# Pools looked up before, by what they were asked for. Bounded, since every host is served; past the bound it
# is emptied.
_POOLS_KNOWN_MAX: Final = 64


# A URL that urllib3.util.parse_url() would leave as it is: nothing to encode, to lower, or to resolve ("/."
# is the start of a dot segment). Most are; whatever else looks different is left to urllib3.
_is_normal_url = re.compile(
    r"(https?)://([a-z0-9][a-z0-9.-]*)(?::([1-9][0-9]{0,3}|[1-5][0-9]{4}))?"
    r"((?:/(?!\.)[A-Za-z0-9_~!$&'()*+,;=:@.-]*)*)(\?[A-Za-z0-9_~!$&'()*+,;=:@./?-]*)?"
).fullmatch

# What a request may come with to be tried without urllib3's preparations for a second one.
_PLAIN: Final = frozenset(("body", "headers", "retries", "timeout", "preload_content", "decode_content"))
_WHOLE: Final = (bytes, str, type(None))


class WSGIPoolManager(PoolManager):
    """A :class:`urllib3.PoolManager` that sends every request, whatever its host, to ``wsgi_app`` in this
    process.

    :param wsgi_app: any WSGI app (PEP 3333). It is called in a worker thread, with a copy of the caller's
        context variables.
    :param script_name: where the app is mounted, as it sees it: ``SCRIPT_NAME``, such as ``/api``.
    :param path_prefix: put before the path of every request: ``PATH_INFO`` of ``/v1/x`` becomes
        ``/prefix/v1/x``.
    :param environ: merged into the environ of every request.
    :param max_concurrency: how many calls may run at once through this manager. Without it, all managers
        share the bound of the process, 1000. A caller past the bound waits for its connect timeout, then gets
        ``ConnectTimeoutError``.
    :param num_pools: and ``headers``, ``retries``, ``timeout``, ``block``, ``maxsize``: as for
        :class:`urllib3.PoolManager`.

    :raises TypeError: for an app that is not callable, or another parameter of the wrong type.
    :raises ValueError: for a mount point or bound that cannot be used.
    :raises RuntimeError: on Windows, whose pipes cannot be polled.
    """

    def __init__(
        self,
        wsgi_app: WSGIApplication,
        *,
        script_name: str = "",
        path_prefix: str = "",
        environ: Mapping[str, Any] | None = None,
        max_concurrency: int | None = None,
        num_pools: int = 10,
        headers: Mapping[str, str] | None = None,
        **connection_pool_kw: Any,
    ) -> None:
        super().__init__(num_pools, headers, **connection_pool_kw)
        self.mounted = MountedApp(
            wsgi_app,
            script_name=script_name,
            path_prefix=path_prefix,
            environ=environ,
            max_concurrency=max_concurrency,
        )
        self._known: dict[tuple[str | None, int | None, str | None], HTTPConnectionPool] = {}

    def __reduce__(self) -> Any:
        raise TypeError(
            "A WSGIPoolManager cannot be pickled: its app lives in this process. Make a new one where it is needed."
        )

    def request(
        self,
        method: str,
        url: str,
        body: Any = None,
        fields: Any = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        **urlopen_kw: Any,
    ) -> BaseHTTPResponse:
        """As :meth:`urllib3.PoolManager.request`."""
        if fields is not None or json is not None:
            return super().request(method, url, body, fields, headers, json, **urlopen_kw)
        if body is not None:
            urlopen_kw["body"] = body
        return self.urlopen(
            method.upper(), url, headers=self.headers if headers is None else headers, **urlopen_kw
        )

    def urlopen(  # type: ignore[override]  # as PoolManager's own, which differs from its base's
        self, method: str, url: str, redirect: bool = True, **kw: Any
    ) -> BaseHTTPResponse:
        """As :meth:`urllib3.PoolManager.urlopen`.

        The usual case (a URL seen before, a whole body, an answer that nothing follows) is done here, with
        the same steps but without working everything out anew: half of urllib3's time on a small request.
        Whatever else comes of the attempt is handed to urllib3's own code, which takes it as that of its
        first try.
        """
        if not (kw.keys() <= _PLAIN and type(kw.get("body")) in _WHOLE):
            return super().urlopen(method, url, redirect, **kw)
        match = _is_normal_url(url)
        if match is None:
            return super().urlopen(method, url, redirect, **kw)
        scheme, host, port, path, query = match.groups()
        pool = self.connection_from_host(host, None if port is None else int(port), scheme)
        if pool.block or not isinstance(pool, WSGIConnectionPool):
            return super().urlopen(method, url, redirect, **kw)
        if "headers" not in kw:
            kw["headers"] = self.headers
        attempt = pool.attempt(method, (path or "/") + (query or ""), **kw)
        response = attempt.settled()
        if response is not None:
            return response
        kw["headers"] = HTTPHeaderDict(kw["headers"])
        return super().urlopen(method, url, redirect, **kw, attempt=attempt)

    def connection_from_host(
        self,
        host: str | None,
        port: int | None = None,
        scheme: str | None = "http",
        pool_kwargs: dict[str, Any] | None = None,
    ) -> HTTPConnectionPool:
        """The pool for a host; every host leads to the app."""
        if pool_kwargs is not None:
            return super().connection_from_host(host, port, scheme, pool_kwargs)
        key = (host, port, scheme)
        pool = self._known.get(key)
        if pool is None or pool.pool is None:
            pool = super().connection_from_host(host, port, scheme)
            if len(self._known) >= _POOLS_KNOWN_MAX:
                self._known.clear()
            self._known[key] = pool
        return pool

    def _new_pool(
        self, scheme: str, host: str, port: int, request_context: dict[str, Any] | None = None
    ) -> HTTPConnectionPool:
        options = (self.connection_pool_kw if request_context is None else request_context).copy()
        for key in ("scheme", "host", "port", *SSL_KEYWORDS):
            options.pop(key, None)
        if options.get("blocksize") is None:
            options["blocksize"] = 16384
        return WSGIConnectionPool(self.mounted, scheme, host, port, **options)

    def clear(self) -> None:
        """Forget all pools; exchanges under way go on."""
        self._known.clear()
        super().clear()
