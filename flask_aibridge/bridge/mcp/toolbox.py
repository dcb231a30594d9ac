"""The tools of the MCP servers, for each user of a process: found out when they are asked for, and kept a while."""

from __future__ import annotations

import logging
import os
import re
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import Final, NamedTuple

import urllib3

from flask_aibridge.bridge.injection.tools import InjectedTool
from flask_aibridge.bridge.mcp.client import FAREWELL_SECONDS, LIST_SECONDS, MCPClient, mcp_pool
from flask_aibridge.bridge.mcp.discovery import GRACE_SECONDS, Discovery
from flask_aibridge.bridge.mcp.offering import MAX_TOOLS, offer_of, with_unique_ids
from flask_aibridge.bridge.mcp.parting import end_sessions, end_sessions_later
from flask_aibridge.bridge.mcp.running import NO_TOOLS, Tools
from flask_aibridge.bridge.mcp.wire import MCPError
from flask_aibridge.bridge.upstream import Upstream
from flask_aibridge.errors import ServicesUnavailable
from flask_aibridge.services.interfaces import MCPConfigurator, MCPServerConfig

__all__ = ["Toolbox", "Tools"]

logger = logging.getLogger("flask_aibridge.bridge")

TOOLS_SECONDS: Final = 300.0
"""For how long tools, and a user's tokens, are taken for what they were. A token that was revoked is of no use in any
case: its server sees to that."""

RETRY_SECONDS: Final = 30.0
"""After which a server that failed is asked again: each time, a request waits for it."""

SERVICES_SECONDS: Final = 1.0, 30.0
"""After which the services are asked again that were away: as they say, within these bounds."""

MAX_USERS: Final = 1000
"""Users whose tools are kept. Each has up to 128 tools of a few thousand bytes."""

WAIT_SECONDS: Final = LIST_SECONDS + GRACE_SECONDS + 5.0
"""How long a request waits for another that asks for the same user: what that takes, and the services before it."""


class _Server(NamedTuple):
    """What is known of one server, for one user."""

    config: MCPServerConfig
    client: MCPClient
    tools: tuple[InjectedTool, ...]
    due: float
    has_failed: bool = False


class _User:
    """What is known for one user; ``asking`` is set while somebody asks, and an event that tells its end."""

    def __init__(self) -> None:
        self.tools = NO_TOOLS
        self.servers: Mapping[str, _Server] = {}
        self.due = float("-inf")
        self.asking: threading.Event | None = None
        self.is_known = False

    def expire(self, server: str) -> None:
        """Have tokens read anew, and a server that did not take its own asked again, when the next request comes."""
        old = self.servers.get(server)
        if old is not None:
            self.servers = {**self.servers, server: old._replace(due=float("-inf"))}
        self.due = float("-inf")


class Toolbox:
    """Finds out which tools a user has, once for all requests that want to know at the same time.

    :param configurator: of the services; called each time.
    :param pool: connections, to servers with a private certificate authority for example; see ``client.mcp_pool``.
    """

    def __init__(
        self,
        configurator: Callable[[], MCPConfigurator],
        *,
        pool: urllib3.PoolManager | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._configurator = configurator
        self._clock = clock
        self._pool = pool
        self._begin_anew()
        _all.add(self)

    def _begin_anew(self) -> None:
        self._upstream = Upstream(mcp_pool() if self._pool is None else self._pool)
        self._parting: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._users: OrderedDict[str, _User] = OrderedDict()

    def tools_for(self, user: str) -> Tools:
        """The user's tools: those of the servers that answer. Never an exception."""
        evicted: list[_User] = []
        with self._lock:
            known = self._user(user, evicted)
            if self._clock() < known.due:
                return known.tools
            others, mine = known.asking, threading.Event()
            if others is None:
                known.asking = mine
        self._part_from(_clients_of(evicted))
        if others is not None:
            if not known.is_known:
                others.wait(WAIT_SECONDS)
            return known.tools
        try:
            self._ask(known, user)
        except Exception:
            # Nothing of it may cost the request: it goes on with what was known.
            known.due = self._clock() + RETRY_SECONDS
            logger.exception("The tools of MCP servers could not be found out; the requests go on without.")
        finally:
            known.is_known, known.asking = True, None
            mine.set()
        return known.tools

    def close(self) -> None:
        """End the sessions, close the idle connections, and forget the tools. It can be used again."""
        with self._lock:
            users = list(self._users.values())
            self._users.clear()
            parting = list(self._parting)
        end_sessions(_clients_of(users), FAREWELL_SECONDS)
        for thread in parting:
            thread.join(FAREWELL_SECONDS)
        self._upstream.close()

    def _user(self, user: str, evicted: list[_User]) -> _User:
        known = self._users.get(user)
        if known is None:
            known = self._users[user] = _User()
            while len(self._users) > MAX_USERS:
                evicted.append(self._users.popitem(last=False)[1])
        self._users.move_to_end(user)
        return known

    def _ask(self, known: _User, user: str) -> None:
        try:
            configurator = self._configurator()
            configs = {server.id: server for server in configurator.mcp_servers(user)}
            tokens = configurator.mcp_access_tokens(user, tuple(configs)).tokens if configs else {}
        except ServicesUnavailable as error:
            shortest, longest = SERVICES_SECONDS
            known.due = self._clock() + min(max(error.retry_after, shortest), longest)
            logger.warning("The services do not say which MCP servers there are: %s", error)
            return
        wanted = {name: (config, tokens[name]) for name, config in configs.items() if tokens.get(name)}
        self._keep(known, self._served(known.servers, wanted))

    def _served(
        self, before: Mapping[str, _Server], wanted: Mapping[str, tuple[MCPServerConfig, str]]
    ) -> dict[str, _Server]:
        """What is known of each server that is wanted: those that are due, or new, are asked."""
        now = self._clock()
        servers: dict[str, _Server] = {}
        clients: dict[str, MCPClient] = {}
        for name, (config, token) in wanted.items():
            old = before.get(name)
            # One that failed may speak otherwise by now: a client anew finds out how.
            if old is None or old.has_failed or not old.client.is_for(config.url, token):
                clients[name] = MCPClient(config.url, token, pool=self._upstream)
            elif old.config == config and now < old.due:
                servers[name] = old
            else:
                clients[name] = old.client
        discovery = Discovery(clients)
        discovery.run()
        now = self._clock()
        for name, client in clients.items():
            servers[name] = _judged(wanted[name][0], client, discovery, now)
        return servers

    def _keep(self, known: _User, servers: dict[str, _Server]) -> None:
        every = [tool for server in servers.values() for tool in server.tools]
        tools, too_many = with_unique_ids(every)
        if too_many:
            logger.warning(
                "The MCP servers have %d tools for one user, and %d is the most: %s and those after it are left out."
                " Filter them.",
                len(every),
                MAX_TOOLS,
                too_many[0].id,
            )
        clients = {name: server.client for name, server in servers.items()}
        before, kept = known.servers.values(), list(clients.values())
        known.tools = Tools(tools, clients, known.expire)
        known.servers = servers
        known.due = min([self._clock() + TOOLS_SECONDS, *(server.due for server in servers.values())])
        self._part_from([old.client for old in before if old.client not in kept])

    def _part_from(self, clients: Iterable[MCPClient]) -> None:
        thread = end_sessions_later(clients)
        if thread is not None:
            with self._lock:
                self._parting = [*(one for one in self._parting if one.is_alive()), thread]


def _judged(config: MCPServerConfig, client: MCPClient, discovery: Discovery, now: float) -> _Server:
    """What a server's answer, or that there is none, comes to; a failure is logged."""
    problem: Exception | None = discovery.failures.get(config.id)
    if problem is None:
        try:
            offer = offer_of(config, discovery.lists[config.id])
        except re.error as error:
            problem = error
        else:
            if offer.unusable:
                more = len(offer.unusable) - 1
                logger.warning(
                    "Of the MCP server %r %s: it is left out, as are %d more.",
                    config.id,
                    offer.unusable[0],
                    more,
                )
            return _Server(config, client, offer.tools, now + TOOLS_SECONDS)
    shown = (
        problem if isinstance(problem, (MCPError, TimeoutError)) else f"{type(problem).__name__}: {problem}"
    )
    logger.warning(
        "The tools of the MCP server %r are left out for %g seconds, then it is asked again: %s",
        config.id,
        RETRY_SECONDS,
        shown,
    )
    return _Server(config, client, (), now + RETRY_SECONDS, has_failed=True)


def _clients_of(users: Iterable[_User]) -> list[MCPClient]:
    return [server.client for user in users for server in user.servers.values()]


_all: weakref.WeakSet[Toolbox] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """A child starts with nothing: sessions and whoever asks for tools are the parent's."""
    for toolbox in list(_all):
        toolbox._begin_anew()


os.register_at_fork(after_in_child=_after_fork_in_child)
