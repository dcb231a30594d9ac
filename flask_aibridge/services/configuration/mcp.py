"""``MCPConfigurator``: which MCP servers there are, and the users' access tokens for them.

Servers come from ``AIBRIDGE_MCP_SERVERS`` and from the store, which wins where both name one. Tokens are stored sealed,
or come from the host's own OAuth by a callback; a stored one wins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from flask_aibridge.config import SECRET_KEY
from flask_aibridge.errors import ConfigError, ServicesUnavailable, Unsealable
from flask_aibridge.services.configuration.mcp_servers import (
    MCPServerEntry,
    check_server,
    entry_of,
    mcp_servers_from,
    origin_of,
    pattern_error,
    stored_entry,
    text_of,
)
from flask_aibridge.services.configuration.rows import CachedRows, shown
from flask_aibridge.services.configuration.sealing import Sealer, secret_key_missing
from flask_aibridge.services.configuration.token_fetching import (
    MAX_TOKEN,
    NO_ACCESS,
    TOKEN_SECONDS,
    TokenFetcher,
    TokenLoader,
    fits_a_header,
    not_fetched,
)
from flask_aibridge.services.interfaces import AccessTokens, MCPServerConfig
from flask_aibridge.services.storage import ConfigStore

__all__ = ["HostMCPConfigurator", "MCPServerEntry", "TokenLoader", "mcp_servers_from"]

logger = logging.getLogger("flask_aibridge.services")

TABLE: Final = "mcp"
TOKENS: Final = "mcp-tokens:"
"""What the name of a user's table of tokens begins with."""

MAX_USER: Final = 256
"""Characters of a user's name."""

NO_SERVER: Final = "no MCP config found"


class HostMCPConfigurator:
    """The MCP servers of this host, the tokens for them, and what administrators do to both.

    While the store is away, the last servers that were read go on; where none were read since the process started,
    those of the config serve.

    :param configured: the servers of the app's config.
    :param store: opens the store.
    :param sealer: null where there is no secret key: tokens are not stored then.
    :param token_loader: gives the host's callback, or null while it has none.
    :param token_seconds: how long a batch of tokens may take.
    """

    def __init__(
        self,
        configured: Sequence[MCPServerConfig],
        store: Callable[[], ConfigStore],
        sealer: Sealer | None,
        token_loader: Callable[[], TokenLoader | None],
        *,
        token_seconds: float = TOKEN_SECONDS,
    ) -> None:
        by_id = sorted(configured, key=lambda server: server.id)
        self._configured = tuple(entry_of(server, "config") for server in by_id)
        self._store = store
        self._sealer = sealer
        self._token_loader = token_loader
        self._fetcher = TokenFetcher(token_seconds)
        self._broken: Mapping[str, str | None] = {}
        self._rows = CachedRows(store, TABLE, self._meaning, lambda: self._configured or None)
        self._log_broken(self._configured)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {[entry.id for entry in self._configured]}>"

    def mcp_servers(self, user: str) -> tuple[MCPServerConfig, ...]:
        """The servers, by id, without those whose patterns are broken; the same for every user.

        :raises ServicesUnavailable: where the store is away, was never read, and the config names none.
        """
        _, entries = self._rows.read()
        return tuple(entry.config for entry in entries if entry.config is not None)

    def mcp_access_tokens(self, user: str, server_ids: Sequence[str]) -> AccessTokens:
        """The user's token of each server, in the order asked for. It never fails as a whole: what went wrong with a
        server is said in its error."""
        wanted = tuple(dict.fromkeys(server_ids))
        try:
            servers = {server.id: server for server in self.mcp_servers(user)} if wanted else {}
        except ServicesUnavailable as error:
            return AccessTokens({}, dict.fromkeys(wanted, not_fetched(error)))
        known = [servers[one] for one in wanted if one in servers]
        tokens, errors = self._stored_tokens(user, known)
        loaded, failures = self._loaded_tokens(user, [one.id for one in known if one.id not in tokens])
        tokens |= loaded
        # That a stored token cannot be had matters more than that the host has none either.
        errors = {one: NO_SERVER for one in wanted if one not in servers} | failures | errors
        return AccessTokens(
            {one: tokens[one] for one in wanted if one in tokens},
            {one: errors[one] for one in wanted if one not in tokens},
        )

    def entries(self) -> tuple[MCPServerEntry, ...]:
        """Every server, by id; those that are not used too, with what is wrong with them."""
        return self._merged(self._store().config_rows(TABLE)[1])

    def put_server(self, server: MCPServerConfig) -> bool:
        """Store a server, new or in place of the one with its id; whether that one was not stored before.

        :raises ConfigError: for an id, a URL or a pattern that cannot work.
        """
        where = f"MCP server {server.id!r:.80}"
        error = pattern_error(check_server(server, where))
        if error is not None:
            raise ConfigError(f"{where}: {error}")
        store = self._store()
        new = server.id not in store.config_rows(TABLE)[1]
        store.put_config_row(TABLE, server.id, text_of(server))
        return new

    def remove_server(self, server_id: str) -> bool:
        """Remove a stored server; whether there was one. What the config names under its id is in force again."""
        return self._store().delete_config_row(TABLE, server_id) is not None

    def put_token(self, user: str, server_id: str, token: str) -> None:
        """Store a user's access token for a server, sealed. It is for the server's present scheme, host and port.

        :raises SecretKeyMissing: where there is nothing to seal it with.
        :raises ConfigError: for a user or a token that cannot be one; it is not shown.
        :raises LookupError: where there is no such server.
        """
        if self._sealer is None:
            raise secret_key_missing("access tokens cannot be stored")
        if not user or len(user) > MAX_USER or not user.isprintable():
            raise ConfigError(
                f"A user's name is 1 to {MAX_USER} characters, none of them a control character."
            )
        if not fits_a_header(token):
            raise ConfigError(
                f"An access token is 1 to {MAX_TOKEN} visible ASCII characters, with no space or line break in it."
            )
        url = next((entry.url for entry in self.entries() if entry.id == server_id), None)
        if url is None:
            raise LookupError(f"There is no MCP server {server_id!r:.80}.")
        sealed = self._sealer.seal(token, *_purpose(user, server_id, url))
        self._store().put_config_row(f"{TOKENS}{user}", server_id, sealed)

    def remove_token(self, user: str, server_id: str) -> bool:
        """Remove a stored token; whether there was one."""
        return self._store().delete_config_row(f"{TOKENS}{user}", server_id) is not None

    def _stored_tokens(
        self, user: str, servers: Sequence[MCPServerConfig]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Those of the user's tokens that are stored, in one round trip, and what stands against reading them."""
        if self._sealer is None or not servers:
            return {}, {}
        try:
            _, rows = self._store().config_rows(f"{TOKENS}{user}")
        except (ServicesUnavailable, ConfigError):
            away = not_fetched("the store is away")
            return {}, {server.id: away for server in servers}
        tokens, errors = {}, {}
        for server in servers:
            try:
                if server.id in rows:
                    tokens[server.id] = self._sealer.open(
                        rows[server.id], *_purpose(user, server.id, server.url)
                    )
            except Unsealable:
                logger.error("a stored access token for MCP server %r cannot be opened", server.id)
                errors[server.id] = not_fetched(
                    f"the stored one does not open with {SECRET_KEY}, or was given for another URL"
                )
        return tokens, errors

    def _loaded_tokens(self, user: str, server_ids: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
        load = self._token_loader()
        if load is None or not server_ids:
            return {}, dict.fromkeys(server_ids, NO_ACCESS)
        return self._fetcher.fetch(load, user, server_ids)

    def _meaning(self, rows: Mapping[str, str]) -> tuple[MCPServerEntry, ...]:
        entries = self._merged(rows)
        self._log_broken(entries)
        return entries

    def _merged(self, rows: Mapping[str, str]) -> tuple[MCPServerEntry, ...]:
        entries = {entry.id: entry for entry in self._configured}
        entries |= {id_: stored_entry(id_, text) for id_, text in rows.items()}
        return tuple(entries[id_] for id_ in sorted(entries))

    def _log_broken(self, entries: Sequence[MCPServerEntry]) -> None:
        """Say of each server that is out of use why, once for each reason."""
        broken = {entry.id: entry.error for entry in entries if entry.error is not None}
        for id_, error in broken.items():
            if self._broken.get(id_) != error:
                logger.error("MCP server %s is disabled: %s", shown(id_), error)
        self._broken = broken


def _purpose(user: str, server_id: str, url: str) -> tuple[str, ...]:
    # With the origin in it: a token is never sent to another host than it was given for.
    return "mcp-token", user, server_id, origin_of(url)
