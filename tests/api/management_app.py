"""An app with a public door and management routes, and little else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from flask import Flask

from flask_aibridge.api.access import Access, Loader
from flask_aibridge.api.frame import make_management_blueprint
from flask_aibridge.api.key_changes import now
from flask_aibridge.api.management import Management
from flask_aibridge.license.entitlements import OPEN, Decision
from flask_aibridge.license.gate import Gate
from flask_aibridge.public_door import make_public_door
from flask_aibridge.services import api_keys
from flask_aibridge.services.authorizer import HostAuthorizer
from flask_aibridge.services.hosting import HostServices
from flask_aibridge.services.interfaces import AccessTokens, MCPServerConfig, ProviderSet
from flask_aibridge.services.storage import Store

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PREFIX = "/api/v2/aibridge"
TOKEN = "a-token-that-an-administrator-was-given"
AS_ADMIN = {"Authorization": f"Bearer {TOKEN}"}


class NoConfigurator:
    """Knows no provider and no MCP server."""

    def mcp_servers(self, _user: str) -> tuple[MCPServerConfig, ...]:
        return ()

    def mcp_access_tokens(self, _user: str, _server_ids: Sequence[str]) -> AccessTokens:
        return AccessTokens()

    def providers(self) -> ProviderSet:
        return ProviderSet(())

    def watch_providers(self) -> Any:
        raise NotImplementedError


def bridge(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the bridge"]


class OpenGate(Gate):
    """Lets every request pass: what comes to the bridge is the bridge's to answer."""

    def check(self, now: float | None = None) -> Decision:
        return OPEN


def make_app(
    store: Callable[[], Store],
    *,
    parts: Sequence[str] = ("keys",),
    admin_token: str | None = TOKEN,
    admin_loader: Loader | None = None,
    user_loader: Loader | None = None,
    licensed: bool = True,
    **options: Any,
) -> Flask:
    """An app whose public door, open unless it is not ``licensed``, leads to a bridge that answers everything."""
    app = Flask("host", static_folder=None, **options)
    none = NoConfigurator()
    services = HostServices(store, HostAuthorizer({}, store), none, none)
    access = Access(
        authorizer=lambda: services.authorizer,
        admin_token=admin_token,
        admin_loader=admin_loader,
        user_loader=user_loader,
    )
    app.extensions["access"] = access
    app.register_blueprint(make_public_door(PREFIX, OpenGate() if licensed else Gate(), lambda: bridge))
    management = Management(access, store, lambda: services)
    app.register_blueprint(make_management_blueprint(management, PREFIX, parts=parts))
    return app


def stored_key(store: Store, owner: str, number: int = 1, *, expires_in: timedelta | None = None) -> str:
    """A key of ``owner``'s in the store, made earlier the lower its number is."""
    key_id, secret = api_keys.generate(bytes([number]) * api_keys.RANDOM_BYTES)
    made: datetime = now() + timedelta(seconds=number - 1000)
    expires_at = None if expires_in is None else now() + expires_in
    store.put_api_key(api_keys.new_row(key_id, secret, owner=owner, now=made, expires_at=expires_at))
    return api_keys.spell(key_id, secret)


def id_of(key: str) -> str:
    return api_keys.parse(key)[0]


def sent_as(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
