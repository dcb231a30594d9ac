"""``/mcp/servers``: which MCP servers there are, and users' access tokens for them, for administrators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint
from marshmallow import Schema, fields, validate

from flask_aibridge.api.bodies import read_body
from flask_aibridge.api.problems import Problem
from flask_aibridge.api.signals import announce
from flask_aibridge.config import MCP_SERVERS
from flask_aibridge.errors import ConfigError, SecretKeyMissing
from flask_aibridge.services.configuration.mcp import HostMCPConfigurator, MCPServerEntry
from flask_aibridge.services.configuration.mcp_servers import MAX_URL
from flask_aibridge.services.configuration.patterns import MAX_PATTERN
from flask_aibridge.services.configuration.token_fetching import MAX_TOKEN
from flask_aibridge.services.interfaces import MCPConfigurator, MCPServerConfig

if TYPE_CHECKING:
    from flask_aibridge.api.management import Management

__all__ = [
    "PATHS",
    "add_routes",
    "document",
    "host_configurator",
    "listing",
    "put_server",
    "put_token",
    "remove_server",
    "remove_token",
]


def _pattern(about: str) -> fields.String:
    return fields.String(
        load_default=None,
        allow_none=True,
        validate=validate.Length(max=MAX_PATTERN),
        metadata={"description": f"Searched for in the bare tool name; what it finds is {about}."},
    )


class NewMCPServerSchema(Schema):
    """What an MCP server is to be."""

    url = fields.String(required=True, validate=validate.Length(1, MAX_URL))
    tool_allow_regex = _pattern("allowed, and nothing else; null allows every tool")
    tool_deny_regex = _pattern("denied, also where it is allowed")


class MCPServerSchema(Schema):
    """An MCP server. With an ``error`` it is not used; ``url`` is null where it could not be read."""

    id = fields.String()
    url = fields.String(allow_none=True)
    tool_allow_regex = fields.String(allow_none=True)
    tool_deny_regex = fields.String(allow_none=True)
    origin = fields.String(validate=validate.OneOf(["config", "store"]))
    error = fields.String(allow_none=True)


class MCPServerListSchema(Schema):
    """MCP servers, by id."""

    count = fields.Integer()
    servers = fields.List(fields.Nested(MCPServerSchema))


class AccessTokenSchema(Schema):
    """A user's access token for an MCP server."""

    token = fields.String(
        required=True, load_only=True, validate=validate.Length(1, MAX_TOKEN), metadata={"writeOnly": True}
    )


def add_routes(blueprint: Blueprint, management: Management) -> None:
    """Add ``/mcp/servers`` and what is below it."""
    access = management.access

    @blueprint.get("/mcp/servers")
    def list_mcp_servers() -> dict[str, Any]:
        access.require_administrator()
        return listing(_host(management).entries())

    @blueprint.put("/mcp/servers/<server_id>")
    def put_mcp_server(server_id: str) -> tuple[dict[str, Any], int]:
        viewer = access.require_administrator()
        server = MCPServerConfig(server_id, **read_body(NewMCPServerSchema()))
        entry, new = put_server(_host(management), server, by=viewer.name)
        return document(entry), 201 if new else 200

    @blueprint.delete("/mcp/servers/<server_id>")
    def delete_mcp_server(server_id: str) -> tuple[str, int]:
        viewer = access.require_administrator()
        remove_server(_host(management), server_id, by=viewer.name)
        return "", 204

    @blueprint.put("/mcp/servers/<server_id>/tokens/<path:user>")
    def put_mcp_token(server_id: str, user: str) -> tuple[str, int]:
        viewer = access.require_administrator()
        token = read_body(AccessTokenSchema())["token"]
        put_token(_host(management), user, server_id, token, by=viewer.name)
        return "", 204

    @blueprint.delete("/mcp/servers/<server_id>/tokens/<path:user>")
    def delete_mcp_token(server_id: str, user: str) -> tuple[str, int]:
        viewer = access.require_administrator()
        remove_token(_host(management), user, server_id, by=viewer.name)
        return "", 204


def put_server(
    configurator: HostMCPConfigurator, server: MCPServerConfig, *, by: str
) -> tuple[MCPServerEntry, bool]:
    """Store a server; how it is stored now, and whether it is new.

    :raises Problem: 400 ``invalid`` for what cannot work.
    """
    try:
        new = configurator.put_server(server)
    except ConfigError as error:
        raise Problem(400, "invalid", str(error)) from None
    announce("created" if new else "updated", "mcp_server", server.id, by=by)
    return MCPServerEntry(server.id, server.url, server.tool_allow_regex, server.tool_deny_regex), new


def remove_server(configurator: HostMCPConfigurator, server_id: str, *, by: str) -> None:
    """Remove a stored server.

    :raises Problem: 404 ``unknown_mcp_server``; 409 ``in_config`` for one that the app's config alone names.
    """
    if configurator.remove_server(server_id):
        announce("deleted", "mcp_server", server_id, by=by)
        return
    if any(entry.id == server_id for entry in configurator.entries()):
        raise Problem(
            409,
            "in_config",
            f"MCP server {server_id!r:.80} is in the app's config: take it out of {MCP_SERVERS}.",
        )
    raise _unknown(server_id)


def put_token(configurator: HostMCPConfigurator, user: str, server_id: str, token: str, *, by: str) -> None:
    """Store a user's access token for a server.

    :raises SecretKeyMissing: where there is nothing to encrypt it with.
    :raises Problem: 404 ``unknown_mcp_server``; 400 ``invalid`` for a user or a token that cannot be one.
    """
    try:
        configurator.put_token(user, server_id, token)
    except SecretKeyMissing:
        raise
    except ConfigError as error:
        raise Problem(400, "invalid", str(error)) from None
    except LookupError:
        raise _unknown(server_id) from None
    announce("updated", "mcp_token", _token_name(user, server_id), by=by)


def remove_token(configurator: HostMCPConfigurator, user: str, server_id: str, *, by: str) -> None:
    """Remove a user's stored access token for a server, whether there is such a server or not.

    :raises Problem: 404 ``unknown_token``.
    """
    if not configurator.remove_token(user, server_id):
        raise Problem(
            404, "unknown_token", f"No token of this user for MCP server {server_id!r:.80} is stored."
        )
    announce("deleted", "mcp_token", _token_name(user, server_id), by=by)


def host_configurator(configurator: MCPConfigurator) -> HostMCPConfigurator:
    """The configurator, if servers can be changed through it.

    :raises Problem: 501 ``configured_elsewhere`` for one of the host's own.
    """
    if not isinstance(configurator, HostMCPConfigurator):
        raise Problem(
            501,
            "configured_elsewhere",
            "The MCP servers of this gateway come from an MCPConfigurator of the application's own, or from another "
            "host: see and change them there.",
        )
    return configurator


def document(entry: MCPServerEntry) -> dict[str, Any]:
    """A server as JSON shows it."""
    return {
        "id": entry.id,
        "url": entry.url,
        "tool_allow_regex": entry.tool_allow_regex,
        "tool_deny_regex": entry.tool_deny_regex,
        "origin": entry.origin,
        "error": entry.error,
    }


def listing(entries: Sequence[MCPServerEntry]) -> dict[str, Any]:
    """Servers as JSON shows them."""
    return {"count": len(entries), "servers": [document(entry) for entry in entries]}


def _host(management: Management) -> HostMCPConfigurator:
    found = management.mcp_configurator
    configurator = host_configurator(management.services().mcp_configurator if found is None else found())
    management.store()  # a missing one is said as such, and not taken for something wrong in the request
    return configurator


def _token_name(user: str, server_id: str) -> str:
    return f"{server_id} of {user}"


def _unknown(server_id: str) -> Problem:
    return Problem(404, "unknown_mcp_server", f"There is no MCP server {server_id!r:.80}.")


def _json(schema: type[Schema]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _answer(description: str, schema: type[Schema]) -> dict[str, Any]:
    return {"description": description, "content": _json(schema)}


def _in_path(name: str) -> dict[str, Any]:
    return {"in": "path", "name": name, "required": True, "schema": {"type": "string"}}


PATHS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "/mcp/servers": {
            "get": {
                "summary": "MCP servers, by id. Administrators only.",
                "responses": {"200": _answer("The servers.", MCPServerListSchema)},
            },
        },
        "/mcp/servers/{server_id}": {
            "parameters": [_in_path("server_id")],
            "put": {
                "summary": "Store an MCP server, new or in place of what is stored. Administrators only.",
                "requestBody": {"required": True, "content": _json(NewMCPServerSchema)},
                "responses": {
                    "200": _answer("The server, replaced.", MCPServerSchema),
                    "201": _answer("The server, new.", MCPServerSchema),
                },
            },
            "delete": {
                "summary": "Remove a stored MCP server. Administrators only.",
                "responses": {"204": {"description": "It is gone; what the config names is in force again."}},
            },
        },
        "/mcp/servers/{server_id}/tokens/{user}": {
            "parameters": [_in_path("server_id"), _in_path("user")],
            "put": {
                "summary": "Store a user's access token for an MCP server. Administrators only.",
                "requestBody": {"required": True, "content": _json(AccessTokenSchema)},
                "responses": {"204": {"description": "It is stored, encrypted."}},
            },
            "delete": {
                "summary": "Remove a user's access token for an MCP server. Administrators only.",
                "responses": {"204": {"description": "It is gone."}},
            },
        },
    }
)
"""The routes of this module, below the prefix, as OpenAPI operations; schemas stand for themselves."""
