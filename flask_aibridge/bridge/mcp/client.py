"""A client of one MCP server, for one user: lists its tools and calls them.

It is our own, and not that of the ``mcp`` SDK: that is asynchronous only, so each worker would need a thread with an
event loop, which a worker of gevent cannot have, and it brings starlette, uvicorn and pydantic along.

Which of the two eras a server belongs to is found out as the SDK does it: it is asked ``server/discover``, and one that
cannot answer that is of the earlier.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeAlias, TypeVar

import urllib3

from flask_aibridge.bridge.connections import UpstreamPool
from flask_aibridge.bridge.injection.tools import ToolResult
from flask_aibridge.bridge.intercept.documents import Document
from flask_aibridge.bridge.mcp import wire
from flask_aibridge.bridge.mcp.endpoint import Endpoint
from flask_aibridge.bridge.mcp.mirroring import Mirrors, mirrored, mirrors_of
from flask_aibridge.bridge.mcp.operation import Operation
from flask_aibridge.bridge.mcp.results import failure, result_text
from flask_aibridge.bridge.mcp.wire import Era, MCPError, NoAnswer, SessionLost
from flask_aibridge.bridge.upstream import Upstream

CONNECT_SECONDS: Final = 5.0
"""To reach a server: it is asked while a caller waits, and one that is up takes a fraction of a second."""

CALL_SECONDS: Final = 60.0
"""For a call, from its beginning to its end: a caller's own patience with a silent model is rarely more."""

LIST_SECONDS: Final = 10.0
"""For all of the tools: what a caller waits before the model is asked at all."""

FAREWELL_SECONDS: Final = 1.0
"""To end a session. It ends without that, too, when its server thinks so."""

MAX_PAGES: Final = 32
"""Pages of a list of tools: a server whose pages have no end must not hold anybody up."""

MAX_LISTED: Final = 1024
"""Tools of one server, before any filter; the largest known have some hundreds."""

IDLE_CONNECTIONS: Final = 8
"""Connections kept open per server."""

OnStop: TypeAlias = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes what is to be called when the caller leaves; returns what takes it off again. ``Cancellation.on_cancel``."""

_T = TypeVar("_T")


def mcp_pool(**options: Any) -> UpstreamPool:
    """A pool as the client needs it. ``options`` are those of urllib3, like ``ca_certs``."""
    return UpstreamPool(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=CALL_SECONDS,
        idle_connections=IDLE_CONNECTIONS,
        **options,
    )


class MCPClient:
    """Asks one server on behalf of one user. Can be used by any number of threads at once.

    :param token: sent as ``Authorization: Bearer``, nowhere else, and to no other address: redirects are not followed.
    :param pool: connections; an ``Upstream`` may be shared by many clients. In one that is no ``UpstreamPool``, an
        exchange can be stopped once the head of its answer has come.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        pool: urllib3.PoolManager | Upstream | None = None,
        call_seconds: float = CALL_SECONDS,
        list_seconds: float = LIST_SECONDS,
    ) -> None:
        upstream = pool if isinstance(pool, Upstream) else Upstream(mcp_pool() if pool is None else pool)
        self._endpoint = Endpoint(url, token, upstream)
        self._call_seconds, self._list_seconds = call_seconds, list_seconds
        self._numbers = itertools.count(1)
        self._era: Era | None = None
        self._mirrors: dict[str, Mirrors] = {}
        self._operations: set[Operation] = set()

    def __repr__(self) -> str:
        return f"<MCPClient of {self._endpoint.origin}>"

    def is_for(self, url: str, token: str) -> bool:
        """Tell whether it asks the server at ``url`` with this token."""
        return self._endpoint.url == url and self._endpoint.has_token(token)

    @property
    def has_session(self) -> bool:
        """Whether there is a session to be ended."""
        era = self._era
        return era is not None and era.session is not None

    def list_tools(self, on_stop: OnStop | None = None) -> list[Document]:
        """The tools as the server describes them, but for those that say wrongly which arguments go into headers.

        :raises MCPError: where there is no list.
        """
        with self._operation(self._list_seconds, on_stop) as operation:
            return self._in_session(operation, lambda era: self._list(operation, era))

    def call_tool(self, name: str, arguments: Mapping[str, Any], on_stop: OnStop | None = None) -> ToolResult:
        """Run a tool, once. An error that it, or its server, answers with is a result, too.

        :raises MCPError: where there is no result.
        """
        with self._operation(self._call_seconds, on_stop) as operation:
            return self._in_session(operation, lambda era: self._call(operation, era, name, arguments))

    def stop(self) -> None:
        """Have whatever is under way fail with ``MCPStopped`` now; from any thread."""
        for operation in self._operations.copy():
            operation.stop()

    def end_session(self) -> None:
        """Tell the server that the session is over, if there is one, and nothing under way in it."""
        era = self._era
        if era is None or era.session is None or self._operations:
            return
        self._era = None
        with suppress(MCPError), self._operation(FAREWELL_SECONDS, None) as operation:
            self._endpoint.send(operation, "DELETE", wire.farewell(era)).close()

    @contextmanager
    def _operation(self, seconds: float, on_stop: OnStop | None) -> Iterator[Operation]:
        operation = Operation(seconds)
        forget = None if on_stop is None else on_stop(operation.stop)
        self._operations.add(operation)
        try:
            with operation:
                yield operation
        finally:
            self._operations.discard(operation)
            if forget is not None:
                forget()

    def _in_session(self, operation: Operation, ask: Callable[[Era], _T]) -> _T:
        """What ``ask`` returns; it is asked once more where the server had forgotten the session, and so has done
        nothing."""
        era = self._era or self._negotiate(operation)
        try:
            return ask(era)
        except SessionLost:
            if self._era is era:
                self._era = None
        return ask(self._era or self._negotiate(operation))

    def _negotiate(self, operation: Operation) -> Era:
        try:
            modern = wire.supports_modern(self._ask(operation, Era(wire.MODERN), "server/discover", {}))
        except NoAnswer as error:
            if wire.is_too_new(error):
                raise
            modern = False
        self._era = era = Era(wire.MODERN) if modern else self._begin_session(operation)
        return era

    def _begin_session(self, operation: Operation) -> Era:
        number = next(self._numbers)
        request = wire.initialize(number)
        result, session = self._endpoint.ask_with_session(operation, Era(None), number, request)
        era = wire.session_of(self._endpoint.origin, result, session)
        self._endpoint.tell(operation, wire.initialized(era))
        return era

    def _list(self, operation: Operation, era: Era) -> list[Document]:
        tools: list[Document] = []
        cursors: set[str] = set()
        params: dict[str, Any] = {}
        for _ in range(MAX_PAGES):
            result = self._ask(operation, era, "tools/list", params)
            page = result.get("tools")
            tools += [tool for tool in page if isinstance(tool, dict)] if isinstance(page, list) else []
            cursor = result.get("nextCursor")
            if not isinstance(cursor, str) or cursor in cursors or len(tools) >= MAX_LISTED:
                break
            cursors.add(cursor)
            params = {"cursor": cursor}
        del tools[MAX_LISTED:]
        return self._with_mirrors(tools) if era.is_modern else tools

    def _with_mirrors(self, tools: list[Document]) -> list[Document]:
        kept, mirrors = [], {}
        for tool in tools:
            name, schema = tool.get("name"), tool.get("inputSchema")
            found = mirrors_of(schema) if isinstance(schema, dict) else {}
            if found is None:
                continue
            kept.append(tool)
            if found and isinstance(name, str):
                mirrors[name] = found
        self._mirrors = mirrors
        return kept

    def _call(self, operation: Operation, era: Era, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        number = next(self._numbers)
        headers = mirrored(self._mirrors.get(name, {}), arguments)
        request = wire.call(era, number, name, arguments, headers)
        try:
            return result_text(self._endpoint.ask(operation, era, number, request))
        except NoAnswer as error:
            if error.code is None:
                raise
            return failure(error)

    def _ask(self, operation: Operation, era: Era, method: str, params: Mapping[str, Any]) -> Document:
        number = next(self._numbers)
        return self._endpoint.ask(operation, era, number, wire.request(era, number, method, params))
